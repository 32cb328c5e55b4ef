"""The scorecard as one HTML page: plots as inline SVG, nothing is loaded from anywhere."""

import math
from collections.abc import Sequence
from html import escape

from vivavoce.scorecard.caller import STAGES
from vivavoce.scorecard.figures import Spread
from vivavoce.scorecard.load import Scorecard

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 320, 64, 44, 16, 24
ROW = 26
COLOURS = ("#1f6feb", "#bf4b00")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem .25rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
tr + tr { border-top: 1px solid #d8dee4; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #57606a; }
.note { color: #57606a; }
"""


def page(cards: Sequence[Scorecard]) -> str:
    """The page of one server, or of two beside each other."""
    title = " and ".join(card.url for card in cards)
    first = "first audio" if cards[0].spoken else "first text"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>Scorecard: {escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>Scorecard of {escape(title)}</h1>",
        f'<p class="note">Measured {escape(cards[0].began_at)} by vivavoce bench. '
        f"{'Spoken' if cards[0].spoken else 'Written'} turns.</p>",
        _summary(cards),
        f"<h2>Sessions and latency</h2>{_legend(cards)}{load_plot(cards)}",
        f'<p class="note">From the end of a turn to the {first}: the line is the median, the band '
        "goes up to 95 %. A cross is a level that failed.</p>",
        *(f'<p class="note">{escape(c.url)} ends at {escape(c.stopped)}.</p>' for c in cards),
        f"<h2>Where the time goes, one session</h2>{waterfall_plot(cards)}",
        '<p class="note">The bar goes to the median, the thin line to 95 %.</p>',
        "<h2>All levels</h2>",
        *(_levels(card) for card in cards),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _summary(cards: Sequence[Scorecard]) -> str:
    def row(name: str, values: list[str]) -> str:
        return f"<tr><td>{name}</td>{''.join(f'<td>{escape(v)}</td>' for v in values)}</tr>"

    def ms(value: float | None) -> str:
        return "—" if value is None else f"{value:.0f} ms"

    head = "".join(f"<th>{escape(card.url)}</th>" for card in cards)
    first = [card.levels[0].latency for card in cards]
    rows = [
        row("latency of one session, median", [ms(one.p50) for one in first]),
        row("… 95 %", [ms(one.p95) for one in first]),
        row("most sessions within the limit", [str(card.carried) for card in cards]),
        row("interruption, median", [ms(card.interruption.p50) for card in cards]),
        row(
            f"cost of a turn at the prices of {escape(cards[0].cost.model)}",
            [f"{c.cost.usd_per_turn} USD" if c.cost.usd_per_turn else "—" for c in cards],
        ),
        row(
            "tokens of a turn, in and out",
            [
                f"{c.cost.input_tokens / c.cost.turns:.0f}, "
                f"{c.cost.output_tokens / c.cost.turns:.0f}"
                if c.cost.turns
                else "—"
                for c in cards
            ],
        ),
    ]
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _legend(cards: Sequence[Scorecard]) -> str:
    marks = (
        f'<span style="color:{colour}">■</span> {escape(card.url)}'
        for card, colour in zip(cards, COLOURS, strict=False)
    )
    return f"<p>{' &nbsp; '.join(marks)}</p>"


def load_plot(cards: Sequence[Scorecard]) -> str:
    """Latency over sessions, both logarithmic."""
    levels = [level for card in cards for level in card.levels]
    values = [v for one in levels for v in (one.latency.p50, one.latency.p95) if v]
    low = 10 ** math.floor(math.log10(max(1.0, min(values, default=1.0))))
    high = 10 ** math.ceil(math.log10(max(10.0 * low, *values, 1.0)))
    most = max(2, *(level.sessions for level in levels))

    def x(sessions: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log2(sessions) / math.log2(most)

    def y(ms: float) -> float:
        share = math.log10(max(ms, low) / low) / math.log10(high / low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="latency by sessions">']
    ms = low
    while ms <= high:
        parts.append(_line(LEFT, y(ms), WIDTH - RIGHT, y(ms), "#d8dee4"))
        parts.append(_text(LEFT - 8, y(ms) + 4, f"{ms:g} ms", "end"))
        ms *= 10
    for sessions in sorted({level.sessions for level in levels}):
        parts.append(_text(x(sessions), HEIGHT - BOTTOM + 18, str(sessions), "middle"))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 6, "sessions", "middle"))
    for card, colour in zip(cards, COLOURS, strict=False):
        good = [one for one in card.levels if one.latency.p50 and one.latency.p95]
        middle = [f"{x(one.sessions):.1f},{y(one.latency.p50 or low):.1f}" for one in good]
        upper = [f"{x(one.sessions):.1f},{y(one.latency.p95 or low):.1f}" for one in good]
        band = " ".join(middle + upper[::-1])
        parts.append(f'<polygon points="{band}" fill="{colour}" opacity="0.15"/>')
        line = " ".join(middle)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for one in card.levels:
            at = y(one.latency.p50 or high)
            parts.append(_mark(x(one.sessions), at, colour, failed=bool(one.problem)))
    return "".join([*parts, "</svg>"])


def _mark(x: float, y: float, colour: str, *, failed: bool) -> str:
    if not failed:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    cross = f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"
    return f'<path d="{cross}" stroke="{colour}" stroke-width="2.5"/>'


def waterfall_plot(cards: Sequence[Scorecard]) -> str:
    """For each stage a bar to its median."""
    shown = [
        (label, [card.waterfall.get(name, Spread(0)) for card in cards]) for name, label in STAGES
    ]
    shown = [(label, spreads) for label, spreads in shown if any(one.n for one in spreads)]
    longest = max((one.p95 or 0.0 for _, spreads in shown for one in spreads), default=1.0) or 1.0
    left, height = 130, (ROW * len(cards) + 8) * len(shown) + 8
    scale = (WIDTH - left - 90) / longest
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="stages of an answer">']
    top = 8.0
    for label, spreads in shown:
        parts.append(_text(left - 10, top + ROW * len(cards) / 2 + 2, label, "end"))
        for number, spread in enumerate(spreads):
            at = top + ROW * number
            middle, upper = (spread.p50 or 0.0) * scale, (spread.p95 or 0.0) * scale
            parts.append(
                f'<rect x="{left}" y="{at:.1f}" width="{max(1.0, middle):.1f}" '
                f'height="{ROW - 8}" fill="{COLOURS[number]}"/>'
            )
            centre = at + (ROW - 8) / 2
            parts.append(_line(left + middle, centre, left + upper, centre, COLOURS[number]))
            value = "—" if spread.p50 is None else f"{spread.p50:.0f} ms"
            parts.append(_text(left + max(middle, upper) + 8, centre + 4, value, "start"))
        top += ROW * len(cards) + 8
    return "".join([*parts, "</svg>"])


def _levels(card: Scorecard) -> str:
    head = "".join(
        f"<th>{name}</th>"
        for name in ("sessions", "turns", "failed", "median", "95 %", "99 %", "slowest", "")
    )
    rows = []
    for one in card.levels:
        found = one.latency
        times = (found.p50, found.p95, found.p99, found.max)
        cells = [str(one.sessions), str(one.turns), str(one.failed)]
        cells += ["—" if value is None else f"{value:.0f} ms" for value in times]
        cells.append(escape(one.problem))
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<p>{escape(card.url)}</p><table><tr>{head}</tr>{''.join(rows)}</table>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="1.5"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
