"""When nobody speaks for long, and when the server goes: how a session ends."""

from tests.session.stage import (
    a_session,
    answered,
    ask,
    done,
    drawn,
    hear,
    of,
    problem,
    receive,
    record,
    say,
    spoke,
    tell,
    texts,
    the,
    transcribe,
    transcription_settings,
    types,
    vad_scores,
    wake,
    write,
)
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    ItemTruncate,
)
from vivavoce.protocol.session import ServerVad
from vivavoce.session.effects import Close, Generate, RunVad
from vivavoce.session.facts import DrainStarted, OutputFinished, TextGenerated
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session

HOUR = 3600.0
NEVER = float("inf")
IDLE = "Nothing came for 30 seconds."
QUIET = ServerVad(idle_timeout_ms=5000)


def an_answer(session: Session, now: float, ms: int = 2000) -> None:
    """An answer that is made at once and played for that long."""
    response_id = answered(write(session, "hello", now=now))
    tell(session, spoke(response_id, "hi", ms=ms), OutputFinished(response_id), now=now)


def test_idle_timeout_does_not_run_during_a_generation() -> None:
    session = a_session(limits=SessionLimits(idle_seconds=30.0))
    response_id = answered(write(session, "hello", now=0.0))
    for now in (9.0, 18.0, 27.0, 36.0):
        tell(session, TextGenerated(response_id, "and "), now=now)
    tell(session, OutputFinished(response_id), now=41.0)
    assert session.deadline == 71.0
    effects = wake(session)
    assert problem(effects) == ("session_idle", IDLE)
    assert effects[1:] == [Close(1000, "nothing came for 30 seconds")]


def test_idle_timeout_does_not_run_during_playout() -> None:
    session = a_session(limits=SessionLimits(idle_seconds=30.0))
    response_id = answered(write(session, "hello", now=39.0))
    tell(session, spoke(response_id, "one", ms=5000), now=40.0)
    tell(session, OutputFinished(response_id), now=41.0)
    assert session.deadline == 75.0
    effects = wake(session)
    assert problem(effects) == ("session_idle", IDLE)
    assert effects[1:] == [Close(1000, "nothing came for 30 seconds")]


def test_idle_limit_of_a_session_can_be_switched_off() -> None:
    assert a_session(limits=SessionLimits(max_seconds=NEVER)).deadline == NEVER


def test_idle_timeout_runs_only_after_an_answer_and_outside_a_turn() -> None:
    session = a_session(turn_detection=QUIET)
    assert session.deadline == HOUR
    an_answer(session, now=10.0)
    hear(session, "##", now=11.0)
    assert session.deadline == 14.0  # the sound has stopped coming
    response_id = answered(say(session, "well", pattern=16 * ".", now=12.0))
    assert session.deadline == 22.0  # the stall
    tell(session, OutputFinished(response_id), now=13.0)
    assert session.deadline == 18.0
    answered(write(session, "hello", now=14.0))
    assert session.deadline == 24.0


def test_idle_timeout_is_cancelled_by_speech() -> None:
    vad = ServerVad(idle_timeout_ms=5000, create_response=False, interrupt_response=False)
    session = a_session(turn_detection=vad)
    an_answer(session, now=10.0)
    transcribe(session, hear(session, "####" + 16 * ".", now=11.0), "well", now=11.0)
    assert session.deadline == HOUR


def test_answer_that_the_client_truncates_is_over() -> None:
    session = a_session(turn_detection=QUIET)
    response_id = answered(write(session, "count", now=10.0))
    effects = tell(
        session, spoke(response_id, "one", ms=3000), OutputFinished(response_id), now=10.0
    )
    assert session.deadline == 18.0
    item_id = the(says.OutputItemDone, effects).item.id
    receive(session, ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=1000), now=11.0)
    assert session.deadline == 16.0


def test_at_a_shutdown_a_session_that_does_nothing_closes_at_once() -> None:
    assert tell(a_session(), DrainStarted()) == [Close(1012, "the server is shutting down")]


def test_at_a_shutdown_the_turn_that_is_spoken_is_finished_and_answered() -> None:
    session = a_session()
    effects = hear(session, "####")
    assert tell(session, DrainStarted()) == []
    effects += hear(session, 16 * ".")
    effects += transcribe(session, effects, "hello")
    assert of(Close, effects) == []
    assert texts(the(Generate, effects).prompt.items) == ["hello"]
    assert the(Close, tell(session, OutputFinished(answered(effects)))).code == 1012


def test_at_a_shutdown_speech_into_the_answer_is_answered_too() -> None:
    session = a_session()
    answered(say(session, "one"))
    tell(session, DrainStarted())
    effects = hear(session, "####")
    assert done(effects).status == "cancelled"
    assert of(Close, effects) == []
    effects += hear(session, 16 * ".")
    second = answered(effects + transcribe(session, effects, "two"))
    assert the(Close, tell(session, OutputFinished(second))).code == 1012


def test_at_a_shutdown_the_first_loud_window_is_waited_for() -> None:
    session = a_session()
    hear(session, "9")
    assert tell(session, DrainStarted()) == []
    assert hear(session, ".")[-1] == Close(1012, "the server is shutting down")


def test_at_a_shutdown_audio_that_is_not_scored_yet_is_waited_for() -> None:
    session = a_session()
    scored = the(RunVad, receive(session, InputAudioAppend(audio=drawn("."))))
    assert tell(session, DrainStarted()) == []
    assert the(Close, tell(session, vad_scores(scored))).code == 1012


def test_at_a_shutdown_a_turn_that_its_client_ends_is_finished_and_answered() -> None:
    session = a_session(turn_detection=None)
    effects = hear(session, "####")
    assert of(Close, tell(session, DrainStarted())) == []
    effects = receive(session, InputAudioCommit())
    effects += ask(session)
    effects += transcribe(session, effects, "hello")
    assert the(Close, tell(session, OutputFinished(answered(effects)))).code == 1012


def test_at_a_shutdown_a_turn_that_its_client_drops_is_not_waited_for() -> None:
    session = a_session(turn_detection=None)
    hear(session, "####")
    tell(session, DrainStarted())
    assert the(Close, receive(session, InputAudioClear())).code == 1012


def test_at_a_shutdown_words_that_are_due_still_come() -> None:
    session = a_session(transcription_settings())
    effects = hear(session, "####" + 16 * ".")
    assert tell(session, DrainStarted()) == []
    effects = transcribe(session, effects, "hello")
    assert types(effects)[-1] == "conversation.item.input_audio_transcription.completed"
    assert effects[-1] == Close(1012, "the server is shutting down")


def test_half_a_sample_that_nothing_completes_is_reported() -> None:
    session = a_session()
    receive(session, InputAudioAppend(audio=b"\0\0\0", event_id="mine"), now=5.0)
    assert session.deadline == 6.0
    assert the(says.ErrorEvent, wake(session)).error.event_id == "mine"
    assert session.deadline == HOUR


def test_turn_without_create_response_is_only_an_item() -> None:
    session = a_session(turn_detection=ServerVad(create_response=False))
    assert types(say(session, "hello"))[-1] == "conversation.item.done"
    assert session.deadline == HOUR


def test_drain_starts_no_idle_timeout() -> None:
    session = a_session(turn_detection=QUIET)
    an_answer(session, now=10.0)
    record(session, "u", now=12.0)
    tell(session, DrainStarted(), now=12.0)
    assert session.deadline == 22.0  # the words of the recording are overdue
