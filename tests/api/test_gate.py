"""What every request passes."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request as a_request

from tests.server import HOST, scripted, serving
from vivavoce.api.auth import Auth, presented_key
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import TokenMint
from vivavoce.secret import Secret


def gate(**changes: Any) -> Auth:
    return Auth(**{"keys": KeyRing({}), "mint": TokenMint(Secret("s")), **changes})


@pytest.mark.parametrize(
    ("origin", "changes", "welcome"),
    [
        (None, {}, True),
        ("http://here.example", {}, True),
        ("http://localhost:5173", {}, True),
        ("http://localhost:5173", {"trusts_loopback": False}, False),
        ("https://evil.example", {}, False),
        ("https://app.example", {"origins": frozenset({"https://app.example"})}, True),
        ("https://any.example", {"origins": frozenset({"*"})}, True),
        ("null", {}, False),
    ],
)
def test_a_page_may_ask_from_here_from_this_machine_or_from_the_list(
    origin: str | None, changes: dict[str, Any], welcome: bool
) -> None:
    headers = {"Host": "here.example"} | ({"Origin": origin} if origin else {})
    assert gate(**changes).welcomes(a_request("GET", "/", headers=headers)) is welcome


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
def test_the_key_is_read_from_where_clients_put_it(headers: dict[str, str], key: str) -> None:
    assert presented_key(a_request("GET", "/", headers=headers)) == key


async def ask(method: str, path: str, **options: Any) -> tuple[int, Mapping[str, str], bytes]:
    async with (
        serving(scripted()) as server,
        aiohttp.ClientSession() as session,
        session.request(method, server.http + path, **options) as response,
    ):
        return response.status, response.headers.copy(), await response.read()


def test_a_preflight_is_answered_with_what_was_asked_for() -> None:
    status, headers, _ = asyncio.run(
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
def test_every_refusal_has_openais_shape_and_an_id(
    method: str, path: str, status: int, code: str | None
) -> None:
    got, headers, body = asyncio.run(ask(method, path))
    assert got == status
    assert headers["x-request-id"].startswith("req_")
    error = json.loads(body)["error"]
    assert (set(error), error["code"]) == ({"message", "type", "param", "code"}, code)
    assert "{" not in error["message"]


def test_a_key_in_what_is_no_http_does_not_come_into_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def told() -> bytes:
        async with serving(scripted()) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: sk-secret\0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(told()).startswith(b"HTTP/1.0 400 ")
    assert "sk-secret" not in caplog.text


def test_a_page_elsewhere_is_refused_over_a_websocket_too() -> None:
    status, headers, _ = asyncio.run(
        ask("GET", "/v1/realtime", headers={"Origin": "https://evil.example"})
    )
    assert status == 403
    assert "Access-Control-Allow-Origin" not in headers
