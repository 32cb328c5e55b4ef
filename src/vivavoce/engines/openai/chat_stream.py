"""Chunks of a streamed chat completion in, chat events out. No sockets.

Servers differ. Anything may be null or missing; a call's index may be missing, be 0 for every
call, or count on within one call; an id may be missing, repeated, or new in each chunk; arguments
may come whole, as an object, or before the name.
"""

import secrets
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatUsage,
    TextDelta,
)
from vivavoce.engines.openai.thoughts import Thoughts


class _Piece(msgspec.Struct):
    text: str | None = None
    type: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _CallPart(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | list[_Piece] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_CallPart] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None  # of an answer that was not streamed
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """One event of the stream, or a whole answer of a server that does not stream."""

    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None

    @property
    def failure(self) -> Any:
        """What went wrong on the server, in one of many shapes; None if nothing did."""
        if self.error is not None:
            return self.error
        failed = self.choices and self.choices[0].finish_reason == "error"
        return "error" if failed else None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


_decoder = msgspec.json.Decoder(Chunk, strict=False)


def decode(data: str | bytes) -> Chunk:
    """Raises ValueError: not a chunk."""
    return _decoder.decode(data)


@dataclass(slots=True)
class _Call:
    index: int | None
    id: str = ""
    name: str = ""
    arguments: str = ""
    told: int = -1  # characters of the arguments that have gone out; -1: not started


class ChatStream:
    """One answer. feed() every chunk, then end() once."""

    def __init__(self) -> None:
        self.begun = False
        """A token has come, be it of a thought."""
        self.finished = False
        """The model has said that it is done; usage may follow."""
        self._reason: Literal["stop", "length", "content_filter"] = "stop"
        self._usage: ChatUsage | None = None
        self._thoughts = Thoughts()
        self._calls: list[_Call] = []
        self._ids: set[str] = set()

    def feed(self, chunk: Chunk) -> list[ChatEvent]:
        """What the chunk adds to the answer.

        Only the first call is told as it comes. A server may turn back to an earlier call, which
        the contract of engines forbids, so the others wait for the end.
        """
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage) or self._usage
        if not chunk.choices:
            return []
        choice = chunk.choices[0]
        if choice.finish_reason:
            self.finished = True
            if choice.finish_reason in ("length", "content_filter"):
                self._reason = choice.finish_reason  # type: ignore[assignment]  # mypy forgets
        delta = choice.delta or choice.message
        if delta is None:
            return []
        text = _text(delta)
        if text or delta.tool_calls or delta.reasoning_content or delta.reasoning:
            self.begun = True
        events: list[ChatEvent] = []
        if spoken := self._thoughts.feed(text):
            events.append(TextDelta(spoken))
        for part in delta.tool_calls or ():
            self._add(part)
        if self._calls:
            events += self._tell(0)
        return events

    def end(self) -> list[ChatEvent]:
        """What was held back, and ChatEnded. Raises ValueError: a call never got its name."""
        events: list[ChatEvent] = []
        if spoken := self._thoughts.close():
            events.append(TextDelta(spoken))
        if any(call.arguments and not call.name for call in self._calls):
            raise ValueError("a function call without a name")
        self._calls = [call for call in self._calls if call.name]
        for index, call in enumerate(self._calls):
            call.arguments = call.arguments or "{}"  # clients parse it
            events += self._tell(index)
        return [*events, ChatEnded(self._reason, self._usage)]

    def _tell(self, index: int) -> list[ChatEvent]:
        call = self._calls[index]
        if not call.name:
            return []
        events: list[ChatEvent] = []
        if call.told < 0:
            call_id = call.id
            if not call_id or call_id in self._ids:
                call_id = f"call_{secrets.token_hex(12)}"
            self._ids.add(call_id)
            call.told = 0
            events.append(CallStarted(index, call_id, call.name))
        if fresh := call.arguments[call.told :]:
            call.told = len(call.arguments)
            events.append(CallDelta(index, fresh))
        return events

    def _add(self, part: _CallPart) -> None:
        function = part.function or _Function()
        call = self._find(part, function.name or "")
        if not call.name:
            call.name = function.name or ""
        if not call.id and part.id:
            call.id = part.id
        if isinstance(function.arguments, dict):
            call.arguments += msgspec.json.encode(function.arguments).decode()
        else:
            call.arguments += function.arguments or ""

    def _find(self, part: _CallPart, name: str) -> _Call:
        call = self._same(part, name)
        if call is None:
            call = _Call(part.index)
            self._calls.append(call)
        return call

    def _same(self, part: _CallPart, name: str) -> _Call | None:
        """The call that the part goes on with; None if it begins one."""
        if not self._calls:
            return None
        here = [c for c in self._calls if part.index in (None, c.index)]
        if not here:
            return None if name else self._calls[-1]
        call = next((c for c in here if part.id and c.id == part.id), here[-1])
        if not name or not call.name:
            return call
        if part.id and call.id:
            return call if part.id == call.id else None
        return call if name == call.name and not _whole(call.arguments) else None


def _text(delta: _Delta) -> str:
    content = delta.content or delta.refusal or ""
    if isinstance(content, str):
        return content
    return "".join(piece.text or "" for piece in content if piece.type in (None, "text"))


def _whole(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments, type=dict)
    except ValueError:
        return False
    return True


def _usage(value: Any) -> ChatUsage | None:
    try:
        usage = msgspec.convert(value, _Usage, strict=False)
    except msgspec.ValidationError:
        return None  # numbers that make no sense are no reason to lose an answer
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    details = usage.prompt_tokens_details or _Details()
    return ChatUsage(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens or 0)
