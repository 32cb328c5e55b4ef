"""Frames on their way to a client that may read slowly, or not at all.

Rules:
1. Sending never waits, and the queue is bounded: a client that reads too slowly is cut off (1008).
2. A client that reads nothing for some seconds while frames wait is cut off, too.
3. A single frame may exceed the bound, such as an item with all its audio; that does not cut off
   the client.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from aiohttp import ClientConnectionError, WSMsgType

from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.codec import encode
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.upstream import read_server_event
from vivavoce.protocol.wire import Frame, WireProtocol
from vivavoce.protocol.ws_frames import BINARY, TEXT
from vivavoce.runtime.tasks import Signal

WRITABLE_BYTES = 1024 * 1024  # generation pauses while more than this is queued
MAX_BACKLOG_BYTES = 8 * 1024 * 1024  # a client that is further behind is cut off
READ_TIMEOUT_S = 8.0  # so is one that reads nothing for so long
CLOSE_POLL_S = 0.05
CLOSE_TIMEOUT_S = 10.0  # for the bytes in the transport and the closing handshake
YIELD_EVERY_FRAMES = 32
_MAX_REASON_BYTES = 123  # RFC 6455, 5.5
_OPCODES = {"text": WSMsgType.TEXT, "binary": WSMsgType.BINARY}
_NUMBERS = {"text": TEXT, "binary": BINARY}
LOST = 1006  # RFC 6455, 7.4.1: never on the wire

FrameSource: TypeAlias = PassedAudio | AnyServerEvent | None
"""What a frame was made from, or is the same as; None: not known."""


class Socket(Protocol):
    """The part of a WebSocket that writes."""

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None: ...

    async def close(self, *, code: int, message: bytes) -> object: ...


class WritableTransport(Protocol):
    """The transport below the WebSocket."""

    def get_write_buffer_size(self) -> int: ...

    def abort(self) -> None: ...


class SendQueue:
    """The peer of a session: frames go out in order, as fast as the client reads."""

    def __init__(
        self,
        socket: Socket,
        transport: WritableTransport,
        protocol: WireProtocol,
        send_now: Callable[[bytes, int], bool] | None = None,
    ) -> None:
        """send_now: writes a frame without waiting; False: it could not.

        None: write() writes all frames.
        """
        self.on_frame: Callable[[bytes, FrameSource], None] | None = None
        """Called with the data of each frame, in order, when it is to be sent, and with what it
        says, if that is known."""
        self._protocol = protocol
        self._send_now = send_now
        self._socket = socket
        self._transport = transport
        self._frames: list[Frame] = []  # an empty deque takes 760 bytes
        self._bytes = 0  # in _frames
        self._sent = 0  # number of frames
        self._more = Signal()
        self._written = Signal()
        self._closing: tuple[int, str] | None = None
        self._writing: asyncio.Timeout | None = None
        self._watch: asyncio.TimerHandle | None = None

    @property
    def sent(self) -> int:
        """Frames that were written."""
        return self._sent

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    @property
    def is_writable(self) -> bool:
        """Whether wait_writable() would return at once."""
        return self._bytes <= WRITABLE_BYTES or self._closing is not None

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self._closing is not None

    @property
    def close_code(self) -> int:
        """The close code; 0: the queue is open."""
        return self._closing[0] if self._closing else 0

    def send(self, event: AnyServerEvent) -> None:
        if self._closing is not None:
            return
        if self._protocol.is_ga:
            self.send_raw(encode(event), event)
        else:
            self.send_frames(self._protocol.encode(event))

    def send_raw(self, data: bytes, source: FrameSource = None) -> None:
        """Send a server event that is GA JSON already: unchanged if the client speaks GA.

        For another protocol it is translated; an unknown event is left out.
        """
        if self._protocol.is_ga:
            direct = None if self._frames or self._closing else self._send_now
            if direct and direct(data, TEXT):
                self._sent += 1
                if on_frame := self.on_frame:
                    on_frame(data, source)
                return
            self.send_frames((Frame("text", data),))
        elif (event := read_server_event(data)) is not None:
            self.send(event)

    def send_frames(self, frames: Iterable[Frame]) -> None:
        if self._closing is not None:
            return
        for frame in frames:
            if self.on_frame:
                self.on_frame(frame.data, None)
            if not self._frames and self._goes_now(frame):
                self._sent += 1
                continue
            self._frames.append(frame)
            self._bytes += len(frame.data)
        if not self._frames:
            return
        self._more.set()
        if len(self._frames) > 1:
            self._keep_watch()
        if self._bytes > MAX_BACKLOG_BYTES:
            waiting = self._bytes - max(len(frame.data) for frame in self._frames)
            if waiting > MAX_BACKLOG_BYTES:
                self._cut_off()

    async def wait_writable(self) -> None:
        await self.wait_below(WRITABLE_BYTES)

    async def wait_below(self, size: int) -> None:
        """Wait until no more than so many bytes are queued, or the queue is closed."""
        while self._bytes > size and self._closing is None:
            self._written.clear()
            await self._written.wait()

    def close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
            self._more.set()
            self._written.set()
            self._keep_watch()

    def cut(self) -> None:
        """Abort the connection, without a closing handshake."""
        self._transport.abort()

    async def write(self) -> None:
        """Write until the queue is closed, the client cut off, or the connection lost.

        Call finish_close() afterwards.
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
            self.close(LOST, "the connection is lost")
        finally:
            self._writing = None
            self._drop_frames()  # reference cycles may keep the queue until a garbage collection
            if self._watch:
                self._watch.cancel()

    async def finish_close(self) -> None:
        """Close with the reason. The connection of a client that does not read it is aborted."""
        code, reason = self._closing or (1011, "")
        message = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore").encode()
        try:
            if code != LOST:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._socket.close(code=code, message=message)
                    # aiohttp does not wait for the client where a task was reading from it
                    while self._transport.get_write_buffer_size():  # noqa: ASYNC110
                        await asyncio.sleep(CLOSE_POLL_S)
        except (TimeoutError, ConnectionError):
            self._transport.abort()

    def _goes_now(self, frame: Frame) -> bool:
        """Write a frame at once, if none is queued before it."""
        return self._send_now is not None and self._send_now(frame.data, _NUMBERS[frame.kind])

    async def _write_one(self) -> None:
        frame = self._frames.pop(0)
        self._bytes -= len(frame.data)
        await self._socket.send_frame(frame.data, _OPCODES[frame.kind])
        self._sent += 1
        self._written.set()
        if self._sent % YIELD_EVERY_FRAMES == 0:
            await asyncio.sleep(0)

    def _keep_watch(self) -> None:
        """Check from time to time that the client reads, while it should."""
        if self._watch is None:
            now = asyncio.get_running_loop().time()
            self._look_later(self._sent, self._transport.get_write_buffer_size(), now)

    def _look_later(self, sent: int, left: int, since: float) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(READ_TIMEOUT_S / 4, self._look, sent, left, since)

    def _look(self, sent: int, left: int, since: float) -> None:
        """Whether the client reads: a frame was written, or fewer bytes are left in the
        transport."""
        self._watch = None
        if not self._frames and self._closing is None:
            return
        now, left_now = asyncio.get_running_loop().time(), self._transport.get_write_buffer_size()
        if self._sent != sent or left_now < left:
            since = now
        elif now - since >= READ_TIMEOUT_S:
            self._cut_off()
            return
        self._look_later(self._sent, left_now, since)

    def _cut_off(self) -> None:
        waiting = self._bytes
        self._drop_frames()
        self.close(1008, f"the client reads too slowly: {waiting} bytes were waiting")
        if self._writing:  # it may be waiting for the client to read
            self._writing.reschedule(asyncio.get_running_loop().time())

    def _drop_frames(self) -> None:
        self._frames.clear()
        self._bytes = 0
