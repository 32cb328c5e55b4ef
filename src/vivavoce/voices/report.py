"""The result of a study: in the terminal, as CSV, and as one HTML page with plots."""

import csv
from collections.abc import Iterable
from html import escape as html
from io import StringIO
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vivavoce.voices.measures import VoiceMeasures
from vivavoce.voices.ranking import (
    RankedVoice,
    ScaleScore,
    agreement,
    bradley_terry,
    scale_scores,
)
from vivavoce.voices.study import VoiceStudy

WIDTH: Final = 900
_MEASURES: Final = (
    ("words_per_minute", "words/min", 0),
    ("lufs", "LUFS", 1),
    ("pause_share", "pauses", 2),
    ("longest_pause_ms", "longest pause, ms", 0),
    ("first_chunk_ms", "first chunk, ms", 0),
    ("realtime_factor", "real-time factor", 2),
    ("word_error_rate", "word errors", 2),
    ("usd_per_minute", "USD/min", 4),
)
_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #1c2430; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid #e3e7ee; }
td:first-child, th:first-child { text-align: left; }
.about { color: #566074; } svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: #1c2430; } .grid { stroke: #d5dbe5; }
.interval { stroke: #3a6ea5; stroke-width: 3; } .point { fill: #1c4f86; }
"""


def ranking_of(study: VoiceStudy) -> list[RankedVoice]:
    """The voices by the answers so far, the preferred first."""
    return bradley_terry(study.labels, study.comparisons())


def print_ranking(study: VoiceStudy, console: Console) -> None:
    """Order, intervals and measures as tables."""
    ranked, measures = ranking_of(study), study.measures()
    table = Table("voice", "strength", "95 %", "preferred", "answers", box=None)
    for each in ranked:
        table.add_row(
            escape(each.voice),
            f"{each.strength:+.2f}",
            f"{each.low:+.2f} to {each.high:+.2f}",
            f"{each.chance:.0%}",
            str(each.comparisons),
        )
    console.print(table)
    scores = scale_scores(study.labels, study.scores())
    if scores:
        table = Table("scale", "voice", "mean", "95 %", "answers", box=None)
        for score in scores:
            interval = f"{score.low:.2f} to {score.high:.2f}"
            table.add_row(
                score.scale, escape(score.voice), f"{score.mean:.2f}", interval, str(score.answers)
            )
        console.print(table)
    table = Table("voice", *(title for _, title, _ in _MEASURES), box=None)
    for each in ranked:
        table.add_row(escape(each.voice), *_cells(measures[each.voice]))
    console.print(table)


def _cells(measures: VoiceMeasures) -> list[str]:
    found = []
    for name, _, digits in _MEASURES:
        value = getattr(measures, name)
        found.append("" if value is None else f"{value:.{digits}f}")
    return found


def as_csv(study: VoiceStudy) -> str:
    """One line a voice: strength, interval, mean scores and measures."""
    measures, scores = study.measures(), scale_scores(study.labels, study.scores())
    scales = sorted({score.scale for score in scores})
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for name, _, _ in _MEASURES]
    head = ["rank", "voice", "strength", "low", "high", "chance", "answers"]
    writer.writerow([*head, *scales, "seconds", *names])
    for rank, each in enumerate(ranking_of(study), 1):
        means = {score.scale: score.mean for score in scores if score.voice == each.voice}
        own = measures[each.voice]
        figures = [each.strength, each.low, each.high, each.chance]
        writer.writerow(
            [
                *(rank, each.voice),
                *(f"{figure:.4f}" for figure in figures),
                each.comparisons,
                *(f"{means[scale]:.3f}" if scale in means else "" for scale in scales),
                f"{own.seconds:.2f}",
                *("" if (v := getattr(own, name)) is None else f"{v:.6g}" for name in names),
            ]
        )
    return text.getvalue()


def as_html(study: VoiceStudy) -> str:
    """One page without scripts or a network."""
    ranked, measures = ranking_of(study), study.measures()
    answers = len(study.ratings)
    raters = len({rating.rater for rating in study.ratings})
    rows = "".join(
        f"<tr><td>{html(each.voice)}</td><td>{each.strength:+.2f}</td>"
        f"<td>{each.low:+.2f} to {each.high:+.2f}</td><td>{each.chance:.0%}</td>"
        f"<td>{each.comparisons}</td></tr>"
        for each in ranked
    )
    own = "".join(
        f"<tr><td>{html(each.voice)}</td>"
        + "".join(f"<td>{cell}</td>" for cell in _cells(measures[each.voice]))
        + "</tr>"
        for each in ranked
    )
    titles = "".join(f"<th>{title}</th>" for _, title, _ in _MEASURES)
    agreed = "".join(
        f"<tr><td>{html(name)}</td><td>{share:.0%}</td></tr>"
        for name, share in agreement(ranked, study.comparisons()).items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Voices, ranked</title><style>{_STYLE}</style></head><body><h1>Voices, ranked</h1>"
        f'<p class="about">{answers} answers of {raters} raters about {len(ranked)} voices. The '
        "strength is in log odds against the mean of all (Bradley-Terry), with 95 % intervals: "
        "voices whose intervals overlap widely are not told apart.</p>"
        f"{_plot([(r.voice, r.strength, r.low, r.high) for r in ranked], 'Strength, log odds')}"
        "<table><tr><th>voice</th><th>strength</th><th>95 %</th><th>preferred to the mean</th>"
        f"<th>answers</th></tr>{rows}</table>"
        f"{_scales(scale_scores(study.labels, study.scores()))}"
        f"<h2>Measured</h2><table><tr><th>voice</th>{titles}</tr>{own}</table>"
        "<h2>Raters</h2><table><tr><th>rater</th><th>answers that agree with the order</th></tr>"
        f"{agreed}</table></body></html>\n"
    )


def _scales(scores: list[ScaleScore]) -> str:
    parts = []
    for scale in dict.fromkeys(score.scale for score in scores):
        points = [
            (s.voice, s.mean, max(1.0, s.low), min(5.0, s.high)) for s in scores if s.scale == scale
        ]
        parts.append(f"<h2>{html(scale.capitalize())}</h2>{_plot(points, 'Score, 1 to 5')}")
    return "".join(parts)


def _plot(points: Iterable[tuple[str, float, float, float]], title: str) -> str:
    """A point and an interval for each voice, as SVG."""
    rows = list(points)
    if not rows:
        return ""
    low, high = min(row[2] for row in rows), max(row[3] for row in rows)
    span = (high - low) or 1.0
    left, right = 230, WIDTH - 20

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / span

    shapes = []
    for number in range(5):
        value = low + span * number / 4
        shapes.append(
            f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="8" '
            f'y2="{len(rows) * 24 + 10}"/><text x="{x(value) - 14:.1f}" '
            f'y="{len(rows) * 24 + 26}">{value:.1f}</text>'
        )
    for number, (voice, middle, least, most) in enumerate(rows):
        y = 22 + number * 24
        shapes.append(
            f'<text x="2" y="{y + 4}">{html(voice)}</text>'
            f'<line class="interval" x1="{x(least):.1f}" x2="{x(most):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="point" cx="{x(middle):.1f}" cy="{y}" r="5"/>'
        )
    height = len(rows) * 24 + 34
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html(title)}">'
        f"{''.join(shapes)}</svg>"
    )
