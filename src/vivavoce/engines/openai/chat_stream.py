"""Chunks of a streamed chat completion in, chat events out. No sockets.

Servers differ. Anything may be null or missing; a call's index may be missing, be 0 for every
call, or count on within one call; an id may be missing, repeated, or new in each chunk; arguments
may come whole, as an object, or before the name.
"""

import re
import secrets
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
from vivavoce.errors import EngineError
from vivavoce.protocol import json

MAX_CALLS = 128
MAX_ARGUMENTS_CHARACTERS = 1 << 20
"""Of one call."""
MAX_ANSWER_CHARACTERS = 1 << 20
"""Of an answer's text and thoughts together."""


class _Piece(msgspec.Struct):
    text: str | None = None
    type: str | None = None


class _FunctionPart(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _CallPart(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionPart | None = None


class _Delta(msgspec.Struct):
    content: str | list[_Piece] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_CallPart] | None = None


class _ChunkChoice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None  # of an answer that was not streamed
    finish_reason: str | None = None


class ChatChunk(msgspec.Struct):
    """One event of the stream, or a whole answer of a server that does not stream."""

    choices: list[_ChunkChoice] | None = None
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


_decoder = msgspec.json.Decoder(ChatChunk, strict=False)


def decode(data: str | bytes) -> ChatChunk:
    """Raises ValueError: not a chunk. Half of a surrogate pair becomes U+FFFD."""
    try:
        return json.decode(data, _decoder)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


class ChatStream:
    """One answer. feed() every chunk, then end() once.

    Both raise EngineError: the answer is beyond a bound, or a call has no name.
    """

    def __init__(self, source: str) -> None:
        """source: how an error names the server."""
        self.begun = False
        """A token has come, be it of a thought."""
        self.finished = False
        """The model has said that it is done; usage may follow."""
        self._source = source
        self._reason: Literal["stop", "length", "content_filter"] = "stop"
        self._usage: ChatUsage | None = None
        self._thoughts = ThoughtFilter()
        self._characters = 0  # of text and thoughts
        self._calls = _Calls(source)

    def feed(self, chunk: ChatChunk) -> list[ChatEvent]:
        """What the chunk adds to the answer.

        Only the first call goes out as it comes. A server may turn back to an earlier call, which
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
        reasoning = delta.reasoning_content or delta.reasoning
        if text or delta.tool_calls or reasoning:
            self.begun = True
        self._characters += len(text) + (len(reasoning) if isinstance(reasoning, str) else 0)
        if self._characters > MAX_ANSWER_CHARACTERS:
            raise EngineError(
                f"{self._source} sent more than {MAX_ANSWER_CHARACTERS} characters in one answer; "
                "limit its tokens"
            )
        events: list[ChatEvent] = []
        if spoken := self._thoughts.feed(text):
            events.append(TextDelta(spoken))
        for part in delta.tool_calls or ():
            self._calls.add(part)
        return [*events, *self._calls.first()]

    def end(self) -> list[ChatEvent]:
        """What was held back, and ChatEnded."""
        events: list[ChatEvent] = []
        if spoken := self._thoughts.close():
            events.append(TextDelta(spoken))
        return [*events, *self._calls.rest(), ChatEnded(self._reason, self._usage)]


class _Arguments:
    """The arguments of one call: JSON text that comes in parts."""

    # The beginning of an escape at the end of a part; group 1 waits for the next part. A high
    # surrogate waits for its low one.
    _UNFINISHED = re.compile(
        r"(?<!\\)(?:\\\\)*"
        r"(\\(?:u[0-9a-fA-F]{0,3})?|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)\Z"
    )
    _TOKEN = re.compile(r'\\.|["{}\[\]]', re.DOTALL)

    def __init__(self) -> None:
        self.size = 0
        """Characters that have come."""
        self._unsent: list[str] = []
        self._uncounted: list[str] = []
        self._held = ""  # an unfinished escape
        self._depth = 0
        self._in_string = False
        self._closed = False

    @property
    def whole(self) -> bool:
        """Whether a JSON object has come from its first brace to its last."""
        for text in self._uncounted:
            self._count(text)
        self._uncounted.clear()
        return self._closed and not self._depth

    def add(self, text: str) -> None:
        self.size += len(text)
        text = self._held + text
        self._held = ""
        if "\\" in text:
            if unfinished := self._UNFINISHED.search(text):
                start = unfinished.start(1)
                text, self._held = text[:start], text[start:]
            text = json.replace_lone_surrogates(text).decode()
        self._unsent.append(text)
        self._uncounted.append(text)  # few servers send what makes it necessary

    def take(self) -> str:
        """What has come and was not taken before."""
        text = "".join(self._unsent)
        self._unsent.clear()
        return text

    def end(self) -> None:
        """No part follows."""
        self._unsent.append(json.replace_lone_surrogates(self._held).decode())
        if not self.size:
            self._unsent.append("{}")  # clients parse it

    def _count(self, text: str) -> None:
        for token in self._TOKEN.finditer(text):
            match token[0]:
                case '"':
                    self._in_string = not self._in_string
                case "{" | "[" if not self._in_string:
                    self._depth += 1
                case "}" | "]" if not self._in_string:
                    self._depth -= 1
                    self._closed = True


class _CallState:
    """One call: what has come of it."""

    def __init__(self, position: int, index: int | None) -> None:
        self.position = position
        """In the answer, from 0."""
        self.index = index
        """As the server counts."""
        self.id = ""
        self.name = ""
        self.started = False
        self.arguments = _Arguments()


class _Calls:
    """The calls of one answer. Each part finds its call in constant time."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._calls: list[_CallState] = []
        # The last call of an index, and the first with an id, by index; None: of any index.
        self._last: dict[int | None, _CallState] = {}
        self._by_id: dict[tuple[int | None, str], _CallState] = {}
        self._sent_ids: set[str] = set()

    def add(self, part: _CallPart) -> None:
        """Raises EngineError: too many calls, or arguments that are too long."""
        function = part.function or _FunctionPart()
        call = self._continued(part, function.name or "") or self._begin(part.index)
        if not call.name:
            call.name = function.name or ""
        if not call.id and part.id:
            call.id = part.id
            self._by_id.setdefault((None, part.id), call)
            self._by_id.setdefault((call.index, part.id), call)
        if isinstance(function.arguments, dict):
            call.arguments.add(msgspec.json.encode(function.arguments).decode())
        elif function.arguments:
            call.arguments.add(function.arguments)
        if call.arguments.size > MAX_ARGUMENTS_CHARACTERS:
            raise EngineError(
                f"{self._source} sent more than {MAX_ARGUMENTS_CHARACTERS} characters of arguments "
                "for one function call; limit its tokens"
            )

    def first(self) -> list[ChatEvent]:
        """What is new of the first call."""
        return self._news(self._calls[0]) if self._calls else []

    def rest(self) -> list[ChatEvent]:
        """All that was held back, at the end. Raises EngineError: a call has no name."""
        events: list[ChatEvent] = []
        named = [call for call in self._calls if call.name]
        if any(call.arguments.size and not call.name for call in self._calls):
            raise EngineError(
                f"{self._source} sent a function call without a name; try another model"
            )
        for position, call in enumerate(named):
            call.position = position
            call.arguments.end()
            events += self._news(call)
        return events

    def _begin(self, index: int | None) -> _CallState:
        if len(self._calls) == MAX_CALLS:
            raise EngineError(
                f"{self._source} sent more than {MAX_CALLS} function calls in one answer; "
                "limit its tokens, or try another model"
            )
        call = _CallState(len(self._calls), index)
        self._calls.append(call)
        self._last[None] = self._last[index] = call
        return call

    def _continued(self, part: _CallPart, name: str) -> _CallState | None:
        """The call that the part goes on with; None if it begins one."""
        call = self._last.get(part.index)
        if call is None:
            return None if name else self._last.get(None)
        if part.id:
            call = self._by_id.get((part.index, part.id), call)
        if not name or not call.name:
            return call
        if part.id and call.id:
            return call if part.id == call.id else None
        return call if name == call.name and not call.arguments.whole else None

    def _news(self, call: _CallState) -> list[ChatEvent]:
        if not call.name:
            return []
        events: list[ChatEvent] = []
        if not call.started:
            call.started = True
            call_id = call.id
            if not call_id or call_id in self._sent_ids:
                call_id = f"call_{secrets.token_hex(12)}"
            self._sent_ids.add(call_id)
            events.append(CallStarted(call.position, call_id, call.name))
        if arguments := call.arguments.take():
            events.append(CallDelta(call.position, arguments))
        return events


class ThoughtFilter:
    """Removes <think>...</think> from the start of one answer; later the tag is plain text."""

    _OPEN = "<think>"
    _CLOSE = "</think>"
    _MAX_HELD = 1024  # characters of white space that may yet come before a tag
    _BLANK = re.compile(r"\s*")

    def __init__(self) -> None:
        self._thinking = False
        self._held = ""  # may yet turn out to be a tag
        self._begun = False  # the answer itself
        self._any = False  # thoughts came before it: the white space after them is theirs

    def feed(self, text: str) -> str:
        """What of the text so far can be spoken and has not been returned yet."""
        if self._begun:
            return text
        text, at = self._held + text, 0
        while True:
            if self._thinking:
                end = text.find(self._CLOSE, at)
                if end < 0:
                    self._held = text[max(at, len(text) - len(self._CLOSE) + 1) :]
                    return ""
                self._thinking, self._any, at = False, True, end + len(self._CLOSE)
            match = self._BLANK.match(text, at)
            start = match.end() if match else at
            if text.startswith(self._OPEN, start):
                self._thinking, at = True, start + len(self._OPEN)
                continue
            self._held = text[at:]
            rest = text[start : start + len(self._OPEN)]
            waits = self._OPEN.startswith(rest) and len(self._held) <= self._MAX_HELD
            return "" if waits else self._begin()

    def close(self) -> str:
        """What was held back, at the end of the answer. A thought without an end is dropped."""
        return "" if self._begun or self._thinking else self._begin()

    def _begin(self) -> str:
        self._begun = True
        held, self._held = self._held, ""
        return held.lstrip() if self._any else held


def _text(delta: _Delta) -> str:
    content = delta.content or delta.refusal or ""
    if isinstance(content, str):
        return content
    return "".join(piece.text or "" for piece in content if piece.type in (None, "text"))


def _usage(value: Any) -> ChatUsage | None:
    try:
        usage = msgspec.convert(value, _Usage, strict=False)
    except msgspec.ValidationError:
        return None  # numbers that make no sense are no reason to lose an answer
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    details = usage.prompt_tokens_details or _Details()
    return ChatUsage(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens or 0)
