"""Voxray's addresses: what serves, and health and readiness in its envelope."""

from typing import Any

import aiohttp
import msgspec
import pytest

from tests import idle_clock
from tests.server import Server, scripted, serving
from tests.transports.webrtc.caller import calling
from vivavoce.limits.keys import hash_of
from vivavoce.settings import Settings


def got(
    path: str, settings: Settings | None = None, *, busy: bool = False, **headers: str
) -> tuple[int, Any]:
    """Status and body; `busy`: while the server is full."""

    async def fetch(server: Server) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as http,
            http.get(server.http + path, headers=named) as reply,
        ):
            return reply.status, await reply.json()

    async def main() -> tuple[int, Any]:
        async with serving(settings) as server:
            if not busy:
                return await fetch(server)
            async with calling(server):
                return await fetch(server)

    return idle_clock.run(main())


@pytest.mark.parametrize("path", ["/config", "/api/v1/config"])
def test_config_names_what_serves_the_default_model(path: str) -> None:
    status, body = got(path, X_Request_ID="mine")
    assert (status, body["meta"]) == (200, {"requestId": "mine"})
    assert body["data"] == {
        **{"stt_provider": "scripted", "llm_provider": "scripted", "tts_provider": "scripted"},
        **{"tts_voice": "marin", "vad_type": "scripted", "transport": "both"},
    }


def test_config_names_the_first_of_several_engines() -> None:
    _, body = got("/config", scripted(models={"llm": ["scripted", "builtin"]}))
    assert body["data"]["llm_provider"] == "scripted"


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/ready"])
def test_health_needs_no_key_and_names_the_request(path: str) -> None:
    status, body = got(path, msgspec.structs.replace(scripted(), keys={"me": hash_of("vv-key")}))
    assert (status, body["data"]) == (200, {"status": "ok"})
    assert body["meta"]["requestId"].startswith("req_")


def test_config_needs_a_key_where_there_are_keys() -> None:
    assert got("/config", msgspec.structs.replace(scripted(), keys={"me": hash_of("k")}))[0] == 401


def test_full_server_is_not_ready_in_the_envelope_of_errors() -> None:
    full = scripted(server={"max_sessions": 1})
    status, body = got("/api/v1/ready", full, busy=True, X_Request_ID="mine")
    assert status == 503
    assert body["error"] == {
        "code": "SERVICE_UNAVAILABLE",
        "message": "The server takes no more sessions just now.",
        "requestId": "mine",
        "details": [],
    }
