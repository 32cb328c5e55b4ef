"""Server-sent events (WHATWG HTML, 9.2), and answers that are written piece by piece."""

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from vivavoce.api.http_errors import response_of, unexpected
from vivavoce.errors import VoiceError

log = logging.getLogger(__name__)

UNREAD_TIMEOUT_S = 120.0
"""How long a client may read nothing of the answer."""


class EventStream:
    """The events of one answer, one JSON object each, sent by any task.

    The answer begins with the first event. An error before that is raised; a later one is sent as
    the last event, in the shape of all errors. If the block ends without an error, `done` is sent
    as the last event, if it is given.
    """

    def __init__(self, request: web.Request, done: bytes = b"") -> None:
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        self._request = request
        self._done = done
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if exc is None:
            if self._done:
                await self._send(self._done)
        elif self.response.prepared and _can_be_told(exc):
            await self._send(error_body(exc, self._request))
        else:
            return False
        await self.response.write_eof()
        return True

    async def send(self, event: msgspec.Struct | dict[str, Any]) -> None:
        """Raises ConnectionResetError: the client disconnected or stopped reading."""
        await self._send(msgspec.json.encode(event))

    async def _send(self, data: bytes) -> None:
        async with self._lock:
            await write(self._request, self.response, b"data: " + data + b"\n\n")


async def write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Send a piece of an answer; the first call sends the headers, too.

    Raises ConnectionResetError: the client disconnected or stopped reading.
    """
    if not response.prepared:
        await response.prepare(request)
    try:
        async with asyncio.timeout(UNREAD_TIMEOUT_S):
            await response.write(data)
    except TimeoutError as exc:
        raise ConnectionResetError("the client takes nothing") from exc


def error_body(exc: BaseException, request: web.Request) -> bytes:
    """The error as JSON. An error that is a bug is logged."""
    if isinstance(exc, VoiceError):
        body = response_of(exc, request).body
    else:
        log.error("%s %s: the stream failed", request.method, request.path, exc_info=exc)
        body = unexpected().body
    assert isinstance(body, bytes)
    return body


def _can_be_told(exc: BaseException) -> bool:
    return isinstance(exc, Exception) and not isinstance(exc, ConnectionError)
