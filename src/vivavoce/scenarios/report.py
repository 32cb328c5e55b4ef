"""The report of scenarios: in the terminal, as JUnit XML, and as one HTML page."""

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape as html
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import numpy as np
from rich.console import Console
from rich.markup import escape

from vivavoce.audio.formats import RATE
from vivavoce.media.encoding import FileEncoder
from vivavoce.scenarios.assertions import (
    CheckState,
    ScenarioCheck,
    ScenarioCost,
    first_audio_times,
)
from vivavoce.scenarios.conversation import ScenarioRun
from vivavoce.scenarios.files import ScenarioFile
from vivavoce.scenarios.turns import ScenarioTurn, mixed, track

COLOURS: Final[dict[CheckState, str]] = {"passed": "green", "failed": "red", "skipped": "yellow"}
MP3_PIECE: Final = 2 * RATE
ENVELOPE_POINTS: Final = 400
CHART_WIDTH: Final = 900
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True)
class ScenarioResult:
    """One scenario, what happened, and what it came to."""

    file: Path
    scenario: ScenarioFile
    run: ScenarioRun
    cost: ScenarioCost
    checks: list[ScenarioCheck] = field(default_factory=list)

    def count(self, state: CheckState) -> int:
        return sum(check.state == state for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.count("failed")


# --- terminal


def print_result(result: ScenarioResult, console: Console) -> None:
    """One line, the turns with their times, and everything that failed or was skipped."""
    state: CheckState = "passed" if result.passed else "failed"
    console.print(
        f"[{COLOURS[state]}]{state}[/{COLOURS[state]}] "
        f"[bold]{escape(result.scenario.name)}[/bold]  "
        f"{result.count('passed')} of {len(result.checks)} checks, {result.run.seconds:.1f} s, "
        f"{escape(result.cost.text)}",
        highlight=False,
        soft_wrap=True,
    )
    for turn in result.run.recorder.turns:
        times = ", ".join(f"{name} {ms:.0f} ms" for name, ms in moments(turn))
        console.print(f"    user: {escape(turn.text)}", highlight=False, soft_wrap=True)
        console.print(
            f"    assistant: {escape(turn.answer or '(nothing)')}  [dim]{times}[/dim]",
            highlight=False,
            soft_wrap=True,
        )
    for check in result.checks:
        if check.state != "passed":
            console.print(
                f"  [{COLOURS[check.state]}]{check.state}[/{COLOURS[check.state]}] "
                f"{escape(check.place)}: {escape(check.what)}: {escape(check.message)}",
                highlight=False,
                soft_wrap=True,
            )


def moments(turn: ScenarioTurn) -> Iterator[tuple[str, float]]:
    """Name and milliseconds of each moment after the user's part that was reached, by time."""
    found = [
        ("end of turn", turn.ms(turn.stopped)),
        ("transcript", turn.ms(turn.transcribed)),
        ("first words", turn.ms(turn.first_token)),
        ("first audio", turn.ms(turn.first_audio)),
        ("done", turn.ms(turn.done)),
    ]
    reached = [(name, ms) for name, ms in found if ms is not None]
    return iter(sorted(reached, key=lambda each: each[1]))


# --- JUnit


def as_junit(results: Iterable[ScenarioResult]) -> str:
    """One test suite a scenario, one test case a check."""
    root = ElementTree.Element("testsuites", name="vivavoce run")
    for result in results:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(result.scenario.name),
            file=str(result.file),
            tests=str(len(result.checks)),
            failures=str(result.count("failed")),
            skipped=str(result.count("skipped")),
            time=f"{result.run.seconds:.3f}",
        )
        for check in result.checks:
            name = f"{check.place}: {check.what}"
            case = ElementTree.SubElement(
                suite, "testcase", classname=_xml(result.scenario.name), name=_xml(name)
            )
            if check.state != "passed":
                kind = "failure" if check.state == "failed" else "skipped"
                ElementTree.SubElement(case, kind, message=_xml(check.message))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold, XML 1.0, 2.2."""
    return _NOT_XML.sub("?", text)


# --- HTML

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color: #1c2430; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
td, th { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #e3e7ee;
  vertical-align: top; }
.passed { color: #16703c; } .failed { color: #b3261e; font-weight: 600; }
.skipped { color: #8a6d00; }
audio { width: 100%; margin: .5rem 0; } svg { width: 100%; height: auto; display: block; }
.about { color: #566074; } svg text { font: 11px system-ui, sans-serif; fill: #566074; }
.user { fill: #3a6ea5; } .assistant { fill: #d1793b; } .grid { stroke: #e3e7ee; }
.bar { fill: #9db8d6; } .last { fill: #d1793b; }
"""


def as_html(results: list[ScenarioResult], server: str) -> str:
    """One page: checks, sound, time line and waterfall of each scenario. Encodes MP3: blocks."""
    failed = sum(not result.passed for result in results)
    state = "failed" if failed else "passed"
    summary = f"{len(results) - failed} of {len(results)} scenarios passed"
    rows = "".join(
        f'<tr><td class="{"passed" if r.passed else "failed"}">'
        f"{'passed' if r.passed else 'failed'}</td>"
        f'<td><a href="#s{place}">{html(r.scenario.name)}</a></td>'
        f"<td>{r.count('passed')} of {len(r.checks)}</td><td>{r.run.seconds:.1f} s</td>"
        f"<td>{_median(r)}</td><td>{html(r.cost.text)}</td></tr>"
        for place, r in enumerate(results)
    )
    head = "<tr><th></th><th>scenario</th><th>checks</th><th>lasts</th><th>first audio, median</th>"
    sections = "".join(_section(place, result) for place, result in enumerate(results))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html(summary)}</title><style>{_STYLE}</style></head><body>"
        f'<h1><span class="{state}">{html(summary)}</span></h1><p class="about">{html(server)}</p>'
        f"<table>{head}<th>cost</th></tr>{rows}</table>{sections}</body></html>\n"
    )


def _median(result: ScenarioResult) -> str:
    times = first_audio_times(result.run)
    return f"{np.median(times):.0f} ms" if times else ""


def _section(place: int, result: ScenarioResult) -> str:
    run = result.run
    user = track(run.recorder.user, run.seconds)
    assistant = track(run.recorder.playback.stretches, run.seconds)
    checks = "".join(
        f'<tr><td class="{c.state}">{c.state}</td><td>{html(c.place)}</td><td>{html(c.what)}</td>'
        f"<td>{html(c.message)}</td></tr>"
        for c in result.checks
    )
    words = "".join(
        f"<tr><td>{turn.begun:.1f} s</td><td>{html(turn.text)}</td>"
        f"<td>{html(turn.answer or '(nothing)')}{_calls(turn)}</td></tr>"
        for turn in run.recorder.turns
    )
    sound = base64.b64encode(_mp3(mixed(user, assistant))).decode()
    return (
        f'<section id="s{place}"><h2>{html(result.scenario.name)}</h2>'
        f'<p class="about">{html(result.scenario.about)}</p><table>{checks}</table>'
        f'<audio controls preload="metadata" src="data:audio/mpeg;base64,{sound}"></audio>'
        f"{timeline(user, assistant, run.seconds)}"
        f"<table><tr><th>at</th><th>user</th><th>assistant</th></tr>{words}</table>"
        f"{waterfall(run.recorder.turns)}</section>"
    )


def _calls(turn: ScenarioTurn) -> str:
    return "".join(f"<br><code>{html(f'{c.name} {c.arguments}')}</code>" for c in turn.calls)


def _mp3(pcm: bytes) -> bytes:
    encoder = FileEncoder("mp3")
    made = bytearray()
    for start in range(0, len(pcm), MP3_PIECE):
        made += encoder.feed(pcm[start : start + MP3_PIECE])
    return bytes(made + encoder.finish())


def timeline(user: bytes, assistant: bytes, seconds: float) -> str:
    """Both tracks over time, as SVG: the user above the line, the assistant below it."""
    height, middle = 130, 58
    shapes = []
    for pcm, direction, name in ((user, -1, "user"), (assistant, 1, "assistant")):
        levels = envelope(pcm, ENVELOPE_POINTS)
        step = CHART_WIDTH / ENVELOPE_POINTS
        points = [
            f"{i * step:.1f},{middle + direction * (1 + 50 * v):.1f}" for i, v in enumerate(levels)
        ]
        shapes.append(
            f'<polygon class="{name}" points="0,{middle} {" ".join(points)} '
            f'{CHART_WIDTH},{middle}"/>'
        )
    marks = "".join(
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="112"/>'
        f'<text x="{x + 2:.1f}" y="126">{at:g} s</text>'
        for at, x in _ticks(seconds)
    )
    return (
        f'<svg viewBox="0 0 {CHART_WIDTH} {height}" role="img" aria-label="Both tracks over time">'
        f'{marks}{"".join(shapes)}<text x="2" y="12">user</text>'
        f'<text x="2" y="108">assistant</text>'
        f"</svg>"
    )


def envelope(pcm: bytes, points: int) -> list[float]:
    """The loudest sample of each of so many equal parts, 0..1."""
    samples = np.abs(np.frombuffer(pcm, "<i2").astype(np.float32)) / 32768
    if samples.size < points:
        samples = np.pad(samples, (0, points - samples.size))
    parts = samples[: samples.size // points * points].reshape(points, -1)
    return [float(value) for value in parts.max(axis=1)]


def _ticks(most: float, count: int = 8) -> Iterator[tuple[float, float]]:
    """Round values from 0 to `most`, and their places in the chart."""
    if most <= 0:
        return
    step = 10.0 ** np.floor(np.log10(most / count))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= count)
    for number in range(int(most / step) + 1):
        yield round(number * float(step), 6), CHART_WIDTH * number * float(step) / most


def waterfall(turns: list[ScenarioTurn]) -> str:
    """How long each turn waited for what, from the end of the user's part, as SVG."""
    rows = [(turn, list(moments(turn))) for turn in turns]
    rows = [(turn, reached) for turn, reached in rows if reached]
    if not rows:
        return ""
    most = max(ms for _, reached in rows for _, ms in reached) or 1.0
    shapes, y = [], 4
    for turn, reached in rows:
        shapes.append(f'<text x="2" y="{y + 10}">{html(turn.text[:90])}</text>')
        y += 16
        before = 0.0
        for name, ms in reached:
            x, width = CHART_WIDTH * 0.86 * before / most, CHART_WIDTH * 0.86 * (ms - before) / most
            kind = "last" if name == "first audio" else "bar"
            shapes.append(
                f'<rect class="{kind}" x="{max(0.0, x):.1f}" y="{y}" width="{max(1.0, width):.1f}" '
                f'height="10"/><text x="{max(0.0, x) + max(1.0, width) + 4:.1f}" y="{y + 9}">'
                f"{name} {ms:.0f} ms</text>"
            )
            before, y = max(0.0, ms), y + 14
        y += 8
    return (
        f'<svg viewBox="0 0 {CHART_WIDTH} {y}" role="img" '
        f'aria-label="Latency of each turn">{"".join(shapes)}</svg>'
    )
