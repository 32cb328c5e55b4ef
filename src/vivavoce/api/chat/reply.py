"""How an answer goes out: as server-sent events of ours, or as the endpoint behind us gives it."""

import asyncio
import logging
from contextlib import aclosing
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web

from vivavoce.api.chat.completion import CompletionChunk
from vivavoce.api.chat.endpoint import EndpointAnswer, passed
from vivavoce.api.http_errors import response_of, unexpected
from vivavoce.errors import EngineError, VoiceError

log = logging.getLogger(__name__)

_MOST_WHOLE_BYTES = 1 << 20
"""An answer whose length is known and no greater goes out in one piece."""


class EventStream:
    """Chunks of a completion as server-sent events, from whichever task.

    The answer begins with the first chunk: what fails before that is an error of the request, what
    fails later is told in an event, and there is no [DONE] then.
    """

    def __init__(self, request: web.Request) -> None:
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        self._request = request
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if exc is None:
            await self._write(b"[DONE]")
        elif not self.response.prepared or isinstance(exc, ConnectionError):
            return False
        elif isinstance(exc, Exception):
            await self._write(_problem(exc, self._request))
        else:
            return False
        await self.response.write_eof()
        return True

    async def send(self, chunk: CompletionChunk) -> None:
        """Raises ConnectionResetError: the client has gone."""
        await self._write(msgspec.json.encode(chunk))

    async def _write(self, data: bytes) -> None:
        async with self._turn:
            if not self.response.prepared:
                await self.response.prepare(self._request)
            await self.response.write(b"data: " + data + b"\n\n")


def _problem(exc: Exception, request: web.Request) -> bytes:
    if isinstance(exc, VoiceError):
        body = response_of(exc, request).body
    else:
        log.error("a chat completion broke off", exc_info=exc)
        body = unexpected().body
    assert isinstance(body, bytes)
    return body


async def pass_on(request: web.Request, answer: EndpointAnswer) -> web.StreamResponse:
    """The answer as it is: status, headers, and the body as it comes."""
    headers = passed(answer.headers)
    length = headers.get("Content-Length", "")
    async with aclosing(answer.parts()) as parts:
        if length.isdecimal() and int(length) <= _MOST_WHOLE_BYTES:
            body = b"".join([part async for part in parts])
            return web.Response(status=answer.status, headers=headers, body=body)
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        try:
            async for part in parts:
                await response.write(part)
        except EngineError as exc:
            if response.content_type != "text/event-stream":
                # Nothing can be said any more; at least it must not look whole.
                log.warning("a chat completion broke off: %s", exc)
                raise ConnectionResetError("the endpoint broke off") from exc
            await response.write(b"\n\ndata: " + _problem(exc, request) + b"\n\n")
        await response.write_eof()
        return response
