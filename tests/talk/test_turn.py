"""Turns: their audio, times, limits and ends."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.talk.scripted_server import (
    ITEM,
    RESPONSE,
    STARTED,
    STOPPED,
    done,
    error,
    heard,
    silence,
    sound,
    tone,
    word,
)
from vivavoce.talk.client import TRUNCATE_ID, Event
from vivavoce.talk.options import Timeouts
from vivavoce.talk.turn import (
    CalledFunction,
    Turn,
    TurnKind,
    TurnTimes,
    WaitLimit,
    level_db,
    speech_end_ms,
)


def noise(ms: int, amplitude: float) -> bytes:
    samples = np.random.default_rng(1).uniform(-amplitude, amplitude, 24 * ms)
    pcm: bytes = samples.astype("<i2").tobytes()
    return pcm


def mixed(first: bytes, second: bytes) -> bytes:
    total = np.frombuffer(first, "<i2") + np.frombuffer(second, "<i2")
    pcm: bytes = total.astype("<i2").tobytes()
    return pcm


def test_level_of_a_full_sine_is_3_db_below_full_scale() -> None:
    assert level_db(tone(1000, 32767)) == pytest.approx(-3.01, abs=0.01)


@pytest.mark.parametrize("pcm", [b"", silence(100)])
def test_level_of_silence_is_minus_infinity(pcm: bytes) -> None:
    assert level_db(pcm) == -math.inf


@pytest.mark.parametrize(
    ("pcm", "end_ms"),
    [
        (tone(200), 200),
        (silence(100) + tone(300) + silence(500), 400),
        (tone(100) + silence(300) + tone(100) + silence(60), 500),
        (tone(190), 190),  # a frame that is cut short ends with the sound
        (tone(200) + silence(100) + tone(100, 100), 200),  # 38 dB below the rest
        (tone(200) + silence(100) + tone(100, 1000), 400),  # 18 dB below it
        (mixed(silence(200) + tone(200) + silence(400), noise(800, 500)), 400),
    ],
)
def test_speech_end_is_the_end_of_the_last_loud_frame(pcm: bytes, end_ms: int) -> None:
    assert speech_end_ms(pcm) == end_ms


@pytest.mark.parametrize("pcm", [b"", silence(500), noise(500, 20)])
def test_speech_end_without_a_loud_frame_is_none(pcm: bytes) -> None:
    assert speech_end_ms(pcm) is None


TIMES_UP = {"reason": "turn_detected", "type": "cancelled"}


def after(
    kind: TurnKind, *events: tuple[float, Mapping[str, Any]], asked: float | None = 1.0
) -> Turn:
    turn = Turn(kind, 0.0)
    turn.times.asked = asked
    for now, event in events:
        turn.feed(Event(event), now)
    return turn


SPOKEN = (
    (0.2, STARTED),
    (1.5, STOPPED),
    (1.6, heard("hello ")),
    (1.7, RESPONSE),
    (1.8, ITEM),
    (1.9, word("Good ")),
    (2.0, sound(b"\1\0")),
    (2.1, word("day.")),
    (2.2, sound(b"\2\0")),
    (2.3, done()),
)


def test_spoken_turn_sets_all_times() -> None:
    turn = after("spoken", *SPOKEN)
    assert turn.times == TurnTimes(1.0, 1.5, 1.6, 1.8, 2.0, 2.3)
    assert (turn.transcripts, turn.answers) == (["hello"], ["Good day."])
    assert bytes(turn.audio) == b"\1\0\2\0"
    assert turn.answered
    assert turn.complete


def test_spoken_turn_is_over_with_its_last_event() -> None:
    assert [after("spoken", *SPOKEN[:n]).over for n in range(11)] == [*[False] * 10, True]


def test_typed_turn_without_a_transcript_is_complete() -> None:
    turn = after("typed", (1.1, RESPONSE), (1.2, word("Yes.")), (1.3, done()))
    assert turn.times == TurnTimes(1.0, None, None, 1.2, None, 1.3)
    assert turn.complete


def test_spoken_turn_without_a_transcript_is_over_but_not_complete() -> None:
    turn = after("spoken", *SPOKEN[:2], *SPOKEN[3:])
    assert (turn.over, turn.complete) == (True, False)
    turn.feed(Event(heard("hello")), 2.4)
    assert turn.complete


def test_spoken_turn_answered_before_the_end_of_speech_is_not_over() -> None:
    early = (
        (0.2, STARTED),
        (0.7, STOPPED),
        (0.7, RESPONSE),
        (0.8, word("What?")),
        (0.9, done()),
    )
    turn = after("spoken", *early)
    assert not turn.over
    for now, event in SPOKEN:
        turn.feed(Event(event), now)
    assert turn.over
    assert turn.times == TurnTimes(1.0, 1.5, 1.6, 1.8, 2.0, 2.3)
    assert turn.answers == ["What?", "Good day."]


def test_spoken_turn_decided_before_the_end_of_speech_is_over_when_all_was_sent() -> None:
    turn = after("spoken", *SPOKEN, asked=1.55)
    assert not turn.over
    turn.sent = 3.0
    assert turn.over


def test_spoken_turn_that_interrupts_an_answer_has_no_problem() -> None:
    turn = after("spoken", (0.2, STARTED), (0.7, STOPPED), (0.7, RESPONSE), (0.8, STARTED))
    turn.feed(Event(done("cancelled", TIMES_UP)), 0.8)
    assert (turn.over, turn.problems) == (False, [])
    assert turn.times == TurnTimes(1.0)


@pytest.mark.parametrize(
    ("ending", "problem"),
    [
        (
            done("failed", {"error": {"message": "the model is away"}}),
            "the response was failed: the model is away",
        ),
        (
            done("cancelled", {"reason": "client_cancelled"}),
            "the response was cancelled: client_cancelled",
        ),
        (done("failed"), "the response was failed: no reason"),
        (done(), "the answer is empty"),
        (error("no such voice"), "no such voice"),
    ],
)
def test_turn_with_a_failure_is_over_with_the_problem(
    ending: Mapping[str, Any], problem: str
) -> None:
    turn = after("typed", (1.1, ending))
    assert (turn.over, turn.answered, turn.problems) == (True, False, [problem])


def test_turn_with_an_error_during_a_response_is_over_at_its_end() -> None:
    turn = after("typed", (1.1, RESPONSE), (1.2, error("odd")), (1.3, word("Yes.")))
    assert not turn.over
    turn.feed(Event(done()), 1.4)
    assert (turn.over, turn.answered) == (True, False)


def test_turn_with_a_refused_truncation_has_no_problem() -> None:
    assert after("spoken", (1.1, error("too long", TRUNCATE_ID))).problems == []


def test_turn_with_a_function_call_keeps_its_arguments() -> None:
    item = {"type": "function_call", "name": "weather", "arguments": '{"city":"Rome"}'}
    called = {"type": "response.output_item.done", "item": item}
    turn = after("typed", (1.1, RESPONSE), (1.2, called), (1.3, done()))
    assert turn.calls == [CalledFunction("weather", '{"city":"Rome"}')]
    assert turn.answered


def test_turn_without_deltas_takes_the_whole_text() -> None:
    whole = {"type": "response.output_text.done", "text": "Yes."}
    turn = after("typed", (1.1, RESPONSE), (1.2, whole), (1.3, done()))
    assert turn.answers == ["Yes."]


def test_turn_with_a_failed_transcript_has_a_problem() -> None:
    kind = "conversation.item.input_audio_transcription.failed"
    turn = after("spoken", (1.6, {"type": kind, "error": {"message": "deaf"}}))
    assert turn.problems == ["deaf"]


def test_turn_refused_for_its_key_names_the_option() -> None:
    error = {"code": "invalid_api_key", "message": "Incorrect API key provided."}
    turn = after("typed", (1.1, {"type": "error", "error": error}))
    assert turn.problems == [
        "Incorrect API key provided. This command takes it from --api-key or OPENAI_API_KEY."
    ]


def test_turn_wait_limit_is_the_first_timeout() -> None:
    timeouts = Timeouts(quiet=30, decision=15, answer=180, transcript=3)

    def limit(*events: tuple[float, Mapping[str, Any]], sent: float | None) -> WaitLimit:
        turn = after("spoken", *events)
        turn.sent = sent
        return turn.wait_limit(timeouts, events[-1][0] if events else 0.0, 2.0)

    no_end = "the server did not notice {} in 15 s of silence after the question"
    assert limit(sent=None) == WaitLimit(17.0, no_end.format("any speech"))
    assert limit(SPOKEN[0], sent=2.1) == WaitLimit(17.1, no_end.format("the end of the speech"))
    assert limit(*SPOKEN[:3], sent=2.1) == WaitLimit(32.1, "nothing came from the server for 30 s")
    assert limit(*SPOKEN[:3], (170.0, ITEM), sent=2.1) == WaitLimit(
        182.1, "the answer was not done after 180 s"
    )
    assert limit(*SPOKEN, sent=2.1).until == 5.3


def test_turn_after_fail_is_over() -> None:
    turn = after("spoken", (0.2, STARTED), (0.4, RESPONSE))
    turn.fail("gone")
    assert (turn.over, turn.complete, turn.answered, turn.problems) == (True, True, False, ["gone"])
