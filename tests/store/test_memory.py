"""The store in memory, with a clock of its own."""

import asyncio
from collections.abc import Awaitable, Callable

from vivavoce.store.memory import MemoryStore


class Clock:
    """Seconds that pass when they are set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(main: Callable[[MemoryStore, Clock], Awaitable[None]], *, max_bytes: int = 1000) -> None:
    async def inside() -> None:
        clock = Clock()
        async with MemoryStore(max_bytes=max_bytes, clock=clock) as store:
            await main(store, clock)

    asyncio.run(inside())


def test_value_stored_is_returned_until_its_time_is_over() -> None:
    async def main(store: MemoryStore, clock: Clock) -> None:
        await store.put("a", b"one", ttl_s=10.0)
        clock.now = 109.9
        assert await store.get("a") == b"one"
        clock.now = 110.0
        assert await store.get("a") is None
        clock.now = 100.0
        assert await store.get("a") is None  # it is gone, not hidden

    run(main)


def test_value_stored_again_replaces_the_last_one_and_its_time() -> None:
    async def main(store: MemoryStore, clock: Clock) -> None:
        await store.put("a", b"one", ttl_s=1.0)
        await store.put("a", b"two", ttl_s=10.0)
        clock.now = 105.0
        assert await store.get("a") == b"two"

    run(main)


def test_key_without_a_value_returns_none() -> None:
    async def main(store: MemoryStore, clock: Clock) -> None:
        assert await store.get("a") is None
        await store.delete("a")

    run(main)


def test_value_deleted_is_gone() -> None:
    async def main(store: MemoryStore, clock: Clock) -> None:
        await store.put("a", b"one", ttl_s=1.0)
        await store.delete("a")
        assert await store.get("a") is None

    run(main)


def test_empty_value_is_a_value() -> None:
    async def main(store: MemoryStore, clock: Clock) -> None:
        await store.put("a", b"", ttl_s=1.0)
        assert await store.get("a") == b""

    run(main)


def test_store_full_drops_the_values_stored_first() -> None:
    async def main(store: MemoryStore, clock: Clock) -> None:
        await store.put("a", bytes(6), ttl_s=100.0)
        await store.put("b", bytes(4), ttl_s=100.0)
        await store.put("a", bytes(5), ttl_s=100.0)  # now "b" was stored first
        await store.put("c", bytes(5), ttl_s=100.0)
        assert await store.get("b") is None
        assert await store.get("a") == bytes(5)
        assert await store.get("c") == bytes(5)

    run(main, max_bytes=10)


def test_value_above_the_bound_is_not_kept() -> None:
    async def main(store: MemoryStore, clock: Clock) -> None:
        await store.put("a", bytes(11), ttl_s=100.0)
        assert await store.get("a") is None
        await store.put("b", bytes(10), ttl_s=100.0)
        assert await store.get("b") == bytes(10)

    run(main, max_bytes=10)


def test_expired_values_free_their_bytes() -> None:
    async def main(store: MemoryStore, clock: Clock) -> None:
        for n in range(5):
            await store.put("a", bytes(10), ttl_s=1.0)
            clock.now += 1.0
            assert await store.get("a") is None, n
        await store.put("b", bytes(10), ttl_s=1.0)
        assert await store.get("b") == bytes(10)

    run(main, max_bytes=10)


def test_store_left_is_empty() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with store:
            await store.put("a", b"one", ttl_s=100.0)
        assert await store.get("a") is None

    asyncio.run(main())
