"""Leases and messages of a cluster in a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.store.redis_server import redis_url
from vivavoce.errors import StoreError
from vivavoce.secret import Secret
from vivavoce.store.cluster import (
    ClusterStore,
    ControlMessage,
    DrainNode,
    EndSession,
    ProcessLease,
    TakenOver,
)

__all__ = ["redis_url"]  # a fixture


@asynccontextmanager
async def in_redis(url: str) -> AsyncIterator[ClusterStore]:
    from redis.asyncio import Redis

    from vivavoce.store.redis_cluster import RedisCluster

    try:
        async with RedisCluster(Secret(url)) as store:
            yield store
    finally:
        client = Redis.from_url(url)
        await client.flushall()
        await client.aclose()


def lease(place: str, sessions: int = 0) -> ProcessLease:
    return ProcessLease(place=place, node="one", address="http://one:8080", sessions=sessions)


def test_lease_is_replaced_ended_and_left(redis_url: str) -> None:
    async def main() -> None:
        async with in_redis(redis_url) as store:
            assert await store.leases() == []
            await store.renew(lease("n000000w0"), 100.0)
            await store.renew(lease("n000000w0", 7), 100.0)
            await store.renew(lease("n000000w1"), 0.001)
            assert lease("n000000w0", 7) in await store.leases()
            while len(await store.leases()) > 1:  # noqa: ASYNC110  by the clock of Redis
                await asyncio.sleep(0)
            await store.renew(lease("n000000w2"), 100.0)
            assert await store.leases() == [lease("n000000w0", 7), lease("n000000w2")]
            await store.leave("n000000w0")
            await store.leave("n000000w2")
            assert await store.leases() == []

    asyncio.run(main())


def test_key_keeps_the_value_that_it_was_given_first(redis_url: str) -> None:
    async def main() -> None:
        async with in_redis(redis_url) as store:
            assert await store.first("start:1", b"one", ttl_s=100.0) == b"one"
            assert await store.first("start:1", b"two", ttl_s=100.0) == b"one"
            assert await store.first("start:2", b"two", ttl_s=100.0) == b"two"

    asyncio.run(main())


def test_messages_come_on_the_channels_that_are_listened_to(redis_url: str) -> None:
    async def main() -> None:
        async with in_redis(redis_url) as store:
            sent: tuple[ControlMessage, ...] = (
                TakenOver("key", 3),
                EndSession("sess_1"),
                DrainNode(),
            )
            assert await store.publish("w0", DrainNode()) == 0
            async with store.listen(("w0", "node")) as messages:
                for channel, message in zip(("w0", "node", "w0"), sent, strict=True):
                    assert await store.publish(channel, message) == 1
                assert await store.publish("w1", DrainNode()) == 0
                async with asyncio.timeout(10):
                    assert [await anext(messages) for _ in sent] == list(sent)

    asyncio.run(main())


def test_server_that_is_not_there_is_a_store_error() -> None:
    pytest.importorskip("redis", reason="the extra redis is not installed")

    async def main() -> None:
        async with in_redis_of_nobody() as store:
            with pytest.raises(StoreError, match="cannot be used"):
                await store.renew(lease("w0"), 1.0)
            with pytest.raises(StoreError, match="cannot be used"):
                async with store.listen(("w0",)):
                    pass

    asyncio.run(main())


@asynccontextmanager
async def in_redis_of_nobody() -> AsyncIterator[ClusterStore]:
    from vivavoce.store.redis_cluster import RedisCluster

    async with RedisCluster(Secret("unix:///nowhere/socket")) as store:
        yield store
