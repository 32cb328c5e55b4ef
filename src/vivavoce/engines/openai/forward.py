"""The answer to a chat completion that is forwarded as it stands: as bytes, or to be spoken."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from vivavoce.engines.http import HttpResponse, ResponseTimeouts
from vivavoce.engines.openai.chat_stream import ThoughtFilter
from vivavoce.engines.remote import RemoteServer
from vivavoce.engines.sse import SseReader
from vivavoce.errors import EngineError
from vivavoce.protocol import json

CLIENT_TIMEOUT_S = 600.0
"""Where the client decides how long to wait: as long as the official ones do."""
MAX_COMPLETION_BYTES = 1 << 24
MAX_CHOICES = 128

_decoder = msgspec.json.Decoder(dict[str, Any])


class ForwardedAnswer:
    """One answer, whatever its status. Read it once, in one of three ways."""

    def __init__(
        self, response: HttpResponse, server: RemoteServer, timeouts: ResponseTimeouts
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._server = server
        self._timeouts = timeouts
        self._thoughts: dict[int, ThoughtFilter] = {}
        self._finished = False  # a choice has come to its end

    def parts(self) -> AsyncGenerator[bytes]:
        """The body as it comes. Raises EngineError where it should have gone on."""
        return self._response.parts()

    async def completion(self) -> dict[str, Any]:
        """A whole answer that is to be spoken, without the model's thoughts."""
        body = bytearray()
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                body += part
                if len(body) > MAX_COMPLETION_BYTES:
                    raise self._server.unexpected(f"more than {MAX_COMPLETION_BYTES >> 20} MiB")
        completion = self._object(body.decode(errors="replace"))
        if not isinstance(completion.get("choices"), list):
            raise self._server.unexpected("something else")
        for choice in _choices(completion):
            message = choice.get("message")
            if isinstance(message, dict) and isinstance(message.get("content"), str):
                thoughts = ThoughtFilter()
                message["content"] = thoughts.feed(message["content"]) + thoughts.close()
        return completion

    async def chunks(self) -> AsyncGenerator[dict[str, Any]]:
        """A streamed answer that is to be spoken, without the model's thoughts.

        A server that does not stream gives one chunk. Raises EngineError: it failed or broke off.
        """
        if self._response.content_type == "application/json":
            yield _as_chunk(await self.completion())
            return
        async with aclosing(self._events()) as events:
            async for data in events:
                if data.strip() == "[DONE]":
                    self._finished = self._response.complete = True
                    break
                if data.strip():
                    chunk = self._object(data)
                    for choice in _choices(chunk):
                        self._remove_thoughts(choice)
                    yield chunk
        if not self._finished:
            raise self._server.broken_off()

    async def _events(self) -> AsyncGenerator[str]:
        reader = SseReader(self._server.name)
        try:
            async with aclosing(self.parts()) as parts:
                async for part in parts:
                    for data in reader.feed(part):
                        yield data
        except EngineError:
            if not self._finished:  # else only the end of the stream is missing
                raise
        for data in reader.close():
            yield data

    def _object(self, data: str) -> dict[str, Any]:
        try:
            found = json.decode(data, _decoder)
        except (ValueError, RecursionError) as exc:
            raise self._server.unexpected("something else") from exc
        if found.get("error") is not None:
            raise self._server.failed(found["error"])
        return found

    def _remove_thoughts(self, choice: dict[str, Any]) -> None:
        """Take the thoughts out of a chunk's choice; note whether that choice is at its end."""
        number = choice.get("index")
        index = number if isinstance(number, int) else 0
        if index not in self._thoughts and len(self._thoughts) == MAX_CHOICES:
            raise EngineError(f"{self._server.name} sent more than {MAX_CHOICES} choices")
        thoughts = self._thoughts.setdefault(index, ThoughtFilter())
        ends = bool(choice.get("finish_reason"))
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = choice["delta"] = {}
        content = delta.get("content")
        spoken = thoughts.feed(content) if isinstance(content, str) else ""
        if ends:
            spoken += thoughts.close()
        if spoken or isinstance(content, str):
            delta["content"] = spoken
        if choice.get("finish_reason") == "error":
            raise self._server.failed("error")
        self._finished = self._finished or ends


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
                {"index": index, **call}
                for index, call in enumerate(calls)
                if isinstance(call, dict)
            ]
        choices.append({**rest, "delta": delta})
    return {**completion, "object": "chat.completion.chunk", "choices": choices}


def is_operators_fault(status: int) -> bool:
    """Whether a status is about the key or address in the settings, not about the request."""
    return status in (401, 403) or status // 100 == 3
