"""What the server itself says: warnings between two answers, and the last sentence of a session."""

from typing import Any

import pytest

from tests.session.relay_stage import Relay, raw_types
from tests.session.stage import (
    TURN,
    a_session,
    answered,
    ask,
    done,
    events,
    hear,
    of,
    problem,
    receive,
    settings,
    spoke,
    tell,
    the,
    transcription_settings,
    types,
    wake,
    write,
)
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.session import PCMU, Transcription
from vivavoce.session.announcement import METADATA
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.effects import (
    ClearPlayback,
    Close,
    DisconnectUpstream,
    Effect,
    Filler,
    Generate,
    PlayAudio,
    Say,
    SendUpstream,
)
from vivavoce.session.facts import (
    AccessEnded,
    AudioGenerated,
    AudioPlayed,
    BudgetLow,
    ContentBlocked,
    Disconnected,
    DrainStarted,
    GenerationFailed,
    OutputFinished,
    TextGenerated,
    TimerFired,
    UpstreamLost,
)
from vivavoce.session.lifetime import ENDING_TIMEOUT_S, GREETING_DELAY_S, LAST_WORDS_S
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session

SPENT = AccessEnded("insufficient_quota", "The budget key:ada:usd:day is spent.", 4002)
SECOND = 24_000


def said(effects: list[Effect]) -> tuple[str, str]:
    """The id of the response, and the text, of an announcement that begins."""
    order = the(Say, effects)
    return order.order.response_id, order.text


def last_words(session: Session, *, ms: int = 2000) -> tuple[list[Effect], list[Effect]]:
    """A budget ends in the middle of an answer, and a sentence of that length is spoken."""
    answered(write(session, "hello"))
    first = tell(session, SPENT)
    id_, _ = said(first)
    return first, tell(session, spoke(id_, "Bye.", ms=ms), OutputFinished(id_))


def test_budget_that_ends_cancels_the_answer_says_one_sentence_and_closes_with_4002() -> None:
    session = a_session()
    first, then = last_words(session)
    assert done(first).status == "cancelled"
    assert said(first)[1] == SessionLimits().say_budget_spent
    assert types(first)[-1] == "response.created"
    response = done(then)
    assert (response.status, response.conversation_id) == ("completed", None)
    assert response.metadata == METADATA
    assert of(Close, then) == []  # it is still played
    assert session.deadline == 2.0
    last = wake(session)
    assert problem(last) == (SPENT.code, SPENT.message)
    assert last[-1] == Close(4002, "insufficient_quota")
    assert tell(session, Disconnected()) == []


def test_last_sentence_has_the_voice_and_format_of_the_session() -> None:
    session = a_session(output_format=PCMU(), voice="marin")
    first, then = last_words(session, ms=1000)
    assert the(Say, first).order.prompt.voice == "marin"
    audio = b"".join(event.delta for event in of(says.OutputAudioDelta, then))
    assert abs(len(audio) - 8_000) < 100
    response = done(then)
    assert (response.audio.output.format, response.audio.output.voice) == (PCMU(), "marin")


def test_last_sentence_of_a_text_session_is_written() -> None:
    session = a_session(output_modalities=("text",))
    effects = tell(session, SPENT)
    assert the(says.OutputTextDone, effects).text == SessionLimits().say_budget_spent
    assert effects[-1] == Close(4002, "insufficient_quota")


def test_last_sentence_is_said_where_the_upstream_server_is_dead() -> None:
    relay = Relay()
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a")
    effects = relay.take(SPENT)
    assert done(effects[: effects.index(DisconnectUpstream())]).status == "cancelled"
    id_, _ = said(effects)
    assert relay.take(UpstreamLost("gone")) == []
    assert relay.say("response.output_audio.delta", delta="AAAA", item_id="a") == []
    effects = relay.take(spoke(id_, "Bye."), OutputFinished(id_))
    assert (done(effects).status, raw_types(effects)) == ("completed", [])


def test_last_sentence_that_cannot_be_spoken_does_not_keep_the_session_open() -> None:
    session = a_session()
    id_, _ = said(tell(session, SPENT))
    effects = tell(session, GenerationFailed(id_, "tts", "no voice"))
    assert done(effects).status == "failed"
    assert effects[-1] == Close(4002, "insufficient_quota")


def test_session_ends_without_its_last_sentence_when_that_does_not_come() -> None:
    session = a_session()
    tell(session, SPENT)
    assert session.deadline == ENDING_TIMEOUT_S
    assert wake(session)[-1] == Close(4002, "insufficient_quota")


def test_client_can_begin_nothing_while_the_last_sentence_is_said() -> None:
    session = a_session()
    id_, _ = said(tell(session, SPENT))
    assert problem(ask(session)) == (SPENT.code, SPENT.message)
    item = Message(role="user", content=(InputText(text="more"),))
    event = asks.ItemCreate(item=item, event_id="e")
    assert the(says.ErrorEvent, receive(session, event)).error.event_id == "e"
    assert hear(session, "####") == []
    assert tell(session, DrainStarted(), BudgetLow(), SPENT, TimerFired()) == []
    assert tell(session, TextGenerated(id_, "Bye.")) == []
    effects = tell(session, AccessEnded("invalid_api_key", "The key was revoked.", 3000))
    assert effects[-1] == Close(3000, "invalid_api_key")


def test_client_that_leaves_during_the_last_sentence_ends_the_session() -> None:
    session = a_session()
    tell(session, SPENT)
    assert tell(session, Disconnected()) == [Close(1000, "the client left")]


def test_budget_that_cannot_be_looked_up_ends_with_a_sentence_of_its_own() -> None:
    effects = tell(a_session(), AccessEnded("store_unavailable", "No store.", 1011))
    assert said(effects)[1] == SessionLimits().say_store_lost


def test_transcription_session_ends_without_a_sentence() -> None:
    effects = tell(a_session(transcription_settings()), SPENT)
    assert effects[-1] == Close(4002, "insufficient_quota")


def test_last_sentence_of_a_call_drops_what_was_not_played_and_waits_until_it_was_heard() -> None:
    relay = Relay(server_plays=True)
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a")
    relay.speak("a", "one two three")
    effects = relay.take(SPENT)
    the(ClearPlayback, effects)
    id_, _ = said(effects)
    played = the(PlayAudio, relay.take(spoke(id_, "Bye."), OutputFinished(id_)))
    effects = relay.take(AudioPlayed(played.item_id, len(played.audio) // 2))
    assert effects[-1] == Close(4002, "insufficient_quota")


# --- warnings


def test_budget_that_is_low_is_said_once_when_nobody_speaks() -> None:
    session = a_session()
    response_id = answered(write(session, "hello"))
    assert of(Say, tell(session, BudgetLow())) == []
    ended = tell(session, spoke(response_id, "Hi.", ms=1000), OutputFinished(response_id))
    assert of(Say, ended) == []  # the answer is played
    assert session.deadline == 1.0
    effects = wake(session)
    assert said(effects)[1] == SessionLimits().say_budget_low
    id_, _ = said(effects)
    effects = tell(session, spoke(id_, "Most is gone."), OutputFinished(id_), now=1.0)
    assert done(effects).metadata == METADATA
    assert "conversation.item.added" not in types(effects)
    assert answered(ask(session, now=5.0))


def test_warning_that_fails_in_the_middle_is_ended_and_nothing_more_of_it_is_sent() -> None:
    session = a_session()
    id_, _ = said(tell(session, BudgetLow()))
    effects = tell(session, AudioGenerated(id_, b""), GenerationFailed(id_, "tts", "no voice"))
    assert done(effects).status == "failed"
    assert tell(session, spoke(id_, "Most"), OutputFinished(id_)) == []


def test_warnings_are_said_one_after_the_other() -> None:
    session = a_session()
    id_, _ = said(tell(session, BudgetLow()))
    assert tell(session, BudgetLow()) == []
    effects = tell(session, OutputFinished(id_))
    assert said(effects)[0] != id_


def test_warning_that_is_being_said_gives_way_to_the_last_sentence() -> None:
    session = a_session()
    first, _ = said(tell(session, BudgetLow()))
    effects = tell(session, SPENT)
    assert done(effects).status == "cancelled"
    last, _ = said(effects)
    assert last != first
    assert tell(session, spoke(first, "Most")) == []


def test_empty_sentence_is_not_said() -> None:
    limits = SessionLimits(say_budget_low="", say_budget_spent="")
    session = a_session(limits=limits)
    assert tell(session, BudgetLow()) == []
    assert tell(session, SPENT)[-1] == Close(4002, "insufficient_quota")


def test_warning_of_a_transcription_session_is_left_out() -> None:
    assert tell(a_session(transcription_settings()), BudgetLow()) == []


# --- time


def test_time_that_is_low_and_time_that_is_over_are_said() -> None:
    limits = SessionLimits(max_seconds=120.0, say_time_low="One minute.", say_time_over="Bye.")
    session = a_session(limits=limits)
    assert session.deadline == 60.0
    id_, text = said(wake(session))
    assert text == "One minute."
    tell(session, OutputFinished(id_), now=60.0)
    assert session.deadline == 120.0 - LAST_WORDS_S
    id_, text = said(wake(session))
    assert text == "Bye."
    effects = tell(session, spoke(id_, "Bye.", ms=500), OutputFinished(id_), now=116.0)
    assert of(Close, effects) == []
    effects = wake(session)
    assert problem(effects)[0] == "session_expired"
    assert the(Close, effects).code == 1001


def test_session_that_expires_waits_a_second_at_most_for_its_last_sentence() -> None:
    limits = SessionLimits(max_seconds=120.0, say_time_over="Bye.")
    session = a_session(limits=limits)
    wake(session)
    assert session.deadline == 121.0


def test_idle_session_ends_with_a_sentence() -> None:
    session = a_session(limits=SessionLimits(idle_seconds=30.0, say_idle="Are you gone?"))
    id_, text = said(wake(session))
    assert text == "Are you gone?"
    effects = tell(session, OutputFinished(id_), now=30.0)
    assert the(Close, effects).code == 1000


@pytest.mark.parametrize("fact", [AudioGenerated("resp_x", b"\0\0"), OutputFinished("resp_x")])
def test_facts_of_other_responses_are_none_of_an_announcement(fact: Any) -> None:
    session = a_session(settings())
    tell(session, BudgetLow())
    assert events(tell(session, fact)) == []


# --- no dead air


def test_greeting_is_said_once_the_client_had_time_for_its_settings() -> None:
    session = a_session(limits=SessionLimits(say_greeting="Hello!", max_seconds=120.0))
    assert session.deadline == GREETING_DELAY_S
    id_, text = said(wake(session))
    assert text == "Hello!"
    tell(session, OutputFinished(id_), now=1.0)
    assert session.deadline == 120.0


def test_session_that_goes_on_is_not_greeted() -> None:
    limits = SessionLimits(say_greeting="Hello!", max_seconds=120.0)
    first = a_session(limits=limits)
    again = a_session(limits=limits, checkpoint=first.checkpoint(20.0), now=5.0)
    assert again.deadline == 105.0


FAILED = SessionLimits(say_failed="Sorry, say that again.", stall_seconds=4.0)


def test_failed_answer_that_was_not_heard_is_followed_by_a_sentence() -> None:
    session = a_session(limits=FAILED)
    id_ = answered(write(session, "hello"))
    effects = tell(session, GenerationFailed(id_, "llm", "it is broken"))
    assert said(effects)[1] == "Sorry, say that again."


def test_stalled_recognition_is_followed_by_a_sentence() -> None:
    session = a_session(limits=FAILED)
    hear(session, TURN)
    assert said(wake(session))[1] == "Sorry, say that again."


@pytest.mark.parametrize("params", [{"conversation": "none"}, {"output_modalities": ("text",)}])
def test_failed_answer_of_another_kind_is_not_followed_by_a_sentence(
    params: dict[str, Any],
) -> None:
    session = a_session(limits=FAILED)
    id_ = answered(ask(session, **params))
    assert of(Say, tell(session, GenerationFailed(id_, "llm", "it is broken"))) == []


def test_failed_answer_that_was_heard_is_not_followed_by_a_sentence() -> None:
    session = a_session(limits=FAILED)
    id_ = answered(write(session, "hello"))
    tell(session, spoke(id_, "well", ms=100))
    effects = tell(session, GenerationFailed(id_, "llm", "it is broken"))
    assert of(Say, effects) == []


def test_filler_is_ordered_once_a_turn_in_the_language_of_the_conversation() -> None:
    limits = SessionLimits(filler_seconds=1.5)
    session = a_session(limits=limits, transcription=Transcription("m", "de-CH"))
    generate = the(Generate, write(session, "hallo"))
    assert generate.filler == Filler("Einen Moment.", 1.5)
    id_ = generate.response_id
    tell(session, TextGenerated(id_, "Einen Moment. "), OutputFinished(id_))
    assert the(Generate, ask(session)).filler is None  # the turn is the same
    tell(session, OutputFinished(the_response(session)))
    assert the(Generate, write(session, "hallo?")).filler is not None


def the_response(session: Session) -> str:
    """The id of the answer in progress."""
    brain = session._brain
    assert isinstance(brain, CascadeBrain)
    assert brain._responses.active
    return brain._responses.active.id


def test_filler_that_was_not_needed_stays_for_the_next_answer_of_the_turn() -> None:
    limits = SessionLimits(filler_seconds=1.5, say_filler="Hm.")
    session = a_session(limits=limits)
    id_ = answered(write(session, "hello"))
    tell(session, TextGenerated(id_, "Well. "), OutputFinished(id_))
    assert the(Generate, ask(session)).filler == Filler("Hm.", 1.5)


@pytest.mark.parametrize("params", [{"conversation": "none"}, {"output_modalities": ("text",)}])
def test_filler_is_for_spoken_answers_in_the_conversation(params: dict[str, Any]) -> None:
    session = a_session(limits=SessionLimits(filler_seconds=1.5))
    assert the(Generate, ask(session, **params)).filler is None


def test_filler_of_an_unknown_language_is_english() -> None:
    assert SessionLimits().filler("tlh") == "One moment."
    assert SessionLimits().filler(None) == "One moment."


def test_blocked_answer_is_cancelled_and_the_sentence_said() -> None:
    session = a_session()
    write(session, "Tell me.")
    ask(session)
    effects = tell(session, ContentBlocked("", "Not that."))
    assert the(says.ResponseDone, effects).response.status == "cancelled"
    (say,) = of(Say, effects)
    assert say.text == "Not that."


def test_blocked_words_of_the_user_are_deleted() -> None:
    session = a_session()
    item = the(says.ItemAdded, write(session, "Something bad.")).item
    effects = tell(session, ContentBlocked(item.id, ""))
    assert the(says.ItemDeleted, effects).item_id == item.id
    assert of(Say, effects) == []
    assert tell(session, ContentBlocked(item.id, "")) == []  # it is gone already


def test_blocked_answer_that_the_server_plays_is_played_no_further() -> None:
    relay = Relay(server_plays=True)
    relay.open_response()
    relay.open_item("a")
    relay.speak("a", "one two")
    assert of(ClearPlayback, relay.take(ContentBlocked("", "Not that.")))


def test_blocked_answer_of_a_relay_is_cancelled_upstream() -> None:
    relay = Relay()
    relay.open_response()
    effects = relay.take(ContentBlocked("", "Not that."))
    (sent,) = of(SendUpstream, effects)
    assert b"response.cancel" in sent.data
    assert of(Say, effects) == []  # until the response has ended
    done_ = {"id": "r", "status": "cancelled", "conversation_id": "c", "output": []}
    (say,) = of(Say, relay.say("response.done", response=done_))
    assert say.text == "Not that."


def test_conversation_that_is_not_allowed_ends_after_a_sentence() -> None:
    session = a_session()
    effects = tell(session, ContentBlocked("", "Goodbye.", ends=True))
    (say,) = of(Say, effects)
    effects = tell(session, OutputFinished(say.order.response_id))
    assert problem(effects)[0] == "content_blocked"
    assert of(Close, effects) == [Close(1008, "content_blocked")]


def test_limits_of_a_session_in_which_nothing_can_be_said_have_no_sentences() -> None:
    limits = SessionLimits(idle_seconds=5, say_idle="Goodbye.").without_announcements
    assert limits.idle_seconds == 5
    assert {limits.say_idle, limits.say_budget_spent, limits.say_store_lost} == {""}
