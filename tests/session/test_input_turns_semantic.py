"""What happens in the pauses of a user: words are assessed, and silence runs out."""

from dataclasses import replace

from msgspec import UNSET

from tests.session.stage import (
    TURN,
    VOICES,
    a_session,
    drawn,
    hear,
    hear_sound,
    of,
    receive,
    say,
    spoke,
    the,
    types,
    update,
    write,
)
from tests.session.test_input_turns import sound_of, wants
from vivavoce.audio.formats import ms
from vivavoce.protocol.client import InputAudioCommit
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.protocol.server import (
    InputAudioCommitted,
    SpeechStarted,
    SpeechStopped,
    TimeoutTriggered,
    TurnDecision,
)
from vivavoce.protocol.session import SemanticVad, ServerVad, Transcription
from vivavoce.session.effects import Effect, Generate, RecordTurn, RecordUsage, ScoreTurn
from vivavoce.session.endpointing import TurnSettings
from vivavoce.session.facts import (
    GenerationFinished,
    OutputFinished,
    TimerFired,
    TokenCounts,
    TranscriptionKey,
    TranscriptUpdated,
    TurnScored,
)
from vivavoce.session.options import AvailableModels
from vivavoce.session.shell import Session
from vivavoce.session.usage import tokens_of

PATIENT = SemanticVad(create_response=False, interrupt_response=False)
IDLE = ServerVad(idle_timeout_ms=6000)


def partly(session: Session, item_id: str, text: str) -> list[Effect]:
    """More words are made out while the user speaks."""
    return session.handle(TranscriptUpdated(TranscriptionKey(item_id), text, 0, False), 0.0)


def paused(session: Session, text: str = "I am") -> str:
    """The user has said these words and pauses for 160 ms; the id of the item."""
    item_id = the(SpeechStarted, hear(session, "####")).item_id
    partly(session, item_id, text)
    assert the(ScoreTurn, hear(session, 5 * ".")).text == text
    return item_id


def test_words_that_sound_finished_end_the_turn_after_a_short_silence() -> None:
    session = a_session(turn_detection=PATIENT)
    item_id = paused(session)
    assert session.handle(TurnScored(item_id, 1.0), 0.0) == []
    effects = hear(session, 7 * ".")
    assert the(SpeechStopped, effects).audio_end_ms == (4 + 6) * 32  # 192 ms of it
    assert the(InputAudioCommitted, effects).item_id == item_id


def test_doubtful_last_word_lengthens_the_wait() -> None:
    waited = []
    for certainty in (-0.1, -1.5):
        session = a_session(turn_detection=PATIENT)
        item_id = paused(session)
        key = TranscriptionKey(item_id)
        session.handle(TranscriptUpdated(key, "I am in", 0, False, certainty=certainty), 0.0)
        session.handle(TurnScored(item_id, 0.85), 0.0)
        waited.append(the(RecordTurn, hear(session, 130 * ".")).decision.waited_ms)
    assert waited == [256, 608]


def test_turn_score_that_comes_late_ends_the_turn_at_once() -> None:
    session = a_session(turn_detection=PATIENT)
    item_id = paused(session)
    assert types(hear(session, 20 * ".")) == []
    assert types(session.handle(TurnScored(item_id, 1.0), 0.0))[:2] == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]


def test_turn_score_is_requested_once_a_pause_and_again_for_more_words() -> None:
    session = a_session(turn_detection=PATIENT, transcription=Transcription("m", "en"))
    item_id = paused(session, "I am")
    assert of(ScoreTurn, hear(session, "...")) == []
    assert of(ScoreTurn, partly(session, item_id, "I am")) == []
    assert of(ScoreTurn, partly(session, item_id, "I am here")) == [
        ScoreTurn(item_id, "I am here", "en")
    ]
    assert of(ScoreTurn, hear(session, "##....")) == []
    assert the(ScoreTurn, hear(session, ".")).text == "I am here"


def test_language_model_is_asked_once_for_the_same_words_and_within_its_budget() -> None:
    turns = TurnSettings(llm_weight=1.0, llm_timeout_ms=300, anticipation_max_tokens=40)
    offer = AvailableModels({"local": VOICES}, "local", turns=turns)
    session = a_session(turn_detection=PATIENT, offer=offer)
    write(session, "What do you want?")
    item_id = the(SpeechStarted, hear(session, "####")).item_id
    partly(session, item_id, "I want a")
    asked = the(ScoreTurn, hear(session, 7 * "."))
    assert (asked.llm_timeout_s, asked.before) == (0.3, "What do you want?")
    effects = session.handle(TurnScored(item_id, 0.1, "llm", TokenCounts(20, 1)), 0.0)
    record = the(RecordUsage, effects)
    assert (record.kind, record.model, tokens_of(record.usage)) == ("speculative", "local", 21)
    again = hear(session, "##" + 7 * ".")
    assert the(ScoreTurn, again).llm_timeout_s == 0.0
    (more,) = of(ScoreTurn, partly(session, item_id, "I want a house"))
    assert more.llm_timeout_s == 0.3
    late = session.handle(TurnScored("item_of_before", 0.9, "llm", TokenCounts(20, 1)), 0.0)
    assert the(RecordUsage, late)
    (spent,) = of(ScoreTurn, partly(session, item_id, "I want a house now"))
    assert spent.llm_timeout_s == 0.0


def test_language_model_that_says_incomplete_lengthens_the_wait() -> None:
    turns = TurnSettings(llm_weight=1.0)
    waited = []
    for likelihood in (0.1, 0.9):
        offer = AvailableModels({"local": VOICES}, "local", turns=turns)
        session = a_session(turn_detection=PATIENT, offer=offer)
        item_id = paused(session, "give me a")
        session.handle(TurnScored(item_id, 0.5), 0.0)
        session.handle(TurnScored(item_id, likelihood, "llm"), 0.0)
        decision = the(RecordTurn, hear(session, 130 * ".")).decision
        assert decision.llm == likelihood
        waited.append(decision.waited_ms)
    assert waited == [2944, 256]


def test_score_of_a_model_that_reads_audio_has_the_end_of_the_turn() -> None:
    listening = replace(VOICES, turn_samples=5 * 768)
    offer = AvailableModels({"local": listening}, "local")
    session = a_session(turn_detection=PATIENT, offer=offer)
    score = the(ScoreTurn, hear(session, "####" + 7 * "."))
    assert score.audio == drawn("." * 5)
    longer = replace(VOICES, turn_samples=100 * 768)
    session = a_session(turn_detection=PATIENT, offer=AvailableModels({"local": longer}, "local"))
    assert the(ScoreTurn, hear(session, "####" + 7 * ".")).audio == drawn("####" + 5 * ".")


def test_every_pause_is_scored_however_the_audio_is_cut() -> None:
    session = a_session(turn_detection=PATIENT)
    item_id = paused(session)
    effects = hear_sound(session, [drawn("##" + 7 * ".")])  # speech and the next pause at once
    assert of(ScoreTurn, effects) == [ScoreTurn(item_id, "I am", None)]


def test_update_of_other_settings_leaves_a_turn_score_in_force() -> None:
    session = a_session(turn_detection=PATIENT)
    item_id = paused(session)
    session.handle(TurnScored(item_id, 1.0), 0.0)
    update(session, wants(noise_reduction={"type": "near_field"}))
    effects = hear(session, 7 * ".")
    assert of(ScoreTurn, effects) == []
    assert the(InputAudioCommitted, effects).item_id == item_id


def test_new_eagerness_requests_a_new_turn_score() -> None:
    session = a_session(turn_detection=PATIENT)
    item_id = paused(session)
    session.handle(TurnScored(item_id, 0.0), 0.0)
    update(session, wants(turn_detection={"type": "semantic_vad", "eagerness": "high"}))
    assert the(ScoreTurn, hear(session, ".")).item_id == item_id


def test_turn_score_of_another_turn_changes_nothing() -> None:
    session = a_session(turn_detection=PATIENT)
    old = paused(session)
    receive(session, InputAudioCommit())
    paused(session)
    assert session.handle(TurnScored(old, 1.0), 0.0) == []
    assert types(hear(session, 20 * ".")) == []
    update(session, wants(turn_detection=None))
    assert session.handle(TurnScored(old, 1.0), 0.0) == []


def test_decision_is_recorded_and_sent_to_a_client_that_asks_why() -> None:
    session = a_session(turn_detection=PATIENT)
    item_id = paused(session)
    session.handle(TurnScored(item_id, 1.0), 0.0)
    effects = hear(session, 7 * ".")
    decision = TurnDecision(
        waited_ms=192, reason="sentence complete", likelihood=1.0, words=1.0, usual_pause_ms=500
    )
    assert the(RecordTurn, effects) == RecordTurn(item_id, decision)
    assert the(SpeechStopped, effects).decision is UNSET
    update(session, wants(turn_detection={"type": "server_vad", "explain": True}))
    stopped = the(SpeechStopped, hear(session, TURN))
    assert stopped.decision == TurnDecision(waited_ms=480, reason="silence_duration_ms")


def test_speech_soon_after_a_turn_counts_as_a_pause_of_the_speaker() -> None:
    session = a_session(turn_detection=PATIENT)
    item_id = paused(session)
    session.handle(TurnScored(item_id, 1.0), 0.0)
    hear(session, ".")  # ended after 6 windows of silence
    item_id = the(SpeechStarted, hear(session, 7 * "." + "####")).item_id
    partly(session, item_id, "and")
    hear(session, 6 * ".")
    decision = the(RecordTurn, session.handle(TurnScored(item_id, 1.0), 0.0)).decision
    assert decision.usual_pause_ms == (3 * 500 + 13 * 32) // 4


def test_transcript_of_an_earlier_turn_is_not_scored() -> None:
    session = a_session(turn_detection=PATIENT)
    old = paused(session)
    receive(session, InputAudioCommit())
    paused(session)
    assert of(ScoreTurn, partly(session, old, "I am late")) == []


def test_server_vad_requests_no_turn_score() -> None:
    session = a_session(turn_detection=ServerVad(silence_duration_ms=1000))
    item_id = the(SpeechStarted, hear(session, "####")).item_id
    effects = partly(session, item_id, "I am") + hear(session, 10 * ".")
    assert of(ScoreTurn, effects) == []
    assert session.handle(TurnScored(item_id, 1.0), 0.0) == []


def answered(session: Session, now: float) -> None:
    """The user asks, and is answered for half a second."""
    response_id = the(Generate, say(session, "Hello?", now=now)).response_id
    for fact in (
        spoke(response_id, "I am here, my dear."),
        GenerationFinished(response_id, "stop"),
        OutputFinished(response_id),
    ):
        session.handle(fact, now)


def test_idle_timeout_makes_an_item_of_the_silence_and_answers_it() -> None:
    session = a_session(turn_detection=IDLE)
    answered(session, now=10.0)
    hear(session, 188 * ".", now=16.4)  # six seconds
    assert session.deadline == 16.5  # it has been silent since the answer was played
    effects = session.handle(TimerFired(), 16.5)
    assert types(effects) == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    timeout = the(TimeoutTriggered, effects)
    end = (19 + 188) * 32
    assert (timeout.audio_start_ms, timeout.audio_end_ms) == (end - 6000, end)
    assert timeout.item_id == the(InputAudioCommitted, effects).item_id
    assert ms(sound_of(session, timeout.item_id)) == 396
    assert the(Generate, effects).prompt.items[-1] == Message(
        id=timeout.item_id, role="user", content=(InputAudio(transcript=""),)
    )


def test_silence_of_a_timeout_begins_no_earlier_than_the_session() -> None:
    session = a_session(turn_detection=IDLE)
    answered(session, now=10.0)  # the client sends nothing at all after its turn
    timeout = the(TimeoutTriggered, session.handle(TimerFired(), 16.5))
    assert (timeout.audio_start_ms, timeout.audio_end_ms) == (0, 19 * 32)


def test_after_a_timeout_the_user_is_heard_as_before() -> None:
    session = a_session(turn_detection=IDLE)
    answered(session, now=10.0)
    session.handle(TimerFired(), 16.5)
    effects = hear(session, TURN, now=17.0)
    committed = the(InputAudioCommitted, effects)
    assert sound_of(session, committed.item_id) == drawn(TURN)
    assert the(SpeechStarted, effects).item_id == committed.item_id
