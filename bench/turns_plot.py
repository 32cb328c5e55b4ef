"""An SVG of what a server did in each scenario of `bench.turns`: a row a kind, a dot a scenario."""

from collections.abc import Sequence
from html import escape
from typing import Protocol

from bench.dialogues import INTERRUPTIONS, TURNS

LEFT, WIDTH, ROW, TOP = 190, 760, 34, 56
MAX_MS = 3000
_GOOD, _BAD, _NONE = "#2a7f62", "#c0392b", "#9aa5ab"


class Shown(Protocol):
    """What is drawn of an outcome."""

    name: str
    kind: str
    cut: bool
    answered_ms: float | None
    stopped_ms: float | None


def drawn(outcomes: Sequence[Shown]) -> str:
    """Turns: at the delay of the answer. Sounds over an answer: at the time at which it stopped.

    Green is as wanted; red is a turn that was cut, an answer that stopped for nothing, or one that
    went on. What has no time stands at the right edge.
    """
    kinds = list(dict.fromkeys(one.kind for one in outcomes))
    height = TOP + ROW * len(kinds) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 70} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18">ms from the last sound of a turn to the answer, or from the '
        "onset of a sound to the end of the answer</text>",
    ]
    for ms in range(0, MAX_MS + 1, 500):
        x = _x(ms)
        parts.append(f'<line x1="{x}" y1="{TOP - 12}" x2="{x}" y2="{height - 16}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{TOP - 18}" text-anchor="middle">{ms}</text>')
    parts.append(f'<text x="{LEFT + WIDTH + 40}" y="{TOP - 18}" text-anchor="middle">none</text>')
    for row, kind in enumerate(kinds):
        y = TOP + ROW * row + ROW // 2
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(kind)}</text>')
        some = [one for one in outcomes if one.kind == kind]
        parts += [_dot(one, y + (n % 3 - 1) * 8) for n, one in enumerate(some)]
    return "\n".join([*parts, "</svg>\n"])


def _dot(one: Shown, y: int) -> str:
    turn = one.kind in TURNS
    ms = one.answered_ms if turn else one.stopped_ms
    wanted = ms is not None if turn or one.kind in INTERRUPTIONS else ms is None
    colour = _GOOD if wanted and not one.cut else _BAD
    if turn and ms is None and not one.cut:
        colour = _NONE
    x = LEFT + WIDTH + 40 if ms is None else _x(ms)
    title = escape(one.name) + ("" if ms is None else f": {ms:.0f} ms")
    return f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"><title>{title}</title></circle>'


def _x(ms: float) -> int:
    return LEFT + round(WIDTH * min(MAX_MS, max(0.0, ms)) / MAX_MS)
