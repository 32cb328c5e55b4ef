"""The nodes of a cluster, their messages, and what happens while Redis is away."""

import asyncio
import logging
from contextlib import AsyncExitStack

import msgspec
import pytest

from tests.runtime.cluster_stage import MemoryCluster, a_node
from vivavoce.errors import StoreError
from vivavoce.runtime.cluster import MAX_PAUSE_S, ClusterSettings
from vivavoce.runtime.known_nodes import SUSPECTED_S
from vivavoce.runtime.places import Place, node_tag
from vivavoce.testing.virtual_time import run

LEASE_S = ClusterSettings().lease_seconds


def test_nodes_know_each_other_and_the_sum_of_their_workers() -> None:
    async def main() -> None:
        store = MemoryCluster()
        async with (
            a_node(store, "one", load=(3, 10)) as one,
            a_node(store, "two", load=(1, 10)),
            a_node(store, "two", worker=1, load=(2, 10), overloaded=True),
        ):
            await asyncio.sleep(LEASE_S)
            first, second = one.nodes
            assert (first.node, first.sessions, first.workers) == ("one", 3, 1)
            assert (second.sessions, second.max_sessions, second.workers) == (3, 20, 2)
            assert (second.load, second.overloaded) == (0.15, False)
            assert await one.address_of(node_tag("two")) == "http://two:8080"
            assert await one.address_of(node_tag("three")) is None

    run(main())


def test_node_that_has_just_come_is_found_and_one_that_has_left_is_not() -> None:
    async def main() -> None:
        store = MemoryCluster()
        async with a_node(store, "one") as one:
            await asyncio.sleep(1.5)
            async with a_node(store, "two"):
                assert await one.address_of(node_tag("two")) == "http://two:8080"
            assert [node.node for node in await one.fresh_nodes()] == ["one"]

    run(main())


def test_node_that_does_not_renew_its_lease_is_taken_for_dead() -> None:
    async def main() -> None:
        store = MemoryCluster()
        two = a_node(store, "two")
        async with a_node(store, "one") as one:
            assert await two._renew()  # once, and then never again
            await asyncio.sleep(LEASE_S / 2)
            assert [node.node for node in one.nodes] == ["one", "two"]
            await asyncio.sleep(LEASE_S)
            assert [node.node for node in one.nodes] == ["one"]

    run(main())


def test_node_that_could_not_be_reached_is_suspected_for_a_while() -> None:
    async def main() -> None:
        one = a_node(MemoryCluster(), "one")
        assert not one.known.is_suspected("000000")
        one.known.suspect("000000")
        assert one.known.is_suspected("000000")
        await asyncio.sleep(SUSPECTED_S)
        assert not one.known.is_suspected("000000")

    run(main())


def test_least_loaded_node_has_room_and_is_another_one() -> None:
    async def main() -> None:
        store = MemoryCluster()
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(a_node(store, "one", load=(0, 10)))
            assert one.known.least_loaded() == ""
            for node in (
                a_node(store, "full", load=(10, 10)),
                a_node(store, "busy", load=(1, 10), overloaded=True),
                a_node(store, "leaving", load=(0, 10), draining=True),
                a_node(store, "half", load=(5, 10)),
                a_node(store, "third", load=(30, 100)),
            ):
                await stack.enter_async_context(node)
            await one.fresh_nodes()
            assert one.known.least_loaded() == "third"

    run(main())


def test_redis_that_is_away_is_logged_once_and_asked_with_back_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "vivavoce.runtime.cluster")

    async def main() -> None:
        store = MemoryCluster()
        async with a_node(store, "one") as one, a_node(store, "two") as two:
            await asyncio.sleep(LEASE_S)
            store.cut_off()
            await asyncio.sleep(600)
            assert one.away
            assert not one.refuses_sessions
            assert store.attempts < 2 * 2 * 2 * 600 / MAX_PAUSE_S  # nodes, loops, half a pause
            assert await one.address_of(node_tag("two")) == "http://two:8080"  # as known last
            assert await one.first("key", "mine", 10.0) == "mine"
            assert not await one.end_session(two.place, "sess")
            with pytest.raises(StoreError):
                await one.drain("two")
            store.away = False
            await asyncio.sleep(MAX_PAUSE_S)
            assert not one.away
            told: list[str] = []
            two.on_end_session = told.append
            await asyncio.sleep(MAX_PAUSE_S)
            assert await one.end_session(two.place, "sess")  # it listens again
            await asyncio.sleep(0)
            assert told == ["sess"]

    run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2 + ["INFO"] * 2


def test_new_sessions_are_refused_while_redis_is_away_where_the_settings_say_so() -> None:
    async def main() -> None:
        store = MemoryCluster()
        settings = ClusterSettings(address="http://one:8080", when_away="refuse")
        store.cut_off()
        async with a_node(store, "one", settings=settings) as one:
            assert one.refuses_sessions
            store.away = False
            await asyncio.sleep(MAX_PAUSE_S)
            assert not one.refuses_sessions

    run(main())


def test_messages_reach_the_process_or_the_node_that_they_are_for() -> None:
    async def main() -> None:
        store = MemoryCluster()
        async with (
            a_node(store, "one") as one,
            a_node(store, "two") as first,
            a_node(store, "two", worker=1) as second,
        ):
            taken: list[tuple[str, int]] = []
            drained: list[str] = []
            second.on_taken_over = lambda key, epoch: taken.append((key, epoch))

            async def drain() -> None:
                drained.append("two")

            first.on_drain = second.on_drain = drain
            await asyncio.sleep(0)
            await one.tell_taken_over(second.place.name, "key", 2)
            await one.tell_taken_over(one.place.name, "key", 2)  # itself: nobody needs to be told
            await one.tell_taken_over("", "key", 2)
            assert await one.drain("two") == 2
            await asyncio.sleep(1)
            assert taken == [("key", 2)]
            assert drained == ["two", "two"]
            assert first.received == {"drain_node": 1}
            assert second.received == {"taken_over": 1, "drain_node": 1}
            assert not await one.end_session(Place("000000", 0), "sess")

    run(main())


def test_second_node_of_one_name_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = MemoryCluster()
        other = ClusterSettings(address="http://elsewhere:8080", node="one")
        async with a_node(store, "one"), a_node(store, "one", worker=1, settings=other):
            pass

    run(main())
    assert "http://one:8080" in caplog.text


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"node": "one"}, "address is missing"),
        ({"redis": "redis://localhost"}, "address is missing"),
        ({"address": "10.0.0.1:8080"}, "http://HOST:PORT"),
        ({"address": "http://10.0.0.1:8080/"}, "without a path"),
        ({"address": "http://10.0.0.1:80800"}, "http://HOST:PORT"),
        ({"address": "http://10.0.0.1:8080x"}, "http://HOST:PORT"),
        ({"address": "http://a:1", "node": "my node"}, "letters, digits"),
    ],
)
def test_settings_of_a_cluster_that_cannot_work_are_refused(
    given: dict[str, str], problem: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.convert(given, ClusterSettings)
