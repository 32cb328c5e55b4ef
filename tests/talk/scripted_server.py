"""A Realtime server that plays a script, in memory or at a port, and events to write scripts with.

A script says what comes, and how many seconds later, when the client has sent an event of a type
for the n-th time."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from io import StringIO
from itertools import groupby
from typing import Any, TypeAlias

import msgspec
import numpy as np
from aiohttp import web
from rich.console import Console

from vivavoce.talk.client import ConnectionLost
from vivavoce.talk.screen import Screen

Reply: TypeAlias = Mapping[str, Any] | ConnectionLost
Script: TypeAlias = Mapping[tuple[str, int], list[tuple[float, Reply]]]

START = ("", 1)
"""Where a script says what comes before the client has sent anything."""
CREATED = {"type": "session.created", "session": {"id": "sess_1", "model": "m"}}
UPDATED = {"type": "session.updated", "session": {"id": "sess_1", "model": "m"}}
STARTED = {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "item_u"}
STOPPED = {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 700, "item_id": "item_u"}
RESPONSE = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}
ITEM = {
    "type": "response.output_item.added",
    "item": {"type": "message", "role": "assistant", "id": "item_a"},
}
AUDIO_DONE = {"type": "response.output_audio.done", "item_id": "item_a", "content_index": 0}
OPENING: Script = {START: [(0.0, CREATED)], ("session.update", 1): [(0.0, UPDATED)]}


@contextmanager
def port_that_refuses() -> Iterator[int]:
    """A port that nobody else is given, and on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def heard(text: str) -> dict[str, Any]:
    kind = "conversation.item.input_audio_transcription.completed"
    return {"type": kind, "item_id": "item_u", "transcript": text}


def word(text: str) -> dict[str, Any]:
    kind = "response.output_audio_transcript.delta"
    return {"type": kind, "item_id": "item_a", "content_index": 0, "delta": text}


def sound(pcm24: bytes) -> dict[str, Any]:
    kind = "response.output_audio.delta"
    return {"type": kind, "item_id": "item_a", "content_index": 0, "delta": pcm24}


def done(status: str = "completed", details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "response.done", "response": {"status": status, "status_details": details}}


def error(message: str, event_id: str | None = None) -> dict[str, Any]:
    return {"type": "error", "error": {"message": message, "event_id": event_id}}


def tone(ms: int, amplitude: float = 8000.0) -> bytes:
    """PCM of 24 kHz that is loud from its beginning to its end."""
    at = np.arange(24 * ms)
    return (amplitude * np.sin(2 * np.pi * 440 * at / 24_000)).astype("<i2").tobytes()


def silence(ms: int) -> bytes:
    return bytes(48 * ms)


def console(width: int = 120) -> Console:
    return Console(file=StringIO(), width=width, color_system=None)


def screen(width: int = 120, *, timeline: bool = False) -> tuple[Screen, StringIO]:
    """A screen, and what it wrote."""
    page = StringIO()
    writer = Console(file=page, width=width, color_system=None)
    return Screen(writer, timeline=timeline), page


class ScriptedConnection:
    """A server in memory."""

    def __init__(self, script: Script) -> None:
        self.sent: list[tuple[float, dict[str, Any]]] = []
        """What the client sent, and when."""
        self._script = script
        self._counts: Counter[str] = Counter()
        self._coming: asyncio.Queue[bytes | ConnectionLost] = asyncio.Queue()
        self._clock = asyncio.get_running_loop().time
        self._reply("")

    @property
    def types(self) -> list[str]:
        return [event["type"] for _, event in self.sent]

    async def send(self, frame: bytes) -> None:
        event = msgspec.json.decode(frame)
        self.sent.append((self._clock(), event))
        self._reply(event["type"])

    async def receive(self) -> bytes | ConnectionLost:
        return await self._coming.get()

    def _reply(self, kind: str) -> None:
        self._counts[kind] += 1
        replies = self._script.get((kind, self._counts[kind]), ())
        loop = asyncio.get_running_loop()
        for delay, group in groupby(replies, lambda reply: reply[0]):
            # one timer for all: timers of the same time fire in any order
            loop.call_later(delay, self._deliver, [reply for _, reply in group])

    def _deliver(self, replies: list[Reply]) -> None:
        for reply in replies:
            frame = reply if isinstance(reply, ConnectionLost) else msgspec.json.encode(reply)
            self._coming.put_nowait(frame)


class ScriptedServer:
    """A server at a port of 127.0.0.1: plays its script to every client; delays are not kept."""

    def __init__(self, script: Script, *, status: int = 101) -> None:
        self.port = 0
        self.headers: list[Mapping[str, str]] = []
        self.queries: list[Mapping[str, str]] = []
        self._script = script
        self._status = status

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    async def connect(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers)
        self.queries.append(request.query)
        if self._status != 101:
            return web.Response(status=self._status)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        counts: Counter[str] = Counter()
        await self._reply(socket, START)
        async for message in socket:
            kind = msgspec.json.decode(message.data)["type"]
            counts[kind] += 1
            await self._reply(socket, (kind, counts[kind]))
        return socket

    async def _reply(self, socket: web.WebSocketResponse, when: tuple[str, int]) -> None:
        for _, reply in self._script.get(when, ()):
            if isinstance(reply, ConnectionLost):
                await socket.close(code=1011, message=reply.reason.encode())
            else:
                await socket.send_str(msgspec.json.encode(reply).decode())


@asynccontextmanager
async def serving(script: Script, *, status: int = 101) -> AsyncIterator[ScriptedServer]:
    """A scripted server, as long as the block lasts."""
    server = ScriptedServer(script, status=status)
    app = web.Application()
    app.router.add_get("/v1/realtime", server.connect)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()
