"""Listens on the port, within the limits of the process, until a signal ends it."""

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from vivavoce.api.connections import ConnectionTable
from vivavoce.errors import SettingsError
from vivavoce.limits.connections import connections_for
from vivavoce.runtime.sessions import Sessions
from vivavoce.settings import ServerSettings

with contextlib.suppress(ModuleNotFoundError):  # Windows has none
    import resource

log = logging.getLogger(__name__)

BACKLOG = 1024
ACCEPT_RETRY_S = 0.1
HANDLER_TIMEOUT_S = 2.0  # at shutdown, for requests that are being handled
TRIM_THRESHOLD_BYTES = 128 * 1024  # at the end of the heap; more goes back to the system
MMAP_THRESHOLD_BYTES = 32 * 1024  # larger blocks go back to the system as soon as they are freed
MOST_MAPPED = 16_384  # blocks, of the 65,530 mappings that Linux lets a process have
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # mallopt(3)
_ASSUMED_DESCRIPTORS = 1024  # if the limit of the process is unknown
_ASSUMED_IN_USE = 32


class _DropMalformedRequests(logging.Filter):
    """Drops aiohttp's log lines about malformed requests: any client can cause them, and they quote
    headers, which hold keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        malformed = (HttpProcessingError, web.RequestPayloadError)
        return not (record.exc_info and isinstance(record.exc_info[1], malformed))


def configure_library_loggers() -> None:
    """Keep keys and noise of libraries out of the log."""
    server = logging.getLogger("aiohttp.server")
    if not any(isinstance(each, _DropMalformedRequests) for each in server.filters):
        server.addFilter(_DropMalformedRequests())
    # warns of a client without a known subprotocol and quotes those it offers, which hold keys
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
    # logs every candidate pair of every call
    logging.getLogger("aioice").setLevel(logging.WARNING)


def raise_descriptor_limit(wanted: int) -> None:
    """Raise the soft limit of open files to `wanted`, or to the hard limit if that is lower."""
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (NameError, ValueError, OSError) as exc:
        log.debug("the limit of open files cannot be raised: %s", exc)


def fix_malloc_thresholds() -> None:
    """Keep glibc from raising its thresholds: freed memory goes back to the system (mallopt(3)).

    By default the first large block that is freed, such as a message of some MiB, raises the size
    from which blocks are mapped singly. Audio of later sessions then lands on the heap, and
    resident memory stays where the busiest minute has left it. The audio of one turn has some 50
    KiB: on the heap, between small blocks that stay, it would leave holes that only grow. Does
    nothing with other libraries.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    mallopt(_M_MMAP_MAX, MOST_MAPPED)


def max_connections(settings: ServerSettings) -> int:
    """How many connections the server may hold, by its settings and its file descriptors."""
    try:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        unlimited = limit == resource.RLIM_INFINITY
    except (NameError, OSError):
        limit, unlimited = _ASSUMED_DESCRIPTORS, False
    try:
        in_use = len(os.listdir("/proc/self/fd"))
    except OSError:
        in_use = _ASSUMED_IN_USE
    return connections_for(settings, settings.max_open_files if unlimited else limit, in_use)


def tls_context(server: ServerSettings) -> ssl.SSLContext | None:
    """For https and wss, where a certificate is given. Raises SettingsError."""
    if not server.tls_certificate and not server.tls_key:
        return None
    if not (server.tls_certificate and server.tls_key):
        raise SettingsError("[server] tls_certificate and tls_key go together: one is missing")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, server)
    return context


def load_certificate(context: ssl.SSLContext, server: ServerSettings) -> None:
    """Use the files of the settings as they are now, for new connections. Raises SettingsError."""
    try:
        # without a password OpenSSL would ask for one at the terminal, and wait
        context.load_cert_chain(server.tls_certificate, server.tls_key, password="")
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(
            f"[server] tls_certificate {server.tls_certificate} and tls_key {server.tls_key} "
            f"cannot be used: {exc}"
        ) from exc


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to its end, on uvloop where there is one."""
    factory = asyncio.new_event_loop
    with contextlib.suppress(ModuleNotFoundError):  # not available on Windows
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


@asynccontextmanager
async def serve_app(
    app: web.Application,
    settings: ServerSettings,
    tls: ssl.SSLContext | None = None,
    *,
    bound: Sequence[socket.socket] = (),
    unix_path: str = "",
) -> AsyncIterator[int]:
    """Serve an application on the configured host and port; yields the port.

    bound: sockets that have the address already. unix_path: a Unix socket that is served, too, and
    without limits of connections. Raises SettingsError where the address cannot be used.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=HANDLER_TIMEOUT_S,
        keepalive_timeout=settings.keep_alive_seconds,
    )
    await runner.setup()
    beside: asyncio.Server | None = None
    try:
        assert runner.server is not None
        table = ConnectionTable(runner.server, settings, max_connections(settings))
        sockets = list(bound) or await bound_sockets(settings)
        port: int = sockets[0].getsockname()[1]
        if unix_path:
            beside = await asyncio.get_running_loop().create_unix_server(
                runner.server, unix_path, backlog=BACKLOG
            )
        if tls:
            listener = TlsListener(table, tls, settings.head_seconds)
            async with listener.accepting(sockets):
                yield port
        else:
            loop = asyncio.get_running_loop()
            servers = [
                await loop.create_server(table, sock=each, backlog=BACKLOG) for each in sockets
            ]
            try:
                yield port
            finally:
                for server in servers:
                    server.close()
    finally:
        if beside:
            beside.close()
        await runner.cleanup()


async def bound_sockets(
    settings: ServerSettings, port: int | None = None, *, shared: bool = False
) -> list[socket.socket]:
    """One for each address of the host. Raises SettingsError.

    port: in place of the configured one. shared: it does not listen yet, other sockets of this user
    may have the same address, and the system spreads new connections over those that listen
    (SO_REUSEPORT).
    """
    host, port = settings.host, settings.port if port is None else port
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sockets.append(made := socket.socket(family, kind, protocol))
            made.setblocking(False)
            if os.name == "posix":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            if not shared:
                made.listen(BACKLOG)
    except OSError as exc:
        for each in sockets:
            each.close()
        if exc.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"[server] port {port} on {host} is in use; stop what uses it, or choose another "
                f"with --port"
            ) from exc
        raise SettingsError(
            f"[server] cannot listen on {host} port {port}: {exc.strerror or exc}"
        ) from exc
    return sockets


class TlsListener:
    """Accepts connections, and hands them to the table once their TLS handshake is complete.

    A server of asyncio shows a connection only then, so nothing bounds those before it. Here the
    oldest handshake is ended for a new one where the table has no room for both.
    """

    def __init__(
        self, table: ConnectionTable, context: ssl.SSLContext, handshake_seconds: float
    ) -> None:
        self._table = table
        self._context = context
        self._seconds = handshake_seconds
        self._handshakes: dict[asyncio.Task[None], None] = {}  # the oldest first

    @asynccontextmanager
    async def accepting(self, sockets: list[socket.socket]) -> AsyncIterator[None]:
        """Accept from these sockets, and close them at the end."""
        for each in sockets:
            each.listen(BACKLOG)
        accepting = [asyncio.create_task(self._accept(each)) for each in sockets]
        try:
            yield
        finally:
            tasks = (*accepting, *self._handshakes)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in sockets:
                each.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as exc:  # the client is gone, or no descriptor is free
                log.debug("a connection could not be accepted: %s", exc)
                await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            task = asyncio.create_task(self._handshake(accepted))
            self._handshakes[task] = None
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))
            await asyncio.sleep(0)  # it begins
            while len(self._handshakes) > max(1, self._table.room):
                oldest = next(iter(self._handshakes))
                del self._handshakes[oldest]
                oldest.cancel()

    async def _handshake(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # refused, given up or timed out
            await asyncio.get_running_loop().connect_accepted_socket(
                self._table,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._seconds,
            )


def hangup_reloads(settings: ServerSettings) -> bool:
    """Whether SIGHUP asks for the settings to be read again, and not for the end."""
    if settings.on_hangup == "auto":
        return not _has_terminal()
    return settings.on_hangup == "reload"


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, which sends SIGHUP when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class StopSignals:
    """Catches SIGINT, SIGTERM and SIGHUP, unless SIGHUP is ignored (nohup).

    The first asks for an orderly end and the second for an immediate one; from the third on each
    has its default effect. SIGHUP may ask for the settings to be read again instead.
    """

    def __init__(self, *, hangup_reloads: bool = False) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.reload = asyncio.Event()
        """The settings are to be read again. Cleared by who does it."""
        self._handlers = {signal.SIGINT: self._received, signal.SIGTERM: self._received}
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            self._handlers[hangup] = self.reload.set if hangup_reloads else self._received

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for name, handler in self._handlers.items():
            loop.add_signal_handler(name, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._restore()

    def _received(self) -> None:
        if self.first.is_set():
            self.second.set()
            self._restore()
        self.first.set()

    def _restore(self) -> None:
        loop = asyncio.get_running_loop()
        while self._handlers:
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(self._handlers.popitem()[0])


async def drain(sessions: Sessions, seconds: float, stop: StopSignals) -> None:
    """End all sessions: at the latest after so many seconds, at once on a second signal."""
    orderly = asyncio.create_task(sessions.drain(seconds))
    second = asyncio.create_task(stop.second.wait())
    try:
        await asyncio.wait((orderly, second), return_when=asyncio.FIRST_COMPLETED)
        if not orderly.done():
            log.info("a second signal: closing %d sessions at once", len(sessions))
            orderly.cancel()
            await sessions.drain(0)
        else:
            orderly.result()
    finally:
        for task in (orderly, second):
            task.cancel()
        await asyncio.gather(orderly, second, return_exceptions=True)
