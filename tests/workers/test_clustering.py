"""Two nodes that share a Redis server: any of them serves any request."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from tests.runtime.stage import ScriptedEngines, make_context
from tests.server import scripted
from tests.store.redis_server import redis_store, redis_url
from tests.transports.test_resume import drop
from tests.transports.webrtc.caller import calling, until
from tests.workers.nodes import Node, node
from vivavoce.errors import SettingsError
from vivavoce.runtime.cluster import ClusterSettings
from vivavoce.runtime.places import Place, node_tag, uuid_of
from vivavoce.runtime.resume import ResumeSettings, Resumption, Ticket
from vivavoce.runtime.resume_request import resume_request
from vivavoce.runtime.sessions import Sessions
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.store.base import SessionStore
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.telemetry.metrics import Metrics
from vivavoce.workers.clustering import node_name, placed
from vivavoce.workers.control import ControlRoutes, tell_taken_over
from vivavoce.workers.hops import HOP_HEADER
from vivavoce.workers.messages import WorkerPlace

__all__ = ["redis_url"]  # a fixture
WAIT_S = 100.0
pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def stored(url: str) -> AsyncIterator[SessionStore]:
    async with redis_store(url) as store, asyncio.timeout(WAIT_S):
        yield store


@asynccontextmanager
async def two_nodes(url: str) -> AsyncIterator[tuple[Node, Node]]:
    """They know each other."""
    async with stored(url) as store, node("one", url, store) as one, node("two", url, store) as two:
        await all_known(one, two)
        yield one, two


async def all_known(*nodes: Node) -> None:
    for each in nodes:
        assert each.cluster
        await each.cluster.fresh_nodes()


def back(created: dict[str, Any], *, session: bool = True) -> str:
    """The address with which the client of a session comes back."""
    query = {"resume_token": created["resume"]["token"]}
    if session:
        query["session_id"] = created["session"]["id"]
    return f"/v1/realtime?{urlencode(query)}"


def in_cluster(script: Callable[[Node, Node], Awaitable[None]], url: str) -> None:
    async def main() -> None:
        async with two_nodes(url) as (one, two):
            await script(one, two)

    asyncio.run(main())


def test_session_of_one_node_is_listed_and_ended_through_another(redis_url: str) -> None:
    async def script(one: Node, two: Node) -> None:
        async with calling(one) as caller:
            created = caller.events[0]["session"]["id"]
            assert created.startswith(f"sess_n{node_tag('one')}w0_")
            status, body = await two.ask("GET", "/v1/sessions")
            assert [each["id"] for each in msgspec.json.decode(body)["data"]] == [created]
            assert (await two.ask("DELETE", f"/v1/sessions/{created}"))[0] == 204
            assert (await caller.read_until_closed())[0] == 1000
            assert two.cluster
            assert two.cluster.forwarded == {"answered": 1}
        status, body = await two.ask("GET", "/v1/cluster")
        listed = msgspec.json.decode(body)
        assert (status, listed["node"], listed["redis"]) == (200, "two", "reached")
        assert [each["node"] for each in listed["data"]] == ["one", "two"]
        assert [each["workers"] for each in listed["data"]] == [1, 1]

    in_cluster(script, redis_url)


def test_client_that_comes_back_to_another_node_is_attached_to_its_live_session(
    redis_url: str,
) -> None:
    async def script(one: Node, two: Node) -> None:
        async with calling(one) as caller:
            created = caller.events[0]
            drop(caller)
        async with calling(two, back(created)) as again:
            assert again.events[0]["resumed"] is True
            assert again.events[0]["session"]["id"] == created["session"]["id"]
            assert (len(one.sessions), len(two.sessions)) == (1, 0)

    in_cluster(script, redis_url)


def test_conversation_of_a_node_that_has_gone_goes_on_and_is_found_where_it_is(
    redis_url: str,
) -> None:
    async def main() -> None:
        async with (
            stored(redis_url) as store,
            node("two", redis_url, store) as two,
            node("three", redis_url, store) as three,
        ):
            async with node("one", redis_url, store) as one:
                await all_known(two, three)
                async with calling(one) as caller:
                    created = caller.events[0]
                    await caller.ask()
                    await caller.answer()
                    await until(lambda: one.saved)
                    drop(caller)
            async with calling(two, back(created)) as again:
                assert again.events[0]["resumed"] is True
                session = created["session"]["id"]
                assert (len(two.sessions), len(three.sessions)) == (1, 0)
                status, _ = await three.ask("DELETE", f"/v1/sessions/{session}")
                assert status == 204
                assert (await again.read_until_closed())[0] == 1000
            status, body = await three.ask(
                "GET", f"/v1/realtime?call_id=rtc_n{node_tag('one')}w0_0"
            )
            assert status == 410
            assert b"resume_token" in body
            promised = uuid_of(Place(node_tag("one"), 0))
            status, body = await three.ask("POST", f"/sessions/{promised}/api/offer")
            assert status == 410

    asyncio.run(main())


def test_client_whose_conversation_goes_on_at_another_node_is_told_at_once(redis_url: str) -> None:
    async def script(one: Node, two: Node) -> None:
        async with calling(one) as caller:
            created = caller.events[0]
            await caller.ask()
            await caller.answer()
            await until(lambda: one.saved)
            async with calling(two, back(created, session=False)) as again:
                assert again.events[0]["resumed"] is True
                assert (await caller.until("error"))["error"]["code"] == "session_taken_over"
                assert (await caller.read_until_closed())[0] == 4003
                assert one.cluster
                assert one.cluster.received == {"taken_over": 1}

    in_cluster(script, redis_url)


def test_node_that_is_drained_from_another_one_takes_no_more_sessions(redis_url: str) -> None:
    async def script(one: Node, two: Node) -> None:
        async with calling(one) as caller:
            created = caller.events[0]
            status, body = await two.ask("POST", "/v1/cluster/nodes/one/drain")
            assert (status, msgspec.json.decode(body)["processes"]) == (202, 1)
            assert (await caller.read_until_closed())[0] == 1012
        assert (await one.ask("GET", "/ready"))[0] == 503
        assert one.client
        async with one.client.get(f"{one.http}/v1/realtime", headers=UPGRADE) as refused:
            assert refused.status == 503
            assert refused.headers["X-Vivavoce-Try"] == "two"
        # its conversations go on at the other one, whatever their ids say
        async with calling(two, back(created)) as again:
            assert again.events[0]["resumed"] is True
            assert len(two.sessions) == 1
        status, body = await two.ask("POST", "/v1/cluster/nodes/four/drain")
        assert (status, b"known: one, two" in body) == (404, True)

    in_cluster(script, redis_url)


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def test_session_of_a_node_that_cannot_be_reached_is_ended_by_a_message(redis_url: str) -> None:
    async def script(one: Node, two: Node) -> None:
        async with calling(one) as caller:
            session = caller.events[0]["session"]["id"]
            assert two.cluster
            two.cluster.known.leases = [
                msgspec.structs.replace(lease, address="http://127.0.0.1:9")
                for lease in two.cluster.known.leases
            ]
            assert (await two.ask("DELETE", f"/v1/sessions/{session}"))[0] == 202
            assert (await caller.read_until_closed())[0] == 1000

    in_cluster(script, redis_url)


def test_client_that_leaves_a_stream_of_another_node_ends_it_there(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(one: Node, two: Node) -> None:
        assert two.client
        assert two.cluster
        async with calling(one) as caller:
            session = caller.events[0]["session"]["id"]
            live = one.sessions.live.find(session)
            assert live
            async with two.client.get(f"{two.http}/v1/sessions/{session}/events") as stream:
                assert await stream.content.readline()
                assert len(live._watchers) == 1
            while live._watchers:
                await caller.ask()
                await caller.answer()
            await until(lambda: two.cluster.forwarded == {"answered": 1})  # type: ignore[union-attr]
            assert not two.cluster.known.is_suspected(node_tag("one"))

    in_cluster(script, redis_url)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_node_with_another_secret_is_refused(redis_url: str) -> None:
    async def main() -> None:
        async with (
            stored(redis_url) as store,
            node("one", redis_url, store) as one,
            node("two", redis_url, store, secret="another") as two,
        ):
            await all_known(two)
            session = f"/v1/sessions/sess_n{node_tag('one')}w0_00"
            status, body = await two.ask("DELETE", session)
            assert (status, b"[server] secret" in body) == (403, True)
            assert (await one.ask("GET", "/v1/sessions", **{HOP_HEADER: "a b"}))[0] == 403

    asyncio.run(main())


def test_start_with_one_key_of_idempotency_promises_one_session_in_the_cluster(
    redis_url: str,
) -> None:
    async def script(one: Node, two: Node) -> None:
        named = {"Idempotency_Key": "the same"}
        _, first = await one.ask("POST", "/start", **named)
        _, second = await two.ask("POST", "/start", **named)
        assert msgspec.json.decode(first) == msgspec.json.decode(second)

    in_cluster(script, redis_url)


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({}, "[server] secret"),
        ({"secret": "s"}, "[store] url"),
        ({"secret": "s", "redis": "http://localhost"}, "redis://HOST:PORT"),
    ],
)
def test_cluster_that_lacks_something_says_what(tree: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as refused:
        placed(clustered(**tree), None)
    assert problem in str(refused.value)


def test_node_has_the_name_of_its_machine_unless_the_settings_name_it() -> None:
    settings = clustered(secret="s", redis="redis://localhost")
    assert node_name(settings)
    assert node_name(Settings()) == ""
    place = placed(settings, None)
    assert place
    assert place.name == f"n{node_tag(node_name(settings))}w0"


def clustered(secret: str = "", redis: str = "") -> Settings:
    plain = scripted(server={"secret": secret})
    cluster = ClusterSettings(address="http://one:8080", redis=redis)
    return msgspec.structs.replace(plain, cluster=cluster)


def test_worker_whose_conversation_goes_on_in_another_worker_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        here, there = (WorkerPlace(index, 2, str(tmp_path)) for index in (0, 1))
        async with SQLiteStore(":memory:") as store:
            resumption = Resumption(store, ResumeSettings())
            served = Ticket(resumption, resume_request({}), "key", Secret("token"))
            resumption._served["key"] = served
            sessions = Sessions(make_context(ScriptedEngines()))
            routes = ControlRoutes(sessions, Metrics(), "", (), resumption)
            async with routes.serving(there):
                await tell_taken_over(there, "w1", "key", 2)  # itself
                await tell_taken_over(here, "", "key", 2)
                await tell_taken_over(here, "w7", "key", 2)
                await tell_taken_over(here, "w1", "another", 2)
                assert not served.superseded
                await tell_taken_over(here, "w1", "key", 2)
                assert served.superseded
            await tell_taken_over(here, "w1", "key", 3)  # it is down

    asyncio.run(main())
