"""An upstream Realtime server that costs next to nothing: each append is answered by a delta.

It runs beside the load, in one process and by one clock, so that the time of a frame through a
relay is known for each direction.
"""

import asyncio
import base64
import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

FRAME_MS = 40
MIN_APPEND_BYTES = 1000
"""A shorter frame is no append: settings, pongs."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_SESSION = b'"s'  # the event_id of an append: s00012


def _frame(type_: str, **fields: Any) -> bytes:
    """A text frame as a server sends it: not masked."""
    payload = msgspec.json.encode({"type": type_, "event_id": "event_1", **fields})
    head = bytes((0x81, len(payload))) if len(payload) < 126 else b"\x81\x7e"
    return (head if len(payload) < 126 else head + len(payload).to_bytes(2, "big")) + payload


_RESPONSE = {"id": "r", "status": "in_progress", "conversation_id": "c", "output": []}
_ITEM = {"id": "a", "type": "message", "role": "assistant", "content": []}
_PLACE = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}
CREATED = _frame("session.created", session={"expires_at": 4_000_000_000})
BEGIN = (
    _frame("response.created", response=_RESPONSE)
    + _frame("response.output_item.added", response_id="r", output_index=0, item=_ITEM)
    + _frame("conversation.item.added", item=_ITEM, previous_item_id=None)
    + _frame("response.content_part.added", part={"type": "audio"}, **_PLACE)
)
DELTA = _frame(
    "response.output_audio.delta", delta=base64.b64encode(bytes(48 * FRAME_MS)).decode(), **_PLACE
)


@dataclass
class Times:
    """When the frames of one session were sent and came (time.perf_counter), by direction."""

    appended: deque[float] = field(default_factory=deque)
    """Sent by the client, not come yet."""
    answered: deque[float] = field(default_factory=deque)
    up: list[float] = field(default_factory=list)
    """Seconds of each append that came."""
    down: list[float] = field(default_factory=list)
    deltas: int = 0


class Upstream(asyncio.Protocol):
    """One connection of a relay."""

    def __init__(self, sessions: list[Times]) -> None:
        self._sessions = sessions
        self._times: Times | None = None
        self._rest = b""
        self._open = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        at = time.perf_counter()
        data = self._rest + data if self._rest else data
        start = 0
        if not self._open and not (start := self._upgrade(data)):
            self._rest = data
            return
        size = len(data)
        while size - start >= 2:
            length, head = data[start + 1] & 127, start + 6
            if length >= 126:
                wide = 2 if length == 126 else 8
                length, head = (
                    int.from_bytes(data[start + 2 : start + 2 + wide], "big"),
                    head + wide,
                )
            if head + length > size:
                break
            if data[start] & 15 == 8:
                self._transport.close()
            elif length > MIN_APPEND_BYTES:
                self._append(data, head, at)
            start = head + length
        self._rest = data[start:]

    def _upgrade(self, data: bytes) -> int:
        """Answer the request; return where the frames begin, 0 if more of it has to come."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        lines = data[:end].split(b"\r\n")
        keys = [x[18:].strip() for x in lines if x.lower().startswith(b"sec-websocket-key:")]
        if not keys:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            self._transport.close()
            return len(data)
        accept = base64.b64encode(hashlib.sha1(keys[0] + _GUID).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + CREATED
        )
        self._open = True
        return end + 4

    def _append(self, data: bytes, head: int, at: float) -> None:
        times = self._times
        if times is None:
            mask, begin = data[head - 4 : head], data[head : head + 120]
            text = bytes(byte ^ mask[n & 3] for n, byte in enumerate(begin))
            if (found := text.find(_SESSION)) < 0:
                return  # a session.update
            times = self._times = self._sessions[int(text[found + 2 : found + 7])]
            self._transport.write(BEGIN)
        times.up.append(at - times.appended.popleft())
        times.answered.append(time.perf_counter())
        self._transport.write(DELTA)


@asynccontextmanager
async def upstream(sessions: list[Times]) -> AsyncIterator[int]:
    """The port on which it listens, while it does."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(sessions), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
