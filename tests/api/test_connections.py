"""Requests that never become complete are dropped, and the number of connections is bounded."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from tests.idle_clock import run
from tests.server import HOST
from vivavoce.limits.connections import (
    MIN_CONNECTIONS,
    ConnectionLimits,
    connections_for,
)
from vivavoce.server import serve_app, tls_context
from vivavoce.settings import ServerSettings

TLS = Path(__file__).parents[1] / "data" / "tls"
WAIT_SECONDS = 60.0  # for one event: a bound, never a pace
SHORT = 0.2
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
BODY = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Handlers:
    """An application whose handlers wait until a test says so."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.started = asyncio.Semaphore(0)
        self.app = web.Application(client_max_size=2_000_000)
        self.app.router.add_get("/", self.hello)
        self.app.router.add_get("/slow", self.slow)
        self.app.router.add_get("/socket", self.socket)
        self.app.router.add_post("/echo", self.echo)
        self.app.router.add_post("/unread", self.unread)

    async def hello(self, _: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def slow(self, _: web.Request) -> web.Response:
        self.started.release()
        await self.go_on.wait()
        return web.Response(text="slow")

    async def echo(self, request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def unread(self, request: web.Request) -> web.Response:
        await self.go_on.wait()
        return web.Response(text=str(len(await request.read())))

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self.go_on.wait()
        async for message in socket:
            await socket.send_str(message.data)
        return socket


class Client:
    """A connection by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        """What arrives until the server closes the connection."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await self.reader.read()
        except ConnectionError:
            return b""

    async def answer(self) -> tuple[bytes, bytes]:
        """The status line and the body of the next response."""
        async with asyncio.timeout(WAIT_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return head.partition(b"\r\n")[0], await self.reader.readexactly(length)


Connect = Callable[[], Awaitable[Client]]
Run = Callable[[Coroutine[Any, Any, None]], None]


@asynccontextmanager
async def serving(
    *, secure: bool = False, **limits: float
) -> AsyncIterator[tuple[Handlers, Connect, int]]:
    """The handlers, a function that connects a client, and the port."""
    files = {"tls_certificate": str(TLS / "certificate.pem"), "tls_key": str(TLS / "key.pem")}
    settings = ServerSettings(host=HOST, port=0, **(files if secure else {}), **limits)  # type: ignore[arg-type]
    trusting = ssl.create_default_context(cafile=files["tls_certificate"]) if secure else None
    handlers = Handlers()
    clients: list[Client] = []

    async with serve_app(handlers.app, settings, tls_context(settings)) as port:

        async def connect() -> Client:
            client = Client(*await asyncio.open_connection(HOST, port, ssl=trusting))
            clients.append(client)
            return client

        try:
            yield handlers, connect, port
        finally:
            handlers.go_on.set()
            for client in clients:
                client.writer.transport.abort()


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("sent", [b"", b"G", HEAD])
def test_head_that_is_not_completed_is_dropped(sent: bytes, secure: bool) -> None:
    async def main() -> bytes:
        async with serving(secure=secure, head_seconds=SHORT) as (_, connect, _port):
            client = await connect()
            client.write(sent)
            return await client.rest()

    assert run(main()) == (TOO_SLOW if sent else b"")


def test_second_head_that_is_not_completed_is_dropped() -> None:
    async def main() -> bytes:
        async with serving(head_seconds=SHORT) as (_, connect, _port):
            client = await connect()
            client.write(HEAD + b"\r\n")
            assert await client.answer() == (b"HTTP/1.1 200 OK", b"hello")
            client.write(HEAD)
            return await client.rest()

    assert run(main()) == TOO_SLOW


def test_tls_handshake_that_is_not_completed_is_dropped() -> None:
    async def main() -> bytes:
        async with serving(secure=True, head_seconds=SHORT) as (_, _connect, port):
            client = Client(*await asyncio.open_connection(HOST, port))
            client.write(b"\x16\x03\x01")
            rest = await client.rest()
            client.writer.close()
            return rest

    assert run(main()) == b""


@pytest.mark.parametrize("run_on", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_oldest_tls_handshake_is_ended_where_the_table_is_full(run_on: Run) -> None:
    async def main() -> None:
        async with serving(secure=True, max_connections=3) as (_, connect, port):
            half = [Client(*await asyncio.open_connection(HOST, port)) for _ in range(5)]
            for client in half:
                client.write(b"\x16\x03\x01")
            assert [await client.rest() for client in half[:2]] == [b"", b""]
            whole = await connect()
            whole.write(HEAD + b"\r\n")
            assert await whole.answer() == (b"HTTP/1.1 200 OK", b"hello")
            assert await half[2].rest() == b""
            assert not half[4].reader.at_eof()
            for client in half:
                client.writer.close()

    run_on(main())


def test_idle_connection_is_closed_after_the_keep_alive_time() -> None:
    async def main() -> bytes:
        async with serving(keep_alive_seconds=SHORT) as (_, connect, _port):
            client = await connect()
            client.write(HEAD + b"\r\n")
            assert await client.answer() == (b"HTTP/1.1 200 OK", b"hello")
            return await client.rest()

    assert run(main()) == b""


@pytest.mark.parametrize("secure", [False, True])
def test_body_that_arrives_too_slowly_is_dropped(secure: bool) -> None:
    async def main() -> bytes:
        async with serving(secure=secure, head_seconds=SHORT) as (_, connect, _port):
            client = await connect()
            client.write(BODY + b"some")
            return await client.rest()

    assert run(main()) == b""


def test_body_at_the_minimum_rate_is_read_to_its_end() -> None:
    async def write_steadily(client: Client, sent: list[int]) -> None:
        while True:
            client.write(b"\0")
            sent.append(1)
            await asyncio.sleep(SHORT / 20)

    async def main() -> None:
        async with serving(head_seconds=SHORT, min_body_bytes_per_second=10) as (_, connect, _port):
            client, sent = await connect(), list[int]()
            client.write(BODY)
            writing = asyncio.create_task(write_steadily(client, sent))
            for _ in range(3):  # each takes as long as the time in which bytes must arrive
                assert await (await connect()).rest() == b""
            writing.cancel()
            client.write(bytes(1_000_000 - len(sent)))
            assert await client.answer() == (b"HTTP/1.1 200 OK", bytes(1_000_000))

    run(main())


def test_body_without_a_minimum_rate_may_arrive_slowly() -> None:
    async def main() -> None:
        async with serving(head_seconds=SHORT, min_body_bytes_per_second=0) as (_, connect, _port):
            client = await connect()
            client.write(BODY)
            for _ in range(2):
                assert await (await connect()).rest() == b""
            client.write(bytes(1_000_000))
            assert await client.answer() == (b"HTTP/1.1 200 OK", bytes(1_000_000))

    run(main())


def test_body_that_the_handler_does_not_read_is_not_dropped() -> None:
    async def main() -> None:
        async with serving(head_seconds=SHORT) as (handlers, connect, _port):
            client = await connect()
            client.write(BODY.replace(b"/echo", b"/unread") + bytes(900_000))
            idle = await connect()  # closed by a timer of the same length, set later
            assert await idle.rest() == b""
            idle = await connect()
            assert await idle.rest() == b""
            handlers.go_on.set()
            client.write(bytes(100_000))
            assert await client.answer() == (b"HTTP/1.1 200 OK", b"1000000")

    run(main())


def test_request_that_is_handled_longer_than_the_limits_is_answered() -> None:
    async def main() -> None:
        async with serving(head_seconds=SHORT, keep_alive_seconds=SHORT) as (
            handlers,
            connect,
            _port,
        ):
            client = await connect()
            client.write(HEAD.replace(b"/ ", b"/slow ") + b"\r\n")
            client.write(HEAD + b"\r\n")  # pipelined
            for _ in range(2):
                assert await (await connect()).rest() == b""
            handlers.go_on.set()
            assert await client.answer() == (b"HTTP/1.1 200 OK", b"slow")
            assert await client.answer() == (b"HTTP/1.1 200 OK", b"hello")

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_websocket_stays_open_longer_than_the_limits(secure: bool) -> None:
    trusting = ssl.create_default_context(cafile=str(TLS / "certificate.pem"))

    async def main() -> None:
        async with (
            serving(secure=secure, head_seconds=SHORT, keep_alive_seconds=SHORT) as (
                handlers,
                connect,
                port,
            ),
            aiohttp.ClientSession() as http,
            http.ws_connect(
                f"{'wss' if secure else 'ws'}://{HOST}:{port}/socket", ssl=trusting
            ) as socket,
        ):
            for _ in range(2):
                assert await (await connect()).rest() == b""
            handlers.go_on.set()
            await socket.send_str("still here")
            assert await socket.receive_str(timeout=WAIT_SECONDS) == "still here"

    run(main())


def test_full_table_drops_the_oldest_connection_without_a_request() -> None:
    async def main() -> None:
        async with serving(max_connections=2) as (_, connect, _port):
            first, second = await connect(), await connect()
            second.write(HEAD)
            third = await connect()
            assert await first.rest() == b""
            third.write(HEAD + b"\r\n")
            assert await third.answer() == (b"HTTP/1.1 200 OK", b"hello")
            second.write(b"\r\n")
            assert await second.answer() == (b"HTTP/1.1 200 OK", b"hello")

    run(main())


def test_full_table_of_requests_answers_503_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving(max_connections=2) as (handlers, connect, _port):
            busy = [await connect() for _ in range(2)]
            for client in busy:
                client.write(HEAD.replace(b"/ ", b"/slow ") + b"\r\n")
                async with asyncio.timeout(WAIT_SECONDS):
                    await handlers.started.acquire()
            answer = await (await connect()).rest()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 5" in answer
            assert (await (await connect()).rest()).startswith(b"HTTP/1.1 503 ")
            handlers.go_on.set()
            for client in busy:
                client.writer.transport.abort()
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    client = await connect()
                    client.write(HEAD + b"Connection: close\r\n\r\n")
                    if (await client.rest()).startswith(b"HTTP/1.1 200 "):
                        break

    with caplog.at_level(logging.WARNING):
        run(main())
    full = [record for record in caplog.records if "connections are in use" in record.message]
    assert len(full) == 1


@pytest.mark.parametrize(
    ("wanted", "descriptors", "in_use", "connections"),
    [
        (0, 65536, 30, 65536 - 30 - 16384),
        (0, 256, 30, 256 - 30 - 64),
        (0, 64, 19, 64 - 19 - 16),
        (0, 20, 19, MIN_CONNECTIONS),
        (100, 65536, 30, 100),
        (100_000, 256, 30, 162),
    ],
)
def test_connections_leave_a_reserve_of_descriptors(
    wanted: int, descriptors: int, in_use: int, connections: int
) -> None:
    limits = ConnectionLimits(max_connections=wanted)
    assert connections_for(limits, descriptors, in_use) == connections
