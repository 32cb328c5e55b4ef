"""A small conversation partner made of rules: no weights, no network, no memory of its own."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    ChatUsage,
    TextDelta,
)
from vivavoce.engines.builtin.reply import reply
from vivavoce.engines.builtin.tokens import tokens
from vivavoce.engines.builtin.tools import Tool, read_tool
from vivavoce.errors import SettingsError
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, Item, Message

_MAX_TOOLS = 128
_WORDS_AT_ONCE = 8  # between two chances for everybody else on the loop
_COUNTED_AT_ONCE = 20_000  # characters; about a millisecond
_ARGUMENTS_AT_ONCE = 24  # characters
_WORD = re.compile(r"\S+\s*|\s+")


class BuiltinSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of `llm:builtin`."""

    words_per_second: Annotated[float, msgspec.Meta(ge=0)] = 0
    """How fast words come, as from a model that needs time; 0: at once."""
    timezone: str = ""
    """An IANA name such as `Europe/Rome`, for time and date; "": that of this machine."""


class BuiltinLLM:
    """Answers by rule. An LLM as engines.base has it; one object serves any number of sessions.

    The same request at the same time gives the same answer, but for the ids of calls. `now` gives
    the time, for tests; it takes the place of the clock and of `timezone`.
    """

    Settings = BuiltinSettings
    sees = False

    def __init__(
        self, settings: BuiltinSettings, now: Callable[[], datetime] | None = None
    ) -> None:
        self._settings = settings
        self._now = now or _clock(settings.timezone)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """See engines.base.LLM. A call is never cut short: one that does not fit is not begun."""
        input_tokens = await self._count(request)
        tools: list[Tool] = []
        for tool in request.tools[:_MAX_TOOLS]:
            tools.append(read_tool(tool))
            await asyncio.sleep(0)
        made = reply(request, tools, self._now())
        await asyncio.sleep(0)
        left = request.max_output_tokens
        spent = 0
        reason = "stop"
        for i, word in enumerate(_WORD.findall(made.text)):
            cost = tokens(word)
            if left is not None and spent + cost > left:
                reason = "length"
                break
            spent += cost
            yield TextDelta(word)
            await self._pause(i)
        for index, call in enumerate(made.calls):
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            cost = tokens(call.name) + tokens(arguments)
            if left is not None and spent + cost > left:
                reason = "length"
                break
            spent += cost
            yield CallStarted(index, f"call_{uuid.uuid4().hex[:24]}", call.name)
            for at in range(0, len(arguments), _ARGUMENTS_AT_ONCE):
                yield CallDelta(index, arguments[at : at + _ARGUMENTS_AT_ONCE])
            await asyncio.sleep(0)
        usage = ChatUsage(input_tokens=input_tokens, output_tokens=spent)
        yield ChatEnded("length" if reason == "length" else "stop", usage)

    async def _pause(self, words: int) -> None:
        if self._settings.words_per_second:
            await asyncio.sleep(1 / self._settings.words_per_second)
        elif words % _WORDS_AT_ONCE == _WORDS_AT_ONCE - 1:
            await asyncio.sleep(0)

    async def _count(self, request: ChatRequest) -> int:
        """Tokens of all that the model is told; long texts are counted in slices."""
        total = since = 0
        for text in _texts(request):
            for at in range(0, len(text), _COUNTED_AT_ONCE):
                piece = text[at : at + _COUNTED_AT_ONCE]
                total += tokens(piece)
                since += len(piece)
                if since >= _COUNTED_AT_ONCE:
                    await asyncio.sleep(0)
                    since = 0
        return total


def _clock(timezone: str) -> Callable[[], datetime]:
    if not timezone:
        return lambda: datetime.now().astimezone()
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise SettingsError(
            f"[llm.builtin] unknown timezone {timezone!r}; use a name such as Europe/Rome"
        ) from exc
    return lambda: datetime.now(zone)


def _texts(request: ChatRequest) -> list[str]:
    texts = [request.instructions]
    for item in request.items:
        texts += _item_texts(item)
    for tool in request.tools:
        texts += [tool.name, tool.description or "", str(tool.parameters or "")]
    return texts


def _item_texts(item: Item) -> list[str]:
    match item:
        case FunctionCall():
            return [item.name, item.arguments]
        case FunctionCallOutput():
            return [item.output]
        case Message():
            return [
                text
                for part in item.content
                if (text := getattr(part, "text", None) or getattr(part, "transcript", None))
            ]
