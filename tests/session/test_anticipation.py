"""What begins before the end of a turn is decided: it is taken whole, or dropped."""

from dataclasses import replace
from typing import Any

import pytest

from tests.session.stage import (
    VOICES,
    a_session,
    drawn,
    hear,
    hear_sound,
    of,
    receive,
    tell,
    the,
    types,
    update,
    write,
)
from tests.session.test_input_turns import wants
from vivavoce.protocol.client import InputAudioClear, InputAudioCommit, ResponseCreate
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.protocol.responses import DurationUsage, ResponseParams, Usage
from vivavoce.protocol.session import SemanticVad, ServerVad, Transcription
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.effects import (
    DraftTranscript,
    DropAnticipated,
    Effect,
    EndAudio,
    Generate,
    RecordUsage,
    ScoreTurn,
    Speculate,
)
from vivavoce.session.endpointing import Anticipation, TurnSettings
from vivavoce.session.facts import (
    AnticipationEnded,
    Disconnected,
    DraftTranscribed,
    ItemTranscriptionFailed,
    TokenCounts,
    TranscriptionKey,
    TranscriptUpdated,
    TurnScored,
)
from vivavoce.session.options import AvailableModels
from vivavoce.session.shell import Session

PAUSE = 7 * "."  # 224 ms, more than anticipation_after_ms
REST = 9 * "."  # the rest of the silence that ends a turn


def offer(level: Anticipation, *, at_end: bool = True, **turns: Any) -> AvailableModels:
    info = replace(VOICES, transcribes_at_end=at_end)
    settings = TurnSettings(anticipation=level, **turns)
    return AvailableModels({"local": info}, "local", turns=settings)


def early(level: Anticipation = "transcript", *, at_end: bool = True, **more: Any) -> Session:
    """A session in which work begins early."""
    turns = {name: more.pop(name) for name in tuple(more) if name.startswith("anticipation_")}
    return a_session(offer=offer(level, at_end=at_end, **turns), **more)


def drafted(session: Session, words: str = "is it late") -> DraftTranscript:
    """The user has spoken and pauses; the draft has these words."""
    draft = the(DraftTranscript, hear(session, "####" + PAUSE))
    tell(session, DraftTranscribed(draft.draft_id, words))
    return draft


def speculated(session: Session, words: str = "is it late") -> Speculate:
    """An answer to these words was begun."""
    draft = the(DraftTranscript, hear(session, "####" + PAUSE))
    return the(Speculate, tell(session, DraftTranscribed(draft.draft_id, words)))


def ended(session: Session, words: str = "is it late") -> list[Effect]:
    """The silence goes on until the turn is over, and its words are final."""
    effects = hear(session, REST)
    key = the(EndAudio, effects).key
    return effects + tell(session, TranscriptUpdated(key, words, len(words), True))


def wasted(effects: list[Effect]) -> list[RecordUsage]:
    return [e for e in effects if isinstance(e, RecordUsage) and e.kind == "speculative"]


def partial(session: Session, text: str, key: TranscriptionKey) -> list[Effect]:
    return tell(session, TranscriptUpdated(key, text, 0, False))


def test_draft_of_a_turn_that_ends_is_its_transcript() -> None:
    session = early()
    assert of(DraftTranscript, hear(session, "####" + 6 * ".")) == []
    effects = hear(session, ".")
    draft = the(DraftTranscript, effects)
    assert types(effects) == []
    assert tell(session, DraftTranscribed(draft.draft_id, "is it late")) == []
    effects = ended(session)
    assert the(EndAudio, effects) == EndAudio(draft.order.key, draft.draft_id)
    assert the(Generate, effects).begun == ""
    assert session.usage.speculative_tokens == 0


def test_draft_is_dropped_and_counted_when_the_user_goes_on() -> None:
    session = early()
    draft = drafted(session)
    effects = [e for piece in "##" for e in session_effects(session, piece)]
    assert the(DropAnticipated, effects).id == draft.draft_id
    assert wasted(effects) == [
        RecordUsage(draft.draft_id, "local", DurationUsage(seconds=1), "speculative")
    ]
    assert session.usage.speculative_tokens == 10
    assert session.usage.transcribed_seconds == 0
    again = the(DraftTranscript, hear(session, PAUSE))
    assert again.draft_id != draft.draft_id


def session_effects(session: Session, pattern: str) -> list[Effect]:
    """As hear(), with what only observers see."""
    seen: list[Effect] = []
    handle = session.handle

    def watched(fact: Any, now: float) -> list[Effect]:
        effects = handle(fact, now)
        seen.extend(effects)
        return effects

    session.handle = watched  # type: ignore[method-assign]
    hear(session, pattern)
    session.handle = handle  # type: ignore[method-assign]
    return seen


def test_draft_is_of_no_use_after_speech_that_came_at_once_with_the_last_silence() -> None:
    session = early()
    draft = drafted(session)
    effects = hear_sound(session, [drawn("##" + 16 * ".")])
    assert the(EndAudio, effects).draft_id == ""
    assert the(DropAnticipated, effects).id == draft.draft_id


def test_turn_has_three_drafts_at_the_most() -> None:
    session = early()
    assert len(of(DraftTranscript, hear(session, 5 * ("####" + PAUSE)))) == 3
    hear(session, REST)
    assert len(of(DraftTranscript, hear(session, "####" + PAUSE))) == 1


@pytest.mark.parametrize(
    "session",
    [
        early("off"),
        early(at_end=False),  # the recogniser works while it listens
        early(anticipation_max_tokens=0),
        early(anticipation_after_ms=5000),
        early(turn_detection=None),
    ],
)
def test_nothing_begins_early_where_it_may_not(session: Session) -> None:
    effects = hear(session, "####" + 15 * ".")
    assert of(DraftTranscript, effects) + of(Speculate, effects) == []


def test_nothing_begins_early_any_more_once_too_much_was_in_vain() -> None:
    session = early(anticipation_max_tokens=20)
    assert len(of(DraftTranscript, hear(session, 3 * ("####" + PAUSE)))) == 2


def test_no_draft_is_made_of_a_recording_that_failed() -> None:
    session = early()
    hear(session, "####")
    key = TranscriptionKey(session_item(session))
    tell(session, ItemTranscriptionFailed(key, "it is broken"))
    assert of(DraftTranscript, hear(session, PAUSE)) == []


def test_draft_is_dropped_where_the_transcription_fails_after_it() -> None:
    session = early()
    draft = drafted(session)
    tell(session, ItemTranscriptionFailed(draft.order.key, "it is broken"))
    effects = hear(session, REST)
    assert of(EndAudio, effects) == []
    assert the(DropAnticipated, effects).id == draft.draft_id


def session_item(session: Session) -> str:
    """The id of the turn that is open."""
    brain = session._brain
    assert isinstance(brain, CascadeBrain)
    assert brain.reserved_id
    return brain.reserved_id


def test_draft_that_does_not_begin_with_the_words_that_were_sent_is_dropped() -> None:
    session = early(transcription=Transcription("m"))
    draft = drafted(session)
    tell(session, TranscriptUpdated(draft.order.key, "was it", 3, False))
    effects = hear(session, REST)
    assert the(EndAudio, effects) == EndAudio(draft.order.key, "", "was")
    assert the(DropAnticipated, effects).id == draft.draft_id


def test_draft_is_made_beside_a_recogniser_that_gives_words_where_answers_begin_early() -> None:
    session = early("llm", at_end=False, transcription=Transcription("m"))
    hear(session, "####")
    key = TranscriptionKey(session_item(session))
    tell(session, TranscriptUpdated(key, "is it late", 5, False))
    tell(session, TurnScored(key.item_id, 0.9))
    draft = the(DraftTranscript, hear(session, PAUSE))
    assert the(EndAudio, hear(session, REST)) == EndAudio(key, draft.draft_id, "is it")


def test_no_draft_is_made_beside_a_recogniser_that_decodes_pauses_and_answers_begin_early() -> None:
    info = replace(VOICES, decodes_pauses=True)
    models = AvailableModels({"local": info}, "local", turns=TurnSettings(anticipation="speech"))
    session = a_session(offer=models, transcription=Transcription("m"))
    hear(session, "####")
    key = TranscriptionKey(session_item(session))
    tell(session, TranscriptUpdated(key, "is it late", 5, False))
    effects = tell(session, TurnScored(key.item_id, 0.9)) + hear(session, PAUSE)
    assert of(DraftTranscript, effects) == []
    assert the(Speculate, effects).speak


def test_draft_that_failed_or_was_refused_is_forgotten() -> None:
    session = early()
    draft = the(DraftTranscript, hear(session, "####" + PAUSE))
    assert tell(session, AnticipationEnded(draft.draft_id, refused=True)) == []
    assert tell(session, DraftTranscribed(draft.draft_id, "late")) == []
    effects = hear(session, "." * 9)
    assert the(EndAudio, effects).draft_id not in ("", draft.draft_id)  # another was made
    assert session.usage.speculative_tokens == 0


def test_words_of_a_draft_are_evidence_under_semantic_vad() -> None:
    session = early(turn_detection=SemanticVad())
    effects = hear(session, "####" + PAUSE)
    assert the(ScoreTurn, effects).text == ""
    draft = the(DraftTranscript, effects)
    scored = tell(session, DraftTranscribed(draft.draft_id, "is it late"))
    assert the(ScoreTurn, scored) == ScoreTurn(draft.order.key.item_id, "is it late", None)
    ended = tell(session, TurnScored(draft.order.key.item_id, 1.0))
    assert the(EndAudio, ended).draft_id == draft.draft_id


def test_draft_waits_for_the_sound_to_be_scored_and_is_not_made_of_a_voice_held_up() -> None:
    info = replace(VOICES, transcribes_at_end=True, turn_samples=24_000)
    models = AvailableModels({"local": info}, "local", turns=TurnSettings())
    session = a_session(offer=models, turn_detection=SemanticVad())
    effects = hear(session, "####" + PAUSE)
    assert of(DraftTranscript, effects) == []
    item_id = the(ScoreTurn, effects).item_id
    assert tell(session, TurnScored(item_id, 0.2, "sound")) == []
    assert of(DraftTranscript, hear(session, "##" + PAUSE)) == []
    assert len(of(DraftTranscript, tell(session, TurnScored(item_id, 0.9, "sound")))) == 1


def test_sound_of_an_earlier_pause_is_ignored() -> None:
    info = replace(VOICES, turn_samples=24_000)
    session = a_session(
        offer=AvailableModels({"local": info}, "local"), turn_detection=SemanticVad()
    )
    item_id = the(ScoreTurn, hear(session, "####" + PAUSE)).item_id
    hear(session, "##")
    assert tell(session, TurnScored(item_id, 1.0, "sound")) == []
    assert types(hear(session, 20 * ".")) == []


def test_answer_to_the_confirmed_words_is_adopted() -> None:
    session = early("llm", instructions="Be brief.")
    early_answer = speculated(session)
    assert early_answer.speak is False
    prompt = early_answer.prompt
    assert prompt.instructions == "Be brief."
    (item,) = prompt.items
    assert isinstance(item, Message)
    assert item.content == (InputAudio(transcript="is it late"),)
    effects = ended(session)
    generate = the(Generate, effects)
    assert (generate.begun, generate.prompt) == (early_answer.speculation_id, prompt)
    assert of(DropAnticipated, effects) == []
    assert of(Speculate, hear(session, ".")) == []


def test_answer_is_adopted_where_only_case_and_punctuation_differ() -> None:
    session = early("speech")
    early_answer = speculated(session, "Is it late?")
    assert early_answer.speak is True
    assert the(Generate, ended(session, "is it, late")).begun == early_answer.speculation_id


def test_answer_to_other_words_is_dropped_and_counted() -> None:
    session = early("llm")
    early_answer = speculated(session)
    effects = ended(session, "is it late now")
    assert the(Generate, effects).begun == ""
    assert the(DropAnticipated, effects).id == early_answer.speculation_id
    ending = AnticipationEnded(early_answer.speculation_id, None, 8, 4, 2400)
    (record,) = wasted(session.handle(ending, 0.0))
    assert (record.id, record.characters) == (early_answer.speculation_id, 4)
    assert isinstance(record.usage, Usage)
    details = record.usage.output_token_details
    assert (details.text_tokens, details.audio_tokens) == (2, 2)
    assert record.usage.input_tokens == 3
    assert session.usage.speculative_tokens == 7
    assert wasted(session.handle(ending, 0.0)) == []


def test_tokens_of_a_dropped_answer_are_those_that_the_model_counted() -> None:
    session = early("llm")
    early_answer = speculated(session)
    hear(session, "##")
    session.handle(AnticipationEnded(early_answer.speculation_id, TokenCounts(100, 20)), 0.0)
    assert session.usage.speculative_tokens == 10 + 120


def test_answer_is_dropped_with_the_draft_when_the_user_goes_on() -> None:
    session = early("llm")
    early_answer = speculated(session)
    ids = [e.id for e in of(DropAnticipated, hear(session, "##"))]
    assert ids[1:] == [early_answer.speculation_id]


def test_answer_that_failed_is_forgotten_and_another_is_generated() -> None:
    session = early("llm")
    early_answer = speculated(session)
    session.handle(AnticipationEnded(early_answer.speculation_id, None, 4), 0.0)
    assert session.usage.speculative_tokens > 0
    effects = ended(session)
    assert the(Generate, effects).begun == ""
    assert of(DropAnticipated, effects) == []


def test_answer_is_begun_once_for_the_same_words() -> None:
    session = early("llm")
    early_answer = speculated(session)
    session.handle(AnticipationEnded(early_answer.speculation_id, refused=True), 0.0)
    assert session.usage.speculative_tokens == 0
    assert of(Speculate, hear(session, "..")) == []


@pytest.mark.parametrize(
    "event",
    [InputAudioCommit(), InputAudioClear(), ResponseCreate(response=ResponseParams())],
)
def test_events_of_the_client_drop_all_that_was_begun(event: Any) -> None:
    session = early("llm")
    draft = the(DraftTranscript, hear(session, "####" + PAUSE))
    early_answer = the(Speculate, tell(session, DraftTranscribed(draft.draft_id, "is it late")))
    dropped = [e.id for e in of(DropAnticipated, receive(session, event))]
    assert dropped == [draft.draft_id, early_answer.speculation_id]


def test_changed_settings_drop_all_that_was_begun() -> None:
    session = early("llm")
    speculated(session)
    assert len(of(DropAnticipated, update(session, wants(transcription=None)))) == 2


def test_end_of_the_session_drops_and_counts_all() -> None:
    session = early("llm")
    speculated(session)
    effects = session.handle(Disconnected(), 0.0)
    assert len(of(DropAnticipated, effects)) == 2
    assert len(wasted(effects)) == 2


@pytest.mark.parametrize(
    "turn_detection", [ServerVad(create_response=False), SemanticVad(create_response=False)]
)
def test_no_answer_is_begun_where_none_will_be_given(turn_detection: Any) -> None:
    session = early("llm", turn_detection=turn_detection)
    draft = the(DraftTranscript, hear(session, "####" + PAUSE))
    assert of(Speculate, tell(session, DraftTranscribed(draft.draft_id, "yes"))) == []


def test_no_answer_is_begun_while_another_is_given() -> None:
    session = early("llm", turn_detection=ServerVad(interrupt_response=False))
    write(session, "hello")
    draft = the(DraftTranscript, hear(session, "####" + PAUSE))
    assert of(Speculate, tell(session, DraftTranscribed(draft.draft_id, "yes"))) == []


def test_no_answer_is_begun_while_earlier_words_are_not_known() -> None:
    session = early("llm", turn_detection=ServerVad(create_response=True))
    hear(session, "####" + 16 * ".")
    draft = the(DraftTranscript, hear(session, "####" + PAUSE))
    assert of(Speculate, tell(session, DraftTranscribed(draft.draft_id, "yes"))) == []


def test_answer_begins_while_the_user_speaks_where_the_words_are_complete() -> None:
    session = early("llm", at_end=False, transcription=Transcription("m"))
    hear(session, "########")
    key = TranscriptionKey(session_item(session))
    assert the(ScoreTurn, partial(session, "what time", key)).audio == b""
    assert of(Speculate, tell(session, TurnScored(key.item_id, 0.5))) == []
    partial(session, "what time is it", key)
    early_answer = the(Speculate, tell(session, TurnScored(key.item_id, 0.9)))
    hear(session, "##" + PAUSE)
    assert the(Generate, ended(session, "what time is it?")).begun == early_answer.speculation_id


def test_more_words_drop_the_answer_and_begin_another_three_times_at_the_most() -> None:
    session = early("llm", at_end=False)
    hear(session, "########")
    key = TranscriptionKey(session_item(session))
    begun: list[Speculate] = []
    dropped: list[DropAnticipated] = []
    for words in ("one", "one two", "one two three", "one two three four"):
        dropped += of(DropAnticipated, partial(session, words, key))
        begun += of(Speculate, tell(session, TurnScored(key.item_id, 0.9)))
    assert len(begun) == 3
    assert [e.id for e in dropped] == [e.speculation_id for e in begun]


def test_unlikely_end_by_the_words_begins_nothing_in_a_pause() -> None:
    session = early("llm", at_end=False)
    hear(session, "####")
    key = TranscriptionKey(session_item(session))
    partial(session, "I am going to", key)
    tell(session, TurnScored(key.item_id, 0.1))
    assert of(Speculate, hear(session, PAUSE)) == []


def test_response_out_of_band_leaves_an_early_answer_alone() -> None:
    session = early("llm")
    item = Message(role="user", content=(InputAudio(audio=drawn("####")),))
    params = ResponseParams(conversation="none", input=(item,))
    asked = receive(session, ResponseCreate(response=params))
    key = the(EndAudio, asked).key
    early_answer = speculated(session)
    aside = the(Generate, tell(session, TranscriptUpdated(key, "psst", 4, True)))
    assert aside.begun == ""
    assert the(Generate, ended(session)).begun == early_answer.speculation_id
