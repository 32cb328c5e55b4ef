"""The latency of a turn as a waterfall: its steps in milliseconds, and bars to scale. Pure."""

from dataclasses import dataclass

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from vivavoce.talk.turn import Kind, Marks, Turn

_BAR_COLUMNS = 40
_COLORS = ("cyan", "blue", "magenta", "yellow", "green", "white")


@dataclass(frozen=True, slots=True)
class Step:
    """A row: when it was reached, in milliseconds from the end of the question.

    `since` is the last step before it in the list that had been reached by then: the bar begins
    there. None in `ms`: it was not reached, and `note` says so.
    """

    name: str
    ms: float | None
    since: float = 0.0
    note: str = ""


def steps(marks: Marks, kind: Kind) -> list[Step]:
    """The rows, from the end of the question on; times before that are negative."""
    spoken = kind == "spoken"
    untold = "" if spoken else "a typed turn has none"
    named = [
        ("turn decision", marks.decided, untold or "no end of speech came"),
        ("transcript", marks.transcribed, untold or "no transcript came"),
        ("first token", marks.token, "no item and no text came"),
        ("first audio", marks.audio, "no audio came"),
        ("done", marks.done, "the response did not end"),
    ]
    origin = marks.asked
    if origin is None:  # nothing loud was found in what was sent
        origin = next((at for _, at, _ in named if at is not None), 0.0)
    rows = [Step("speech end" if spoken else "question sent", 0.0)]
    for name, at, note in named:
        if at is None:
            rows.append(Step(name, None, note=note))
            continue
        ms = 1000 * (at - origin)
        before = [row.ms for row in rows if row.ms is not None and row.ms <= ms]
        rows.append(Step(name, ms, before[-1] if before else ms))
    return rows


def drawing(turn: Turn, title: str) -> Table:
    """The waterfall of a turn, for a console."""
    rows = steps(turn.marks, turn.kind)
    reached = [row.ms for row in rows if row.ms is not None]
    span = max(max(reached), 1.0)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("+ms", justify="right", style="dim", no_wrap=True)
    table.add_column("", width=_BAR_COLUMNS, no_wrap=True)
    for row, color in zip(rows, _COLORS, strict=True):
        if row.ms is None:
            table.add_row(row.name, "-", "", Text(row.note, style="dim italic"))
            continue
        bar = Bar(span, max(row.since, 0.0), max(row.ms, 0.0), width=_BAR_COLUMNS, color=color)
        table.add_row(row.name, f"{row.ms:.0f}", f"{row.ms - row.since:+.0f}", bar)
    return table
