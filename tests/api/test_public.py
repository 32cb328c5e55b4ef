"""The routes that need no key: the console, its client, health and readiness."""

from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
import pytest

from tests import idle_clock
from tests.server import scripted, serving
from tests.transports.webrtc.caller import calling
from vivavoce import __version__
from vivavoce.api.public import CONSOLE, CONTENT_TYPES
from vivavoce.limits.keys import hash_of


def test_console_files_all_have_a_content_type() -> None:
    assert [path.name for path in CONSOLE.iterdir() if path.suffix not in CONTENT_TYPES] == []


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/client.js", "text/javascript; charset=utf-8"),
        ("/console/client.js", "text/javascript; charset=utf-8"),
        ("/console/styles.css", "text/css; charset=utf-8"),
        ("/console/mark.svg", "image/svg+xml; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/start.js", "text/javascript; charset=utf-8"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
        ("/testing.js", "text/javascript; charset=utf-8"),
        ("/testing/socket.js", "text/javascript; charset=utf-8"),
        ("/openapi.json", "application/json; charset=utf-8"),
    ],
)
def test_static_file_on_a_server_with_keys_is_sent_without_one_and_again_when_changed(
    path: str, content_type: str
) -> None:
    settings = msgspec.structs.replace(scripted(), keys={"me": hash_of("vv-key")})

    async def main() -> None:
        async with serving(settings) as server, aiohttp.ClientSession() as client:
            async with client.get(server.http + path) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"] == content_type
                assert answer.headers["Cache-Control"] == "no-cache"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
                assert await answer.read()
                tag = answer.headers["ETag"]
            async with client.get(server.http + path, headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304
            outdated = {"If-None-Match": '"of-yesterday"'}
            async with client.get(server.http + path, headers=outdated) as answer:
                assert answer.status == 200

    idle_clock.run(main())


@pytest.mark.parametrize("folder", ["console", "docs", "testing"])
@pytest.mark.parametrize("name", ["no.js", "..%2Fsettings.py", "%2e%2e%2f%2e%2e%2fapp.py"])
def test_static_file_outside_its_folder_is_not_found(folder: str, name: str) -> None:
    async def main() -> None:
        async with (
            serving() as server,
            aiohttp.ClientSession() as client,
            client.get(f"{server.http}/{folder}/{name}") as answer,
        ):
            assert answer.status == 404
            assert (await answer.json())["error"]["message"]

    idle_clock.run(main())


def test_client_module_from_a_page_of_another_local_port_may_be_imported() -> None:
    async def main() -> None:
        headers = {"Origin": "http://localhost:3000"}
        async with (
            serving() as server,
            aiohttp.ClientSession(headers=headers) as client,
            client.get(f"{server.http}/client.js") as answer,
        ):
            assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
            assert await answer.text() == 'export * from "./console/client.js";\n'

    idle_clock.run(main())


async def status_and_body(http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with http.get(path) as answer:
        return answer.status, await answer.json()


def test_health_has_the_version_and_counts_sessions() -> None:
    async def main() -> None:
        async with serving() as server, aiohttp.ClientSession(server.http) as http:
            alive = {"status": "ok", "version": __version__, "sessions": 0}
            assert await status_and_body(http, "/health") == (200, alive)
            async with calling(server):
                assert (await status_and_body(http, "/health"))[1]["sessions"] == 1

    idle_clock.run(main())


def test_ready_on_a_full_server_is_503() -> None:
    async def main() -> None:
        settings = scripted(server={"max_sessions": 1})
        async with serving(settings) as server, aiohttp.ClientSession(server.http) as http:
            ready = {"status": "ready", "sessions": 0}
            assert await status_and_body(http, "/ready") == (200, ready)
            async with calling(server):
                full = {"status": "not ready", "sessions": 1}
                assert await status_and_body(http, "/ready") == (503, full)

    idle_clock.run(main())


class Breakable:
    """An engine whose state a test sets."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.loading = False

    def health(self) -> str | None:
        return self.reason


def test_ready_with_an_engine_down_or_loading_is_503_and_names_it() -> None:
    async def main() -> None:
        async with serving() as server, aiohttp.ClientSession(server.http) as http:
            context = server.sessions.context
            assert {"vad:scripted", "stt:scripted", "tts:scripted"} <= context.engines.keys()
            engine = Breakable()
            server.sessions.replace_context(
                replace(context, engines={**context.engines, "stt:breakable": engine})
            )
            assert (await status_and_body(http, "/ready"))[0] == 200
            engine.reason = "the worker process does not start"
            assert await status_and_body(http, "/ready") == (
                503,
                {
                    "status": "not ready",
                    "sessions": 0,
                    "engines": {"stt:breakable": "the worker process does not start"},
                },
            )
            engine.reason = None
            assert (await status_and_body(http, "/ready"))[0] == 200
            engine.loading = True
            assert await status_and_body(http, "/ready") == (
                503,
                {"status": "not ready", "sessions": 0, "loading": ["stt:breakable"]},
            )

    idle_clock.run(main())
