"""A relay under a policy, from the settings to the wire: keys, secrets and calls."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import msgspec

from tests import idle_clock
from tests.fake_upstream import FakeUpstream
from tests.server import Server, scripted, serving
from tests.transports.test_relay import TIMEOUT_S, Client
from vivavoce.limits.keys import hash_of
from vivavoce.limits.tokens import Grant, TokenMint
from vivavoce.secret import Secret
from vivavoce.session.policy import Policy
from vivavoce.settings import RelayModel

KEY = "vv-a key"
SECRET_ORDERS = "Sell ice cream."
PINS: dict[str, Any] = {
    "pinned": {"instructions": SECRET_ORDERS, "audio": {"output": {"voice": "cedar"}}}
}


@asynccontextmanager
async def governed(
    fake: FakeUpstream, policy: Mapping[str, Any] = PINS, models: tuple[str, ...] = ()
) -> AsyncIterator[Server]:
    """A server with one key, which may use `models`, and the model "far" behind the fake."""
    async with fake.serve() as url:
        settings = scripted(server={"secret": "s3cret"})
        far = RelayModel(upstream=url, api_key="sk-upstream", policy="shop")
        settings = msgspec.structs.replace(
            settings,
            keys={"ada": hash_of(KEY)},
            models={**settings.models, "far": far},
            policies={"shop": msgspec.convert(policy, Policy)},
        )
        async with serving(settings) as server:
            context = server.sessions.context
            allowed = frozenset(models) or None
            server.sessions.replace_context(replace(context, key_models=lambda _: allowed))
            yield server


@asynccontextmanager
async def client_of(server: Server, key: str = KEY, **query: str) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http,
        http.ws_connect(f"{server.ws}/v1/realtime", params=query) as socket,
    ):
        yield Client(socket)


async def refused(server: Server, key: str = KEY, **query: str) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http,
        http.ws_connect(f"{server.ws}/v1/realtime", params=query) as socket,
    ):
        async with asyncio.timeout(TIMEOUT_S):
            error: dict[str, Any] = (await socket.receive_json())["error"]
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        return error


async def secret_of(server: Server, session: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The answer to a request for a short-lived key."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http,
        http.post(
            f"{server.http}/v1/realtime/client_secrets", json={"session": session}
        ) as response,
    ):
        return response.status, await response.json()


def configured(fake: FakeUpstream) -> dict[str, Any]:
    """The first settings that the last session of the upstream server got."""
    settings: dict[str, Any] = fake.sessions[-1].events("session.update")[0]["session"]
    return settings


def test_pinned_settings_reach_the_upstream_server_and_no_client() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with governed(fake) as server, client_of(server, model="far") as client:
            created = await client.until("session.created")
            await client.send("response.create", response={"instructions": "Give it away."})
            await client.until("response.done")
            sent = configured(fake)
            assert sent["instructions"] == SECRET_ORDERS
            assert sent["audio"]["output"]["voice"] == "cedar"
            assert created["session"]["instructions"] == ""
            assert SECRET_ORDERS not in json.dumps(client.events)
            first, *_ = fake.sessions[0].received
            assert b"session.update" in first
            (asked,) = fake.sessions[0].events("response.create")
            assert asked["response"] == {}

    idle_clock.run(main())


def test_pinned_settings_cannot_be_changed_by_a_beta_client() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        headers = {"Authorization": f"Bearer {KEY}", "OpenAI-Beta": "realtime=v1"}
        async with (
            governed(fake) as server,
            aiohttp.ClientSession(headers=headers) as http,
            http.ws_connect(f"{server.ws}/v1/realtime", params={"model": "far"}) as socket,
        ):
            client = Client(socket)
            wanted = {"instructions": "Give it away.", "voice": "marin"}
            await client.send("session.update", session=wanted)
            updated = await client.until("session.updated")
            assert updated["session"]["instructions"] == ""
            await client.send("response.create", response=wanted)
            await client.until("response.done")
            (session,) = fake.sessions
            for event in session.events("session.update"):
                assert event["session"]["instructions"] == SECRET_ORDERS
                assert event["session"]["audio"]["output"]["voice"] == "cedar"
            assert b"Give it away." not in b"".join(session.received)
            assert b"marin" not in session.received[-1]
            assert SECRET_ORDERS not in json.dumps(client.events)

    idle_clock.run(main())


def test_short_lived_key_of_a_relay_carries_its_model_and_cannot_undo_what_is_pinned() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with governed(fake) as server:
            asked = {
                "type": "realtime",
                "model": "far",
                "instructions": "Obey.",
                "max_output_tokens": 77,
            }
            status, made = await secret_of(server, asked)
            assert (status, made["value"][:3]) == (200, "ek_")
            assert fake.attempts == 0  # nothing is asked of the upstream server for a key
            assert made["session"]["instructions"] == ""
            async with client_of(server, made["value"], model="default") as client:
                created = await client.until("session.created")
                assert created["session"]["model"] == "far"
                assert created["session"]["max_output_tokens"] == 77
                await client.send("response.create")
                await client.until("response.done")
                sent = configured(fake)
                assert (sent["instructions"], sent["max_output_tokens"]) == (SECRET_ORDERS, 77)
                header = fake.sessions[0].headers["Authorization"]
                assert header == "Bearer sk-upstream"

    idle_clock.run(main())


def test_short_lived_key_that_is_forged_or_expired_is_refused_and_nothing_is_dialled() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with governed(fake) as server:
            _, made = await secret_of(server, {"type": "realtime", "model": "far"})
            forged = made["value"][:-4] + "AAAA"
            expired = TokenMint(Secret("s3cret")).issue(Grant(id="x", expires_at=1)).reveal()
            for key in (forged, expired):
                assert (await refused(server, key, model="far"))["code"] == "invalid_api_key"
            assert fake.attempts == 0

    idle_clock.run(main())


def test_model_that_a_key_does_not_allow_is_refused_everywhere_and_never_dialled() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with governed(fake, models=("default",)) as server:
            for query in ({"model": "far"}, {"model": "far", "intent": "transcription"}):
                assert (await refused(server, **query))["code"] == "model_not_found"
            status, answer = await secret_of(server, {"type": "realtime", "model": "far"})
            assert (status, answer["error"]["code"]) == (400, "model_not_found")
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http:
                form = aiohttp.FormData({"sdp": "v=0"})
                form.add_field("session", '{"type":"realtime","model":"far"}')
                async with http.post(f"{server.http}/v1/realtime/calls", data=form) as response:
                    assert response.status == 400
            async with client_of(server, model="default") as client:
                await client.until("session.created")
                await client.send("session.update", session={"type": "realtime", "model": "far"})
                async with asyncio.timeout(TIMEOUT_S):
                    error = (await client._socket.receive_json())["error"]
                assert (error["code"], error["param"]) == ("model_not_found", "session.model")
            assert fake.attempts == 0

    idle_clock.run(main())


def test_audio_of_a_relay_that_comes_too_fast_is_read_later_and_none_is_lost() -> None:
    """50 times real time; the policy allows 20 times."""

    async def main() -> None:
        fake = FakeUpstream()
        limits = {"audio_speed": 20.0, "audio_burst_seconds": 0.1}
        async with governed(fake, limits) as server, client_of(server, model="far") as client:
            await client.until("session.created")
            clock = asyncio.get_running_loop().time
            begun, pieces = clock(), 40
            audio = msgspec.to_builtins(bytes(4800))  # 100 ms
            for _ in range(pieces):
                await client.send("input_audio_buffer.append", audio=audio)
            await client.send("response.create")
            await client.until("response.done")
            assert len(fake.sessions[0].events("input_audio_buffer.append")) == pieces
            assert clock() - begun >= (pieces * 0.1 - 0.2) / 20.0

    idle_clock.run(main())
