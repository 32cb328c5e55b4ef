"""What aiohttp's WebSocket reader does not check: masks, and messages that are never finished.

aiohttp collects a message until it is whole, for as long as that takes. The guard stands between
the connection and that reader, follows the frame headers, and fails the connection where a frame is
not masked (RFC 6455, 5.1), a message takes too long, or unfinished messages of all connections
together hold too much memory. It uses private names of aiohttp; tests fail when they change.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiohttp import WebSocketError, web
from aiohttp._websocket.helpers import websocket_mask

from vivavoce.engines.http import DirectSocket
from vivavoce.protocol.bounds import MAX_FRAME_BYTES
from vivavoce.protocol.ws_frames import PassingReader

MAX_MESSAGE_BYTES = MAX_FRAME_BYTES * 4 // 3
"""A larger message closes the connection (1009). One above MAX_FRAME_BYTES is only refused."""
MESSAGE_TIMEOUT_S = 60.0  # from the first byte of a message to its last
MAX_UNFINISHED_BYTES = 256 * 1024 * 1024  # of unfinished messages, all connections together
MAX_FRAMES_AT_ONCE = 250  # 1 ms with aiohttp's own work; then other callbacks may run
POLL_S = 0.005  # pause until aiohttp's queue accepts more
LINGER_S = 2.0  # after a failure, for the client to read the close frame
UNCOUNTED_BYTES = 64 * 1024  # bytes of each connection: what one read of a socket may bring

PROTOCOL_ERROR = 1002
POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013


class UnmaskedFrame(Exception):
    """A client sent a frame without a mask."""


class FrameScanner:
    """Follows the frames of a client by their headers (RFC 6455, 5.2)."""

    __slots__ = ("_control", "_final", "_header", "_left", "finished", "unfinished")

    def __init__(self) -> None:
        self.unfinished = 0
        """Payload bytes of the message that is not complete yet."""
        self.finished = 0
        """Messages that are complete."""
        self._header = b""  # header of the next frame, as far as it was received
        self._left = 0  # payload bytes of this frame that are missing
        self._final = True
        self._control = True

    def feed(self, data: bytes) -> int:
        """Follow some bytes, at most MAX_FRAMES_AT_ONCE frames; return how many bytes they had.

        Raises UnmaskedFrame.
        """
        at, size = 0, len(data)
        if size == _whole_frame(data) and not (self._left or self._header):
            self.unfinished = 0
            self.finished += 1
            return size
        for _ in range(MAX_FRAMES_AT_ONCE):
            if at == size:
                break
            if not self._left:
                at = self._read_header(data, at)
                if self._header:
                    break
            step = min(self._left, size - at)
            at += step
            self._left -= step
            if self._control:
                continue
            self.unfinished += step
            if self._final and not self._left:
                self.unfinished = 0
                self.finished += 1
        return at

    def _read_header(self, data: bytes, at: int) -> int:
        """Read a header, or the part of it that is there; return the position after it."""
        head = self._header + data[at : at + 14]
        needed = 2
        if len(head) >= 2:
            if not head[1] & 0x80:
                raise UnmaskedFrame
            needed = {126: 8, 127: 14}.get(head[1] & 0x7F, 6)
        if len(head) < needed:
            self._header = head
            return len(data)
        at += needed - len(self._header)
        self._header = b""
        self._final = bool(head[0] & 0x80)
        self._control = bool(head[0] & 0x08)
        short = head[1] & 0x7F
        self._left = short if short < 126 else int.from_bytes(head[2 : needed - 4], "big")
        return at


def _whole_frame(data: bytes) -> int:
    """The length of the final, masked data frame below 64 KiB that begins `data`; 0: another."""
    if len(data) < 4 or data[0] & 0x88 != 0x80 or not data[1] & 0x80:
        return 0
    short = data[1] & 0x7F
    if short < 126:
        return short + 6
    return int.from_bytes(data[2:4], "big") + 8 if short == 126 else 0


class MemoryBudget:
    """Bytes that all connections of a server hold in unfinished messages."""

    def __init__(self, size: int = MAX_UNFINISHED_BYTES) -> None:
        self._size = size
        self.used = 0

    def change(self, by: int) -> bool:
        """Add bytes, or subtract them; return whether the budget is kept."""
        self.used += by
        return self.used <= self._size


class GuardedReader:
    """Takes the place of aiohttp's WebSocketReader in a connection, and passes all data on to
    it."""

    __slots__ = (
        "_budget",
        "_charged",
        "_continuing",
        "_ended",
        "_protocol",
        "_queue",
        "_reader",
        "_rest",
        "_scanner",
        "_timed",
        "_timer",
        "_transport",
        "failure",
    )

    def __init__(self, reader: Any, queue: Any, protocol: Any, budget: MemoryBudget) -> None:
        self.failure: WebSocketError | None = None
        self._transport = protocol.transport
        self._rest = b""  # of one read, after MAX_FRAMES_AT_ONCE frames
        self._continuing: asyncio.Handle | None = None
        self._reader = reader
        self._queue = queue
        self._protocol = protocol
        self._budget = budget
        self._scanner = FrameScanner()
        self._charged = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timed = 0  # which message the timer began with
        self._ended: asyncio.Future[None] | None = None  # of the connection: see discard()

    @property
    def failed(self) -> bool:
        """Whether no more of what comes is used."""
        return self._reader is None

    async def discard(self) -> None:
        """Drop what still comes, until the client closes, at most for LINGER_S.

        The system resets a connection that is closed with unread input, and a client that was still
        sending would not get the close frame.
        """
        if self._transport.is_closing():
            return
        self._ended = asyncio.get_running_loop().create_future()
        with contextlib.suppress(RuntimeError):  # it is closing, or reads
            self._transport.resume_reading()
        await asyncio.wait([self._ended], timeout=LINGER_S)

    def take(self, data: bytes) -> bool:
        """See PassingReader. No data waits here while a read is taken."""
        return not self._rest and self._reader is not None and self._reader.take(data)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if self._reader is None:
            return True, b""
        if self._rest:
            self._rest += data
            self._pause()
            return False, b""
        return self._feed(data)

    def feed_eof(self) -> None:
        if self._reader is not None:
            self._reader.feed_eof()
        self._release()
        if self._ended and not self._ended.done():
            self._ended.set_result(None)

    def _feed(self, data: bytes) -> tuple[bool, bytes]:
        try:
            used = self._scanner.feed(data)
        except UnmaskedFrame:
            return self._fail(PROTOCOL_ERROR, "frames of a client must be masked")
        if used < len(data):
            data, self._rest = data[:used], data[used:]
            self._pause()
            self._continuing = asyncio.get_running_loop().call_soon(self._continue)
        if self._scanner.unfinished or self._charged:
            if not self._account():
                why = "the server holds too many unfinished messages, try again later"
                return self._fail(TRY_AGAIN_LATER, why)
            if self._timer is None:
                self._start_timer()
        done, tail = self._reader.feed_data(data)
        if done:
            self._release()
        return done, tail

    def _continue(self) -> None:
        """Continue with the frames that came in the same read."""
        if self._protocol._reading_paused:  # aiohttp's queue is full
            self._continuing = asyncio.get_running_loop().call_later(POLL_S, self._continue)
            return
        rest, self._rest = self._rest, b""
        done, _ = self._feed(rest)
        if done:
            self._protocol.close()
        elif not self._rest:
            with contextlib.suppress(RuntimeError):  # it is closing
                self._transport.resume_reading()

    def _pause(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is closing, or aiohttp has paused it
            self._transport.pause_reading()

    def _account(self) -> bool:
        charge = max(0, self._scanner.unfinished - UNCOUNTED_BYTES)
        change, self._charged = charge - self._charged, charge
        return self._budget.change(change) or change <= 0

    def _start_timer(self) -> None:
        self._timed = self._scanner.finished
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(MESSAGE_TIMEOUT_S, self._on_timer)

    def _on_timer(self) -> None:
        """Fail if the message for which the timer was set is still not complete."""
        self._timer = None
        if not self._scanner.unfinished:
            return
        if self._scanner.finished == self._timed:
            self._fail(POLICY_VIOLATION, f"a message took longer than {MESSAGE_TIMEOUT_S:.0f} s")
        else:
            self._start_timer()

    def _fail(self, code: int, reason: str) -> tuple[bool, bytes]:
        self.failure = WebSocketError(code, reason)
        self._release()
        self._queue.set_exception(self.failure)
        self._protocol.close()  # nothing more is read
        return True, b""

    def _release(self) -> None:
        """Stop reading. The reader holds the unfinished message, and reference cycles around a
        closed connection would keep it until the next full garbage collection."""
        self._reader = None
        self._rest = b""
        if self._continuing:
            self._continuing.cancel()
            self._continuing = None
        self._budget.change(-self._charged)
        self._charged = 0
        if self._timer:
            self._timer.cancel()
            self._timer = None


class GuardedSocket(DirectSocket, web.WebSocketResponse):
    """A WebSocketResponse whose connection is guarded.

    The close frame gives the reason of a failure.
    """

    # aiohttp's object has more than 30 attributes: without these it has a dict of 2 KiB of its own
    __slots__ = (
        "_autoclose",
        "_autoping",
        "_budget",
        "_decode_text",
        "_guard",
        "_head",
        "_lingers",
        "_max_msg_size",
        "_protocols",
        "_receive_timeout",
        "_timeout",
        "_writer_limit",
    )

    def __init__(self, budget: MemoryBudget, **options: Any) -> None:
        super().__init__(**options)
        self._budget = budget
        self._guard: GuardedReader | None = None
        self._head = (0, 0, b"")
        self._lingers = False

    def _post_start(self, request: web.BaseRequest, protocol: Any, writer: Any) -> None:
        connection: Any = request.protocol
        tail, connection._message_tail = connection._message_tail, b""
        super()._post_start(request, protocol, writer)
        assert self._parser is not None
        self._passing = PassingReader(self._parser, websocket_mask)
        self._transport = connection.transport
        self._guard = GuardedReader(self._passing, self._reader, connection, self._budget)
        connection._payload_parser = self._guard
        # 3 KiB that only further HTTP requests would use
        connection._parser, connection._messages = None, ()
        request._message = request._message._replace(raw_headers=())
        if tail:  # frames that came together with the request
            self._guard.feed_data(tail)

    def _take(self, passing: PassingReader) -> Callable[[bytes], bool]:
        return passing.take if self._guard is None else self._guard.take

    def _reset_heartbeat(self) -> None:
        """Data after the close would restart the timers and keep the connection open."""
        if not (self._closed or self._closing):
            super()._reset_heartbeat()

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        failure = self._guard.failure if self._guard else None
        if failure is not None and code == failure.code:
            message = str(failure).encode()
        if self._closed or self._guard is None or not self._guard.failed:
            return await super().close(code=code, message=message, drain=drain)
        self._lingers = True
        try:
            closed = await super().close(code=code, message=message, drain=drain)
            await self._guard.discard()
        finally:
            self._lingers = False
            self._close_transport()
        return closed

    def _close_transport(self) -> None:
        if not self._lingers:
            super()._close_transport()
