"""The worker that must answer a request is known by the ids in it."""

import asyncio
from pathlib import Path

import aiohttp
from aiohttp import web

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
