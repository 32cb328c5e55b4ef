"""One WebSocket connection of any wire protocol: frames to facts, events to frames."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import WSMessage, WSMsgType

from vivavoce.errors import InvalidRequest, VoiceError
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.wire import (
    CloseRequest,
    ConnectRequest,
    Decoded,
    ExpectsSound,
    Frame,
    Opening,
    Reply,
    WireProtocol,
)
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.tasks import Signal
from vivavoce.session.facts import InvalidFrame, Received
from vivavoce.transports.frame_guard import GuardedSocket
from vivavoce.transports.send_queue import LOST, SendQueue, WritableTransport

OPENING_TIMEOUT_S = 30.0  # for protocols whose first frames request the session
SLICE_S = 0.001  # time for taking frames that came at once, until other callbacks run
LARGE_BYTES = 64 * 1024  # size of a frame: others may run between its decoding and its effects
INVALID_TEXT = 1007  # RFC 6455, 7.4.1

_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_OWN = (Reply, CloseRequest, Opening)  # what decode() returns besides events

log = logging.getLogger(__name__)


class Connection:
    """A client: its socket, its protocol, and the queue of frames that are sent to it."""

    def __init__(
        self, socket: GuardedSocket, transport: WritableTransport, protocol: WireProtocol
    ) -> None:
        """`socket` is prepared."""
        self.protocol = protocol
        self.queue = SendQueue(socket, transport, protocol, socket.send_now)
        self.gone = Signal()
        """Whether nothing more is sent: the queue was closed, or the client disconnected or was cut
        off."""
        self.on_gone: Callable[[], None] | None = None
        """Called once, when `gone` is set."""
        self._socket = socket
        self._tasks: asyncio.TaskGroup | None = None
        self._pending: list[Decoded] = []  # read before further frames

    async def run(self, serve: Coroutine[Any, Any, None]) -> None:
        """Send while `serve` runs. An exception of `serve` closes the connection with 1011."""
        async with asyncio.TaskGroup() as self._tasks:
            writing = self._tasks.create_task(self._write())
            try:
                await self._guarded(serve)
            finally:
                self.queue.close(1000, "")
            await writing

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task beside `serve`, which is cancelled with it.

        An exception in it ends the connection.
        """
        assert self._tasks is not None, "run() is not running"
        return self._tasks.create_task(self._guarded(work))

    @property
    def close_code(self) -> int:
        """The close code that was sent or received; 1006 if the connection was lost without one."""
        return self.queue.close_code or self._socket.close_code or LOST

    async def opening(self, request: ConnectRequest) -> Opening | None:
        """The requested session.

        None: the client sent no request within the timeout, or has disconnected. Raises
        InvalidRequest if its frames are not valid.
        """
        opening = self.protocol.opening(request)
        if opening is not None:
            return opening
        try:
            async with asyncio.timeout(OPENING_TIMEOUT_S):
                async for message in self._socket:
                    if await self._is_control(message):
                        continue
                    if (frame := self._frame(message)) is None:
                        return None
                    decoded = list(self.protocol.decode(frame))
                    for index, one in enumerate(decoded, 1):
                        if isinstance(one, Opening):
                            self._pending = decoded[index:]
                            return one
                        self._answer(one)
        except TimeoutError:
            self.queue.close(1008, f"no session was asked for in {OPENING_TIMEOUT_S:.0f} s")
        return None

    def put_first(self, event: AnyClientEvent) -> None:
        """Pass this event to the session before those that read() receives."""
        self._pending.insert(0, event)

    async def read(self, runner: Runner) -> None:
        """Pass on what the client sends, until the client disconnects or violates the protocol."""
        clock, busy = asyncio.get_running_loop().time, 0.0
        for one in self._pending:
            if isinstance(one, _OWN):
                self._answer(one)
            else:
                runner.post(Received(one))
        passes = runner.pass_input if self.protocol.is_ga else None
        self._socket.passes = passes
        try:
            async for message in self._socket:
                began = clock()
                if message.type is _TEXT or not await self._is_control(message):
                    if (frame := self._frame(message)) is None:
                        break
                    if passes is None or not passes(frame.data):
                        decoded = self._decoded(frame)
                        if len(frame.data) > LARGE_BYTES:
                            await asyncio.sleep(0)
                        self._take(decoded, frame, runner)
                    busy += clock() - began
                    await runner.wait_caught_up()
                else:
                    busy += clock() - began
                if busy > SLICE_S:
                    await asyncio.sleep(0)
                    busy = 0.0
        except ConnectionError:  # the client disconnected while a ping was answered
            pass
        finally:
            self._socket.passes = None

    def note_silence(self) -> None:
        """Tell a client that has sent no audio, if its protocol has a message for that."""
        if isinstance(self.protocol, ExpectsSound) and (note := self.protocol.silence_note()):
            self._answer(note)

    def refuse(self, error: VoiceError) -> None:
        """Send the refusal and close."""
        frames, code, reason = self.protocol.refuse(error)
        self.queue.send_frames(frames)
        self.queue.close(code, reason)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("a WebSocket connection failed")
            self.queue.close(1011, "the server had an error")

    async def _write(self) -> None:
        await self.queue.write()
        self.gone.set()
        if self.on_gone:
            self.on_gone()
        await self.queue.finish_close()

    async def _is_control(self, message: WSMessage) -> bool:
        """Whether it is a ping, which is answered here, or a pong.

        aiohttp itself would let nothing else run as long as more pings follow.
        """
        if message.type is WSMsgType.PING:
            await self._socket.pong(message.data)
        return message.type in (WSMsgType.PING, WSMsgType.PONG)

    def _frame(self, message: WSMessage) -> Frame | None:
        """The frame of a message; None: no more is read."""
        kind, data = message.type, message.data
        if kind is _TEXT:
            if data.isascii() or _is_utf8(data):
                return Frame("text", data)
            self.queue.close(INVALID_TEXT, "a text frame is not UTF-8")
            return None
        return Frame("binary", data) if kind is _BINARY else None

    def _decoded(self, frame: Frame) -> list[Decoded | InvalidFrame]:
        """The events in a frame, up to the first one that is not valid."""
        decoded: list[Decoded | InvalidFrame] = []
        try:
            decoded.extend(self.protocol.decode(frame))
        except InvalidRequest as problem:
            decoded.append(InvalidFrame(problem))
        return decoded

    def _take(self, decoded: list[Decoded | InvalidFrame], frame: Frame, runner: Runner) -> None:
        raw = frame.data if self.protocol.is_ga else None
        for one in decoded:
            if isinstance(one, _OWN):
                self._answer(one)
            elif isinstance(one, InvalidFrame):
                runner.post(one)
            else:
                runner.post(Received(one, raw))

    def _answer(self, one: Decoded) -> None:
        """Handle what needs no session.

        A second opening, and events before the first, are ignored.
        """
        if isinstance(one, Reply):
            self.queue.send_frames(one.frames)
            if one.log:
                log.info("a client (%s): %s", type(self.protocol).__name__, one.log)
        elif isinstance(one, CloseRequest):
            self.queue.close(one.code, one.reason)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
