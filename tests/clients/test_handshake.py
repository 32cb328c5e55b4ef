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
        asyncio.timeout(10),
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
async def test_realtime_is_chosen_wherever_it_is_offered(offered: list[str]) -> None:
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
async def test_who_asks_for_the_beta_is_spoken_to_in_it(offer: dict[str, Any]) -> None:
    async with serving() as server, connected(server, **offer) as (socket, first):
        assert first["session"]["input_audio_format"] == "pcm16"
        assert (await socket.receive_json())["type"] == "conversation.created"


@awaited
async def test_who_offers_only_what_nobody_knows_is_let_in_without() -> None:
    offered = ["graphql-ws", KEY]
    async with serving() as server, connected(server, protocols=offered) as (socket, first):
        assert socket.protocol is None
        assert first["type"] == "session.created"


@awaited
async def test_the_headers_of_the_official_clients_do_no_harm() -> None:
    async with serving() as server, connected(server, headers=STAINLESS) as (socket, first):
        assert first["session"]["model"] == "gpt-realtime"
        assert socket.protocol is None


@awaited
async def test_compression_is_offered_in_vain() -> None:
    async with serving() as server, connected(server, compress=15) as (socket, first):
        assert not socket.compress
        assert first["type"] == "session.created"


@awaited
async def test_no_model_and_no_key_are_needed() -> None:
    async with serving() as server, connected(server, "/v1/realtime") as (_, first):
        assert first["session"]["model"] == "default"


@awaited
async def test_an_update_may_be_sent_before_the_greeting_was_read() -> None:
    """As the agents' clients do: they write as soon as the socket is open."""
    update = {"type": "session.update", "session": {"type": "realtime", "tracing": "auto"}}
    async with (
        serving() as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{server.http}/v1/realtime") as socket,
        asyncio.timeout(10),
    ):
        await socket.send_json(update)
        await socket.send_json(update)
        kinds = [(await socket.receive_json())["type"] for _ in range(3)]
        assert kinds == ["session.created", "session.updated", "session.updated"]


@awaited
async def test_events_may_come_in_binary_frames() -> None:
    async with serving() as server, connected(server) as (socket, _):
        await socket.send_bytes(b'{"type":"session.update","session":{"type":"realtime"}}')
        assert (await socket.receive_json())["type"] == "session.updated"


@awaited
async def test_a_plain_request_is_told_to_upgrade() -> None:
    async with (
        serving() as server,
        aiohttp.ClientSession() as http,
        http.get(f"{server.http}/v1/realtime?model=x") as answer,
    ):
        assert answer.status == 426
        assert "WebSocket" in await answer.text()


@awaited
async def test_the_server_hangs_up_with_a_word_when_it_shuts_down() -> None:
    async with serving() as server, connected(server) as (socket, _):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.hub.drain(5))
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1012
