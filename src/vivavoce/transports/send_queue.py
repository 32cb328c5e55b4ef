"""What a session sends, on its way to a client that may read slowly, or not at all.

Rules:
1. Sending never waits, and what waits is bounded: who lets more pile up is cut off (1008).
2. So is who takes nothing at all for some seconds while something waits.
3. One event may be larger than the bound, an item with all its sound: it alone cuts nobody off.
"""

import asyncio
from collections import deque
from typing import Protocol

from aiohttp import ClientConnectionError, WSMsgType

from vivavoce.protocol.codec import Dialect
from vivavoce.protocol.server import AnyServerEvent

ROOM_BYTES = 1024 * 1024  # an answer waits while more than this is in the outbox
MOST_BACKLOG_BYTES = 8 * 1024 * 1024  # a client that lets more than this wait is cut off
SLOW_SECONDS = 8.0  # so is one that takes nothing for so long
GOODBYE_SECONDS = 10.0  # what is on the wire already and the close may take so long
BREATH = 32  # frames written before others may run
_MOST_REASON_BYTES = 123  # RFC 6455, 5.5
_GONE = 1006  # RFC 6455, 7.4.1: never on the wire


class Socket(Protocol):
    """A WebSocket, as far as it is written to."""

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None: ...

    async def close(self, *, code: int, message: bytes) -> object: ...


class WritableTransport(Protocol):
    """The transport beneath it."""

    def get_write_buffer_size(self) -> int: ...

    def abort(self) -> None: ...


class SendQueue:
    """The peer of a session: what is sent goes out in order, as fast as the client reads."""

    def __init__(self, socket: Socket, wire: WritableTransport, dialect: Dialect) -> None:
        self.dialect = dialect
        self._socket = socket
        self._wire = wire
        self._frames: deque[bytes] = deque()
        self._bytes = 0  # of what waits
        self._sent = 0  # frames
        self._more = asyncio.Event()
        self._taken = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._writing: asyncio.Timeout | None = None
        self._watch: asyncio.TimerHandle | None = None

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    def send(self, event: AnyServerEvent) -> None:
        if self._closing is not None:
            return
        for frame in self.dialect.encode(event):
            self._frames.append(frame)
            self._bytes += len(frame)
        self._more.set()
        if len(self._frames) > 1:
            self._keep_watch()
        if self._bytes > MOST_BACKLOG_BYTES:
            waiting = self._bytes - max(map(len, self._frames))
            if waiting > MOST_BACKLOG_BYTES:
                self._cut_off()

    def send_raw(self, data: bytes) -> None:
        """Queue a GA server event as it came from an upstream server."""
        if self._closing is None:
            self._frames.append(data)
            self._bytes += len(data)
            self._more.set()

    async def wait_writable(self) -> None:
        while self._bytes > ROOM_BYTES and self._closing is None:
            self._taken.clear()
            await self._taken.wait()

    def close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
            self._more.set()
            self._taken.set()
            self._keep_watch()

    async def write(self) -> None:
        """Write until the session is closed, the client cut off, or the connection gone.

        Then say_goodbye() is owed.
        """
        try:
            async with asyncio.timeout(None) as self._writing:
                while self._frames or self._closing is None:
                    if self._frames:
                        await self._write_one()
                    else:
                        self._more.clear()
                        await self._more.wait()
        except TimeoutError:  # see _cut_off()
            pass
        except (ClientConnectionError, ConnectionError):
            self.close(_GONE, "the connection is gone")
        finally:
            self._writing = None
            if self._watch:
                self._watch.cancel()

    async def say_goodbye(self) -> None:
        """Close with the reason; who does not even take that is hung up on."""
        code, reason = self._closing or (1011, "")
        message = reason.encode()[:_MOST_REASON_BYTES].decode(errors="ignore").encode()
        try:
            if code != _GONE:
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._socket.close(code=code, message=message)
        except (TimeoutError, ConnectionError):
            self._wire.abort()
        if self._wire.get_write_buffer_size():
            self._wire.abort()

    async def _write_one(self) -> None:
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        await self._socket.send_frame(frame, WSMsgType.TEXT)
        self._sent += 1
        self._taken.set()
        if self._sent % BREATH == 0:
            await asyncio.sleep(0)

    def _keep_watch(self) -> None:
        """Look, every now and then, whether the client takes anything, as long as it should."""
        if self._watch is None:
            now = asyncio.get_running_loop().time()
            self._look_later(self._sent, self._wire.get_write_buffer_size(), now)

    def _look_later(self, sent: int, left: int, since: float) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(SLOW_SECONDS / 4, self._look, sent, left, since)

    def _look(self, sent: int, left: int, since: float) -> None:
        """It has taken something if a frame is through, or less of it is left on the wire."""
        self._watch = None
        if not self._frames and self._closing is None:
            return
        now, left_now = asyncio.get_running_loop().time(), self._wire.get_write_buffer_size()
        if self._sent != sent or left_now < left:
            since = now
        elif now - since >= SLOW_SECONDS:
            self._cut_off()
            return
        self._look_later(self._sent, left_now, since)

    def _cut_off(self) -> None:
        waiting = self._bytes
        self._frames.clear()
        self._bytes = 0
        self.close(1008, f"the client reads too slowly: {waiting} bytes were waiting")
        if self._writing:  # it may wait for the client to take what it does not take
            self._writing.reschedule(asyncio.get_running_loop().time())
