"""One stream of work in a worker process, as the engine sees it. Used by engines/host.py."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol, Self, TypeVar

import msgspec

from vivavoce.engines.worker import (
    INPUT_WINDOW_BYTES,
    CancelStream,
    EndOfInput,
    InputTaken,
    OutputRead,
    StreamInput,
    StreamOutput,
    ToWorker,
)

M = TypeVar("M")


class StreamCarrier(Protocol):
    """The process that a stream runs in."""

    def send(self, order: ToWorker) -> None:
        """Write without waiting."""
        ...

    def release(self, number: int) -> None:
        """That stream is closed."""
        ...


class HostStream(Generic[M]):
    """One stream. Iterate it for its messages; the iteration ends when the worker is done.

    Raises EngineError: the worker's own; EngineLost: the process ended or was killed. Messages that
    came before are given first.
    """

    def __init__(self, process: StreamCarrier, number: int, decode: Any) -> None:
        self._process = process
        self._number = number
        self._decode = decode
        self._window = INPUT_WINDOW_BYTES
        self._writable = asyncio.Event()
        self._news = asyncio.Event()
        self._messages: deque[msgspec.Raw] = deque()
        self._error: BaseException | None = None
        self.closed = False
        """Nothing is sent or received any more."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> M:
        while not self._messages and not self.closed:
            self._news.clear()
            await self._news.wait()
        if self._messages:
            message = self._messages.popleft()
            self._process.send(OutputRead(self._number, len(message)))
            made: M = self._decode(message)
            return made
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def feed(self, data: bytes) -> None:
        """Send input, as fast as the worker takes it; nothing once the stream is closed."""
        start = 0
        while start < len(data) and not self.closed:
            if not self._window:
                self._writable.clear()
                await self._writable.wait()
                continue
            piece = data[start : start + self._window]
            self._window -= len(piece)
            start += len(piece)
            self._process.send(StreamInput(self._number, piece))

    def end_input(self) -> None:
        """All input was fed."""
        if not self.closed:
            self._process.send(EndOfInput(self._number))

    async def feed_all(self, audio: AsyncIterator[bytes]) -> None:
        """Send all of it, and the end. What it raises, the reader of the stream raises, too."""
        try:
            async for piece in audio:
                await self.feed(piece)
        except Exception as exc:  # noqa: BLE001  it is raised in the reader
            self.cancel(exc)
        else:
            self.end_input()

    def cancel(self, error: BaseException | None = None) -> None:
        """End the stream early, with an error for its reader if one is given. Frees its place."""
        if not self.closed:
            self._process.send(CancelStream(self._number))
            self.close(error)

    def close(self, error: BaseException | None) -> None:
        """No more will come. Called by the process."""
        if not self.closed:
            self.closed = True
            self._error = error
            self._process.release(self._number)
        self._writable.set()
        self._news.set()

    def receive(self, report: InputTaken | StreamOutput) -> None:
        """A frame of the process about this stream."""
        match report:
            case InputTaken(size=size):
                self._window += size
                self._writable.set()
            case StreamOutput(message=message):
                self._messages.append(message)
                self._news.set()
