from io import StringIO

from rich.console import Console

from vivavoce.talk.turn import Marks, Turn
from vivavoce.talk.waterfall import Step, drawing, steps


def test_steps_count_from_the_end_of_the_speech_and_begin_where_the_last_one_ended() -> None:
    assert steps(Marks(10.0, 10.5, 10.75, 11.0, 11.25, 12.0), "spoken") == [
        Step("speech end", 0.0),
        Step("turn decision", 500.0, 0.0),
        Step("transcript", 750.0, 500.0),
        Step("first token", 1000.0, 750.0),
        Step("first audio", 1250.0, 1000.0),
        Step("done", 2000.0, 1250.0),
    ]


def test_a_late_transcript_does_not_hold_up_what_came_before_it() -> None:
    rows = steps(Marks(0.0, 0.5, 2.0, 1.0, 1.25, 1.5), "spoken")
    assert [(row.ms, row.since) for row in rows] == [
        (0.0, 0.0),
        (500.0, 0.0),
        (2000.0, 500.0),
        (1000.0, 500.0),
        (1250.0, 1000.0),
        (1500.0, 1250.0),
    ]


def test_what_is_missing_is_said() -> None:
    assert [(row.name, row.note) for row in steps(Marks(0.0), "spoken") if row.ms is None] == [
        ("turn decision", "no end of speech came"),
        ("transcript", "no transcript came"),
        ("first token", "no item and no text came"),
        ("first audio", "no audio came"),
        ("done", "the response did not end"),
    ]


def test_a_typed_turn_has_no_decision() -> None:
    rows = steps(Marks(1.0, token=1.5, done=2.0), "typed")
    assert [(row.name, row.ms, row.note) for row in rows] == [
        ("question sent", 0.0, ""),
        ("turn decision", None, "a typed turn has none"),
        ("transcript", None, "a typed turn has none"),
        ("first token", 500.0, ""),
        ("first audio", None, "no audio came"),
        ("done", 1000.0, ""),
    ]


def test_a_decision_before_the_end_of_the_speech_is_negative() -> None:
    decision = steps(Marks(1.0, 0.75), "spoken")[1]
    assert (decision.ms, decision.since) == (-250.0, -250.0)


def test_nothing_at_all_can_be_drawn() -> None:
    assert [row.ms for row in steps(Marks(), "spoken")] == [0.0, *[None] * 5]


def test_bars_are_to_scale() -> None:
    turn = Turn("spoken", 0.0, Marks(0.0, 0.5, 0.5, 0.75, 0.75, 1.0))
    page = StringIO()
    Console(file=page, width=100, color_system=None).print(drawing(turn, "turn 1"))
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    assert lines == [
        "turn 1",
        "step             ms   +ms",
        "speech end        0    +0",
        f"turn decision   500  +500  {'█' * 20}",
        "transcript      500    +0",
        f"first token     750  +250  {' ' * 20}{'█' * 10}",
        "first audio     750    +0",
        f"done           1000  +250  {' ' * 30}{'█' * 10}",
    ]
