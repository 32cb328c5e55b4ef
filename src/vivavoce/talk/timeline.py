"""Events as lines of a timeline, runs of equal deltas folded into one. Pure."""

from dataclasses import dataclass, field

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.talk.events import Event

_MOST_KEPT = 200  # characters of a run's text: a line shows fewer


@dataclass(frozen=True, slots=True)
class Line:
    """One line: seconds since the connection began, direction, type and what else is to say."""

    at: float
    sent: bool
    type: str
    detail: str = ""
    bad: bool = False


@dataclass(slots=True)
class _Run:
    at: float
    sent: bool
    type: str
    count: int = 0
    sound: int = 0
    text: str = ""

    def add(self, event: Event) -> None:
        self.count += 1
        if pcm := event.sound() if _holds_sound(event.type) else b"":
            self.sound += len(pcm)
        elif len(self.text) < _MOST_KEPT:
            self.text += event.text("delta")

    def line(self) -> Line:
        detail = f"×{self.count}"  # noqa: RUF001  a multiplication sign is meant
        if self.sound:
            detail += f", {self.sound / BYTES_PER_MS / 1000:.2f} s"
        if self.text:
            detail += f" {quoted(self.text)}"
        return Line(self.at, self.sent, self.type, detail)


@dataclass(slots=True)
class Timeline:
    """Deltas of several kinds come interleaved: each kind makes a line, all of them at once when
    something else happens."""

    _runs: dict[tuple[bool, str], _Run] = field(default_factory=dict)

    def add(self, at: float, sent: bool, event: Event) -> list[Line]:
        """The lines that are ready now, in order of their beginnings."""
        if event.type.endswith(".delta") or event.type == "input_audio_buffer.append":
            run = self._runs.setdefault((sent, event.type), _Run(at, sent, event.type))
            run.add(event)
            return []
        line = Line(at, sent, event.type, detail(event), _is_bad(event))
        return [*self.flush(), line]

    def flush(self) -> list[Line]:
        """What is still folded."""
        runs, self._runs = self._runs, {}
        return [run.line() for run in runs.values()]


def detail(event: Event) -> str:
    """What a reader wants to know of an event, in a few words."""
    match event.type:
        case "error":
            return event.text("error", "message")
        case "session.created" | "session.updated":
            return _session(event)
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
            return _ending(event)
        case _:
            return _item(event) or event.text("response", "id") or event.text("item_id")


def quoted(text: str) -> str:
    return f"“{text}”"


def _session(event: Event) -> str:
    voice = event.text("session", "audio", "output", "voice")
    served = event.text("session", "served_by", "model")
    parts = [event.text("session", "id"), event.text("session", "model")]
    parts += [f"served by {served}" if served else "", f"voice {voice}" if voice else ""]
    return ", ".join(part for part in parts if part)


def _ending(event: Event) -> str:
    status = event.text("response", "status")
    message = event.text("response", "status_details", "error", "message")
    reason = message or event.text("response", "status_details", "reason")
    return f"{status}: {reason}" if reason else status


def _item(event: Event) -> str:
    match event.text("item", "type"):
        case "message":
            return f"{event.text('item', 'role')} message {event.text('item', 'id')}".rstrip()
        case "function_call":
            return f"{event.text('item', 'name')}({event.text('item', 'arguments')})"
        case kind:
            return kind


def _is_bad(event: Event) -> bool:
    failed = event.type == "response.done" and event.text("response", "status") == "failed"
    return failed or event.type == "error" or event.type.endswith(".failed")


def _holds_sound(kind: str) -> bool:
    return kind in ("input_audio_buffer.append", "response.output_audio.delta")
