"""What a worker process is spoken to by: its pipes, or a connection to the host that owns it."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from vivavoce.engines.worker import (
    HEADER,
    FromWorker,
    HostFailed,
    ShareHost,
    StartWorker,
    ToWorker,
    decode_report,
    packed,
    raw,
)

CLOSE_TIMEOUT_S = 2.0
"""For a process to end by itself."""
MAX_FRAME_BYTES = 64 << 20
MAX_COMPLAINT_BYTES = 4_000

_COMMAND = "from vivavoce.engines.worker import main; main({!r})"


class HostLimits(msgspec.Struct, frozen=True):
    """Numbers of one host."""

    workers: int = 1
    streams_per_worker: int = 1
    max_waiting: int = 1_000
    """Streams that wait for a place; one more is refused."""
    start_seconds: float = 20.0
    """How long a stream waits for a process that is being started."""
    wait_seconds: float = 10.0
    """How long a stream waits for a place when all are taken."""
    hang_seconds: float = 5.0
    """Longer than any turn of the worker takes."""
    nice: int = 0
    """Added to the niceness of the process; above 0, the server comes first."""
    idle_seconds: float = 0.0
    """Processes without work for so long are ended; the next work starts others. 0: they stay."""
    remedy: str = "raise its workers"
    """What an operator can do when all places are taken."""


class WorkerSpec(msgspec.Struct, frozen=True):
    """What the processes of a host run."""

    worker: str
    """"module:Class"."""
    options: object
    name: str
    """"kind:name" of the engine, as in its table of settings."""
    limits: HostLimits


class LinkUser(Protocol):
    """What a link needs of the WorkerProcess that made it."""

    @property
    def closing(self) -> bool:
        """Whether the process is to end at once."""
        ...

    def receive(self, report: FromWorker) -> None:
        """The process has sent this."""
        ...

    def watch(self, pid: int) -> Coroutine[Any, Any, None]:
        """Runs while a process of this machine lives, and kills it where it hangs."""
        ...


class WorkerLink(Protocol):
    """One process, or one connection, from its start to its end."""

    @property
    def pid(self) -> int | None:
        """Of the process; None: there is none, or it is another's."""
        ...

    def send(self, order: ToWorker) -> None:
        """Write without waiting: the windows of the streams bound what is under way."""
        ...

    def end_input(self) -> None:
        """Let the process end by itself."""
        ...

    def kill(self, reason: str = "") -> None:
        """End it at once; `reason` becomes the reason of its end."""
        ...

    async def run(self, user: LinkUser) -> str:
        """Start it, and pass on what it sends until it ends; return how, as a part of a sentence
        or as one that begins with the name of the engine."""
        ...


class ChildLink:
    """The pipes of a child process."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._process: Process | None = None
        self._killed_for = ""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def send(self, order: ToWorker) -> None:
        stdin = self._process.stdin if self._process else None
        if stdin and not stdin.is_closing():  # uvloop raises RuntimeError for a dead process
            stdin.write(packed(order))

    def end_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self, reason: str = "") -> None:
        self._killed_for = self._killed_for or reason
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def run(self, user: LinkUser) -> str:
        return f"its worker process {await self._run(user)}"

    async def _run(self, user: LinkUser) -> str:
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the working directory holds no modules of ours
                "-c",
                _COMMAND.format(self._spec.worker),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
            )
        except OSError as exc:
            return f"could not be started: {_reason(exc)}"
        assert process.stdin
        assert process.stdout
        assert process.stderr
        complaint = asyncio.create_task(last_line(process.stderr))
        watch = asyncio.create_task(user.watch(process.pid))
        try:
            if user.closing:
                process.stdin.close()
            self.send(StartWorker(raw(self._spec.options), self._spec.limits.nice))
            while (report := await _next(process.stdout)) is not None:
                user.receive(report)
        except msgspec.MsgspecError:
            self.kill("sent something that is no frame, and was killed")
        finally:
            watch.cancel()
            code = await _ended(process)
            await asyncio.wait({complaint}, timeout=CLOSE_TIMEOUT_S)
            complaint.cancel()
            self._process = None
        if self._killed_for:
            return self._killed_for
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        said = complaint.result() if complaint.done() and not complaint.cancelled() else ""
        return f"{how} ({said})" if said else how


class HubLink:
    """A connection to the host of engines/shared.py that owns processes, and watches them."""

    def __init__(self, spec: WorkerSpec, hub: str) -> None:
        """hub: the path of a Unix socket."""
        self._spec = spec
        self._hub = hub
        self._writer: asyncio.StreamWriter | None = None
        self._killed_for = ""

    @property
    def pid(self) -> None:
        return None

    def send(self, order: ToWorker) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(packed(order))

    def end_input(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def kill(self, reason: str = "") -> None:
        self._killed_for = self._killed_for or reason
        self.end_input()

    async def run(self, user: LinkUser) -> str:
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._hub)
        except OSError as exc:
            return f"its host cannot be reached: {_reason(exc)}"
        try:
            if user.closing:
                return "was closed"
            spec = self._spec
            limits = raw(msgspec.structs.replace(spec.limits, idle_seconds=0.0))
            self.send(ShareHost(spec.worker, raw(spec.options), spec.name, limits))
            while (report := await _next(reader)) is not None:
                if isinstance(report, HostFailed):
                    self._killed_for = report.reason
                else:
                    user.receive(report)
        except msgspec.MsgspecError:
            self._killed_for = "its host sent something that is no frame"
        finally:
            self._writer.close()
            self._writer = None
        return self._killed_for or "its host has closed the connection"


async def _next(source: asyncio.StreamReader) -> FromWorker | None:
    """The next report; None: there is none. Raises MsgspecError."""
    try:
        (size,) = HEADER.unpack(await source.readexactly(HEADER.size))
        if size > MAX_FRAME_BYTES:
            raise msgspec.DecodeError("a frame is too long")
        return decode_report(await source.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _reason(exc: OSError) -> str:
    said = exc.strerror or str(exc)
    # uvloop has no words for it when pipes cannot be made
    unknown = said.startswith("Unknown error")
    return "no descriptor, memory or process is free" if unknown else said


async def _ended(process: Process) -> int:
    """Let the process end, by force if it does not; its code."""
    assert process.stdin
    process.stdin.close()
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


async def last_line(source: asyncio.StreamReader) -> str:
    """What the process complained of last, shortened."""
    tail = b""
    while piece := await source.read(MAX_COMPLAINT_BYTES):
        tail = (tail + piece)[-MAX_COMPLAINT_BYTES:]
    lines = tail.decode(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
