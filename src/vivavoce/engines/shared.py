"""Worker processes of engines that several processes of the server use together.

The supervisor of several workers serves a Unix socket. In a worker, WorkerHost connects to it
instead of starting processes (`WorkerHost.hub`), and sends the worker class, its options and its
limits. Requests with the same values share one host, whose processes are started once; the frames
are those of engines/worker.py. A host is closed LINGER_S after its last connection has ended.

    worker                    supervisor
    WorkerHost ── Unix socket ── HostHub ── WorkerHost ── pipes ── process
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from vivavoce.engines.host import WorkerHost
from vivavoce.engines.worker import (
    HEADER,
    OUTPUT_WINDOW_BYTES,
    CancelStream,
    EndOfInput,
    FromWorker,
    HostFailed,
    InputTaken,
    OpenStream,
    OutputRead,
    Ping,
    Pong,
    ShareHost,
    StreamClosed,
    StreamInput,
    StreamOutput,
    ToWorker,
    WorkerReady,
    decode_order,
    packed,
)
from vivavoce.engines.worker_link import MAX_FRAME_BYTES, HostLimits
from vivavoce.errors import EngineError, EngineLost

log = logging.getLogger(__name__)

LINGER_S = 30.0
"""A worker that is restarted finds the models loaded."""


class SharedHost:
    """A host, and how many are connected to it."""

    def __init__(self, asked: ShareHost) -> None:
        limits = msgspec.msgpack.decode(asked.limits, type=HostLimits)
        self.host: WorkerHost[msgspec.Raw] = WorkerHost(
            asked.worker, asked.options, name=asked.name, message=msgspec.Raw, limits=limits
        )
        self.users = 0
        self.leaving: asyncio.TimerHandle | None = None


class HostHub:
    """All shared hosts. An async context manager."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, SharedHost] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self, path: str) -> AsyncIterator[None]:
        """Serve a Unix socket; end every process at the end."""
        server = await asyncio.start_unix_server(self._connected, path)
        try:
            yield
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            for shared in self._hosts.values():
                if shared.leaving:
                    shared.leaving.cancel()
                await shared.host.__aexit__()
            await asyncio.gather(*self._ending, return_exceptions=True)

    def problems(self) -> dict[str, str]:
        """The engines whose processes are down, such as stt:moonshine, and why."""
        return {
            shared.host.name.replace(".", ":", 1): reason
            for shared in self._hosts.values()
            if (reason := shared.host.health()) is not None
        }

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            first = await read_frame(reader)
            if isinstance(first, ShareHost):
                async with self._host(first) as host:
                    await HubConnection(host, reader, writer).serve()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except msgspec.MsgspecError as exc:
            log.error("a worker sent something that is no frame: %s", exc)
        finally:
            self._connections.discard(task)
            writer.close()

    @asynccontextmanager
    async def _host(self, asked: ShareHost) -> AsyncIterator[WorkerHost[msgspec.Raw]]:
        key = packed(asked)
        shared = self._hosts.get(key)
        if shared is None:
            shared = self._hosts[key] = SharedHost(asked)
            await shared.host.__aenter__()
        if shared.leaving is not None:
            shared.leaving.cancel()
            shared.leaving = None
        shared.users += 1
        try:
            yield shared.host
        finally:
            shared.users -= 1
            if not shared.users:
                loop = asyncio.get_running_loop()
                shared.leaving = loop.call_later(LINGER_S, self._leave, key)

    def _leave(self, key: bytes) -> None:
        shared = self._hosts.pop(key)
        log.info("%s is unloaded: no worker uses it", shared.host.name)
        task = asyncio.create_task(shared.host.__aexit__())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class HubConnection:
    """One worker's use of one host."""

    def __init__(
        self,
        host: WorkerHost[msgspec.Raw],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._streams: dict[int, HubStream] = {}

    async def serve(self) -> None:
        """To the end of the connection. Raises IncompleteReadError and ConnectionError."""
        ready = asyncio.create_task(self._report_ready())
        try:
            while True:
                self._take(await read_frame(self._reader))
        finally:
            tasks = [ready, *(stream.task for stream in self._streams.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _report_ready(self) -> None:
        """Say that the model is loaded, or why it is not."""
        while True:
            try:
                hello = await self._host.loaded(msgspec.Raw)
            except EngineError as exc:
                if (reason := self._host.health()) is None and self._host.processes:
                    continue  # it takes longer than a stream would wait
                self.send(HostFailed(reason or str(exc)))
                self._writer.close()
            else:
                self.send(WorkerReady(hello))
            return

    def send(self, report: FromWorker) -> None:
        """Without waiting: the windows of the streams bound what is under way."""
        if not self._writer.is_closing():
            self._writer.write(packed(report))

    def _take(self, order: ToWorker) -> None:
        match order:
            case Ping():
                self.send(Pong())
            case OpenStream(number, request):
                stream = self._streams[number] = HubStream(self._host, self, number, request)
                stream.task.add_done_callback(lambda _: self._streams.pop(number, None))
            case ShareHost():
                pass
            case _ if (known := self._streams.get(getattr(order, "stream", 0))) is not None:
                known.take(order)


class HubStream:
    """A stream of a worker, and the stream of the host that does its work."""

    def __init__(
        self,
        host: WorkerHost[msgspec.Raw],
        connection: HubConnection,
        number: int,
        request: msgspec.Raw,
    ) -> None:
        self._connection = connection
        self._number = number
        self._input: deque[bytes] = deque()  # the worker keeps to its window
        self._ended = False
        self._news = asyncio.Event()
        self._unread = 0
        self._read = asyncio.Event()
        self.task = asyncio.create_task(self._run(host, request))

    def take(self, order: ToWorker) -> None:
        match order:
            case StreamInput(data=data):
                self._input.append(data)
                self._news.set()
            case EndOfInput():
                self._ended = True
                self._news.set()
            case OutputRead(size=size):
                self._unread -= size
                self._read.set()
            case CancelStream():
                self.task.cancel()

    async def _run(self, host: WorkerHost[msgspec.Raw], request: msgspec.Raw) -> None:
        send, number = self._connection.send, self._number
        try:
            async with host.open(request, self._audio()) as stream:
                async for message in stream:
                    self._unread += len(message)
                    send(StreamOutput(number, message))
                    while self._unread >= OUTPUT_WINDOW_BYTES:
                        self._read.clear()
                        await self._read.wait()
        except EngineError as exc:
            send(StreamClosed(number, str(exc), isinstance(exc, EngineLost)))
        except Exception as exc:
            log.exception("a stream of %s failed", host.name)
            send(StreamClosed(number, f"it failed with {type(exc).__name__}"))
        else:
            send(StreamClosed(number, None))

    async def _audio(self) -> AsyncIterator[bytes]:
        while self._input or not self._ended:
            if self._input:
                data = self._input.popleft()
                yield data
                self._connection.send(InputTaken(self._number, len(data)))
            else:
                self._news.clear()
                await self._news.wait()


async def read_frame(reader: asyncio.StreamReader) -> ToWorker:
    """Raises IncompleteReadError, ConnectionError and MsgspecError."""
    (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
    if size > MAX_FRAME_BYTES:
        raise msgspec.DecodeError("a frame is too long")
    return decode_order(await reader.readexactly(size))
