"""A WebSocket client that costs next to nothing: frames made ahead, events told by their type."""

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgspec

_MASK = 0x5A  # four times: a mask that bytes.translate can put on
_MASKED = bytes(byte ^ _MASK for byte in range(256))
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_TYPE = len(b'{"type":"')
_SPACE = 0x20
_EVENT = b'{"event":"'
OPEN_SECONDS = 20.0
NO_CLOSE = 1006  # RFC 6455, 7.1.5: no close frame came

Heard = Callable[[bytes, bytes, float], None]
"""Type of an event, the event as JSON, and when it came (time.perf_counter)."""


def _frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame as a client sends it (RFC 6455, 5.2): final, masked."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + bytes((_MASK,)) * 4 + payload.translate(_MASKED)


def event(type_: str, **fields: Any) -> bytes:
    """A client event as a frame."""
    return _frame(_TEXT, msgspec.json.encode({"type": type_, **fields}))


class Way(NamedTuple):
    """An address of the server, and how a session begins there."""

    path: str
    greeting: str = ""
    """The first event; "": none comes by itself."""
    opening: bytes = b""
    """A frame that the client sends first."""
    key: str = ""
    """Sent as a bearer token."""


REALTIME = Way("/v1/realtime?model=default", "session.created")
RAW = Way("/ws", "StartFrame")
TELEPHONY = Way(
    "/telephony/ws",
    opening=_frame(
        _TEXT,
        b'{"event":"start","start":{"streamSid":"MZ","callSid":"CA",'
        b'"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000}}}',
    ),
)
"""As Twilio streams a call; marks are returned as they come."""


def appends(pcm: bytes, ms: int) -> list[bytes]:
    """Sound at 24 kHz as frames of input_audio_buffer.append; what is left over is not sent."""
    size = 48 * ms
    pieces = (pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size))
    return [event("input_audio_buffer.append", audio=base64.b64encode(p).decode()) for p in pieces]


def pieces_of_sound(pcm: bytes, size: int) -> list[bytes]:
    """Raw sound as binary frames of so many bytes; what is left over is not sent."""
    return [_frame(_BINARY, pcm[at : at + size]) for at in range(0, len(pcm) - size + 1, size)]


def media(law: bytes, size: int) -> list[bytes]:
    """mu-law as Twilio's media messages of so many bytes; what is left over is not sent."""
    pieces = (law[at : at + size] for at in range(0, len(law) - size + 1, size))
    messages = (
        {"event": "media", "media": {"track": "inbound", "payload": base64.b64encode(p).decode()}}
        for p in pieces
    )
    return [_frame(_TEXT, msgspec.json.encode(message)) for message in messages]


class Line(asyncio.Protocol):
    """One connection to the server. `heard` is called for every event."""

    def __init__(
        self,
        heard: Heard | None = None,
        at: Way = REALTIME,
        lost: Callable[[int], None] | None = None,
    ) -> None:
        """lost: called with the close code of the server, 1006 without one, in the end."""
        self.heard = heard
        self._lost = lost
        self._close_code = NO_CLOSE
        self._way = at
        self.deltas = 0
        """Pieces of sound that came."""
        self._rest = b""
        self._open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited: dict[bytes, asyncio.Future[tuple[bytes, float]]] = {}
        self._created = self.coming(at.greeting) if at.greeting else None
        self._transport: asyncio.Transport | None = None
        self.write: Callable[[bytes], None]
        """Send a frame."""

    def coming(self, type_: str) -> asyncio.Future[tuple[bytes, float]]:
        """The next event of that type, and when it came."""
        future = asyncio.get_running_loop().create_future()
        self._awaited[type_.encode()] = future
        return future

    async def opened(self) -> None:
        """Wait for the upgrade and the first event."""
        async with asyncio.timeout(OPEN_SECONDS):
            await self._open
            if self._created:
                await self._created
        if self._way.opening:
            self.write(self._way.opening)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport:
            self.write(_frame(_CLOSE, b"\x03\xe8"))
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection without a close frame, as a lost network does."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.write = self._transport.write
        key = f"Authorization: Bearer {self._way.key}\r\n" if self._way.key else ""
        self.write(
            f"GET {self._way.path} HTTP/1.1\r\n{key}Host: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        lost = ConnectionError("the server hung up")
        waited: list[asyncio.Future[Any]] = [self._open, *self._awaited.values()]
        for future in waited:
            if not future.done():
                future.set_exception(lost)
                future.exception()  # whoever waits gets it; nobody has to
        if self._lost:
            self._lost(self._close_code)

    def data_received(self, data: bytes) -> None:
        at = time.perf_counter()
        if self._rest:
            data = self._rest + data
        start = 0 if self._open.done() else self._upgrade(data)
        size = len(data)
        while size - start >= 2:
            length, head = data[start + 1], start + 2
            if length >= 126:
                head += 2 if length == 126 else 8
                if head > size:
                    break
                length = int.from_bytes(data[start + 2 : head], "big")
            if head + length > size:
                break
            self._take(data[start] & 15, data[head : head + length], at)
            start = head + length
        self._rest = data[start:]

    def _upgrade(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        if not data.startswith(b"HTTP/1.1 101"):
            status = data.split(b"\r\n", 1)[0].decode()
            self._open.set_exception(ConnectionError(f"no WebSocket: {status}"))
            return len(data)
        self._open.set_result(None)
        return end + 4

    def _take(self, opcode: int, payload: bytes, at: float) -> None:
        if opcode == _PING:
            self.write(_frame(_PONG, payload))
            return
        if opcode == _CLOSE and len(payload) >= 2:
            self._close_code = int.from_bytes(payload[:2], "big")
        if opcode == _BINARY:
            self.deltas += 1
        if opcode != _TEXT:
            return
        if payload.startswith(_EVENT):  # of a telephone call
            self.deltas += payload.startswith(b'media"', len(_EVENT))
            if payload.startswith(b'mark"', len(_EVENT)):
                self.write(_frame(_TEXT, payload))
            return
        start = _TYPE + (payload[_TYPE - 1] == _SPACE)  # others write one behind the colon
        kind = payload[start : payload.index(b'"', start)]
        if kind == b"response.output_audio.delta":
            self.deltas += 1
        if self.heard:
            self.heard(kind, payload, at)
        if self._awaited and (future := self._awaited.pop(kind, None)) and not future.done():
            future.set_result((payload, at))


async def connect(
    port: int,
    heard: Heard | None = None,
    at: Way = REALTIME,
    *,
    host: str = "127.0.0.1",
    lost: Callable[[int], None] | None = None,
) -> Line:
    """A session that has been greeted. lost: see Line."""
    _, line = await asyncio.get_running_loop().create_connection(
        lambda: Line(heard, at, lost), host, port
    )
    try:
        await line.opened()
    except BaseException:
        line.abort()
        raise
    return line


async def connect_many(
    port: int, count: int, *, at_once: int = 20, at: Way = REALTIME
) -> list[Line]:
    """So many sessions, a few at a time."""
    lines: list[Line] = []
    while len(lines) < count:
        some = min(at_once, count - len(lines))
        lines += await asyncio.gather(*(connect(port, at=at) for _ in range(some)))
    return lines
