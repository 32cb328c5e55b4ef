"""How connections begin: what browsers and other clients offer, and what is chosen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.clients.loop import awaited
from tests.server import Server, serving

KEY = "openai-insecure-api-key.sk-test"
AGENTS = "openai-agents-sdk.0.20.0"
BETA = "openai-beta.realtime-v1"
STAINLESS = {
    "Authorization": "Bearer sk-test",
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "AsyncOpenAI/Python 3.52.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "3.52.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Async": "async:asyncio",
    "X-Stainless-Retry-Count": "0",
}


@asynccontextmanager
async def connected(
    server: Server, path: str = "/v1/realtime?model=gpt-realtime", **options: Any
) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, dict[str, Any]]]:
    """The socket, and the first event on it."""
    async with (
        aiohttp.ClientSession() as http,
        asyncio.timeout(60),
        http.ws_connect(server.http + path, **options) as socket,
    ):
        yield socket, await socket.receive_json()


@pytest.mark.parametrize(
    "offered",
    [
        ["realtime"],
        ["realtime", KEY],
        ["realtime", KEY, AGENTS],
        [AGENTS, KEY, "realtime"],
    ],
)
@awaited
async def test_subprotocol_realtime_is_chosen_at_any_position(offered: list[str]) -> None:
    async with serving() as server, connected(server, protocols=offered) as (socket, first):
        assert socket.protocol == "realtime"
        assert first["type"] == "session.created"
        assert first["session"]["type"] == "realtime"


@pytest.mark.parametrize(
    "offer",
    [
        {"protocols": ["realtime", KEY, BETA]},
        {"headers": {"OpenAI-Beta": "realtime=v1"}},
        {"headers": {"openai-beta": "assistants=v2,realtime=v1"}},
    ],
)
@awaited
async def test_beta_request_gets_beta_events(offer: dict[str, Any]) -> None:
    async with serving() as server, connected(server, **offer) as (socket, first):
        assert first["session"]["input_audio_format"] == "pcm16"
        assert (await socket.receive_json())["type"] == "conversation.created"


@awaited
async def test_unknown_subprotocols_are_accepted_without_one() -> None:
    offered = ["graphql-ws", KEY]
    async with serving() as server, connected(server, protocols=offered) as (socket, first):
        assert socket.protocol is None
        assert first["type"] == "session.created"


@awaited
async def test_headers_of_official_clients_are_accepted() -> None:
    async with serving() as server, connected(server, headers=STAINLESS) as (socket, first):
        assert first["session"]["model"] == "gpt-realtime"
        assert socket.protocol is None


@awaited
async def test_offered_compression_is_declined() -> None:
    async with serving() as server, connected(server, compress=15) as (socket, first):
        assert not socket.compress
        assert first["type"] == "session.created"


@awaited
async def test_request_without_model_and_key_is_accepted() -> None:
    async with serving() as server, connected(server, "/v1/realtime") as (_, first):
        assert first["session"]["model"] == "default"


@awaited
async def test_update_sent_before_session_created_is_read_is_applied() -> None:
    """As the agents' clients do: they write as soon as the socket is open."""
    update = {"type": "session.update", "session": {"type": "realtime", "tracing": "auto"}}
    async with (
        serving() as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{server.http}/v1/realtime") as socket,
        asyncio.timeout(60),
    ):
        await socket.send_json(update)
        await socket.send_json(update)
        kinds = [(await socket.receive_json())["type"] for _ in range(3)]
        assert kinds == ["session.created", "session.updated", "session.updated"]


@awaited
async def test_binary_frames_are_accepted() -> None:
    async with serving() as server, connected(server) as (socket, _):
        await socket.send_bytes(b'{"type":"session.update","session":{"type":"realtime"}}')
        assert (await socket.receive_json())["type"] == "session.updated"


@awaited
async def test_request_without_upgrade_is_426() -> None:
    async with (
        serving() as server,
        aiohttp.ClientSession() as http,
        http.get(f"{server.http}/v1/realtime?model=x") as answer,
    ):
        assert answer.status == 426
        assert "WebSocket" in await answer.text()


@awaited
async def test_shutdown_closes_with_1012_and_a_reason() -> None:
    async with serving() as server, connected(server) as (socket, _):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.sessions.drain(5))
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1012
