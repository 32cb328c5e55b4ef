"""Accounts over months: what a process keeps of periods that are over."""

from collections.abc import Sized
from functools import partial
from typing import cast

from tests.runtime.processes import until
from tests.store.line import InlineSQLite, Line
from vivavoce.store.base import AccountStore, Charge, Reservation, StoreSettings, UsageRow
from vivavoce.store.buffered import BufferedAccounts
from vivavoce.testing.virtual_time import run

DAY_S = 86_400.0
MONTH = 30
"""Days."""


def entries(kept: object) -> int:
    """The entries of all containers of an object of vivavoce.store, and of those that it has."""
    found = 0
    for value in vars(kept).values():
        if type(value).__module__.startswith("vivavoce.store"):
            found += 0 if isinstance(value, StoreSettings) else entries(value)
        elif isinstance(value, Sized) and not isinstance(value, str):
            found += len(value)
    return found


def usage(id_: str) -> UsageRow:
    return UsageRow(id=id_, at=1.0, kind="response", model="m", nano_usd=7)


async def turn(accounts: BufferedAccounts, day: int, lease_until: float) -> None:
    id_ = f"day{day}"
    charges = tuple(Charge(budget, f"2026-{day}", 10, 10**6) for budget in ("all", "user", "key"))
    held = Reservation(id=id_, charges=charges, lease_until=lease_until)
    assert await accounts.reserve(held) is None
    row = usage(id_)
    await accounts.begin(id_, row)
    await accounts.tend()
    await accounts.settle(row, [charge._replace(amount=7) for charge in charges], id_)


def test_periods_that_are_over_leave_nothing_in_memory() -> None:
    """A period is a day. On every third one the store goes away for a turn."""

    async def main() -> None:
        clock = [1000.0]
        wall_clock = partial(clock.__getitem__, 0)
        async with InlineSQLite(":memory:", wall_clock=wall_clock) as store:
            line = Line(store)
            buffered = BufferedAccounts(
                cast(AccountStore, line), StoreSettings(), wall_clock=wall_clock
            )
            seen = []
            async with buffered as accounts:
                for day in range(4 * MONTH):
                    clock[0] += DAY_S
                    await turn(accounts, day, clock[0] + 60.0)
                    if day % 3 == 0:
                        line.cut = True
                        await accounts.book([usage(f"typed{day}")])
                        line.cut = False
                        await until(lambda: not accounts.away)
                    await accounts.tend()
                    if day % MONTH == MONTH - 1:
                        seen.append(entries(accounts))
            assert len(set(seen)) == 1
            assert seen[0] < 10

    run(main())
