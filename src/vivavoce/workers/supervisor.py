"""The supervisor of several worker processes that serve on one port: `vivavoce serve --workers N`.

It starts the workers, asks each every second whether it works, replaces one that has ended or does
not answer, passes on signals, and answers /metrics, /health and /ready for all of them. It owns the
processes of engines, which the workers share (engines/shared.py). Other requests do not pass
through it: the system distributes connections over the workers (SO_REUSEPORT). Where the system
cannot do that, all workers accept from one socket.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web

from vivavoce import __version__
from vivavoce.api.http_errors import json_response
from vivavoce.api.public import HealthStatus, ReadyStatus
from vivavoce.engines.shared import HostHub
from vivavoce.errors import SettingsError
from vivavoce.secret import Secret
from vivavoce.server import (
    StopSignals,
    bound_sockets,
    hangup_reloads,
    raise_descriptor_limit,
    tls_context,
)
from vivavoce.settings import Settings
from vivavoce.workers.clustering import placed
from vivavoce.workers.control import METRICS_PATH, STATUS_PATH, served_at
from vivavoce.workers.merging import added, merged
from vivavoce.workers.messages import (
    BannerModel,
    WorkerOrder,
    WorkerStatus,
    client_socket,
    control_socket,
    hub_socket,
    send_order,
    supervisor_socket,
)

log = logging.getLogger(__name__)

POLL_S = 1.0
"""How often each worker is asked whether it works."""
START_POLL_S = 0.05
"""How often, before its first answer."""
START_TIMEOUT_S = 330.0
"""From the start of a process to its first answer: with [server] strict it loads its models."""
HANG_POLLS = 10
"""A worker is killed after this many questions in a row without an answer."""
METRICS_POLLS = 5
"""The counters of a worker are kept as they were at most so many questions before its end."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
"""The pause between two starts of a process that ends soon."""
SETTLED_S = 10.0
"""A process that ran this long is replaced without a pause."""
STOP_TIMEOUT_S = 20.0
"""For a worker to end, beyond the time in which answers may end."""
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_COMMAND = "from vivavoce.workers.worker import main; main({})"

Announce = Callable[[tuple[BannerModel, ...], str, int], None]
"""Called with the models, the address and the number of workers, once all of them serve."""


class Launch(NamedTuple):
    """What all workers are started with."""

    settings: Settings
    config: str | None
    """The settings file; None: the default places."""
    flags: dict[str, Any]
    workers: int


class NotStartedError(Exception):
    """A worker ended before it served. It has printed the reason."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker ended with code {code}")
        self.code = code if code > 0 else 1


async def supervise(launch: Launch, announce: Announce) -> None:
    """Serve until a signal. Raises SettingsError when it cannot start; SystemExit when a worker
    could not start, which has said why."""
    server = launch.settings.server
    check(launch.settings)
    raise_descriptor_limit(server.max_open_files)
    reloads = hangup_reloads(server)
    with (
        StopSignals(hangup_reloads=reloads) as stop,
        tempfile.TemporaryDirectory(prefix="vivavoce-") as folder,
    ):
        async with Address.of(launch.settings) as address:
            supervisor = Supervisor(launch, address, folder)
            async with supervisor.hub.serving(hub_socket(folder)), supervisor.answering():
                running = asyncio.create_task(supervisor.run(announce))
                first = asyncio.create_task(stop.first.wait())
                reloading = asyncio.create_task(supervisor.reload_when(stop.reload))
                try:
                    await asyncio.wait((running, first), return_when=asyncio.FIRST_COMPLETED)
                    if not running.done():
                        await supervisor.stop(stop)
                finally:
                    tasks = (running, first, reloading)
                    for task in tasks:
                        task.cancel()
                    results = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(failure := results[0], NotStartedError):
        raise SystemExit(failure.code)
    if isinstance(failure, Exception):
        raise failure


def check(settings: Settings) -> None:
    """Refuse settings with which several processes cannot work. Raises SettingsError."""
    tls_context(settings.server)
    placed(settings, None)
    url = settings.store.url
    if (url.reveal() if isinstance(url, Secret) else url) == "memory":
        raise SettingsError(
            "[store] url: memory is that of one process; with several workers use sqlite:PATH or "
            "redis://HOST, or serve with --workers 1"
        )


class Address:
    """The address that all workers share. It is reserved while none of them serves."""

    def __init__(self, settings: Settings, kept: list[socket.socket]) -> None:
        self._server = settings.server
        self._kept = kept
        self._shared = hasattr(socket, "SO_REUSEPORT") and sys.platform == "linux"

    @classmethod
    @asynccontextmanager
    async def of(cls, settings: Settings) -> AsyncIterator["Address"]:
        """Raises SettingsError where the address cannot be used."""
        found = cls(settings, await bound_sockets(settings.server))
        try:
            if found._shared:  # it is free: other servers would share it as willingly
                port = found.port
                for each in found._kept:
                    each.close()
                found._kept = await bound_sockets(settings.server, port, shared=True)
            yield found
        finally:
            for each in found._kept:
                each.close()

    @property
    def port(self) -> int:
        return int(self._kept[0].getsockname()[1])

    async def sockets(self) -> list[socket.socket]:
        """Those of a new worker. Raises SettingsError."""
        if self._shared:
            return await bound_sockets(self._server, self.port, shared=True)
        return [each.dup() for each in self._kept]


class Supervisor:
    """All workers, and what is answered for them."""

    def __init__(self, launch: Launch, address: Address, folder: str) -> None:
        self.launch = launch
        self.address = address
        self.folder = folder
        self.hub = HostHub()
        self.secret = secrets.token_hex(32)
        self.ended_metrics = ""
        """The counters of workers that have ended."""
        self.workers = [SupervisedWorker(self, index) for index in range(launch.workers)]
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer at a Unix socket what workers forward."""
        app = web.Application()
        app.router.add_get("/health", self.health)
        app.router.add_get("/ready", self.ready)
        app.router.add_get("/metrics", self.metrics)
        async with served_at(app, supervisor_socket(self.folder)):
            yield

    async def run(self, announce: Announce) -> None:
        """Start all workers, one first: what keeps it from serving is then said once."""
        first, *others = self.workers
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks.append(group.create_task(first.run()))
                await first.serves.wait()
                self._tasks += [group.create_task(worker.run()) for worker in others]
                for worker in others:
                    await worker.serves.wait()
                if first.status is not None:
                    announce(first.status.models, first.status.address, len(self.workers))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def reload_when(self, asked: asyncio.Event) -> None:
        """Let all workers read their settings again whenever `asked` is set."""
        while True:
            await asked.wait()
            asked.clear()
            for worker in self.workers:
                worker.reload()

    async def stop(self, stop: StopSignals) -> None:
        """Let all workers end in order; a second signal closes their sessions at once."""
        log.info("shutting down %d workers", len(self.workers))
        for worker in self.workers:
            worker.stop()
        second = asyncio.create_task(stop.second.wait())
        ended = asyncio.gather(*self._tasks, return_exceptions=True)
        seconds = self.launch.settings.server.drain_seconds + STOP_TIMEOUT_S
        try:
            await asyncio.wait(
                (ended, second), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if second.done() and not ended.done():
                for worker in self.workers:
                    worker.stop()
                await asyncio.wait((ended,), timeout=STOP_TIMEOUT_S)
            if not ended.done():
                log.error("workers that have not ended are killed")
        finally:
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)

    async def health(self, _request: web.Request) -> web.Response:
        return json_response(HealthStatus(version=__version__, sessions=self.ready_status.sessions))

    async def ready(self, _request: web.Request) -> web.Response:
        status = self.ready_status
        return json_response(status, 200 if status.status == "ready" else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        found = await asyncio.gather(*(worker.metrics() for worker in self.workers))
        texts = [text for text in found if text]
        own = "".join(worker.described() for worker in self.workers)
        text = await asyncio.to_thread(merged, texts, self.ended_metrics)
        return web.Response(text=text + _HEADS + own, headers={"Content-Type": PROMETHEUS})

    @property
    def ready_status(self) -> ReadyStatus:
        """That of the server: it is ready if a worker is, from when all have loaded their models.

        The first would otherwise get the clients who wait for the start, and keep them.
        """
        known = [worker.status.ready for worker in self.workers if worker.status]
        down: dict[str, str] = {}
        for one in known:
            down |= one.engines
        down |= self.hub.problems()
        began = all(worker.has_loaded for worker in self.workers)
        ready = began and not down and any(one.status == "ready" for one in known)
        return ReadyStatus(
            status="ready" if ready else "not ready",
            sessions=sum(one.sessions for one in known),
            engines=down,
            loading=tuple(sorted({name for one in known for name in one.loading})),
            members={name: servers for one in known for name, servers in one.members.items()},
        )

    async def note_end(self, metrics: str) -> None:
        """Keep the counters of a worker that has ended."""
        if metrics:
            self.ended_metrics = await asyncio.to_thread(added, self.ended_metrics, metrics)


_HEADS = (
    "# HELP vivavoce_worker_sessions Sessions of each worker\n"
    "# TYPE vivavoce_worker_sessions gauge\n"
    "# HELP vivavoce_worker_restarts_total Workers that were replaced\n"
    "# TYPE vivavoce_worker_restarts_total counter\n"
)


class SupervisedWorker:
    """One worker process, and its successors."""

    def __init__(self, supervisor: Supervisor, index: int) -> None:
        self.status: WorkerStatus | None = None
        """What it answered last; None: it does not serve."""
        self.serves = asyncio.Event()
        """Whether it has served before."""
        self.has_loaded = False
        """Whether it has served before with all its models loaded."""
        self.restarts = 0
        self._supervisor = supervisor
        self._index = index
        self._process: Process | None = None
        self._last_metrics = ""
        self._stopping = asyncio.Event()
        self._http: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        return f"w{self._index}"

    async def run(self) -> None:
        """Keep a process running until stop(). Raises NotStartedError where the first is unable."""
        soon, loop = 0, asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            ended = await self._live()
            self.status = None
            await self._supervisor.note_end(self._last_metrics)
            self._last_metrics = ""
            if self._stopping.is_set():
                return
            if not self.serves.is_set():
                raise NotStartedError(ended)
            soon = 0 if loop.time() - began >= SETTLED_S else soon + 1
            self.restarts += 1
            log.error("worker %s %s; starting another", self.name, _how(ended))
            if soon > 1:
                pause = min(MAX_PAUSE_S, MIN_PAUSE_S * 2 ** min(soon - 2, 10))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()

    def stop(self) -> None:
        """Ask the process to end; the second time, to end at once."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def reload(self) -> None:
        """Ask the process to read its settings again; a process that has not served yet reads them
        anyway."""
        if self.status is not None:
            self._signal(signal.SIGHUP)

    async def metrics(self) -> str:
        """Its metrics; "" where it does not answer."""
        try:
            return await self._ask(METRICS_PATH) if self.status else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    def described(self) -> str:
        """What the supervisor itself knows of it, as metrics."""
        sessions = self.status.ready.sessions if self.status else 0
        label = f'{{worker="{self._index}"}}'
        return (
            f"vivavoce_worker_sessions{label} {sessions}\n"
            f"vivavoce_worker_restarts_total{label} {self.restarts}\n"
        )

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _live(self) -> int:
        """One process, from its start to its end; its exit code."""
        folder = self._supervisor.folder
        for path in (client_socket(folder, self._index), control_socket(folder, self._index)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        pipe = await self._spawn()
        connector = aiohttp.UnixConnector(control_socket(folder, self._index))
        assert self._process is not None
        try:
            async with aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=POLL_S)
            ) as self._http:
                watch = asyncio.create_task(self._watch(self._process))
                try:
                    return await self._process.wait()
                finally:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
        finally:
            self._signal(signal.SIGKILL)
            await asyncio.shield(self._process.wait())
            # only now: the process takes a closed pipe for the end of the supervisor
            os.close(pipe)
            self._http = None

    async def _spawn(self) -> int:
        """Start the process; the end of the pipe that it reads from."""
        supervisor, launch = self._supervisor, self._supervisor.launch
        sockets = await supervisor.address.sockets()
        source, sink = os.pipe()
        try:
            descriptors = tuple(each.fileno() for each in sockets)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the working directory holds no modules of ours
                "-c",
                _COMMAND.format(source),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(source, *descriptors),
                start_new_session=True,  # a terminal's signals are for the supervisor alone
            )
        except BaseException:
            os.close(sink)
            raise
        finally:
            os.close(source)
            for each in sockets:
                each.close()
        order = WorkerOrder(
            index=self._index,
            count=launch.workers,
            config=launch.config,
            flags=launch.flags,
            descriptors=descriptors,
            folder=supervisor.folder,
            secret=supervisor.secret,
        )
        send_order(sink, order)
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        return sink

    async def _watch(self, process: Process) -> None:
        """Ask it whether it works, and kill it where it does not answer."""
        if not await self._answers_within(START_TIMEOUT_S):
            log.error("worker %s did not start within %g s", self.name, START_TIMEOUT_S)
            process.kill()
            return
        missed = asked = 0
        # counted in questions, so that a busy supervisor does not kill workers
        while missed < HANG_POLLS:
            asked += 1
            if await self._poll():
                missed = 0
            else:
                missed += 1
            if asked % METRICS_POLLS == 0:
                self._last_metrics = await self.metrics() or self._last_metrics
            await asyncio.sleep(POLL_S)
        log.error("worker %s has not answered for %g s", self.name, HANG_POLLS * POLL_S)
        process.kill()

    async def _answers_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await self._poll():  # noqa: ASYNC110  it happens in another process
                    await asyncio.sleep(START_POLL_S)
                return True
        return False

    async def _poll(self) -> bool:
        try:
            text = await self._ask(STATUS_PATH)
        except (aiohttp.ClientError, TimeoutError):
            return False
        self.take(msgspec.json.decode(text, type=WorkerStatus))
        return True

    def take(self, status: WorkerStatus) -> None:
        """Note an answer of the process."""
        self.status = status
        self.serves.set()
        self.has_loaded = self.has_loaded or not status.ready.loading

    async def _ask(self, path: str) -> str:
        if self._http is None:
            raise aiohttp.ClientConnectionError("the process has ended")
        async with self._http.get(f"http://localhost{path}") as answer:
            return await answer.text()


def _how(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
