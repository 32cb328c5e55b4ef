"""What every store does: values that expire, records, reservations and usage."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.store.redis_server import redis_store, redis_url
from vivavoce.errors import StoreError
from vivavoce.store import sqlite
from vivavoce.store.base import (
    AccountStore,
    Balance,
    Charge,
    Reservation,
    SessionClaim,
    SessionSave,
    Store,
    UsageRow,
)
from vivavoce.store.memory import MemoryStore
from vivavoce.store.sqlite import SQLiteStore

__all__ = ["redis_url"]  # a fixture
Use = Callable[[AccountStore], Awaitable[None]]
RunStore = Callable[[Use], None]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunStore:
    """Run a test with an empty store of each kind."""
    kind: str = request.param
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""

    def run_with(use: Use) -> None:
        async def main() -> None:
            if kind == "redis":
                async with redis_store(url) as store:
                    await use(store)
            else:
                path = ":memory:" if kind == "memory" else tmp_path / "s.db"
                async with SQLiteStore(path) as store:
                    await use(store)

        asyncio.run(main())

    return run_with


def row(id_: str, at: float = 1.0, nano: int = 5) -> UsageRow:
    return UsageRow(
        id=id_, at=at, kind="response", model="m", key="k", used={"text_input": 3}, nano_usd=nano
    )


def reservation(id_: str, *charges: Charge, until: float = 100.0) -> Reservation:
    return Reservation(id=id_, charges=charges, lease_until=until)


async def _rows(store: AccountStore, since: float = 0.0, until: float = 1e12) -> list[UsageRow]:
    return [row async for page in store.usage(since, until) for row in page]


# values


async def _keeps_values(store: Store) -> None:
    await store.put("a", b"one", ttl_s=100.0)
    await store.put("a", b"", ttl_s=100.0)
    assert await store.get("a") == b""
    await store.put("b", b"two", ttl_s=100.0)
    await store.delete("a")
    await store.delete("a")
    assert await store.get("a") is None
    assert await store.get("b") == b"two"
    await store.put("b", b"three", ttl_s=0.0)
    assert await store.get("b") is None


def test_store_keeps_values_until_their_time_is_over(run: RunStore) -> None:
    run(_keeps_values)


def test_memory_store_keeps_values_until_their_time_is_over() -> None:
    asyncio.run(_keeps_values(MemoryStore()))


# records


def test_store_keeps_records_by_kind_and_name(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        await store.save("key", "b", b"1")
        await store.save("key", "a", b"2")
        await store.save("user", "a", b"3")
        await store.save("key", "b", b"4")
        assert await store.records("key") == {"a": b"2", "b": b"4"}
        assert list(await store.records("key")) == ["a", "b"]
        assert await store.remove("key", "a")
        assert not await store.remove("key", "a")
        assert await store.records("key") == {"b": b"4"}
        assert await store.records("team") == {}

    run(use)


# reservations


def test_reservation_is_all_or_nothing(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        wide, narrow = Charge("wide", "p", 60, 1000), Charge("narrow", "p", 60, 100)
        assert await store.reserve(reservation("1", wide, narrow)) is None
        assert await store.reserve(reservation("2", wide, narrow)) == "narrow"
        assert await store.balance("wide", "p") == Balance(0, 60)
        assert await store.balance("narrow", "p") == Balance(0, 60)
        assert await store.reserve(reservation("3", Charge("narrow", "p", 40, 100))) is None
        assert await store.reserve(reservation("4", Charge("narrow", "other", 60, 100))) is None

    run(use)


def test_reservation_released_leaves_nothing_reserved(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        await store.reserve(reservation("1", Charge("b", "p", 60), Charge("c", "p", 0)))
        await store.release("1")
        await store.release("1")
        await store.release("never made")
        assert await store.balance("b", "p") == Balance(0, 0)
        assert await store.reap(1e9) == 0

    run(use)


def test_large_amounts_are_exact(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        large = 2**53 - 3
        await store.reserve(reservation("1", Charge("b", "p", large)))
        await store.settle(row("r", nano=large), [Charge("b", "p", large)], "1")
        assert await store.balance("b", "p") == Balance(large, 0)
        assert await store.reserve(reservation("2", Charge("b", "p", 2))) is None
        assert await store.reserve(reservation("3", Charge("b", "p", 1))) == "b"

    run(use)


# usage


def test_usage_settled_is_booked_once(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        await store.reserve(reservation("1", Charge("b", "p", 60)))
        assert await store.settle(row("r", nano=7), [Charge("b", "p", 7)], "1")
        assert await store.balance("b", "p") == Balance(7, 0)
        await store.reserve(reservation("2", Charge("b", "p", 60)))
        assert not await store.settle(row("r", nano=9), [Charge("b", "p", 9)], "2")
        assert await store.balance("b", "p") == Balance(7, 0)
        assert await store.settle(row("free"), [])
        assert await _rows(store) == [row("free"), row("r", nano=7)]

    run(use)


def test_usage_booked_together_is_booked_once(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        assert await store.settle(row("a"), [])
        assert await store.book([row("a"), row("b"), row("c")]) == [row("b"), row("c")]
        assert await store.book([]) == []
        assert await _rows(store) == [row("a"), row("b"), row("c")]

    run(use)


def test_expired_reservation_books_what_had_begun_and_releases_the_rest(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        await store.reserve(reservation("idle", Charge("b", "p", 1), until=50.0))
        await store.reserve(reservation("begun", Charge("b", "p", 10), until=50.0))
        await store.reserve(reservation("alive", Charge("b", "p", 100), until=50.0))
        await store.begin("begun", row("r", nano=10))
        await store.begin("never made", row("x"))
        await store.renew(["alive", "never made"], 90.0)
        assert await store.reap(49.0) == 0
        assert await store.reap(50.0) == 2
        assert await store.balance("b", "p") == Balance(10, 100)
        assert await _rows(store) == [row("r", nano=10)]
        # its holder was only slow: what comes late is not booked again
        assert not await store.settle(row("r", nano=3), [Charge("b", "p", 3)], "begun")
        assert await store.balance("b", "p") == Balance(10, 100)

    run(use)


def test_usage_is_read_by_time_in_pages(run: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivavoce.store.sqlite.PAGE_ROWS", 3)
    if "vivavoce.store.redis" in sys.modules:
        monkeypatch.setattr("vivavoce.store.redis.PAGE_ROWS", 3)

    async def use(store: AccountStore) -> None:
        for n in range(10):
            await store.settle(row(f"r{n}", at=float(n // 2)), [])
        found = await _rows(store, 1.0, 4.0)
        assert [one.id for one in found] == ["r2", "r3", "r4", "r5", "r6", "r7"]
        assert await store.forget_usage(2.0) == 4
        assert [one.id for one in await _rows(store)] == ["r4", "r5", "r6", "r7", "r8", "r9"]

    run(use)


# SQLite alone


def test_sqlite_file_keeps_everything_when_it_is_opened_again(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s.db"
        async with SQLiteStore(path) as store:
            await store.settle(row("r"), [Charge("b", "p", 5)])
        async with SQLiteStore(path) as store:
            assert await store.balance("b", "p") == Balance(5, 0)
            assert await _rows(store) == [row("r")]

    asyncio.run(main())


def test_sqlite_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    async def main(path: Path) -> None:
        async with SQLiteStore(path):
            pass

    with pytest.raises(StoreError, match="nowhere"):
        asyncio.run(main(tmp_path / "nowhere" / "s.db"))


def test_sqlite_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "s.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()

    async def main() -> None:
        async with SQLiteStore(path):
            pass

    with pytest.raises(StoreError, match="later version"):
        asyncio.run(main())


def test_sqlite_store_closed_says_so() -> None:
    async def main() -> None:
        store = SQLiteStore(":memory:")
        async with store:
            pass
        with pytest.raises(StoreError, match="is closed"):
            await store.get("a")

    asyncio.run(main())


_SETTLING = """
import asyncio, sys
from vivavoce.secret import Secret
from vivavoce.store.base import Charge, Reservation, UsageRow

def store_at(address):
    if address.startswith("unix:"):
        from vivavoce.store.redis import RedisStore
        return RedisStore(Secret(address))
    from vivavoce.store.sqlite import SQLiteStore
    return SQLiteStore(address)

async def main(address):
    async with store_at(address) as store:
        n = 0
        while True:
            charge = Charge("b", "p", 1000)
            held = Reservation(id=f"v{n}", charges=(charge,), lease_until=0.0)
            await store.reserve(held)
            row = UsageRow(id=f"r{n}", at=1.0, kind="response", model="m", nano_usd=n)
            await store.begin(held.id, UsageRow(
                id=row.id, at=1.0, kind="response", model="m", nano_usd=1000, confirmed=False))
            await store.settle(row, [Charge("b", "p", n)], held.id)
            print(n, flush=True)
            n += 1

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_process_killed_while_it_settles_loses_nothing_and_counts_nothing_twice(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = str(tmp_path / "s.db") if kind == "sqlite" else request.getfixturevalue("redis_url")
    with subprocess.Popen(
        [sys.executable, "-c", _SETTLING, address], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        settled = -1
        for line in process.stdout:
            settled = int(line)
            if settled == 30:
                process.kill()  # SIGKILL, somewhere between two commits
                break
        rest = process.stdout.read().split()
        settled = int(rest[-1]) if rest else settled

    async def main() -> None:
        opened = SQLiteStore(address) if kind == "sqlite" else redis_store(address)
        async with opened as store:
            await store.reap(1.0)
            booked = await _rows(store)
            confirmed = [one for one in booked if one.confirmed]
            assert len(confirmed) >= settled + 1
            assert len(booked) <= len(confirmed) + 1  # at most one response was under way
            balance = await store.balance("b", "p")
            assert balance == Balance(sum(one.nano_usd for one in booked), 0)

    asyncio.run(main())


_SHARING = """
import asyncio, sys
from vivavoce.store.base import Charge, Reservation, UsageRow
from vivavoce.store.sqlite import SQLiteStore

async def main(path, name):
    async with SQLiteStore(path) as store:
        for n in range(60):
            charge = Charge("b", "p", 10, 500)
            held = Reservation(id=f"{name}{n}", charges=(charge,), lease_until=1e12)
            if await store.reserve(held):
                continue
            row = UsageRow(id=f"{name}{n}", at=1.0, kind="response", model="m", nano_usd=10)
            await store.settle(row, [charge], row.id)
            await store.book([UsageRow(id=f"both{n}", at=1.0, kind="session", model="m")])
            await store.save("key", f"{name}{n}", b"")

asyncio.run(main(*sys.argv[1:]))
"""


def test_file_that_another_process_is_changing_is_opened_when_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 60.0)
    connect, waits = sqlite3.connect, []

    def connected(path: str, **options: Any) -> sqlite3.Connection:
        # SQLite refuses at once, as it does where two processes begin together
        made: sqlite3.Connection = connect(path, **(options | {"timeout": 0.0}))
        return made

    def wait(seconds: float) -> None:
        waits.append(seconds)
        other.rollback()

    monkeypatch.setattr(sqlite3, "connect", connected)
    monkeypatch.setattr(time, "sleep", wait)
    other = connect(tmp_path / "s.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")

    async def main() -> None:
        async with SQLiteStore(str(tmp_path / "s.db")) as store:
            await store.save("key", "mine", b"")

    asyncio.run(main())
    other.close()
    assert len(waits) == 1


def test_processes_that_share_a_sqlite_file_spend_a_budget_once(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    command = (sys.executable, "-c", _SHARING, path)
    both = [subprocess.Popen((*command, name)) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]

    async def main() -> None:
        async with SQLiteStore(path) as store:
            assert await store.balance("b", "p") == Balance(500, 0)
            booked = [one.id for one in await _rows(store)]
            paid = [id_ for id_ in booked if not id_.startswith("both")]
            assert len(paid) == 50
            assert len(booked) == len(set(booked))
            assert sorted(await store.records("key")) == sorted(paid)

    asyncio.run(main())


# conversations


def session(
    value: bytes, *, epoch: int = 1, owner: str = "a", key: str = "k", ttl_s: float = 100.0
) -> SessionSave:
    return SessionSave(key, epoch, owner, value, ttl_s)


def test_claim_finds_what_was_kept_last_and_fences_off_the_owner_before(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        begun = await store.now()
        nothing = await store.claim("k", "b")
        assert nothing == SessionClaim(nothing.epoch)
        assert await store.keep([session(b"one"), session(b"other", key="l")]) == [True, True]
        assert await store.keep([session(b"two")]) == [True]
        claim = await store.claim("k", "b")
        assert claim == SessionClaim(claim.epoch, 1, "a", b"two")
        late, new = session(b"late"), session(b"new", epoch=claim.epoch, owner="b")
        other = session(b"of another process", epoch=claim.epoch)
        assert await store.keep([late, new, other]) == [False, True, False]
        again = await store.claim("k", "c")
        assert again == SessionClaim(again.epoch, claim.epoch, "b", b"new")
        assert begun <= nothing.epoch <= claim.epoch < again.epoch <= await store.now() + 2
        assert (await store.claim("l", "c"))[1:] == (1, "a", b"other")

    run(use)


def test_claim_of_an_epoch_that_is_ahead_of_the_clock_is_above_it(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        ahead = await store.now() + 300_000
        assert await store.keep([session(b"one", epoch=ahead)]) == [True]
        assert await store.claim("k", "b") == SessionClaim(ahead + 1, ahead, "a", b"one")
        assert await store.keep([session(b"late", epoch=ahead)]) == [False]

    run(use)


def test_conversation_is_forgotten_when_its_time_is_over(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        await store.keep([session(b"one", ttl_s=0.0)])
        async with asyncio.timeout(5):
            while (await store.claim("k", "b")).value:  # Redis: one millisecond is the least
                pass

    run(use)


def test_keep_of_nothing_does_nothing(run: RunStore) -> None:
    async def use(store: AccountStore) -> None:
        assert await store.keep([]) == []

    run(use)
