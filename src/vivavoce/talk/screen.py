"""The output of `talk`: a timeline of events, the words of both sides, and the latency of each
turn."""

import re
from dataclasses import dataclass, field
from typing import Final

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.talk.client import Event
from vivavoce.talk.turn import Turn, TurnKind, TurnTimes

MAX_RUN_CHARS: Final = 200
"""Characters of a run of deltas that are kept: a line shows fewer."""
_CONTROLS: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_TYPE_COLUMNS: Final = 34  # wide enough for most types
_BAR_COLUMNS: Final = 40
_BAR_COLORS: Final = ("cyan", "blue", "magenta", "yellow", "green", "white")
_USER, _ASSISTANT = "you", "assistant"
_STYLES: Final = {_USER: "bold cyan", _ASSISTANT: "bold green"}
_DELTAS: Final = {
    "conversation.item.input_audio_transcription.delta": _USER,
    "response.output_audio_transcript.delta": _ASSISTANT,
    "response.output_text.delta": _ASSISTANT,
}
_WHOLE_TEXTS: Final = {
    "conversation.item.input_audio_transcription.completed": (_USER, "transcript"),
    "response.output_audio_transcript.done": (_ASSISTANT, "transcript"),
    "response.output_text.done": (_ASSISTANT, "text"),
}


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """Seconds since the connection began, direction, event type, and a short detail."""

    at: float
    sent: bool
    type: str
    detail: str = ""
    failed: bool = False


@dataclass(slots=True)
class _DeltaRun:
    """Deltas of one type that are shown as one row."""

    at: float
    sent: bool
    type: str
    count: int = 0
    audio_bytes: int = 0
    text: str = ""

    def add(self, event: Event) -> None:
        self.count += 1
        has_audio = event.type in ("input_audio_buffer.append", "response.output_audio.delta")
        if has_audio and (pcm := event.pcm()):
            self.audio_bytes += len(pcm)
        elif len(self.text) < MAX_RUN_CHARS:
            self.text += event.text("delta")

    def row(self) -> TimelineRow:
        detail = f"×{self.count}"  # noqa: RUF001  a multiplication sign is meant
        if self.audio_bytes:
            detail += f", {self.audio_bytes / BYTES_PER_MS / 1000:.2f} s"
        if self.text:
            detail += f" {quoted(self.text)}"
        return TimelineRow(self.at, self.sent, self.type, detail)


@dataclass(slots=True)
class Timeline:
    """Events as rows. Deltas of several types may alternate: each type makes one row, and these
    rows end with the next other event."""

    _runs: dict[tuple[bool, str], _DeltaRun] = field(default_factory=dict)

    def add(self, at: float, sent: bool, event: Event) -> list[TimelineRow]:
        """The rows that are complete now, in the order in which they began."""
        if event.type.endswith(".delta") or event.type == "input_audio_buffer.append":
            run = self._runs.setdefault((sent, event.type), _DeltaRun(at, sent, event.type))
            run.add(event)
            return []
        row = TimelineRow(at, sent, event.type, detail(event), _has_failed(event))
        return [*self.flush(), row]

    def flush(self) -> list[TimelineRow]:
        """The rows of the deltas so far."""
        runs, self._runs = self._runs, {}
        return [run.row() for run in runs.values()]


def detail(event: Event) -> str:
    """The part of an event that matters to a reader, in a few words."""
    match event.type:
        case "error":
            return event.text("error", "message")
        case "session.created" | "session.updated":
            return _session_detail(event)
        case "session.update":
            return ", ".join(sorted(event.get("session") or {}))
        case "input_audio_buffer.speech_started":
            return f"at {event.get('audio_start_ms')} ms"
        case "input_audio_buffer.speech_stopped":
            return f"at {event.get('audio_end_ms')} ms"
        case "conversation.item.input_audio_transcription.completed":
            return quoted(event.text("transcript"))
        case "conversation.item.input_audio_transcription.failed":
            return event.text("error", "message")
        case "conversation.item.truncate" | "conversation.item.truncated":
            return f"{event.text('item_id')} heard up to {event.get('audio_end_ms')} ms"
        case "response.output_audio_transcript.done":
            return quoted(event.text("transcript"))
        case "response.output_text.done":
            return quoted(event.text("text"))
        case "response.done":
            return _response_detail(event)
        case _:
            return _item_detail(event) or event.text("response", "id") or event.text("item_id")


def quoted(text: str) -> str:
    return f"“{text}”"


def _session_detail(event: Event) -> str:
    voice = event.text("session", "audio", "output", "voice")
    served = event.text("session", "served_by", "model")
    parts = [event.text("session", "id"), event.text("session", "model")]
    parts += [f"served by {served}" if served else "", f"voice {voice}" if voice else ""]
    return ", ".join(part for part in parts if part)


def _response_detail(event: Event) -> str:
    status = event.text("response", "status")
    message = event.text("response", "status_details", "error", "message")
    reason = message or event.text("response", "status_details", "reason")
    return f"{status}: {reason}" if reason else status


def _item_detail(event: Event) -> str:
    match event.text("item", "type"):
        case "message":
            return f"{event.text('item', 'role')} message {event.text('item', 'id')}".rstrip()
        case "function_call":
            return f"{event.text('item', 'name')}({event.text('item', 'arguments')})"
        case kind:
            return kind


def _has_failed(event: Event) -> bool:
    failed = event.type == "response.done" and event.text("response", "status") == "failed"
    return failed or event.type == "error" or event.type.endswith(".failed")


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """When a step was reached, in milliseconds from the end of the question.

    `since`: the last step above it that had been reached by then, at which its bar begins. If `ms`
    is None it was not reached, and `note` says why.
    """

    name: str
    ms: float | None
    since: float = 0.0
    note: str = ""


def latency_rows(times: TurnTimes, kind: TurnKind) -> list[LatencyRow]:
    """The steps of a turn from the end of the question on; times before that are negative."""
    spoken = kind == "spoken"
    not_spoken = "" if spoken else "a typed turn has none"
    steps = [
        ("turn decision", times.decided, not_spoken or "no end of speech came"),
        ("transcript", times.transcribed, not_spoken or "no transcript came"),
        ("first token", times.token, "no item and no text came"),
        ("first audio", times.audio, "no audio came"),
        ("done", times.done, "the response did not end"),
    ]
    origin = times.asked
    if origin is None:  # nothing loud was found in the question
        origin = next((at for _, at, _ in steps if at is not None), 0.0)
    rows = [LatencyRow("speech end" if spoken else "question sent", 0.0)]
    for name, at, note in steps:
        if at is None:
            rows.append(LatencyRow(name, None, note=note))
            continue
        ms = 1000 * (at - origin)
        before = [row.ms for row in rows if row.ms is not None and row.ms <= ms]
        rows.append(LatencyRow(name, ms, before[-1] if before else ms))
    return rows


def latency_table(turn: Turn, title: str) -> Table:
    """The steps of a turn in milliseconds, with bars to scale (a waterfall)."""
    rows = latency_rows(turn.times, turn.kind)
    reached = [row.ms for row in rows if row.ms is not None]
    span = max(max(reached), 1.0)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("+ms", justify="right", style="dim", no_wrap=True)
    table.add_column("", width=_BAR_COLUMNS, no_wrap=True)
    for row, color in zip(rows, _BAR_COLORS, strict=True):
        if row.ms is None:
            table.add_row(row.name, "-", "", Text(row.note, style="dim italic"))
            continue
        bar = Bar(span, max(row.since, 0.0), max(row.ms, 0.0), width=_BAR_COLUMNS, color=color)
        table.add_row(row.name, f"{row.ms:.0f}", f"{row.ms - row.since:+.0f}", bar)
    return table


class Screen:
    """Writes to a console. The words of an item are streamed on one line."""

    def __init__(self, console: Console, *, timeline: bool = True) -> None:
        self._console = console
        self._timeline = Timeline() if timeline else None
        self._open_line: tuple[str, str] | None = None  # speaker and item
        self._shown: dict[tuple[str, str], str] = {}
        self._turns = 0

    def event(self, at: float, sent: bool, event: Event) -> None:
        """Show an event, `at` seconds after the beginning."""
        if self._timeline is not None:
            self._print_rows(self._timeline.add(at, sent, event))
        if sent:
            return
        item = event.text("item_id")
        if speaker := _DELTAS.get(event.type):
            words = event.text("delta")
            before = self._shown.get((speaker, item), "")
            self._stream(speaker, item, words, continued=bool(before))
            self._shown[speaker, item] = before + words
        elif whole := _WHOLE_TEXTS.get(event.type):
            speaker, key = whole
            words = event.text(key)
            if words.strip() and self._shown.pop((speaker, item), "").strip() != words.strip():
                self._end_line()
                self._stream(speaker, item, words)
            self._end_line()
        elif event.type == "error" and self._timeline is None:
            self.problem(event.text("error", "message"))

    def turn(self, turn: Turn) -> None:
        """Show the calls, times and problems of a turn that is over."""
        self._turns += 1
        self._shown.clear()
        self._flush()
        for call in turn.calls:
            self.note(f"calls {call.name}({call.arguments})", "bold yellow")
        self._console.print()
        self._console.print(latency_table(turn, f"turn {self._turns}: ms after the question"))
        for problem in turn.problems:
            self.problem(problem)
        self._console.print()

    def note(self, text: str, style: str = "") -> None:
        self._flush()
        self._console.print(Text(_without_controls(text), style=style), soft_wrap=True)

    def problem(self, text: str) -> None:
        self.note(text, "bold red")

    def prompt(self) -> None:
        """Ask the user to type."""
        self._flush()
        self._console.print(Text(f"{_USER}> ", style=_STYLES[_USER]), end="")
        self._console.file.flush()

    def _flush(self) -> None:
        self._end_line()
        if self._timeline is not None:
            self._print_rows(self._timeline.flush())

    def _print_rows(self, rows: list[TimelineRow]) -> None:
        for row in rows:
            self._end_line()
            arrow = "→" if row.sent else "←"
            type_, about = _without_controls(row.type), _without_controls(row.detail)
            words = f"{row.at:8.3f} {arrow} {type_:<{_TYPE_COLUMNS}}  {about}"
            text = Text(words.replace("\n", " ").rstrip())
            text.stylize("red" if row.failed else "dim")
            if row.failed:  # a reason may need more than one line
                self._console.print(text, soft_wrap=True)
            else:
                self._console.print(text, no_wrap=True, overflow="ellipsis")

    def _stream(self, speaker: str, item: str, words: str, *, continued: bool = False) -> None:
        """Add words to the line of an item. If the open line is another item's, a new line begins
        with … ."""
        if self._open_line != (speaker, item):
            self._end_line()
            self._console.print(Text(f"{speaker}: ", style=_STYLES[speaker]), end="")
            words = f"… {words.lstrip()}" if continued else words
            self._open_line = (speaker, item)
        self._console.print(Text(_without_controls(words)), end="", soft_wrap=True)
        self._console.file.flush()

    def _end_line(self) -> None:
        if self._open_line:
            self._console.print()
            self._open_line = None


def _without_controls(text: str) -> str:
    return _CONTROLS.sub(" ", text)
