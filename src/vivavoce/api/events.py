"""Server-sent events of the audio endpoints: one JSON object each, told apart by its `type`.

WHATWG HTML, 9.2. The answer begins with the first event: what fails before is an error of the
request. What fails later is told as the last event, in the shape of every error.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from vivavoce.api.http_errors import response_of
from vivavoce.errors import VoiceError

UNREAD_SECONDS = 120.0
"""How long a client may take nothing of what is sent."""


class Events:
    """The events of one answer."""

    def __init__(self, request: web.Request) -> None:
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        self._request = request

    async def send(self, event: msgspec.Struct) -> None:
        """Raises ConnectionResetError: the client has gone, or takes nothing."""
        await self.write(msgspec.json.encode(event))

    async def write(self, data: bytes) -> None:
        await write(self._request, self.response, b"data: " + data + b"\n\n")


@asynccontextmanager
async def events(request: web.Request) -> AsyncGenerator[Events]:
    """An answer made of events; it is complete at the end of the block."""
    made = Events(request)
    try:
        yield made
    except VoiceError as exc:
        if not made.response.prepared:
            raise
        problem = response_of(exc, request).body
        assert isinstance(problem, bytes)
        await made.write(problem)
    await made.response.write_eof()


async def write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Send more of an answer, which begins with that if it has not begun.

    Raises ConnectionResetError: the client has gone, or takes nothing.
    """
    if not response.prepared:
        await response.prepare(request)
    try:
        async with asyncio.timeout(UNREAD_SECONDS):
            await response.write(data)
    except TimeoutError as exc:
        raise ConnectionResetError("the client takes nothing") from exc
