"""The server's side of one recogniser process: starts it, feeds it, listens to it, ends it."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from vivavoce.engines.pocketsphinx.frames import (
    HEADER_BYTES,
    WINDOW_BYTES,
    Cancel,
    End,
    Feed,
    Heard,
    Open,
    Order,
    Ready,
    Report,
    Taken,
    body_bytes,
    packed,
    report,
)
from vivavoce.errors import EngineError, EngineLost

CLOSE_SECONDS = 2.0
COMPLAINT_BYTES = 4_000
COMMAND = (sys.executable, "-m", "vivavoce.engines.pocketsphinx.worker")


class Stream:
    """One utterance in a process. What it hears replaces what was heard before and not read."""

    def __init__(self, number: int, process: "RecogniserProcess") -> None:
        self._number = number
        self._process = process
        self._room = WINDOW_BYTES
        self._taken = asyncio.Event()
        self._news = asyncio.Event()
        self._heard: Heard | None = None

    async def feed(self, audio: bytes) -> None:
        """Send audio, as fast as the process takes it."""
        start = 0
        while start < len(audio):
            while not self._room:
                self._taken.clear()
                await self._taken.wait()
            piece = audio[start : start + self._room]
            self._room -= len(piece)
            start += len(piece)
            self._process.send(Feed(self._number, piece))

    def end(self) -> None:
        """All has been fed."""
        self._process.send(End(self._number))

    def cancel(self) -> None:
        """Nobody listens any more: what is fed from now on goes nowhere."""
        self._process.forget(self._number)
        self._room = sys.maxsize
        self._taken.set()

    async def hear(self) -> Heard | None:
        """Wait for news; None when there is none but wake() was called.

        Raises EngineError: the process is gone; EngineLost where nobody has ended it.
        """
        await self._news.wait()
        self._news.clear()
        if self._process.failure is not None:
            kind = EngineError if self._process.closing else EngineLost
            raise kind(self._process.failure)
        heard, self._heard = self._heard, None
        return heard

    def wake(self) -> None:
        """Let hear() return."""
        self._news.set()

    def take(self, told: Taken | Heard) -> None:
        """A report of the process about this utterance."""
        match told:
            case Taken(_, size):
                self._room += size
                self._taken.set()
            case Heard():
                self._heard = told
                self._news.set()


class RecogniserProcess:
    """A process and the utterances in it. It runs from the first moment to close()."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self.failure: str | None = None
        """Why it cannot be used any more, in a sentence."""
        self.closing = False
        """Whether it is being ended."""
        self.places_taken = 0
        """For the one who gives them out."""
        self._command = command
        self._known = asyncio.Event()  # whether it works or not
        self._streams: dict[int, Stream] = {}
        self._opened = 0
        self._process: asyncio.subprocess.Process | None = None
        self._running = asyncio.create_task(self._run())

    async def ready(self, seconds: float) -> Self:
        """Wait until the model is loaded. Raises EngineError: it is not, or the process ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._known.wait()
        except TimeoutError:
            raise EngineError(
                f"[stt.pocketsphinx] the recogniser was not ready within {seconds:g} s; "
                "raise start_seconds, or set fewer workers"
            ) from None
        if self.failure is not None:
            raise EngineError(self.failure)
        return self

    @contextmanager
    def listen(self) -> Iterator[Stream]:
        """An utterance. Leaving forgets it at once, finished or not."""
        self._opened += 1
        number = self._opened
        stream = self._streams[number] = Stream(number, self)
        self.send(Open(number))
        try:
            yield stream
        finally:
            self.forget(number)

    def forget(self, number: int) -> None:
        """Cancel the utterance, if that was not done before."""
        self.send(Cancel(number))
        self._streams.pop(number, None)

    def send(self, order: Order) -> None:
        """Write without waiting: a stream has at most WINDOW_BYTES under way.

        Nothing is written to a process that ends, or about an utterance that is forgotten.
        """
        if self.closing or self.failure is not None or order.stream not in self._streams:
            return
        assert self._process is not None
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():  # uvloop raises RuntimeError for a dead process
            self._process.stdin.write(packed(order))

    async def close(self) -> None:
        """End the process: kindly, then not."""
        self.closing = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.shield(self._running)
        except TimeoutError:
            pass
        finally:
            self.kill()
        await self._running

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _run(self) -> None:
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            self._fail(f"could not be started: {exc.strerror}")
            return
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        if self.closing:
            process.stdin.close()
        async with asyncio.TaskGroup() as tasks:
            complaint = tasks.create_task(_last_line(process.stderr))
            await self._read(process.stdout)
        code = await process.wait()
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        said = complaint.result()
        self._fail(f"{ended} ({said})" if said else ended)
        process.stdin.close()

    async def _read(self, source: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = body_bytes(await source.readexactly(HEADER_BYTES))
                self._take(report(await source.readexactly(size)))

    def _take(self, told: Report) -> None:
        match told:
            case Ready():
                self._known.set()
            case Taken(stream=number) | Heard(stream=number):
                # Else it was cancelled while this was on its way.
                if number in self._streams:
                    self._streams[number].take(told)

    def _fail(self, what: str) -> None:
        self.failure = (
            f"[stt.pocketsphinx] the recogniser process {what}; the next utterance gets a new one"
        )
        self._known.set()
        for stream in self._streams.values():
            stream.wake()


async def _last_line(source: asyncio.StreamReader) -> str:
    """What the process complained of last, shortened."""
    tail = b""
    while piece := await source.read(COMPLAINT_BYTES):
        tail = (tail + piece)[-COMPLAINT_BYTES:]
    lines = tail.decode(errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
