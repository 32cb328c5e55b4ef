from collections.abc import Mapping
from typing import Any

import pytest

from tests.talk.stage import (
    ITEM,
    RESPONSE,
    STARTED,
    STOPPED,
    done,
    error,
    heard,
    sound,
    word,
)
from vivavoce.talk.events import SHORTENED, Event
from vivavoce.talk.options import Waits
from vivavoce.talk.turn import Call, Kind, Marks, Patience, Turn

TIMES_UP = {"reason": "turn_detected", "type": "cancelled"}


def after(kind: Kind, *story: tuple[float, Mapping[str, Any]], asked: float | None = 1.0) -> Turn:
    turn = Turn(kind, 0.0)
    turn.marks.asked = asked
    for now, event in story:
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


def test_a_spoken_turn_has_all_its_marks() -> None:
    turn = after("spoken", *SPOKEN)
    assert turn.marks == Marks(1.0, 1.5, 1.6, 1.8, 2.0, 2.3)
    assert (turn.heard, turn.answers) == (["hello"], ["Good day."])
    assert bytes(turn.audio) == b"\1\0\2\0"
    assert turn.answered
    assert turn.complete


def test_it_is_over_with_its_last_event_and_not_before() -> None:
    assert [after("spoken", *SPOKEN[:n]).over for n in range(11)] == [*[False] * 10, True]


def test_a_typed_turn_needs_no_transcript() -> None:
    turn = after("typed", (1.1, RESPONSE), (1.2, word("Yes.")), (1.3, done()))
    assert turn.marks == Marks(1.0, None, None, 1.2, None, 1.3)
    assert turn.complete


def test_a_spoken_turn_waits_for_its_transcript_after_the_answer() -> None:
    turn = after("spoken", *SPOKEN[:2], *SPOKEN[3:])
    assert (turn.over, turn.complete) == (True, False)
    turn.feed(Event(heard("hello")), 2.4)
    assert turn.complete


def test_an_answer_before_the_end_of_the_speech_does_not_end_the_turn() -> None:
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
    assert turn.marks == Marks(1.0, 1.5, 1.6, 1.8, 2.0, 2.3)
    assert turn.answers == ["What?", "Good day."]


def test_it_ends_when_all_was_sent_though_the_decision_came_before_the_speech_end() -> None:
    turn = after("spoken", *SPOKEN, asked=1.55)
    assert not turn.over
    turn.sent = 3.0
    assert turn.over


def test_an_answer_that_the_question_interrupts_is_no_failure() -> None:
    turn = after("spoken", (0.2, STARTED), (0.7, STOPPED), (0.7, RESPONSE), (0.8, STARTED))
    turn.feed(Event(done("cancelled", TIMES_UP)), 0.8)
    assert (turn.over, turn.problems) == (False, [])
    assert turn.marks == Marks(1.0)


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
def test_what_goes_wrong_ends_the_turn(ending: Mapping[str, Any], problem: str) -> None:
    turn = after("typed", (1.1, ending))
    assert (turn.over, turn.answered, turn.problems) == (True, False, [problem])


def test_an_error_beside_a_response_waits_for_its_end() -> None:
    turn = after("typed", (1.1, RESPONSE), (1.2, error("odd")), (1.3, word("Yes.")))
    assert not turn.over
    turn.feed(Event(done()), 1.4)
    assert (turn.over, turn.answered) == (True, False)


def test_a_refused_truncation_is_no_problem() -> None:
    assert after("spoken", (1.1, error("too long", SHORTENED))).problems == []


def test_a_call_ends_the_turn_with_its_arguments() -> None:
    item = {"type": "function_call", "name": "weather", "arguments": '{"city":"Rome"}'}
    called = {"type": "response.output_item.done", "item": item}
    turn = after("typed", (1.1, RESPONSE), (1.2, called), (1.3, done()))
    assert turn.calls == [Call("weather", '{"city":"Rome"}')]
    assert turn.answered


def test_a_server_without_deltas_is_understood() -> None:
    whole = {"type": "response.output_text.done", "text": "Yes."}
    turn = after("typed", (1.1, RESPONSE), (1.2, whole), (1.3, done()))
    assert turn.answers == ["Yes."]


def test_a_transcript_that_fails_is_a_problem() -> None:
    kind = "conversation.item.input_audio_transcription.failed"
    turn = after("spoken", (1.6, {"type": kind, "error": {"message": "deaf"}}))
    assert turn.problems == ["deaf"]


def test_every_wait_of_a_turn_has_an_end() -> None:
    waits = Waits(quiet=30, decision=15, answer=180, transcript=3)

    def patience(*story: tuple[float, Mapping[str, Any]], sent: float | None) -> Patience:
        turn = after("spoken", *story)
        turn.sent = sent
        return turn.patience(waits, story[-1][0] if story else 0.0, 2.0)

    no_end = "the server did not notice {} in 15 s of silence after the question"
    assert patience(sent=None) == Patience(17.0, no_end.format("any speech"))
    assert patience(SPOKEN[0], sent=2.1) == Patience(17.1, no_end.format("the end of the speech"))
    assert patience(*SPOKEN[:3], sent=2.1) == Patience(
        32.1, "nothing came from the server for 30 s"
    )
    assert patience(*SPOKEN[:3], (170.0, ITEM), sent=2.1) == Patience(
        182.1, "the answer was not done after 180 s"
    )
    assert patience(*SPOKEN, sent=2.1).until == 5.3


def test_a_lost_turn_is_over() -> None:
    turn = after("spoken", (0.2, STARTED), (0.4, RESPONSE))
    turn.fail("gone")
    assert (turn.over, turn.complete, turn.answered, turn.problems) == (True, True, False, ["gone"])
