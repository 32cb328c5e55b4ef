"""A fake server with one deliberate fault: a right server, whose events are changed on the way."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import aiohttp
import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.server import scripted
from vivavoce.check.connection import CheckTarget
from vivavoce.settings import Settings

Fields: TypeAlias = dict[str, Any]
Mutate: TypeAlias = Callable[[Fields], list[Fields]]
"""What is sent in place of one event of the right server."""
SPEECH_MS = 800


def spoken() -> bytes:
    """A hum that the scripted engines take for speech, PCM at 24 kHz."""
    times = np.arange(24 * SPEECH_MS) / 24_000
    hum: bytes = (8000 * np.sin(2 * np.pi * 220 * times)).astype("<i2").tobytes()
    return hum


def fast_settings() -> Settings:
    """Engines that play scripts, and rules in place of a language model, which call functions."""
    return scripted(
        models={"llm": "builtin"},
        stt={"transcripts": [{"text": "what time is it", "partials": True}], "word_ms": 100},
        tts={"realtime_factor": 0.01, "ms_per_character": 30},
    )


def target(http_url: str) -> CheckTarget:
    """The server at an address, checked without waiting longer than is needed."""
    return CheckTarget(
        url=f"ws{http_url.removeprefix('http')}/v1/realtime",
        model="gpt-realtime",
        timeout_s=4.0,
        settle_s=0.03,
        speech=spoken(),
        real_time=False,
    )


@asynccontextmanager
async def faulty(upstream: str, make: Callable[[], Mutate]) -> AsyncIterator[str]:
    """A server that changes the events of another; its address, http://…"""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("realtime",))
        await socket.prepare(request)
        mutate = make()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{upstream}/v1/realtime", params=request.query) as right,
            asyncio.TaskGroup() as tasks,
        ):
            sending = tasks.create_task(_forward(socket, right))
            with suppress(ConnectionError):  # the client is gone
                async for message in right:
                    for event in mutate(json.loads(message.data)):
                        await socket.send_str(json.dumps(event))
            sending.cancel()
        return socket

    app = web.Application()
    app.router.add_get("/v1/realtime", handle)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def _forward(socket: web.WebSocketResponse, right: aiohttp.ClientWebSocketResponse) -> None:
    async for message in socket:
        await right.send_str(message.data)
    await right.close()
