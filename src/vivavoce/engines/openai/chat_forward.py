"""The answer to a chat completion that is handed on, not asked by us: as bytes, or to be spoken."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from vivavoce.engines.openai.endpoint import Endpoint
from vivavoce.engines.openai.sse import EventReader
from vivavoce.engines.openai.thoughts import Thoughts

PATIENCE_SECONDS = 600.0
"""Where a client decides how long to wait: as long as the official ones do."""
_MAX_COMPLETION_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for a server."""

    first: float
    """For the first byte of the body."""
    gap: float
    """From then on, for each further one."""


class Forwarded:
    """One answer, whatever its status. Read it once, in one of three ways."""

    def __init__(
        self, response: aiohttp.ClientResponse, endpoint: Endpoint, patience: Patience
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.read_to_end = False
        self._response = response
        self._endpoint = endpoint
        self._patience = patience
        self._thoughts: dict[int, Thoughts] = {}

    async def parts(self) -> AsyncGenerator[bytes]:
        """The body as it comes. Raises EngineError where it should have gone on."""
        seconds = self._patience.first
        while part := await self._part(seconds):
            yield part
            seconds = self._patience.gap
        self.read_to_end = True

    async def completion(self) -> dict[str, Any]:
        """A whole answer that is to be spoken: what the model thought aloud is left out."""
        body = bytearray()
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                body += part
                if len(body) > _MAX_COMPLETION_BYTES:
                    raise self._endpoint.nonsense(f"more than {_MAX_COMPLETION_BYTES >> 20} MiB")
        completion = self._object(bytes(body))
        if not isinstance(completion.get("choices"), list):
            raise self._endpoint.nonsense("something else")
        for choice in _choices(completion):
            message = choice.get("message")
            if isinstance(message, dict) and isinstance(message.get("content"), str):
                thoughts = Thoughts()
                message["content"] = thoughts.feed(message["content"]) + thoughts.close()
        return completion

    async def chunks(self) -> AsyncGenerator[dict[str, Any]]:
        """A streamed answer that is to be spoken: what the model thinks aloud is left out.

        A server that does not stream gives one chunk. Raises EngineError: it failed or broke off.
        """
        if self._response.content_type == "application/json":
            yield _as_chunk(await self.completion())
            return
        finished = False
        async with aclosing(self._events()) as events:
            async for data in events:
                if data.strip() == "[DONE]":
                    finished = self.read_to_end = True
                    break
                if data.strip():
                    chunk = self._object(data)
                    finished = any([self._strip(choice) for choice in _choices(chunk)]) or finished
                    yield chunk
        if not finished:
            raise self._endpoint.broken_off()

    async def _events(self) -> AsyncGenerator[str]:
        reader = EventReader(f"the LLM at {self._endpoint.shown}")
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                for data in reader.feed(part):
                    yield data
        for data in reader.close():
            yield data

    async def _part(self, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                return await self._response.content.readany()
        except TimeoutError as exc:
            if seconds == self._patience.gap:
                raise self._endpoint.silent(seconds) from exc
            raise self._endpoint.late(seconds) from exc
        except aiohttp.ClientError as exc:
            raise self._endpoint.broken_off() from exc

    def _object(self, data: str | bytes) -> dict[str, Any]:
        try:
            found: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        except ValueError as exc:
            raise self._endpoint.nonsense("something else") from exc
        if found.get("error") is not None:
            raise self._endpoint.failed(found["error"])
        return found

    def _strip(self, choice: dict[str, Any]) -> bool:
        """Take thoughts out of a chunk's choice; whether that choice is at its end."""
        index = choice.get("index")
        place = index if isinstance(index, int) else 0
        thoughts = self._thoughts.setdefault(place, Thoughts())
        ends = bool(choice.get("finish_reason"))
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = choice["delta"] = {}
        content = delta.get("content")
        said = thoughts.feed(content) if isinstance(content, str) else ""
        if ends:
            said += thoughts.close()
        if said or isinstance(content, str):
            delta["content"] = said
        if choice.get("finish_reason") == "error":
            raise self._endpoint.failed("error")
        return ends


def _choices(answer: dict[str, Any]) -> list[dict[str, Any]]:
    choices = answer.get("choices")
    if not isinstance(choices, list):
        return []
    return [choice for choice in choices if isinstance(choice, dict)]


def _as_chunk(completion: dict[str, Any]) -> dict[str, Any]:
    choices = []
    for choice in _choices(completion):
        rest = {name: value for name, value in choice.items() if name != "message"}
        message = choice.get("message")
        delta = dict(message) if isinstance(message, dict) else {}
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            delta["tool_calls"] = [
                {"index": place, **call}
                for place, call in enumerate(calls)
                if isinstance(call, dict)
            ]
        choices.append({**rest, "delta": delta})
    return {**completion, "object": "chat.completion.chunk", "choices": choices}


def refuses_us(status: int) -> bool:
    """Whether that is about our key or address, which are no business of whoever asked us."""
    return status in (401, 403) or status // 100 == 3
