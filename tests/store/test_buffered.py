"""Accounts whose store comes and goes: what is spent, what is booked, what is kept."""

import asyncio
import errno
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.line import InlineSQLite, Line
from tests.store.redis_server import RedisServer
from vivavoce.errors import StorageFull, StoreError
from vivavoce.secret import Secret
from vivavoce.store.base import (
    AT_ONCE,
    AccountStore,
    Balance,
    Charge,
    Reservation,
    StoreSettings,
    UsageRow,
)
from vivavoce.store.buffered import (
    ANSWER_TIMEOUT_S,
    MAX_WAIT_S,
    REAP_PAUSE_S,
    BufferedAccounts,
)
from vivavoce.store.journal import ENDING, Journal
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.testing.virtual_time import run as run_virtually

T = TypeVar("T")
LEASE_S, RENEW_S = 60.0, 20.0
LIMIT = 1000
LAW_LIMIT = 500
HORIZON_S = 690.0
"""The time of a history: in it nobody is away for longer than an allowance is leased."""
BUDGETS = ("all", "user")


def now() -> float:
    return 1000.0 + asyncio.get_running_loop().time()


class Process:
    """Reserves, begins and settles as sessions do, and renews its leases."""

    def __init__(self, store: AccountStore, folder: Path | None, **settings: Any) -> None:
        self.line = Line(store)
        self.journal = Journal(folder) if folder else None
        self.accounts = BufferedAccounts(
            cast(AccountStore, self.line),
            StoreSettings(**{"when_away": "serve", **settings}),
            journal=self.journal,
            wall_clock=now,
        )
        self.limit = LIMIT
        self.held: dict[str, int] = {}
        self.begun: dict[str, int] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> "Process":
        await self.accounts.__aenter__()
        self.tasks = [asyncio.create_task(self._renew())]
        return self

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self.accounts.renew([*self.held, *self.begun], now() + LEASE_S)
                await self.accounts.reap(now())
            except StoreError:
                pass

    async def reserve(
        self, id_: str, amount: int, *, opens: bool = False, waits: bool = False
    ) -> bool:
        charges = tuple(Charge(budget, "p", amount, self.limit) for budget in BUDGETS)
        reservation = Reservation(id=id_, charges=charges, lease_until=now() + LEASE_S, opens=opens)
        refused = await self.accounts.reserve(reservation, waits=waits)
        if refused is None:
            self.held[id_] = amount
        return refused is None

    async def begin(self, id_: str, *, waits: bool = False) -> bool:
        amount = self.held.pop(id_)
        try:
            await self.accounts.begin(id_, row(id_, amount, confirmed=False), waits=waits)
        except StoreError:
            await self.accounts.release(id_)
            return False
        self.begun[id_] = amount
        return True

    async def settle(self, id_: str, used: int) -> None:
        del self.begun[id_]
        charges = [Charge(budget, "p", used) for budget in BUDGETS]
        await self.accounts.settle(row(id_, used), charges, id_)

    async def release(self, id_: str) -> None:
        del self.held[id_]
        await self.accounts.release(id_)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await self.accounts.__aexit__()
        if self.journal:
            await self.journal.__aexit__()

    def kill(self) -> None:
        """Nothing is given back; the lock of the journal is gone, as after SIGKILL."""
        owned = (*self.tasks, self.accounts._tending, self.accounts._recovering)
        for task in owned:
            if task is not None:
                task.cancel()
        if self.journal:
            self.journal._close()


def row(id_: str, nano: int, *, confirmed: bool = True) -> UsageRow:
    return UsageRow(
        id=f"row-{id_}", at=1.0, kind="response", model="m", nano_usd=nano, confirmed=confirmed
    )


async def rows_of(store: AccountStore) -> dict[str, UsageRow]:
    rows = [row async for page in store.usage(0.0, 1e12) for row in page]
    assert len(rows) == len({row.id for row in rows})
    return {row.id: row for row in rows}


def journals(folder: Path) -> list[Path]:
    return list(folder.rglob(f"*{ENDING}"))


def run(
    main: Callable[[AccountStore], Awaitable[None]],
) -> None:
    async def inside() -> None:
        async with InlineSQLite(":memory:") as store:
            await main(store)

    run_virtually(inside())


# one law over all histories


class Step(NamedTuple):
    what: str
    process: int
    amount: int


CUTS = ("cut", "lose_answer", "mend", "cut_all", "mend_all")
ACTS = (*("turn", "turn", "wait") * 2, "reserve", "begin", "settle", "release", "kill", *CUTS)
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(ACTS),
        st.integers(0, 2),
        st.integers(1, 200),
    ),
    min_size=8,  # the mean is twice that
    max_size=24,
)


class World:
    """Three processes, each with a place of its own for its journal, and one store."""

    def __init__(self, store: AccountStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.processes: list[Process] = []
        self.settled: dict[str, int] = {}
        self.bounds: dict[str, int] = {}
        self.numbers = 0
        self.ends_at = now() + HORIZON_S

    async def start(self, place: int) -> Process:
        process = Process(self.store, self.folder / str(place), away_seconds=600)
        process.limit = LAW_LIMIT
        await process.start()
        await self.reserve(process, 20)
        return process

    async def take(self, step: Step) -> None:
        process = self.processes[step.process]
        match step.what:
            case "turn":
                id_ = await self.reserve(process, step.amount)
                if id_ and await process.begin(id_):
                    await self.settle(process, id_, step.amount)
            case "reserve":
                await self.reserve(process, step.amount)
            case "begin" if process.held:
                await process.begin(next(iter(process.held)))
            case "settle" if process.begun:
                await self.settle(process, next(iter(process.begun)), step.amount)
            case "release" if process.held:
                await process.release(next(iter(process.held)))
            case "wait":
                await asyncio.sleep(min(step.amount / 2, max(0.0, self.ends_at - now())))
            case "cut":
                process.line.cut = True
            case "lose_answer":
                process.line.loses_answer = True
            case "mend":
                process.line.cut = process.line.loses_answer = False
            case "cut_all" | "mend_all":
                for one in self.processes:
                    one.line.cut = step.what == "cut_all"
            case "kill":
                process.kill()
                self.processes[step.process] = await self.start(step.process)

    async def reserve(self, process: Process, amount: int) -> str:
        """The id; empty where it is refused."""
        self.numbers += 1
        id_ = str(self.numbers)
        self.bounds[id_] = amount
        try:
            return id_ if await process.reserve(id_, amount) else ""
        except StoreError:
            return ""

    async def settle(self, process: Process, id_: str, amount: int) -> None:
        self.settled[id_] = used = min(process.begun[id_], amount)
        await process.settle(id_, used)

    async def check(self) -> None:
        for budget in BUDGETS:
            balance = await self.store.balance(budget, "p")
            assert balance.spent <= LAW_LIMIT
            assert balance.reserved >= 0

    async def end(self) -> None:
        """Everybody is back, and all leases end."""
        for process in self.processes:
            process.line.cut = process.line.loses_answer = False
        await asyncio.sleep(30.0)
        for process in self.processes:
            assert not process.accounts.away
            assert process.accounts.waiting == 0
            for id_ in tuple(process.held):
                await process.release(id_)
            for id_, bound in tuple(process.begun.items()):
                self.settled[id_] = bound
                await process.settle(id_, bound)
            await process.stop()
        await self.store.reap(now() + 2 * HORIZON_S)


@given(STEPS)
def test_no_history_spends_more_than_the_limit_or_loses_or_doubles_usage(
    steps: list[Step],
) -> None:
    async def main(store: AccountStore) -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = World(store, Path(folder))
            world.processes = [await world.start(place) for place in range(3)]
            await asyncio.sleep(6.0)  # each has an allowance
            for step in steps:
                await world.take(step)
                await world.check()
            await world.end()
            await world.check()
            assert journals(Path(folder)) == []
        rows = await rows_of(store)
        total = sum(one.nano_usd for one in rows.values())
        for budget in BUDGETS:
            assert await store.balance(budget, "p") == Balance(total, 0)
        for id_, used in world.settled.items():
            booked = rows[f"row-{id_}"]
            # one whose lease had ended was booked at its bound before its usage came
            assert booked.nano_usd == (used if booked.confirmed else world.bounds[id_])

    run(main)


# what the law does not say


def test_turn_takes_no_more_operations_of_the_store_than_its_own(tmp_path: Path) -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, tmp_path).start()
        await process.reserve("1", 10)
        await asyncio.sleep(0.1)  # its allowance is drawn
        process.line.operations.clear()
        await process.begin("1")
        await process.settle("1", 5)
        await process.reserve("2", 10)
        assert process.line.operations == ["begin", "settle", "reserve"]
        await process.stop()

    run(main)


def test_allowance_is_drawn_for_budgets_in_use_and_given_back_when_they_are_not() -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None, allowance=4).start()
        await process.reserve("1", 10)
        await asyncio.sleep(6.0)
        assert await store.balance("all", "p") == Balance(0, 50)
        await process.reserve("2", 30)
        await asyncio.sleep(5.0)  # it covers less than half of what is wanted now
        assert await store.balance("all", "p") == Balance(0, 40 + 160)
        await process.release("1")
        await process.release("2")
        await asyncio.sleep(6.0)
        assert await store.balance("all", "p") == Balance(0, 0)
        await process.stop()

    run(main)


def test_allowance_takes_nothing_of_the_last_quarter_and_makes_room_for_reservations() -> None:
    async def main(store: AccountStore) -> None:
        process, other = await Process(store, None).start(), await Process(store, None).start()
        await process.reserve("1", 300)
        await asyncio.sleep(6.0)
        assert await store.balance("all", "p") == Balance(0, 750)
        assert await process.reserve("2", 600)  # its own allowance stands back
        await process.release("2")
        await asyncio.sleep(6.0)
        assert await store.balance("all", "p") == Balance(0, 750)
        assert await other.reserve("3", 250)
        await asyncio.sleep(25.0)  # more than 0.9 are reserved: it is given back
        assert await store.balance("all", "p") == Balance(0, 550)
        await process.stop()
        await other.stop()

    run(main)


def test_allowance_of_a_process_that_died_comes_back_when_its_lease_ends() -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None, away_seconds=100).start()
        await process.reserve("1", 10)
        await asyncio.sleep(6.0)
        process.kill()
        await store.reap(now() + LEASE_S + 1.0)
        assert await store.balance("all", "p") == Balance(0, 40)
        await store.reap(now() + 100 + 121)
        assert await store.balance("all", "p") == Balance(0, 0)

    run(main)


def test_calls_go_on_from_the_allowance_until_it_is_used_up() -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None, allowance=2).start()
        await process.reserve("0", 100)
        await asyncio.sleep(6.0)
        process.line.cut = True
        assert await process.begin("0")  # 100 of the allowance: the lease will end
        await process.settle("0", 30)
        assert await process.reserve("1", 100)
        assert await process.begin("1")
        await process.settle("1", 70)
        assert await process.reserve("2", 100)
        with pytest.raises(StoreError, match="the allowance of all is used up"):
            await process.reserve("3", 1)
        await process.release("2")
        assert await process.reserve("4", 100)
        process.line.cut = False
        await asyncio.sleep(10.0)
        assert not process.accounts.away
        assert await process.begin("4")
        await process.settle("4", 100)
        await asyncio.sleep(6.0)
        assert await store.balance("all", "p") == Balance(200, 0)
        await process.stop()

    run(main)


def test_reservation_whose_lease_ends_while_its_process_is_cut_off_is_not_spent_twice() -> None:
    async def main(store: AccountStore) -> None:
        process, other = await Process(store, None).start(), await Process(store, None).start()
        await process.reserve("1", 100)
        await asyncio.sleep(6.0)
        process.line.cut = True
        await asyncio.sleep(2 * LEASE_S)  # the other one has ended the lease
        assert await store.balance("all", "p") == Balance(0, 400)
        assert await other.reserve("2", 600)
        assert await process.begin("1")
        await process.settle("1", 100)
        await other.begin("2")
        await other.settle("2", 600)
        process.line.cut = False
        await asyncio.sleep(12.0)
        assert await store.balance("all", "p") == Balance(700, 0)
        await process.stop()
        await other.stop()

    run(main)


def test_allowance_grows_with_what_is_reserved_and_not_later() -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None, allowance=4).start()
        await process.reserve("1", 10)
        await asyncio.sleep(0.1)
        assert await store.balance("all", "p") == Balance(0, 50)
        await process.reserve("2", 10)  # two are covered by the allowance for one
        await asyncio.sleep(0.1)
        assert await store.balance("all", "p") == Balance(0, 60)
        await process.reserve("3", 10)
        await asyncio.sleep(0.1)
        assert await store.balance("all", "p") == Balance(0, 150)
        await process.reserve("4", 800)
        await asyncio.sleep(0.1)  # there is no room for more
        process.line.operations.clear()
        await process.reserve("5", 10)
        await asyncio.sleep(0.1)
        assert process.line.operations == ["reserve"]
        await process.stop()

    run(main)


def test_budget_without_an_allowance_pays_for_nothing_while_the_store_is_away() -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None, allowance=0).start()
        await process.reserve("1", 10)
        await asyncio.sleep(6.0)
        process.line.cut = True
        for opens in (False, True):
            with pytest.raises(StoreError, match="the allowance of all is used up"):
                await process.reserve("2", 10, opens=opens)
        assert not await process.begin("1")
        await process.stop()

    run(main)


def test_slow_store_is_waited_for_where_no_allowance_pays() -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None, allowance=0).start()
        assert await process.reserve("1", 10, opens=True)
        process.line.delay = partial(asyncio.sleep, 1.5)  # and as long on the way back
        assert await process.begin("1", waits=True)
        await process.settle("1", 5)
        assert process.accounts.away  # usage that waits for the store is not lost
        assert await process.reserve("2", 10, waits=True)
        began = now()
        with pytest.raises(StoreError, match="the allowance of all is used up"):
            await process.reserve("3", 10)
        assert now() - began == pytest.approx(ANSWER_TIMEOUT_S)  # somebody waits for it in silence
        process.line.delay = None
        await asyncio.sleep(10.0)
        assert await store.balance("all", "p") == Balance(5, 10)
        await process.stop()

    run(main)


@pytest.mark.parametrize(("away_seconds", "waited"), [(600, MAX_WAIT_S), (1, 1.0)])
def test_store_that_is_away_is_waited_for_up_to_a_bound(away_seconds: float, waited: float) -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None, allowance=0, away_seconds=away_seconds).start()
        process.line.cut = True
        began = now()
        with pytest.raises(StoreError, match="the allowance of all is used up"):
            await process.reserve("1", 10, waits=True)
        assert now() - began == pytest.approx(waited)
        await process.stop()

    run(main)


@pytest.mark.parametrize("when_away", ["refuse", "serve"])
def test_new_sessions_are_refused_or_served_while_the_store_is_away(when_away: str) -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None, when_away=when_away, away_seconds=60).start()
        await process.reserve("1", 10)
        await asyncio.sleep(6.0)
        process.line.cut = True
        await process.release("1")
        if when_away == "serve":
            assert await process.reserve("2", 10, opens=True)
            await asyncio.sleep(60.0)
        with pytest.raises(StoreError, match="the store cannot be reached: the line is cut"):
            await process.reserve("3", 10, opens=True)
        await process.stop()

    run(main)


def test_places_of_a_key_are_counted_by_each_process_while_the_store_is_away() -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None).start()

        async def seat(id_: str) -> str | None:
            charge = Charge("sessions:k", AT_ONCE, 1, 2)
            return await process.accounts.reserve(
                Reservation(id=id_, charges=(charge,), lease_until=now() + 60.0, opens=True)
            )

        assert await seat("1") is None
        process.line.cut = True
        assert await seat("2") is None
        assert await seat("3") == "sessions:k"
        await process.accounts.release("1")
        assert await seat("4") is None
        await process.stop()

    run(main)


def test_store_that_does_not_answer_is_away_after_a_bounded_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None).start()
        await process.reserve("1", 10)
        await asyncio.sleep(6.0)
        process.line.hangs = True
        began = now()
        await process.begin("1")
        assert now() - began == pytest.approx(ANSWER_TIMEOUT_S)
        await process.settle("1", 5)
        await process.reserve("2", 10)
        with pytest.raises(StoreError, match=f"has not answered within {ANSWER_TIMEOUT_S:g} s"):
            await process.accounts.records("key")
        assert now() - began == pytest.approx(ANSWER_TIMEOUT_S)
        await asyncio.sleep(100.0)
        process.line.hangs = False
        await asyncio.sleep(15.0)
        assert await rows_of(store) == {"row-1": row("1", 5)}
        await process.stop()

    with caplog.at_level(logging.WARNING, "vivavoce.store"):
        run(main)
    lost, back = caplog.messages
    assert lost.startswith(
        "the store cannot be reached: it has not answered within 2 s; sessions with"
    )
    assert back.endswith("1 rows of usage were written")


def test_others_have_time_to_settle_before_leases_are_ended() -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, None).start()
        process.line.cut = True
        await process.accounts.book([row("free", 0)])
        await store.reserve(
            Reservation(id="x", charges=(Charge("all", "p", 5),), lease_until=now())
        )
        process.line.cut = False
        await asyncio.sleep(10.0)
        assert await process.accounts.reap(now()) == 0
        await asyncio.sleep(REAP_PAUSE_S + RENEW_S)
        assert await store.balance("all", "p") == Balance(0, 0)
        await process.stop()

    run(main)


def test_process_killed_while_the_store_is_away_is_booked_from_its_journal(tmp_path: Path) -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, tmp_path).start()
        for id_ in ("1", "2", "3"):
            await process.reserve(id_, 10)
        await asyncio.sleep(6.0)
        process.line.cut = True
        for id_ in ("1", "2", "3"):
            await process.begin(id_)
        await process.settle("1", 4)
        await process.settle("2", 5)
        await process.accounts.book([row("free", 0)])
        living = await Process(store, tmp_path).start()  # it leaves that of the other alone
        assert await rows_of(store) == {}
        process.kill()
        (path,) = journals(tmp_path)
        with path.open("ab") as file:
            file.write(b'{"row":{"id":"torn')  # as a power cut leaves it
        restarted = await Process(store, tmp_path).start()
        rows = await rows_of(store)
        assert {id_: (one.nano_usd, one.confirmed) for id_, one in rows.items()} == {
            "row-1": (4, True),
            "row-2": (5, True),
            "row-3": (10, False),
            "row-free": (0, True),
        }
        assert journals(tmp_path) == []
        await living.stop()
        await restarted.stop()

    run(main)


def test_line_of_a_journal_that_cannot_be_read_is_reported_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, tmp_path).start()
        process.line.cut = True
        await process.accounts.book([row("1", 0)])
        process.kill()
        (path,) = journals(tmp_path)
        path.write_bytes(b"nonsense\n" + path.read_bytes())
        restarted = await Process(store, tmp_path).start()
        assert list(await rows_of(store)) == ["row-1"]
        assert path.with_name(f"{path.name}.damaged").exists()
        await restarted.stop()

    run(main)
    assert "1 lines of" in caplog.text


def test_journal_that_cannot_be_written_lets_nothing_new_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, tmp_path).start()
        await process.reserve("1", 10)
        await asyncio.sleep(6.0)
        process.line.cut = True

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        await process.begin("1")
        await process.settle("1", 5)
        assert await process.reserve("2", 10)
        with pytest.raises(StoreError, match="the journal cannot be written"):
            await process.reserve("3", 10, opens=True)
        monkeypatch.undo()
        await asyncio.sleep(10.0)  # the journal is tried again, too
        assert await process.reserve("4", 10, opens=True)
        process.kill()
        restarted = await Process(store, tmp_path).start()
        assert await rows_of(store) == {"row-1": row("1", 5)}
        await restarted.stop()

    run(main)
    (line,) = [one for one in caplog.messages if "in memory alone" in one]
    assert f"the journal in {tmp_path} cannot be used: No space left on device; free space" in line


def test_too_much_usage_that_waits_lets_nothing_new_begin_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vivavoce.store.buffered.MAX_WAITING", 3)

    async def main(store: AccountStore) -> None:
        process = await Process(store, None).start()
        process.line.cut = True
        for number in range(6):
            await process.accounts.book([row(str(number), 0)])
            assert process.accounts.overfull == (number == 5)
        with pytest.raises(StoreError, match="3 rows of usage wait for it"):
            await process.reserve("new", 0, opens=True)
        process.line.cut = False
        await asyncio.sleep(10.0)
        assert len(await rows_of(store)) == 6
        await process.stop()

    run(main)


def test_process_that_ends_while_the_store_is_away_leaves_its_usage_for_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(store: AccountStore) -> None:
        process = await Process(store, tmp_path).start()
        process.line.cut = True
        await process.accounts.book([row("1", 0)])
        await process.stop()
        without_journal = await Process(store, None).start()
        without_journal.line.cut = True
        await without_journal.accounts.book([row("2", 0)])
        await without_journal.stop()
        restarted = await Process(store, tmp_path).start()
        assert list(await rows_of(store)) == ["row-1"]
        await restarted.stop()

    run(main)
    assert f"1 rows of usage wait in {tmp_path} for the next start" in caplog.text
    assert "1 rows of usage are lost" in caplog.text


def test_disk_of_the_store_that_is_full_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async def main() -> None:
        async with SQLiteStore(path) as store:
            assert store._connection is not None
            await store._run(lambda db: db.execute("PRAGMA max_page_count = 1"))
            sentence = f"the store {path} cannot be written: its disk is full; free space there"
            with pytest.raises(StorageFull, match=sentence):
                await store.save("key", "k", bytes(1_000_000))

    asyncio.run(main())


def test_store_that_another_process_has_locked_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivavoce.store.sqlite.BUSY_TIMEOUT_S", 0.0)

    async def main() -> None:
        async with SQLiteStore(tmp_path / "s.db") as one, SQLiteStore(tmp_path / "s.db") as other:
            await one._run(lambda db: db.execute("BEGIN IMMEDIATE"))
            with pytest.raises(StoreError, match="was locked by another process for 0 s; end that"):
                await other.save("key", "k", b"")
            await one._run(lambda db: db.rollback())
            await other.save("key", "k", b"")

    asyncio.run(main())


def test_redis_stopped_and_started_again_has_everything_once(tmp_path: Path) -> None:
    pytest.importorskip("redis", reason="the extra redis is not installed")
    from vivavoce.store.redis import RedisStore

    async def main(server: RedisServer) -> None:
        url = Secret(server.url)
        async with (
            RedisStore(url) as store,
            Journal(tmp_path / "journal") as journal,
            BufferedAccounts(store, StoreSettings(), journal=journal) as accounts,
        ):

            async def turn(number: int) -> None:
                charge, id_ = Charge("b", "p", 10, 1000), f"rsv{number}"
                lease = asyncio.get_running_loop().time() + 1e12
                held = Reservation(id=id_, charges=(charge,), lease_until=lease)
                assert await accounts.reserve(held) is None
                await accounts.begin(id_, row(id_, 10, confirmed=False))
                await accounts.settle(row(id_, 7), [charge._replace(amount=7)], id_)

            held = Charge("b", "p", 10, 1000)
            await accounts.reserve(Reservation(id="live", charges=(held,), lease_until=1e12))
            await accounts.tend()
            await turn(0)
            await asyncio.to_thread(server.stop)
            for number in range(1, 4):
                await turn(number)
            assert accounts.away
            await asyncio.to_thread(server.start)
            while accounts.away:
                await accounts.try_again()
            await turn(4)
            await accounts.release("live")
            await accounts.tend()
            assert await store.balance("b", "p") == Balance(35, 0)
            assert len(await rows_of(store)) == 5

    with RedisServer(tmp_path) as server:
        asyncio.run(main(server))
