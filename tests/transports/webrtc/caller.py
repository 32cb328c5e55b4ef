"""A client that sends and reads frames by hand, so that it may also misbehave."""

import asyncio
import base64
import os
import socket as sockets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from aiohttp import WSMsgType

from tests.server import HOST, Server

WAIT_SECONDS = 60.0  # for one event: a bound, never a pace
ASK: dict[str, Any] = {
    "type": "conversation.item.create",
    "item": {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Who is there?"}],
    },
}
LOUD = b"\x00\x40" * 768
SOFT = bytes(2 * 768)


class Caller:
    """One connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, **event: Any) -> None:
        await self.socket.send_bytes(msgspec.json.encode(event))

    async def ask(self) -> None:
        await self.send(**ASK)
        await self.send(type="response.create")

    async def speak(self, sound: bytes = LOUD * 4 + SOFT * 20) -> None:
        audio = base64.b64encode(sound).decode()
        await self.send(type="input_audio_buffer.append", audio=audio)

    async def next(self) -> dict[str, Any] | None:
        """The next event; None: the connection is closed."""
        async with asyncio.timeout(WAIT_SECONDS):
            message = await self.socket.receive()
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return None
        event: dict[str, Any] = msgspec.json.decode(message.data)
        self.events.append(event)
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        while event := await self.next():
            if event["type"] == kind:
                return event
        raise AssertionError(f"closed {self.socket.close_code} before {kind}")

    async def answer(self) -> tuple[str, str | None]:
        """Status of the next response that ends, and the code of its error."""
        response = (await self.until("response.done"))["response"]
        details = response["status_details"] or {}
        return response["status"], (details.get("error") or {}).get("code")

    async def read_until_closed(self) -> tuple[int | None, str]:
        """Read on to the close; its code and reason."""
        async with asyncio.timeout(WAIT_SECONDS):
            while (message := await self.socket.receive()).type is WSMsgType.TEXT:
                self.events.append(msgspec.json.decode(message.data))
        return self.socket.close_code, str(message.extra or "")

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@asynccontextmanager
async def calling(
    server: Server, path: str = "/v1/realtime?model=gpt-realtime", **headers: str
) -> AsyncIterator[Caller]:
    """A client that has been greeted."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(server.ws + path, headers=named, max_msg_size=0) as socket,
    ):
        caller = Caller(socket)
        await caller.until("session.created")
        yield caller


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110  of what the server keeps to itself
            await asyncio.sleep(0.001)


async def raw(port: int, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection, upgraded by hand, that reads nothing by itself."""
    plain = sockets.socket()
    plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 65536)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (HOST, port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=65536)
    lines = (
        "GET /v1/realtime HTTP/1.1",
        f"Host: {HOST}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *headers,
    )
    writer.write("\r\n".join((*lines, "", "")).encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def masked(payload: bytes) -> bytes:
    """A text frame as a client sends it, with a mask that changes nothing."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return b"\x81" + length + bytes(4) + payload
