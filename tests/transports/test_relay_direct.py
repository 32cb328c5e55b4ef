"""Calls whose media goes past this server, between their client and the upstream server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from tests import idle_clock
from tests.fake_upstream import ANSWER_SDP, USAGE, Answer, FakeCall, FakeUpstream
from tests.server import Server, scripted, serving
from tests.transports.test_relay_accounts import COST, limit, metrics, rows, save
from tests.transports.webrtc.call_stage import in_call
from tests.transports.webrtc.caller import calling, until
from vivavoce.api.metered import METERING
from vivavoce.limits.accounts import ApiKey
from vivavoce.limits.keys import hash_of
from vivavoce.limits.prices import NANO, ModelPrice
from vivavoce.protocol.session import RealtimePatch
from vivavoce.runtime import upstream_calls
from vivavoce.session.policy import Policy
from vivavoce.settings import RelayModel

OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
BEARER = {"Authorization": "Bearer first"}
CALLS = "/v1/realtime/calls?model=far"


@asynccontextmanager
async def passing(
    url: str,
    *,
    fallback: str = "",
    policy: Policy | None = None,
    session: dict[str, Any] | None = None,
    model: str = "gpt-realtime-2.1",
) -> AsyncIterator[Server]:
    """A server whose model "far" passes offers on to the upstream server at that address."""
    far = RelayModel(
        upstream=url,
        api_key="sk-upstream",
        model=model,
        fallback=fallback,
        media="direct",
        policy="shop" if policy else "",
    )
    settings = scripted(server={"secret": "s3cret"}, session=session)
    settings = msgspec.structs.replace(
        settings,
        keys={"first": hash_of("first")},
        models={**settings.models, "far": far},
        policies={"shop": policy} if policy else {},
        prices={"free": ModelPrice(text_input=0.0, text_output=0.0)},
    )
    async with serving(settings, accounts=True) as server:
        await save(server, "key", ApiKey(name="laptop", hash=hash_of("laptop")))
        await server.app[METERING].refresh()
        yield server


@asynccontextmanager
async def before(
    *script: Any, **options: Any
) -> AsyncIterator[tuple[FakeUpstream, Server, aiohttp.ClientSession]]:
    fake = FakeUpstream(*script)
    async with (
        fake.serve() as url,
        passing(url, **options) as server,
        aiohttp.ClientSession(headers=BEARER) as http,
    ):
        yield fake, server, http


async def offer(
    server: Server, http: aiohttp.ClientSession, key: str = "first"
) -> tuple[int, str, str]:
    """Status, body and Location of the answer to an offer."""
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {key}"}
    async with http.post(server.http + CALLS, data=OFFER, headers=headers) as reply:
        return reply.status, await reply.text(), reply.headers.get("Location", "")


async def offer_with(server: Server, http: aiohttp.ClientSession, session: dict[str, Any]) -> int:
    """The status of the answer to an offer with these settings."""
    form = aiohttp.FormData({"sdp": OFFER, "session": json.dumps(session)})
    async with http.post(server.http + CALLS, data=form) as reply:
        return reply.status


async def made(server: Server, http: aiohttp.ClientSession, fake: FakeUpstream) -> FakeCall:
    assert (await offer(server, http))[0] == 201
    return fake.calls[-1]


async def ended(server: Server, call: FakeCall) -> None:
    await until(lambda: call.hung_up and not len(server.sessions))


def test_sideband_is_open_before_the_client_has_its_answer_and_every_response_is_booked() -> None:
    async def main() -> None:
        async with before() as (fake, server, http):
            fake.sideband_refusals = [404]  # the call is not found for a moment
            status, answer, location = await offer(server, http)
            assert (status, answer) == (201, ANSWER_SDP)
            (call,) = fake.calls
            assert call.attached == 1
            assert (call.offer, call.given["model"]) == (OFFER, "gpt-realtime-2.1")
            assert call.session.headers["Authorization"] == "Bearer sk-upstream"
            assert location.startswith("/v1/realtime/calls/rtc_")
            assert call.id not in location
            await call.from_client("response.create")
            await call.from_client("response.create")
            booked = await rows(server, 2)
            assert [(row.nano_usd, row.key) for row in booked] == 2 * [(COST, "first")]
            (listed,) = server.sessions.live.shown()
            assert (listed.model, listed.transport, listed.key) == ("far", "webrtc", "first")
            await fake.end_call(call)
            await ended(server, call)

    idle_clock.run(main())


def test_client_that_changes_pinned_settings_twice_is_hung_up() -> None:
    policy = Policy(pinned=RealtimePatch(instructions="Sell ice."))

    async def main() -> None:
        async with before(policy=policy) as (fake, server, http):
            call = await made(server, http, fake)
            assert call.given["instructions"] == "Sell ice."
            sent = await call.session.wait_for("session.update")
            await call.from_client("session.update", session={"instructions": "Be rude."})
            sent = await call.session.wait_for("session.update", 3)
            assert sent[-1]["session"]["instructions"] == "Sell ice."
            await call.from_client("session.update", session={"instructions": "Be rude."})
            await ended(server, call)
            assert 'reason="policy_violation"' in await metrics(server)

    idle_clock.run(main())


def test_pinned_settings_cannot_be_changed_by_the_settings_of_an_offer() -> None:
    policy = Policy(pinned=RealtimePatch(instructions="Sell ice."))

    async def main() -> None:
        async with before(policy=policy) as (fake, server, http):
            wanted = {"type": "realtime", "instructions": "Be rude.", "max_output_tokens": 77}
            assert await offer_with(server, http, wanted) == 201
            (call,) = fake.calls
            assert call.given["instructions"] == "Sell ice."
            assert call.given["max_output_tokens"] == 77
            await fake.end_call(call)
            await ended(server, call)

    idle_clock.run(main())


def test_call_that_loses_its_sideband_is_taken_up_again_or_hung_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert upstream_calls.LOST_TIMEOUT_S == 10.0
    monkeypatch.setattr(upstream_calls, "RETRY_S", 0.01)

    async def main() -> None:
        fake = FakeUpstream()
        async with (
            fake.serve() as url,
            passing(url) as server,
            aiohttp.ClientSession(headers=BEARER) as http,
        ):
            call = await made(server, http, fake)
            await call.sidebands.close(code=1011)
            await until(lambda: call.attached == 2)
            await call.from_client("response.create")
            assert len(await rows(server, 1)) == 1
            monkeypatch.setattr(
                upstream_calls, "LOST_TIMEOUT_S", 0.1
            )  # the loss above had ten seconds
            fake.sideband_refusals = 1000 * [503]
            await call.sidebands.close(code=1011)
            await ended(server, call)
            server.complaints.clear()  # it was logged

    idle_clock.run(main())


def test_call_of_a_spent_budget_is_hung_up() -> None:
    async def main() -> None:
        details = {"text_tokens": 10, "audio_tokens": 1000}
        usage = {**USAGE, "total_tokens": 1110, "output_tokens": 1010}
        long = Answer(usage={**usage, "output_token_details": details})
        async with before(long) as (fake, server, http):
            await limit(server, scope="key", owner="laptop", unit="usd", limit=NANO // 2)
            assert (await offer(server, http, "laptop"))[0] == 201
            (call,) = fake.calls
            over, answers = asyncio.create_task(until(lambda: call.hung_up)), 0
            while not call.hung_up:
                await call.from_client("response.create")
                answers += 1
                booking = asyncio.create_task(rows(server, answers))
                await asyncio.wait((booking, over), return_when=asyncio.FIRST_COMPLETED)
                booking.cancel()
            await ended(server, call)
            await limit(server, scope="key", owner="laptop", unit="usd", limit=1)
            status, body, _ = await offer(server, http, "laptop")
            assert (status, "insufficient_quota" in body) == (429, True)
            assert len(fake.calls) == 1
            spent = sum(row.nano_usd for row in await rows(server, 1))
            assert spent <= NANO // 2

    idle_clock.run(main())


def test_time_of_a_call_is_limited_and_a_hang_up_here_ends_it_there() -> None:
    async def main() -> None:
        async with before(session={"max_seconds": 0.3}) as (fake, server, http):
            await ended(server, await made(server, http, fake))
        async with before() as (fake, server, http):
            _, _, location = await offer(server, http)
            assert (await http.post(f"{server.http}{location}/hangup")).status == 200
            await ended(server, fake.calls[0])

    idle_clock.run(main())


def test_sideband_of_this_server_sees_a_direct_call_and_acts_on_it() -> None:
    async def main() -> None:
        async with before(Answer("It is warm.")) as (fake, server, http):
            _, _, location = await offer(server, http)
            call = fake.calls[0]
            path = f"/v1/realtime?call_id={location.rpartition('/')[2]}"
            async with calling(server, path, **BEARER) as side:
                await call.from_client("response.create")
                assert await side.answer() == ("completed", None)
                await side.send(type="response.create")
                assert await side.answer() == ("completed", None)
                await fake.end_call(call)
                assert (await side.read_until_closed())[0] == 1000
            await ended(server, call)

    idle_clock.run(main())


@pytest.mark.parametrize("status", [400, 401, 404])
def test_offer_that_the_upstream_server_refuses_names_nothing_of_it(status: int) -> None:
    async def main() -> None:
        async with before(fallback="none") as (fake, server, http):
            fake.call_refusal = (status, '{"error":{"message":"no sk-upstream org-abcdef1"}}')
            answered, body, _ = await offer(server, http)
            assert answered == (400 if status == 400 else 503)
            assert "sk-upstream" not in body
            assert "org-" not in body
            await until(lambda: not len(server.sessions))
            server.complaints.clear()  # it was logged

    idle_clock.run(main())


def test_offer_that_is_no_offer_is_refused_here() -> None:
    async def main() -> None:
        async with before() as (fake, server, http):
            headers = {"Content-Type": "application/sdp"}
            for sdp in ("", "hello"):
                reply = await http.post(server.http + CALLS, data=sdp, headers=headers)
                assert reply.status == 400
                assert (await reply.json())["error"]["param"] == "sdp"
            assert not fake.calls

    idle_clock.run(main())


def test_call_comes_here_where_the_upstream_server_makes_none_and_there_is_a_fallback() -> None:
    async def main() -> None:
        async with before() as (fake, server, _):
            fake.call_refusal = (503, "overloaded")
            async with in_call(server, query="?model=far", **BEARER) as client:
                await client.ask()
                await client.until("response.done")
            await until(lambda: not len(server.sessions))
            server.complaints.clear()  # it was logged

    idle_clock.run(main())


def test_server_of_this_kind_makes_direct_calls_for_another() -> None:
    async def main() -> None:
        answers = {"answers": ["It is warm in Rome."]}
        async with (
            serving(scripted(llm=answers)) as far,
            passing(f"{far.ws}/v1/realtime", model="default") as server,
            in_call(server, query="?model=far", **BEARER) as client,
            aiohttp.ClientSession(headers=BEARER) as http,
        ):
            assert (len(far.sessions), len(server.sessions)) == (1, 1)
            await client.ask()
            await client.until("response.done")
            await until(lambda: client.loud_ms > 100)
            (row,) = await rows(server, 1)
            assert (row.kind, row.mode, row.model) == ("response", "relay", "far")
            assert row.used["text_output"] > 0
            await http.post(f"{server.http}{client.location}/hangup")
            await until(lambda: not len(far.sessions) and not len(server.sessions))

    idle_clock.run(main())


def test_short_lived_key_finds_its_direct_call_alone() -> None:
    async def main() -> None:
        async with before() as (fake, server, http):
            ask = {"session": {"type": "realtime", "model": "far"}}
            secrets = []
            for _ in range(2):
                reply = await http.post(f"{server.http}/v1/realtime/client_secrets", json=ask)
                secrets.append((await reply.json())["value"])
            own, other = ({"Authorization": f"Bearer {secret}"} for secret in secrets)
            headers = {"Content-Type": "application/sdp", **own}
            url = f"{server.http}/v1/realtime/calls"
            reply = await http.post(url, data=OFFER, headers=headers)
            assert (reply.status, len(fake.calls)) == (201, 1)
            hang_up = f"{server.http}{reply.headers['Location']}/hangup"
            assert (await http.post(hang_up, headers=other)).status == 404
            assert (await http.post(hang_up, headers=own)).status == 200
            await ended(server, fake.calls[0])

    idle_clock.run(main())
