"""One worker process at a time, its successors, and the streams in it. Used by engines/host.py."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from vivavoce.engines.host_stream import HostStream
from vivavoce.engines.worker import (
    FromWorker,
    HostFailed,
    InputTaken,
    OpenStream,
    Ping,
    Pong,
    StreamClosed,
    StreamOutput,
    ToWorker,
    WorkerReady,
    raw,
)
from vivavoce.engines.worker_link import CLOSE_TIMEOUT_S, WorkerLink, WorkerSpec
from vivavoce.errors import EngineError, EngineLost
from vivavoce.starting import server_listens

log = logging.getLogger(__name__)


LOAD_TIMEOUT_S = 300.0
"""From the start of a process to its model being loaded."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
"""Between two starts of a process that ends soon."""
SETTLED_S = 10.0
"""A process that lived so long is replaced without a pause."""
PINGS = 4
"""In `hang_seconds`. A process that answers none of them hangs."""
REPLACED_AFTER = 0.5
"""Of `hang_seconds`: then another is started, which loads its model while the first may yet answer,
so that what was lost with the first can be done again at once."""
MAX_STARVATION = 4
"""On a machine with too much to do, a process is given up after at most this often that time."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class ProcessOwner(Protocol):
    """What a process needs of its host."""

    @property
    def is_awaited(self) -> bool:
        """Whether a stream waits for a process."""
        ...

    def assign_places(self) -> None:
        """A place may have become free."""
        ...

    def start_failed(self) -> None:
        """A process ended before it was ready."""
        ...

    def replace(self, process: "WorkerProcess") -> None:
        """It does not answer: start another beside it, and retire it."""
        ...

    def retired_ended(self, process: "WorkerProcess") -> None:
        """A process that was retired has ended."""
        ...


class WorkerProcess:
    """A process and its successors, one at a time; the streams in it."""

    def __init__(
        self, spec: WorkerSpec, owner: ProcessOwner, connect: Callable[[], WorkerLink]
    ) -> None:
        """connect: makes the link of the next process, which the link starts."""
        self.ready = False
        self.failure: str | None = None
        """Why the last process ended, in a sentence; None while there is one that works."""
        self.hello: msgspec.Raw | None = None
        self.loaded_at: float | None = None
        """When the first process had loaded its model."""
        self.places_taken = 0
        self._spec = spec
        self._owner = owner
        self._streams: dict[int, HostStream[Any]] = {}
        self._opened = 0
        self._connect = connect
        self._link = connect()
        self._alive = False
        self._retired = False
        self._stopped = asyncio.Event()
        self._owed = asyncio.Event()  # there are streams
        self._wanted = asyncio.Event()  # a stream waits for it
        self._task = asyncio.create_task(self._run())

    @property
    def closing(self) -> bool:
        """Whether close() was called."""
        return self._stopped.is_set()

    @property
    def memory_bytes(self) -> int | None:
        """Resident memory of the process; None: there is none, or it is not known."""
        if (pid := self._link.pid) is None:
            return None
        try:
            fields = Path(f"/proc/{pid}/statm").read_bytes().split()
        except OSError:
            return None
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else None

    def open(self, request: object, decode: Any) -> HostStream[Any]:
        """A stream, in a place that was taken before."""
        self._opened += 1
        stream: HostStream[Any] = HostStream(self, self._opened, decode)
        self._streams[self._opened] = stream
        self._owed.set()
        if self.ready:
            self.send(OpenStream(self._opened, raw(request)))
        else:  # it ended since the place was given
            stream.close(EngineLost(self.failure or "its worker process ended"))
        return stream

    def release(self, number: int) -> None:
        """That stream is closed: its place is free."""
        if self._streams.pop(number, None) is not None:
            self.give_place_back()
        if not self._streams:
            self._owed.clear()

    def give_place_back(self) -> None:
        self.places_taken -= 1
        self._end_if_retired()
        self._owner.assign_places()

    def succeed(self, process: "WorkerProcess") -> None:
        """Be the one in whose place that process was, which does not answer."""
        self.hello, self.failure = process.hello, process.unanswered()

    def retire(self) -> None:
        """End it when its streams have ended, or when it hangs for good; start none again."""
        self._retired = True
        self._end_if_retired()

    def unanswered(self) -> str:
        """What is wrong with a process that is to be replaced."""
        seconds = self._spec.limits.hang_seconds * REPLACED_AFTER
        return f"[engines.{self._spec.name}] its worker process has not answered for {seconds:g} s"

    def _end_if_retired(self) -> None:
        if self._retired and not self.places_taken:
            self.kill("was replaced")

    def want(self) -> None:
        """Start it soon, if it is down."""
        self._wanted.set()

    def send(self, order: ToWorker) -> None:
        """See WorkerLink.send()."""
        self._link.send(order)

    def kill(self, reason: str = "") -> None:
        """See WorkerLink.kill()."""
        self._link.kill(reason)

    async def close(self) -> None:
        """End the process and start none again."""
        self._stopped.set()
        self._wanted.set()
        self._link.end_input()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.shield(self._task)
        except TimeoutError:
            pass
        finally:
            self.kill()
            await self._task

    async def _run(self) -> None:
        soon, loop = 0, asyncio.get_running_loop()  # processes in a row that ended soon
        await server_listens(unless=self._wanted)
        while not self.closing:
            began = loop.time()
            try:
                self._link = self._connect()
                ended = await self._link.run(self)
            except Exception as exc:
                log.exception("[engines.%s] serving its worker process failed", self._spec.name)
                ended = f"its worker process was given up: {type(exc).__name__}"
            soon = 0 if self.ready and loop.time() - began >= SETTLED_S else soon + 1
            self._lost(ended)
            if self._retired:
                self._owner.retired_ended(self)
                return
            if self.closing:
                return
            log.warning("%s; starting another", self.failure)
            if soon > 1:
                await self._pause(min(MAX_PAUSE_S, MIN_PAUSE_S * 2 ** min(soon - 2, 10)))

    async def _pause(self, seconds: float) -> None:
        """Wait so long; only MIN_PAUSE_S where a stream waits for the process."""
        self._wanted.clear()
        await _set_within(self._stopped, MIN_PAUSE_S)
        if not self._owner.is_awaited:
            await _set_within(self._wanted, seconds - MIN_PAUSE_S)

    def _lost(self, ended: str) -> None:
        """The process is gone: its streams end."""
        started, self.ready = self.ready, False
        self.failure = ended if ended.startswith("[") else f"[engines.{self._spec.name}] {ended}"
        error: EngineError
        if self.closing:
            error = EngineError(f"[engines.{self._spec.name}] the engine was closed")
        else:
            error = EngineLost(self.failure)
        for stream in tuple(self._streams.values()):
            stream.close(error)
        if not started:
            self._owner.start_failed()

    def receive(self, report: FromWorker) -> None:
        """See LinkUser."""
        self._alive = True
        match report:
            case WorkerReady(hello):
                self.hello = hello
                self.loaded_at = self.loaded_at or asyncio.get_running_loop().time()
                self.ready, self.failure = True, None
                self._owner.assign_places()
            case Pong() | HostFailed():  # the latter is for the link
                pass
            case StreamClosed(number, error, lost):
                if number in self._streams:
                    name, kind = self._spec.name, EngineLost if lost else EngineError
                    self._streams[number].close(
                        kind(error if error.startswith("[") else f"[engines.{name}] {error}")
                        if error
                        else None
                    )
            case InputTaken(stream=number) | StreamOutput(stream=number):
                if number in self._streams:  # else it was cancelled while this was on its way
                    self._streams[number].receive(report)

    async def watch(self, pid: int) -> None:
        """Kill a process that does not load, or that answers nothing while it has a stream."""
        seconds = self._spec.limits.hang_seconds
        tick = seconds / PINGS
        for _ in range(round(LOAD_TIMEOUT_S / tick)):
            if self.ready:
                break
            await asyncio.sleep(tick)
        else:
            self.kill(f"did not load within {LOAD_TIMEOUT_S:g} s, and was killed")
        silent = 0.0  # counted in ticks: a server that was busy itself blames no worker
        while silent < seconds:
            await self._owed.wait()
            self._alive = False
            before = _cpu_seconds(pid)
            self.send(Ping())
            await asyncio.sleep(tick)
            if self._alive or not self._streams:
                silent = 0.0
            else:
                silent += working_seconds(before, _cpu_seconds(pid), tick)
            if silent >= seconds * REPLACED_AFTER and not self._retired:
                log.warning("%s; starting another", self.unanswered())
                self._owner.replace(self)
        self.kill(f"gave no sign of life for {seconds:g} s, and was killed")


def _cpu_seconds(pid: int) -> float | None:
    """CPU time of a process that runs or waits for a CPU; None where it waits for something else.

    Also None where there is no /proc, or the process is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] != b"R":
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def working_seconds(before: float | None, after: float | None, elapsed: float) -> float:
    """How much of the elapsed time counts for a process that did not answer.

    All of it for one that is stopped or sleeps; for one that waits for a CPU what it got of it.
    """
    if after is None:
        return elapsed
    used = after - before if before is not None else elapsed
    return min(elapsed, max(used, elapsed / MAX_STARVATION))


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, and no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
