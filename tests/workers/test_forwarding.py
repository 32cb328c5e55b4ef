"""The worker that must answer a request is known by the ids in it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.idle_clock import run
from tests.server import HOST
from vivavoce.server import serve_app
from vivavoce.settings import ServerSettings
from vivavoce.workers.forwarding import Forwarder
from vivavoce.workers.messages import WorkerPlace


async def named(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.app[NAME]} {request.remote}")


NAME = web.AppKey("name", str)


def worker(index: int, folder: Path) -> tuple[web.Application, WorkerPlace]:
    """An application that says which worker it is, and the address of its client."""
    place = WorkerPlace(index, 3, str(folder))
    app = web.Application()
    app[NAME] = place.name
    Forwarder(place).add_to(app)
    app.router.add_get("/v1/realtime", named)
    app.router.add_post("/sessions/{session_id}/api/offer", named)
    app.router.add_post("/api/offer", named)
    app.router.add_post("/start", named)
    return app, place


@asynccontextmanager
async def two_workers(
    folder: Path, path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[aiohttp.ClientSession]:
    """Two processes that serve a path, and a client of the first one."""
    here, first = worker(0, folder)
    there, other = worker(1, folder)
    for app in (here, there):
        app.router.add_get(path, handler)
    async with (
        serve_app(here, ServerSettings(port=0), unix_path=first.client_socket) as port,
        serve_app(there, ServerSettings(port=0), unix_path=other.client_socket),
        aiohttp.ClientSession(f"http://{HOST}:{port}") as http,
    ):
        yield http


@asynccontextmanager
async def answering(path: str, answer: bytes) -> AsyncIterator[None]:
    """A process that answers each request with these bytes and nothing more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if answer:
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nso far",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_conversation_goes_on_here_where_its_process_answers_nothing_that_can_be_used(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing, no HTTP, a part of it, or that it has failed."""
    monkeypatch.setattr("vivavoce.workers.forwarding.RESUMED_TIMEOUT_S", 0.5)

    async def main() -> None:
        here, first = worker(0, tmp_path)
        other = worker(1, tmp_path)[1].client_socket
        async with (
            serve_app(here, ServerSettings(port=0), unix_path=first.client_socket) as port,
            answering(other, answer),
            aiohttp.ClientSession(f"http://{HOST}:{port}") as http,
        ):
            for headers in ({}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
                path = "/v1/realtime?session_id=sess_w1_00"
                async with http.get(path, headers=headers) as resumed:
                    assert (await resumed.text()).split()[0] == "w0"

    asyncio.run(main())


def test_call_of_a_process_whose_answer_cannot_be_read_is_refused_for_now(tmp_path: Path) -> None:
    async def main() -> None:
        here, first = worker(0, tmp_path)
        other = worker(1, tmp_path)[1].client_socket
        async with (
            serve_app(here, ServerSettings(port=0), unix_path=first.client_socket) as port,
            answering(other, b"SSH-2.0-OpenSSH_9.2\r\n"),
            aiohttp.ClientSession(f"http://{HOST}:{port}") as http,
            http.get("/v1/realtime?call_id=rtc_w1_00") as refused,
        ):
            assert refused.status == 503
            assert refused.headers["Retry-After"] == "1"

    asyncio.run(main())


@pytest.mark.parametrize("answers", [True, False])
def test_forwarded_socket_is_closed_where_its_process_has_stopped_and_not_where_it_is_quiet(
    answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivavoce.workers.forward_client.HEARTBEAT_S", 0.2)
    pings = 0

    async def quiet(request: web.Request) -> web.StreamResponse:
        """Opens a WebSocket, and answers pings or nothing."""
        nonlocal pings
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await socket.send_str("open")
        while answers and pings < 3:
            await socket.receive()
            pings += 1
            await socket.pong()
        if answers:
            await socket.send_str("still here")
        await asyncio.Event().wait()
        return socket

    async def main() -> None:
        async with (
            two_workers(tmp_path, "/v1/responses", quiet) as http,
            http.ws_connect("/v1/responses?call_id=rtc_w1_00") as socket,
        ):
            assert await socket.receive_str() == "open"
            if answers:
                assert await socket.receive_str() == "still here"
                return
            ended = await socket.receive()
            assert (ended.type, ended.data) == (aiohttp.WSMsgType.CLOSE, 1001)

    run(main())


def test_client_that_leaves_a_stream_of_another_process_leaves_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a cluster its node would not be asked for other clients for a while."""
    ended = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b": it goes on\n\n" * 10_000)
                await asyncio.sleep(0)
        ended.set()
        return response

    async def main() -> None:
        async with two_workers(tmp_path, "/v1/sessions/{session_id}/events", stream) as http:
            async with http.get("/v1/sessions/sess_w1_00/events") as answer:
                assert await answer.content.readline() == b": it goes on\n"
            async with asyncio.timeout(60):
                await ended.wait()

    asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_request_is_answered_by_the_worker_that_it_names(tmp_path: Path) -> None:
    async def main() -> None:
        here, first = worker(0, tmp_path)
        there, other = worker(1, tmp_path)
        settings = ServerSettings(port=0)
        async with (
            serve_app(here, settings, unix_path=first.client_socket) as port,
            serve_app(there, settings, unix_path=other.client_socket),
            aiohttp.ClientSession(f"http://{HOST}:{port}") as http,
        ):

            async def asked(method: str, path: str, body: str = "", key: str = "") -> str:
                headers = {"Idempotency-Key": key} if key else {}
                async with http.request(method, path, data=body, headers=headers) as answer:
                    return (await answer.text()).split()[0] if answer.ok else str(answer.status)

            assert await asked("GET", "/v1/realtime") == "w0"
            assert await asked("GET", "/v1/realtime?call_id=rtc_w1_00") == "w1"
            assert await asked("GET", "/v1/realtime?session_id=sess_w1_00") == "w1"
            assert await asked("POST", "/api/offer", '{"pc_id": "rtc_w1_00"}') == "w1"
            assert await asked("POST", "/api/offer", '{"pc_id": 1}') == "w0"
            assert await asked("POST", "/api/offer", "no JSON") == "w0"
            assert await asked("POST", "/api/offer", "[" * 100_000) == "w0"
            promised = "00000000-0000-4000-8000-0000000000{:02}"
            assert await asked("POST", f"/sessions/{promised.format(1)}/api/offer") == "w1"
            assert await asked("POST", f"/sessions/{promised.format(99)}/api/offer") == "w0"
            # the third worker is down: a call is lost with it, a conversation may go on elsewhere
            assert await asked("GET", "/v1/realtime?call_id=rtc_w2_00") == "503"
            assert await asked("GET", "/v1/realtime?session_id=sess_w2_00") == "w0"
            by_key = {await asked("POST", "/start", key=f"key {n}") for n in range(30)}
            assert by_key == {"w0", "w1"}
            async with http.get("/v1/realtime?call_id=rtc_w1_00") as answer:
                assert await answer.text() == f"w1 {HOST}"

    asyncio.run(main())
