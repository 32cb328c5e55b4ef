"""Worker processes of an engine: started, fed, watched, replaced and ended here.

For engines whose library holds the interpreter lock, blocks, or may crash. The engine keeps one
WorkerHost and opens a stream in it for each piece of work; engines/worker.py says how to write the
other side.

    host = WorkerHost("my_package.worker:MyWorker", options, name="stt.mine", message=MyMessage)
    async with host:
        async with host.open(request, audio) as stream:  # audio: an iterator of bytes, or nothing
            async for message in stream:
                ...

* A process that ends by itself is replaced, after a pause that doubles up to MAX_PAUSE_S while that
  goes on; its streams raise EngineLost. The same for a process that answers no ping within
  `hang_seconds` while it has a stream, and then is killed. Another is started in its place after
  half of that time, and gets the streams from then on.
* A process that cannot be started, for whatever reason, is an EngineError to those who wait for it,
  and is tried again.
* `streams_per_worker` streams run in a process at once; further ones wait for at most
  `wait_seconds`, and no more than `max_waiting` of them.
* A stream has a window of bytes in each direction: the faster side waits.
* With `idle_seconds` the processes are ended when nothing was asked of them for so long, and others
  are started by the next stream.
* Leaving the host ends every process and closes every descriptor.
* Where several workers serve together (`WorkerHost.hub`), the processes are those of a host that
  all of them share: engines/shared.py.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import ClassVar, Generic, Self, TypeVar

import msgspec

from vivavoce.engines.base import Residency
from vivavoce.engines.host_stream import HostStream
from vivavoce.engines.process import WorkerProcess
from vivavoce.engines.worker_link import ChildLink, HostLimits, HubLink, WorkerLink, WorkerSpec
from vivavoce.errors import EngineError

log = logging.getLogger(__name__)

__all__ = ["HostLimits", "HostStream", "WorkerHost"]

M = TypeVar("M")
T = TypeVar("T")


class WorkerHost(Generic[M]):
    """The worker processes of one engine. Enter it to start them; see the top of this file."""

    hub: ClassVar[str] = ""
    """The Unix socket of shared hosts; "": each host has its own processes."""

    def __init__(
        self,
        worker: str,
        options: object = None,
        *,
        name: str,
        message: type[M],
        limits: HostLimits | None = None,
    ) -> None:
        """worker: "module:Class". name: "kind:name" of the engine, as in its table of settings.

        message: the type of what the worker sends. options: what the worker is built from.
        """
        self.name = name
        self.limits = limits or HostLimits()
        self.processes: tuple[WorkerProcess, ...] = ()
        self._retired: set[WorkerProcess] = set()  # replaced, and with streams still
        self._spec = WorkerSpec(worker, options, name, self.limits)
        self._waiting: deque[asyncio.Future[WorkerProcess]] = deque()  # for a place, in order
        self._decode = msgspec.msgpack.Decoder(message).decode
        self._entered = False
        self._was_unloaded = False
        self._users = 0  # streams that are open or wait for a place
        self._used_at: float | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Start the processes; they load meanwhile."""
        self._entered = True
        self.start()
        self._wait_for_work()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._entered = False
        if self._idle is not None:
            self._idle.cancel()
        closed = EngineError(f"[engines.{self.name}] the engine was closed")
        self._fail_waiting(closed)
        self._end_processes()
        while self._ending:
            await asyncio.wait(self._ending)

    def start(self) -> None:
        """Start the processes, if they were ended for want of work."""
        if self._entered and not self.processes:
            self.processes = tuple(self._new_process() for _ in range(self._count))

    @property
    def _count(self) -> int:
        return 1 if self.hub else self.limits.workers

    def _new_process(self) -> WorkerProcess:
        def connect() -> WorkerLink:
            return HubLink(self._spec, self.hub) if self.hub else ChildLink(self._spec)

        return WorkerProcess(self._spec, self, connect)

    async def load(self) -> None:
        """Wait until a process has loaded the model. Raises EngineError."""
        with self._in_use():
            (await self._place()).give_place_back()

    async def unload(self) -> None:
        """End the processes until the next use. Raises EngineError: the engine is in use."""
        if self._users:
            raise EngineError(f"[engines.{self.name}] it is in use; try again later")
        self._end_processes()
        while self._ending:
            await asyncio.wait(self._ending)

    def residency(self) -> Residency:
        """What the processes keep in memory."""
        loaded = [one.loaded_at for one in self.processes if one.loaded_at is not None]
        known = [size for one in self.processes if (size := one.memory_bytes) is not None]
        return Residency(
            loaded=bool(loaded),
            users=self._users,
            loaded_at=min(loaded, default=None),
            used_at=self._used_at,
            memory_bytes=sum(known) if known else None,
        )

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """The processes are not ended for want of work meanwhile."""
        self._users += 1
        if self._idle is not None:
            self._idle.cancel()
        try:
            yield
        finally:
            self._users -= 1
            self._used_at = asyncio.get_running_loop().time()
            self._wait_for_work()

    def _wait_for_work(self) -> None:
        """End the processes after `idle_seconds`, unless something is asked of them."""
        if self._entered and self.limits.idle_seconds and not self._users:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self.limits.idle_seconds, self._give_back)

    def _give_back(self) -> None:
        log.info("%s is unloaded: it had no work for %g s", self.name, self.limits.idle_seconds)
        self._end_processes()

    def _end_processes(self) -> None:
        """In the background."""
        processes, self.processes = (*self.processes, *self._retired), ()
        self._was_unloaded = True
        for process in processes:
            task = asyncio.create_task(process.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    @property
    def is_awaited(self) -> bool:
        """Whether a stream waits for a place."""
        return bool(self._waiting)

    def health(self) -> str | None:
        """None while a process works or is being started for the first time; else what is wrong."""
        if not self.processes or any(process.failure is None for process in self.processes):
            return None
        return f"{self.processes[0].failure}; it is started again"

    @property
    def loading(self) -> bool:
        """Whether no process has loaded yet since the host was entered."""
        return not self._was_unloaded and all(process.hello is None for process in self.processes)

    async def loaded(self, hello: type[T]) -> T:
        """What a worker says of itself, when the first is loaded. Raises EngineError."""
        with self._in_use():
            process = await self._place()
            process.give_place_back()
        assert process.hello is not None
        return msgspec.msgpack.decode(process.hello, type=hello)

    @asynccontextmanager
    async def open(
        self, request: object, audio: AsyncIterator[bytes] | None = None
    ) -> AsyncIterator[HostStream[M]]:
        """A stream, fed with the audio beside. Leaving cancels it, if the worker is not done.

        Raises EngineError: no place came free, or no process could be started.
        """
        with self._in_use():
            stream: HostStream[M] = (await self._place()).open(request, self._decode)
            feeding = asyncio.create_task(stream.feed_all(audio)) if audio is not None else None
            try:
                yield stream
            finally:
                stream.cancel()
                if feeding is not None:
                    feeding.cancel()
                    await asyncio.wait({feeding})

    async def _place(self) -> WorkerProcess:
        """A process with a free place, which is taken thereby."""
        limits = self.limits
        self.start()
        if not self.processes:
            raise EngineError(
                f"[engines.{self.name}] it is closed; enter the engine before its use"
            )
        if len(self._waiting) >= limits.max_waiting:
            raise EngineError(
                f"[engines.{self.name}] {limits.max_waiting} wait for it already; {limits.remedy}"
            )
        place: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self.assign_places()
        started = any(process.ready for process in self.processes)
        for process in self.processes:
            process.want()
        taken: WorkerProcess | None = None
        try:
            async with asyncio.timeout(limits.wait_seconds if started else limits.start_seconds):
                taken = await place
        except TimeoutError:
            if started:
                what = f"all places were taken for {limits.wait_seconds:g} s; {limits.remedy}"
            else:
                what = f"its worker process was not ready within {limits.start_seconds:g} s"
            raise EngineError(f"[engines.{self.name}] {what}") from None
        finally:
            with suppress(ValueError):
                self._waiting.remove(place)
            if taken is None and place.done() and not place.cancelled() and not place.exception():
                place.result().give_place_back()
        return taken

    def assign_places(self) -> None:
        """Give free places to those who wait."""
        while self._waiting:
            free = [
                process
                for process in self.processes
                if process.ready
                and (self.hub or process.places_taken < self.limits.streams_per_worker)
            ]
            if not free:
                return
            place = self._waiting.popleft()
            if not place.done():
                process = min(free, key=lambda one: one.places_taken)
                process.places_taken += 1
                place.set_result(process)

    def start_failed(self) -> None:
        """Where all processes are down, fail the waiting streams with the reason."""
        if self.processes and all(process.failure for process in self.processes):
            self._fail_waiting(EngineError(self.processes[0].failure or ""))

    def replace(self, process: WorkerProcess) -> None:
        """Start another in its place; those that wait get the new one."""
        successor = self._new_process()
        successor.succeed(process)
        self.processes = tuple(successor if one is process else one for one in self.processes)
        self._retired.add(process)
        process.retire()

    def retired_ended(self, process: WorkerProcess) -> None:
        """It is gone for good."""
        self._retired.discard(process)

    def _fail_waiting(self, error: EngineError) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)
