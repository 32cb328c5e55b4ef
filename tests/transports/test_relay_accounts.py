"""A relay with accounts, as it is served: keys, budgets, what is booked, metrics."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from tests import idle_clock
from tests.fake_upstream import USAGE, Answer, FakeUpstream
from tests.server import HOST, Server, scripted, serving
from tests.transports.test_relay import TIMEOUT_S, Client
from tests.transports.webrtc.call_stage import in_call
from tests.transports.webrtc.caller import until
from vivavoce.api.metered import METERING
from vivavoce.limits.accounts import ApiKey, Budget, Team, User
from vivavoce.limits.keys import hash_of
from vivavoce.limits.prices import NANO, ModelPrice
from vivavoce.runtime import runner, upstream
from vivavoce.settings import RelayModel
from vivavoce.store.base import UsageRow
from vivavoce.telemetry import metering

TEXT_ALONE = ModelPrice(text_input=1.0, text_output=2.0)
PICTURE = "data:image/png;base64,iVBORw0KGgo="
COST = 10 * 4_000 + 50 * 400 + 26 * 32_000 + 14 * 400 + 10 * 24_000 + 40 * 64_000
"""Nano-USD of the usage that the fake reports, by hand: gpt-realtime-2.1."""


@asynccontextmanager
async def metered(
    fake: FakeUpstream, *, model: str = "gpt-realtime-2.1", fallback: str = ""
) -> AsyncIterator[Server]:
    """A server whose model "far" is behind the fake, with keys of two users in two teams."""
    async with fake.serve() as url:
        settings = scripted(server={"secret": "s3cret"}, llm={"answers": ["Here."]})
        far = RelayModel(upstream=url, api_key="sk-upstream", model=model, fallback=fallback)
        settings = msgspec.structs.replace(
            settings,
            keys={"first": hash_of("first")},
            models={**settings.models, "far": far},
            prices={"text-alone": TEXT_ALONE},
        )
        async with serving(settings, accounts=True) as server:
            for team in ("red", "blue"):
                await save(server, "team", Team(name=team))
                await save(server, "user", User(name=f"ada.{team}", team=team))
                for place in ("laptop", "phone"):
                    name = f"{team}-{place}"
                    key = ApiKey(name=name, hash=hash_of(name), user=f"ada.{team}")
                    await save(server, "key", key)
            await server.app[METERING].refresh()
            yield server


async def save(server: Server, kind: Any, record: Any) -> None:
    name = record.id if kind == "budget" else record.name
    await server.app[METERING].store.save(kind, name, msgspec.json.encode(record))


async def limit(server: Server, **budget: Any) -> Budget:
    made = Budget(**{"period": "total", **budget})
    await save(server, "budget", made)
    await server.app[METERING].refresh()
    return made


@asynccontextmanager
async def calling(server: Server, key: str = "red-laptop") -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http,
        http.ws_connect(f"{server.ws}/v1/realtime", params={"model": "far"}) as socket,
    ):
        yield Client(socket)


async def rows(server: Server, count: int) -> list[UsageRow]:
    """What is booked, without sessions, as soon as it is so much."""
    meter, found = server.app[METERING], list[UsageRow]()
    async with asyncio.timeout(TIMEOUT_S):
        while len(found) < count:
            await asyncio.sleep(0.01)
            await meter.booking.flush()
            pages = [page async for page in meter.store.usage(0, 1e12)]
            found = [row for page in pages for row in page if row.kind != "session"]
    return found


async def metrics(server: Server) -> str:
    headers = {"Authorization": "Bearer first"}
    async with aiohttp.ClientSession(headers=headers) as http:
        return await (await http.get(f"{server.http}/metrics")).text()


def test_client_that_includes_usage_sees_what_is_booked() -> None:
    async def main() -> None:
        async with metered(FakeUpstream()) as server:
            async with calling(server) as client:
                session = {"type": "realtime", "include": ["x_usage"]}
                await client.send("session.update", session=session)
                for turn in (1, 2):
                    await client.send("response.create")
                    used = (await client.until("response.done"))["x_usage"]
                    assert used["responses"] == turn
                    assert (used["nano_usd"], used["response_nano_usd"]) == (turn * COST, COST)
            first, second = await rows(server, 2)
            assert (first.nano_usd, second.nano_usd) == (COST, COST)

    idle_clock.run(main())


def test_fallback_that_has_answered_costs_nothing_of_the_relay() -> None:
    async def main() -> None:
        async with metered(FakeUpstream("answer", "cut")) as server:
            await limit(server, scope="user", owner="ada.red", unit="usd", limit=100 * NANO)
            async with calling(server) as client:
                await client.send("response.create")
                await client.until("response.done")
                await client.send("response.create")
                statuses: list[str] = []
                while statuses[-2:] != ["failed", "completed"]:
                    done = await client.until("response.done")
                    statuses.append(done["response"]["status"])
            relayed, lost, local = sorted(await rows(server, 3), key=lambda row: row.at)
            assert (relayed.nano_usd, relayed.mode, relayed.confirmed) == (COST, "relay", True)
            assert (lost.mode, lost.confirmed) == ("relay", False)
            assert (local.nano_usd, local.mode, local.model) == (0, "local", "default")

    idle_clock.run(main())


def test_users_of_two_keys_are_one_to_the_provider_and_those_of_two_teams_are_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(upstream._HOSTS, f".{HOST}", "openai")

    async def main() -> None:
        fake = FakeUpstream()
        async with metered(fake) as server:
            for key in ("red-laptop", "red-phone", "blue-laptop", "first"):
                async with calling(server, key) as client:
                    await client.send("response.create")
                    await client.until("response.done")
        sent = [session.headers["OpenAI-Safety-Identifier"] for session in fake.sessions]
        assert all(len(name) == 43 for name in sent)
        laptop, phone, other, plain = sent
        assert laptop == phone
        assert len({laptop, other, plain}) == 3
        assert not re.search("ada|red|blue|first", " ".join(sent))

    idle_clock.run(main())


@pytest.mark.parametrize("model", ["text-alone", "gpt-realtime-2.1"])
def test_pictures_are_refused_where_money_is_limited_and_they_have_no_price(model: str) -> None:
    details = {**USAGE["input_token_details"], "image_tokens": 1000}  # type: ignore[dict-item]
    usage = {**USAGE, "input_tokens": 1100, "total_tokens": 1150, "input_token_details": details}

    async def main() -> None:
        fake = FakeUpstream(Answer(usage=usage))
        async with metered(fake, model=model) as server:
            await limit(server, scope="team", owner="red", unit="usd", limit=100 * NANO)
            content = [{"type": "input_image", "image_url": PICTURE}]
            item = {"type": "message", "role": "user", "content": content}
            async with calling(server) as client:
                await client.until("session.created")
                await client.send("conversation.item.create", item=item, event_id="mine")
                if model == "text-alone":
                    async with asyncio.timeout(TIMEOUT_S):
                        error = (await client._socket.receive_json())["error"]
                    assert (error["event_id"], error["param"]) == ("mine", "item.content[0]")
                    assert "no price" in error["message"]
                    await client.send("response.create", response={"input": [item]})
                    async with asyncio.timeout(TIMEOUT_S):
                        error = (await client._socket.receive_json())["error"]
                    assert error["param"] == "response.input[0].content[0]"
                    async with asyncio.timeout(TIMEOUT_S):
                        await fake.wait_for_sessions(1)
                    assert fake.sessions[0].events("conversation.item.create") == []
                    text = await metrics(server)
                    refused = 'event="conversation.item.create",rule="images"} 1.0'
                    assert f"vivavoce_client_events_blocked_total{{{refused}" in text
                else:
                    await client.send("response.create")
                    await client.until("response.done")
                    (row,) = await rows(server, 1)
                    assert row.nano_usd == COST + 1000 * 5_000

    idle_clock.run(main())


def test_pictures_pass_to_a_model_without_their_price_where_no_money_is_limited() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with metered(fake, model="text-alone") as server, calling(server) as client:
            content = [{"type": "input_image", "image_url": PICTURE}]
            item = {"type": "message", "role": "user", "content": content}
            await client.send("conversation.item.create", item=item)
            await client.send("response.create")
            await client.until("response.done")
            assert len(fake.sessions[0].events("conversation.item.create")) == 1

    idle_clock.run(main())


def test_key_revoked_in_the_store_ends_its_session_with_3000_and_its_short_lived_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert metering.REFRESH_S <= 10
    monkeypatch.setattr(metering, "REFRESH_S", 0.05)

    async def main() -> None:
        fake = FakeUpstream()
        async with metered(fake) as server:
            secret = await short_lived(server, "red-laptop")
            async with calling(server) as client, calling(server, secret) as page:
                for one in (client, page):
                    await one.send("response.create")
                    await one.until("response.done")
                name = "red-laptop"
                key = ApiKey(name=name, hash=hash_of(name), user="ada.red", revoked=True)
                await save(server, "key", key)
                for one in (client, page):
                    assert await ended(one) == ("invalid_api_key", 3000)
            async with asyncio.timeout(TIMEOUT_S):
                await fake.wait_closed()
            for key_ in ("red-laptop", secret):
                async with calling(server, key_) as client:
                    assert await ended(client) == ("invalid_api_key", 3000)
                headers = {"Authorization": f"Bearer {key_}", "Content-Type": "application/sdp"}
                url = f"{server.http}/v1/realtime/calls"
                async with (
                    aiohttp.ClientSession() as http,
                    http.post(url, data="v=0", headers=headers) as reply,
                ):
                    assert reply.status == 401
            booked = [row for row in await rows(server, 2) if row.kind == "response"]
            assert {(row.key, row.user, row.team) for row in booked} == {
                ("red-laptop", "ada.red", "red")
            }

    idle_clock.run(main())


async def short_lived(server: Server, key: str) -> str:
    url = f"{server.http}/v1/realtime/client_secrets"
    body = {"session": {"type": "realtime", "model": "far"}}
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        secret: str = (await (await http.post(url, json=body)).json())["value"]
    assert secret.startswith("ek_")
    return secret


async def ended(client: Client) -> tuple[str, int | None]:
    """The code of the last error, and the close code."""
    code, socket = "", client._socket
    async with asyncio.timeout(TIMEOUT_S):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            event = message.json()
            code = event["error"]["code"] if event["type"] == "error" else code
    return code, socket.close_code


def test_page_calls_a_relay_with_its_short_lived_key_and_reads_the_place_of_the_call() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with metered(fake) as server:
            secret = await short_lived(server, "blue-phone")
            origin = {"Authorization": f"Bearer {secret}", "Origin": "http://localhost:3000"}
            async with in_call(server, query="", **origin) as client:
                assert client.events[0]["session"]["model"] == "far"
                assert client.location.startswith("/v1/realtime/calls/rtc_")
                await client.ask()
                await client.until("output_audio_buffer.stopped")
            (row,) = await rows(server, 1)
            assert (row.key, row.user, row.nano_usd) == ("blue-phone", "ada.blue", COST)
            await until(lambda: len(server.sessions) == 0)

    idle_clock.run(main())


def test_metrics_of_a_relayed_session_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MEASURED_FRAMES", 1)

    async def main() -> None:
        answer = Answer("one two three four", chunks=4)
        fake = FakeUpstream(answer)
        async with metered(fake) as server:
            async with calling(server) as client:
                await client.send("response.create")
                await client.until("response.done")
                audio = msgspec.to_builtins(bytes(4800))
                for _ in range(10):
                    await client.send("input_audio_buffer.append", audio=audio)
                async with asyncio.timeout(TIMEOUT_S):
                    await fake.sessions[0].wait_for("input_audio_buffer.append", 10)
                text = await metrics(server)
                assert 'vivavoce_upstream_key_state{model="far",state="available"} 1.0' in text
                assert 'vivavoce_audio_seconds_total{direction="input"} 1.0' in text
                assert 'vivavoce_audio_seconds_total{direction="output"} 1.6' in text
                await client._socket.close(code=4999)
            await rows(server, 1)
            await until(lambda: len(server.sessions) == 0)
            text = await metrics(server)
        for direction in ("input", "output"):
            (count,) = re.findall(
                rf'vivavoce_forward_seconds_count{{direction="{direction}"}} (\S+)', text
            )
            assert float(count) >= 8
        closes = 'vivavoce_client_closes_total{code="other",model="far",reason="client_left"} 1.0'
        assert closes in text
        assert 'vivavoce_cache_hit_ratio_sum{model="far"} 0.64' in text

    idle_clock.run(main())
