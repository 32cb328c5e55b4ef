"""What the items of a request amount to: who said what, and what is still to be answered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vivavoce.engines.builtin.words import MAX_CHARS
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
    Part,
)

_REMEMBERED = 200
"""So many items back the conversation is remembered: what is older costs time and rarely helps."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The conversation, oldest first, and its open end.

    `said` is what the user said last and awaits an answer, None where the assistant has answered
    it or nobody has spoken; "" is speech without words. `calls` and `outputs` came after it.
    """

    turns: tuple[tuple[str, str], ...] = ()
    said: str | None = None
    shown_image: bool = False
    told: str | None = None
    calls: tuple[FunctionCall, ...] = ()
    outputs: tuple[FunctionCallOutput, ...] = ()
    fresh_outputs: bool = False

    def by(self, role: str) -> Iterator[str]:
        """What this party said, latest first, without the open utterance."""
        return (text for who, text in reversed(self.turns) if who == role)


def read(items: Sequence[Item]) -> Exchange:
    """Read the newest items."""
    turns: list[tuple[str, str]] = []
    calls: list[FunctionCall] = []
    outputs: list[FunctionCallOutput] = []
    said: str | None = None
    told: str | None = None
    shown = False
    for item in items[-_REMEMBERED:]:
        match item:
            case FunctionCall():
                calls.append(item)
            case FunctionCallOutput():
                outputs.append(item)
            case Message(role="system"):
                told = _text(item.content)
            case Message(role="user"):
                if said is not None:
                    turns.append(("user", said))
                said, told = _text(item.content), None
                shown = any(isinstance(part, InputImage) for part in item.content)
                calls, outputs = [], []
            case _:
                if said is not None:
                    turns.append(("user", said))
                turns.append(("assistant", _text(item.content)))
                said, told, shown, outputs = None, None, False, []
    last = items[-1] if items else None
    return Exchange(
        turns=tuple(turns),
        said=said,
        shown_image=shown,
        told=told,
        calls=tuple(calls),
        outputs=tuple(outputs),
        fresh_outputs=isinstance(last, FunctionCallOutput),
    )


def _text(parts: Sequence[Part]) -> str:
    return " ".join(filter(None, (_part(p)[:MAX_CHARS].strip() for p in parts)))


def _part(part: Part) -> str:
    match part:
        case InputText(text) | OutputText(text):
            return text
        case InputAudio() | OutputAudio():
            return part.transcript or ""
        case InputImage():
            return ""
