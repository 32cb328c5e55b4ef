"""A session that continues for a client that has come back: what is owed, and what was heard."""

from typing import Any

import msgspec
import pytest

from tests.session.relay_stage import RELAYED, Relay, sent_upstream
from tests.session.stage import (
    MODELS,
    TOOLS,
    TURN,
    a_session,
    hear,
    of,
    say,
    spoke,
    tell,
    texts,
    the,
    transcribe,
    transcription_settings,
    types,
    write,
)
from vivavoce.protocol.items import Message
from vivavoce.protocol.session import ServerVad, Transcription
from vivavoce.session.brain import CONTINUE_INSTRUCTIONS
from vivavoce.session.checkpoint import PLAYED_SAVE_S, Checkpoint, continued
from vivavoce.session.effects import Close, Effect, Generate
from vivavoce.session.endpointing import SpeakerPauses
from vivavoce.session.facts import (
    AudioPlayed,
    DrainStarted,
    GenerationFailed,
    GenerationFinished,
    OutputFinished,
    TextGenerated,
    ToolCallStarted,
    UpstreamConnected,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.relay.brain import RelayBrain
from vivavoce.session.shell import Session

WORDS = "one two three four"


def restored(
    saved: Checkpoint, *, heard: tuple[str, int] | None = None, finish: bool = True
) -> list[Effect]:
    """The first effects of a session that continues."""
    known = continued(saved, expires_in=100.0, heard=heard, finish=finish)
    limits = SessionLimits()
    return Session(known.session, MODELS, limits, salt="y", now=0.0, checkpoint=known).begin()


def requested(saved: Checkpoint) -> dict[str, Any]:
    """The response that a relay requests of its upstream server when it continues."""
    session = Session(
        saved.session,
        RELAYED,
        SessionLimits(),
        salt="y",
        now=0.0,
        brain=RelayBrain,
        checkpoint=saved,
    )
    effects = session.begin() + session.handle(UpstreamConnected(), 0.0)
    (request,) = [e for e in sent_upstream(effects) if e["type"] == "response.create"]
    return request


def answering(session: Session, text: str = WORDS, *, ends: bool) -> str:
    """An answer of four words of 100 ms each begins, and may end; the id of its item."""
    response_id = the(Generate, write(session, "hello")).response_id
    effects = tell(session, spoke(response_id, text))
    if ends:
        effects += tell(
            session, GenerationFinished(response_id, "stop"), OutputFinished(response_id)
        )
    return session.checkpoint(0.0).entries[-1].item.id


def test_pauses_of_a_speaker_are_known_when_the_conversation_goes_on() -> None:
    saved = msgspec.structs.replace(a_session().checkpoint(0.0), pauses=(24_000, 12_000))
    session = Session(saved.session, MODELS, SessionLimits(), salt="y", now=0.0, checkpoint=saved)
    assert session.checkpoint(0.0).pauses == (24_000, 12_000)
    assert SpeakerPauses(saved.pauses).usual_ms == (3 * 500 + 1000 + 500) // 5


def test_checkpoint_in_an_answer_has_its_words_so_far_and_owes_the_rest() -> None:
    session = a_session()
    item_id = answering(session, ends=False)
    saved = session.checkpoint(0.0)
    assert (saved.owes_response, saved.cut_item_id) == (True, item_id)
    last = continued(saved, expires_in=1.0, heard=None, finish=True).entries[-1].item
    assert isinstance(last, Message)
    assert (last.status, texts((last,))) == ("incomplete", [WORDS])


def test_answer_that_broke_off_keeps_no_word_whose_audio_was_not_made() -> None:
    session = a_session()
    item_id = answering(session, ends=False)
    saved = session.checkpoint(0.0)
    *others, answer = saved.entries
    assert answer.ledger
    ledger = msgspec.structs.replace(answer.ledger, samples=4800)
    answer = msgspec.structs.replace(answer, ledger=ledger)
    saved = msgspec.structs.replace(saved, entries=(*others, answer))
    prompt = the(Generate, restored(saved)).prompt
    assert texts(prompt.items)[-1] == "one two"
    assert prompt.items[-1].id == item_id


def test_answer_that_broke_off_is_continued_by_the_model() -> None:
    session = a_session()
    item_id = answering(session, ends=False)
    effects = restored(session.checkpoint(0.0), heard=(item_id, 200))
    prompt = the(Generate, effects).prompt
    assert CONTINUE_INSTRUCTIONS in prompt.instructions
    assert texts(prompt.items)[-1] == "one two"


@pytest.mark.parametrize("known", [False, True])
def test_last_message_goes_on_only_where_its_words_are_known(known: bool) -> None:
    """Its audio is not stored. A client that knows the words may add the message again."""
    session = a_session(transcription=Transcription("whisper-1"))
    effects = hear(session, TURN)
    if known:
        transcribe(session, effects, "hello")
    saved = session.checkpoint(0.0)
    assert saved.owes_response
    last = continued(saved, expires_in=1.0, heard=None, finish=True)
    assert (len(last.entries), last.owes_response) == ((1, True) if known else (0, False))


def test_answer_of_which_nothing_was_heard_is_generated_anew() -> None:
    session = a_session()
    item_id = answering(session, ends=False)
    prompt = the(Generate, restored(session.checkpoint(0.0), heard=(item_id, 0))).prompt
    assert CONTINUE_INSTRUCTIONS not in prompt.instructions
    assert texts(prompt.items) == ["hello"]


def test_rest_of_a_complete_answer_is_spoken_as_it_was_written() -> None:
    session = a_session()
    item_id = answering(session, ends=True)
    effects = restored(session.checkpoint(0.0), heard=(item_id, 200))
    assert the(Generate, effects).text == "three four"


@pytest.mark.parametrize(
    ("heard_ms", "finish"),
    [(400, True), (380, True), (200, False)],
    ids=["heard whole", "last word nearly whole", "not wanted"],
)
def test_answer_is_not_finished_where_nothing_is_missing_or_wanted(
    heard_ms: int, finish: bool
) -> None:
    session = a_session()
    item_id = answering(session, ends=True)
    effects = restored(session.checkpoint(0.0), heard=(item_id, heard_ms), finish=finish)
    assert types(effects) == ["session.created"]


def test_answer_that_was_interrupted_is_not_finished() -> None:
    session = a_session()
    item_id = answering(session, ends=False)
    hear(session, TURN[:4], 0.1)
    effects = restored(session.checkpoint(0.1), heard=(item_id, 50))
    assert not of(Generate, effects)


def test_question_without_a_word_of_the_answer_is_answered() -> None:
    session = a_session()
    write(session, "hello")
    saved = session.checkpoint(0.0)
    assert (saved.owes_response, saved.cut_item_id) == (True, "")
    assert the(Generate, restored(saved)).prompt.spoken


def test_written_answer_and_open_call_are_generated_anew() -> None:
    session = a_session(output_modalities=("text",))
    response_id = the(Generate, write(session, "hello")).response_id
    tell(session, TextGenerated(response_id, "Some"))
    tell(session, ToolCallStarted(response_id, 0, "call_1", TOOLS[0].name))
    effects = restored(session.checkpoint(0.0))
    assert texts(the(Generate, effects).prompt.items) == ["hello"]


def test_turn_that_is_not_answered_when_the_server_ends_is_owed_an_answer() -> None:
    session = a_session(turn_detection=ServerVad(interrupt_response=False))
    response_id = the(Generate, write(session, "hello")).response_id
    tell(session, DrainStarted())
    transcribe(session, hear(session, TURN), "more")
    saved = session.checkpoint(0.0)
    assert saved.owes_response
    assert texts(the(Generate, restored(saved)).prompt.items) == ["hello", "more"]
    effects = tell(session, GenerationFinished(response_id, "stop"), OutputFinished(response_id))
    assert texts(the(Generate, effects).prompt.items)[-1] == "more"


def test_answer_that_failed_while_the_server_drains_is_owed() -> None:
    session = a_session()
    response_id = the(Generate, say(session, "hello")).response_id
    tell(session, DrainStarted())
    effects = tell(session, GenerationFailed(response_id, "llm", "down"))
    assert the(Close, effects).code == 1012
    assert session.checkpoint(0.0).owes_response


def test_turn_without_words_is_owed_nothing() -> None:
    session = a_session(turn_detection=ServerVad(create_response=False))
    effects = hear(session, "####")
    tell(session, DrainStarted())
    effects += hear(session, 16 * ".")
    assert the(Close, transcribe(session, effects, "")).code == 1012
    assert not session.checkpoint(0.0).owes_response


def test_transcription_session_owes_no_answer() -> None:
    session = a_session(transcription_settings())
    say(session, "hello")
    assert types(restored(session.checkpoint(0.0))) == ["session.created"]


def test_answer_that_was_not_stored_is_generated_anew() -> None:
    session = a_session()
    answering(session, ends=False)
    saved = session.checkpoint(0.0)
    fewer = msgspec.structs.replace(saved, entries=saved.entries[:-1])
    prompt = the(Generate, restored(fewer)).prompt
    assert CONTINUE_INSTRUCTIONS not in prompt.instructions


def test_checkpoint_knows_what_the_server_has_played() -> None:
    session = Session(
        a_session().settings, MODELS, SessionLimits(), salt="t", now=0.0, server_plays=True
    )
    session.begin()
    item_id = answering(session, ends=True)
    assert session.checkpoint_due is False
    tell(session, AudioPlayed(item_id, 4800), now=PLAYED_SAVE_S)
    tell(session, AudioPlayed(item_id, 1), now=PLAYED_SAVE_S)
    assert session.checkpoint_due
    saved = session.checkpoint(PLAYED_SAVE_S)
    assert saved.cut_item_id == item_id
    assert the(Generate, restored(saved)).text == "three four"
    shown = continued(saved, expires_in=1.0, heard=None, finish=True).entries[-1].item
    assert texts((shown,)) == ["one two"]
    assert not of(Generate, restored(saved, heard=(item_id, 400)))  # the client has heard more


def test_items_are_repeated_with_their_places() -> None:
    session = a_session()
    answering(session, ends=True)
    repeated = session.repeat_items()
    assert types(repeated) == ["conversation.item.added", "conversation.item.done"] * 2


def test_answer_in_progress_is_not_repeated_as_done() -> None:
    session = a_session()
    answering(session, ends=False)
    added, done = "conversation.item.added", "conversation.item.done"
    assert types(session.repeat_items()) == [added, done, added]


def test_relay_asks_its_upstream_server_for_what_is_owed() -> None:
    relay = Relay()
    relay.open_response()
    saved = relay.session.checkpoint(0.0)
    assert saved.owes_response
    assert "response" not in requested(saved)


def test_relay_continues_an_answer_that_broke_off() -> None:
    session = a_session()
    item_id = answering(session, ends=True)
    saved = continued(session.checkpoint(0.0), expires_in=9.0, heard=(item_id, 200), finish=True)
    assert CONTINUE_INSTRUCTIONS in requested(saved)["response"]["instructions"]


def test_item_of_an_upstream_server_makes_a_checkpoint_due() -> None:
    relay = Relay()
    relay.session.checkpoint(0.0)
    relay.open_response()
    assert not relay.session.checkpoint_due
    relay.turn("u", "hello")
    assert relay.session.checkpoint_due


def test_session_that_drains_behind_an_answer_owes_nothing() -> None:
    session = a_session()
    answering(session, ends=True)
    tell(session, DrainStarted())
    assert not session.checkpoint(0.0).owes_response
