"""What the user sees: the timeline, the words of both, problems, and a waterfall for each turn."""

import re

from rich.console import Console
from rich.text import Text

from vivavoce.talk.events import Event
from vivavoce.talk.timeline import Line, Timeline
from vivavoce.talk.turn import Turn
from vivavoce.talk.waterfall import drawing

_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # what a server sends must not steer us
_WIDE = 34  # columns of most types
_USER, _ASSISTANT = "you", "assistant"
_STYLES = {_USER: "bold cyan", _ASSISTANT: "bold green"}
_DELTAS = {
    "conversation.item.input_audio_transcription.delta": _USER,
    "response.output_audio_transcript.delta": _ASSISTANT,
    "response.output_text.delta": _ASSISTANT,
}
_WHOLES = {
    "conversation.item.input_audio_transcription.completed": (_USER, "transcript"),
    "response.output_audio_transcript.done": (_ASSISTANT, "transcript"),
    "response.output_text.done": (_ASSISTANT, "text"),
}


class Screen:
    """Writes to a console. Words stream on a line of their own, kept whole between events."""

    def __init__(self, console: Console, *, timeline: bool = True) -> None:
        self._console = console
        self._timeline = Timeline() if timeline else None
        self._line: tuple[str, str] | None = None  # who speaks on the open line, in which item
        self._said: dict[tuple[str, str], str] = {}
        self._turns = 0

    def event(self, at: float, sent: bool, event: Event) -> None:
        """Show an event, `at` seconds after the beginning."""
        if self._timeline is not None:
            self._lines(self._timeline.add(at, sent, event))
        if sent:
            return
        item = event.text("item_id")
        if who := _DELTAS.get(event.type):
            words = event.text("delta")
            before = self._said.get((who, item), "")
            self._stream(who, item, words, goes_on=bool(before))
            self._said[who, item] = before + words
        elif whole := _WHOLES.get(event.type):
            who, key = whole
            words = event.text(key)
            if words.strip() and self._said.pop((who, item), "").strip() != words.strip():
                self._end_line()
                self._stream(who, item, words)
            self._end_line()
        elif event.type == "error" and self._timeline is None:
            self.problem(event.text("error", "message"))

    def turn(self, turn: Turn) -> None:
        """Show what a turn came to, when it is over."""
        self._turns += 1
        self._said.clear()
        self._flush()
        for call in turn.calls:
            self.note(f"calls {call.name}({call.arguments})", "bold yellow")
        self._console.print()
        self._console.print(drawing(turn, f"turn {self._turns}: ms after the question"))
        for problem in turn.problems:
            self.problem(problem)
        self._console.print()

    def note(self, text: str, style: str = "") -> None:
        self._flush()
        self._console.print(Text(_clean(text), style=style), soft_wrap=True)

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
            self._lines(self._timeline.flush())

    def _lines(self, lines: list[Line]) -> None:
        for line in lines:
            self._end_line()
            arrow = "→" if line.sent else "←"
            words = f"{line.at:8.3f} {arrow} {_clean(line.type):<{_WIDE}}  {_clean(line.detail)}"
            text = Text(words.replace("\n", " ").rstrip())
            text.stylize("red" if line.bad else "dim")
            if line.bad:  # a reason is worth more than one line
                self._console.print(text, soft_wrap=True)
            else:
                self._console.print(text, no_wrap=True, overflow="ellipsis")

    def _stream(self, who: str, item: str, words: str, *, goes_on: bool = False) -> None:
        """Words of one item share a line; those of two turns may come in between each other."""
        if self._line != (who, item):
            self._end_line()
            self._console.print(Text(f"{who}: ", style=_STYLES[who]), end="")
            words = f"… {words.lstrip()}" if goes_on else words
            self._line = (who, item)
        self._console.print(Text(_clean(words)), end="", soft_wrap=True)
        self._console.file.flush()

    def _end_line(self) -> None:
        if self._line:
            self._console.print()
            self._line = None


def _clean(text: str) -> str:
    return _CONTROLS.sub(" ", text)
