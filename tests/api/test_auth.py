"""The checks of every request: host, origin, key, and the shape of errors."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request as a_request
from yarl import URL

from tests import idle_clock
from tests.server import HOST, Server, scripted, serving
from vivavoce.api.auth import Auth, host_and_port, origin_of, presented_key
from vivavoce.errors import Unauthorized
from vivavoce.limits.keys import KeyRing, hash_of
from vivavoce.limits.tokens import TokenMint
from vivavoce.routes import auth_of
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.settings_sources import parse

KEY = "vv-a-key"


def auth(**changes: Any) -> Auth:
    return Auth(changes.pop("keys", KeyRing({})), TokenMint(Secret("s")), **changes)


@asynccontextmanager
async def keyed(**settings: Any) -> AsyncIterator[Server]:
    """A server with one key."""
    with_key = msgspec.structs.replace(scripted(**settings), keys={"ada": hash_of(KEY)})
    async with serving(with_key) as server:
        yield server


# --- origins


@pytest.mark.parametrize(
    ("host", "origin", "changes", "allowed"),
    [
        ("here.example", None, {}, True),
        ("here.example", "http://here.example", {}, True),
        ("here.example", "https://here.example", {}, True),
        ("here.example:443", "https://here.example", {}, True),
        ("here.example:80", "http://here.example", {}, True),
        ("Here.Example", "https://here.example", {}, True),
        ("here.example", "HTTPS://HERE.example", {}, True),
        ("here.example.", "https://here.example.", {}, True),
        ("here.example:8080", "http://here.example:8080", {}, True),
        ("here.example:8080", "http://here.example", {}, False),
        ("here.example:80", "https://here.example", {}, False),
        ("here.example", "http://here.example:8080", {}, False),
        ("[2001:db8::1]:8080", "http://[2001:db8::1]:8080", {}, True),
        ("here.example", "http://localhost:5173", {}, True),
        ("here.example", "http://[::1]:5173", {}, True),
        ("here.example", "http://localhost:5173", {"loopback_pages": False}, False),
        ("here.example", "https://evil.example", {}, False),
        ("here.example", "https://app.example", {"origins": ("https://app.example",)}, True),
        ("here.example", "https://App.Example:443", {"origins": ("https://app.example",)}, True),
        ("here.example", "https://app.example", {"origins": ("https://App.Example:443",)}, True),
        ("here.example", "http://app.example", {"origins": ("https://app.example",)}, False),
        ("here.example", "https://any.example", {"origins": ("*",)}, True),
        ("here.example", "null", {}, False),
        ("here.example", "null", {"origins": ("null",)}, True),
        ("here.example", "http://[::1", {}, False),
        ("here.example", "http://here.example:x", {}, False),
        ("here.example", "http://é.example", {"origins": ("*",)}, False),
    ],
)
def test_origin_is_compared_by_scheme_host_and_port(
    host: str, origin: str | None, changes: dict[str, Any], allowed: bool
) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    assert auth(**changes).allows_origin(a_request("GET", "/", headers=headers)) is allowed


def test_origin_that_cannot_be_parsed_is_none() -> None:
    for text in ("", "null", "http://", "http://[::1", "http://a:99999", "http://a\ud800"):
        assert origin_of(text) is None


@pytest.mark.parametrize(
    ("header", "host", "port"),
    [
        ("localhost", "localhost", None),
        ("LOCALHOST.:80", "localhost", 80),
        ("[::1]", "::1", None),
        ("[::1]:8080", "::1", 8080),
        ("a:b", "a", None),
        ("", "", None),
    ],
)
def test_host_header_is_split_into_host_and_port(header: str, host: str, port: int | None) -> None:
    assert host_and_port(header) == (host, port)


# --- hosts


@pytest.mark.parametrize(
    ("tables", "host", "allowed"),
    [
        ({}, "localhost", True),
        ({}, "localhost:8080", True),
        ({}, "127.0.0.1:1", True),
        ({}, "127.8.9.1", True),
        ({}, "[::1]:8080", True),
        ({}, "LocalHost.", True),
        ({}, "evil.example:8080", False),
        ({}, "localhost.evil.example", False),
        ({}, "127.0.0.1.evil.example", False),
        ({}, "192.168.1.5", False),
        ({}, "", False),
        ({"server": {"hosts": ["Box.lan"]}}, "box.lan:8080", True),
        ({"server": {"hosts": ["box.lan"]}}, "evil.example", False),
        ({"server": {"host": "0.0.0.0", "no_auth": True}}, "anything.example", True),
        ({"server": {"host": "0.0.0.0", "hosts": ["box.lan"]}}, "anything.example", False),
        ({"keys": {"ada": hash_of(KEY)}}, "anything.example", True),
    ],
)
def test_server_without_keys_on_loopback_answers_to_loopback_names_and_its_hosts(
    tables: dict[str, Any], host: str, allowed: bool
) -> None:
    request = a_request("GET", "/", headers={"Host": host})
    assert auth_of(parse(tables)).allows_host(request) is allowed


def test_request_without_host_header_is_allowed() -> None:
    assert auth_of(Settings()).allows_host(a_request("GET", "/"))


REBOUND = "evil.example:8080"


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/realtime", "/health", "/nothing"])
def test_request_of_a_rebound_page_is_refused_on_every_path(path: str) -> None:
    headers = {"Host": REBOUND, "Origin": f"http://{REBOUND}"}
    status, answered, body = idle_clock.run(ask("GET", path, headers=headers))
    assert status == 403
    assert "[server] hosts" in json.loads(body)["error"]["message"]
    assert "evil.example" in json.loads(body)["error"]["message"]
    assert answered["Content-Type"].startswith("application/json")


def test_websocket_of_a_rebound_page_is_refused_before_the_upgrade() -> None:
    async def main() -> int:
        async with serving(scripted()) as server, aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"{server.ws}/v1/realtime", headers={"Host": REBOUND})
            return refused.value.status

    assert idle_clock.run(main()) == 403


# --- keys


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer  abc "}, "abc"),
        ({"Authorization": "Basic abc"}, ""),
        ({"api-key": "azure"}, "azure"),
        ({"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.k1"}, "k1"),
        ({}, ""),
    ],
)
def test_presented_key_is_read_from_every_place(headers: dict[str, str], key: str) -> None:
    assert presented_key(a_request("GET", "/", headers=headers)) == key


@pytest.mark.parametrize("key", ["ek_é.é", "clé", "ek_"])
def test_key_that_is_not_ascii_is_unauthorized(key: str) -> None:
    request = a_request("GET", "/v1/models", headers={"X-API-Key": key})
    with pytest.raises(Unauthorized):
        auth(keys=KeyRing({"ada": hash_of(KEY)})).identify(request)


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        (b"/v1/models", b"Authorization: Bearer \xff\xfe", b"401 Unauthorized"),
        (b"/v1/models", b"X-API-Key: ek_\xff.\xfe", b"401 Unauthorized"),
        (b"/v1/models?api_key=%ff%fe", b"X-Nothing: 1", b"401 Unauthorized"),
        (b"/v1/models", b"Origin: http://\xff", b"403 Forbidden"),
        (b"/v1/models", b"Origin: http://[::1", b"403 Forbidden"),
    ],
)
@pytest.mark.parametrize("upgrade", [b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"])
def test_key_or_origin_of_raw_bytes_is_refused(
    path: bytes, header: bytes, status: bytes, upgrade: bytes
) -> None:
    async def main() -> bytes:
        async with keyed(server={"origins": ["*"] if b"\xff" in header else []}) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n%b\r\n" % (path, header, upgrade))
            line = await reader.readline()
            writer.close()
            return line

    assert idle_clock.run(main()) == b"HTTP/1.1 %b\r\n" % status


@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/voices", "/v1//models/"])
def test_list_without_a_key_is_401_with_the_remedy(path: str) -> None:
    async def main() -> tuple[int, str]:
        async with keyed() as server, aiohttp.ClientSession() as http:
            url = URL(server.http + path, encoded=True)
            async with http.get(url) as response:
                return response.status, (await response.json())["error"]["message"]

    status, message = idle_clock.run(main())
    assert status == 401
    assert message.startswith("You didn't provide an API key. GET /v1/")
    assert "Authorization: Bearer" in message


PATHS = (
    "/v1/models", "/v1/chat/completions", "/v1/audio/speech", "/v1/audio/transcriptions",
    "/v1/realtime/client_secrets", "/v1/realtime/sessions",
)  # fmt: skip


@pytest.mark.parametrize("prefix", ["/", "//", "///", "/console/..//", "/console/%2e%2e/", "/%2F"])
def test_no_spelling_of_a_path_reaches_a_route_without_a_key(prefix: str) -> None:
    async def main() -> set[int]:
        found = set()
        async with keyed() as server, aiohttp.ClientSession() as http:
            for path in PATHS:
                for suffix in ("", "/", "//", "/."):
                    for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT"):
                        url = URL(f"{server.http}{prefix}{path[1:]}{suffix}", encoded=True)
                        async with http.request(method, url) as response:
                            found.add(response.status)
        return found

    assert idle_clock.run(main()) == {401}


def test_paths_of_the_console_and_health_need_no_key() -> None:
    async def main() -> set[int]:
        found = set()
        async with keyed() as server, aiohttp.ClientSession() as http:
            for path in ("/", "//", "/health/", "/ready", "/docs", "/client.js", "/openapi.json"):
                for method in ("GET", "HEAD"):
                    url = URL(server.http + path, encoded=True)
                    async with http.request(method, url) as response:
                        found.add(response.status)
        return found

    assert idle_clock.run(main()) == {200}


# --- answers


async def ask(method: str, path: str, **options: Any) -> tuple[int, Mapping[str, str], bytes]:
    async with (
        serving(scripted()) as server,
        aiohttp.ClientSession() as session,
        session.request(method, server.http + path, **options) as response,
    ):
        return response.status, response.headers.copy(), await response.read()


def test_preflight_allows_the_requested_method_and_headers() -> None:
    status, headers, _ = idle_clock.run(
        ask(
            "OPTIONS",
            "/v1/realtime/client_secrets",
            headers={
                "Origin": "http://localhost:5173",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,x-openai-agents-sdk",
            },
        )
    )
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
    assert headers["Access-Control-Allow-Methods"] == "POST"
    assert headers["Access-Control-Allow-Headers"] == "authorization,x-openai-agents-sdk"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/realtime/client_secrets", 405, "method_not_allowed"),
        ("GET", "/v1/realtime", 426, None),
    ],
)
def test_every_refusal_has_the_shape_of_openai_and_an_id(
    method: str, path: str, status: int, code: str | None
) -> None:
    got, headers, body = idle_clock.run(ask(method, path))
    assert got == status
    assert headers["x-request-id"].startswith("req_")
    error = json.loads(body)["error"]
    assert (set(error), error["code"]) == ({"message", "type", "param", "code"}, code)
    assert "{" not in error["message"]


def test_key_in_a_malformed_request_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def answer() -> bytes:
        async with serving(scripted()) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: sk-secret\0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    assert idle_clock.run(answer()).startswith(b"HTTP/1.0 400 ")
    assert "sk-secret" not in caplog.text


@pytest.mark.parametrize("origin", ["https://evil.example", "http://[::1", "null"])
def test_page_of_another_origin_is_refused_on_the_websocket_path_too(origin: str) -> None:
    status, headers, _ = idle_clock.run(ask("GET", "/v1/realtime", headers={"Origin": origin}))
    assert status == 403
    assert "Access-Control-Allow-Origin" not in headers


# --- failures after a response has started


@asynccontextmanager
async def failing_after_start(exc: Exception) -> AsyncIterator[str]:
    """A server whose handlers fail after they have started a response; its address."""
    app = web.Application()
    auth().add_to(app)

    async def upgrade(request: web.Request) -> web.StreamResponse:
        await web.WebSocketResponse().prepare(request)
        raise exc

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"half")
        raise exc

    app.router.add_get("/socket", upgrade)
    app.router.add_get("/stream", stream)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("exc", "code", "reason"),
    [
        (Unauthorized("no"), 3000, "invalid_request_error.invalid_api_key"),
        (RuntimeError("a bug"), 1011, "server_error"),
    ],
)
def test_failure_after_the_upgrade_is_a_close_frame(
    exc: Exception, code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> aiohttp.WSMessage:
        async with (
            failing_after_start(exc) as url,
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{url}/socket") as socket,
        ):
            return await socket.receive()

    message = idle_clock.run(main())
    assert message.type is aiohttp.WSMsgType.CLOSE
    assert (message.data, message.extra) == (code, reason)
    assert [record.levelno for record in caplog.records if record.exc_info] == (
        [logging.ERROR] if code == 1011 else []
    )


def test_failure_in_a_streamed_body_leaves_it_incomplete() -> None:
    async def main() -> None:
        async with (
            failing_after_start(RuntimeError("a bug")) as url,
            aiohttp.ClientSession() as http,
        ):
            with pytest.raises(aiohttp.ClientError):
                async with http.get(f"{url}/stream") as response:
                    await response.read()

    idle_clock.run(main())
