"""Allowances: parts of budgets that a process reserves for times when the store cannot be reached.

An allowance is reserved in the store like any other amount, so its use never exceeds the limit of
the budget, whatever other processes do.
"""

import secrets
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import msgspec

from vivavoce.store.base import (
    AT_ONCE,
    AccountStore,
    Charge,
    Reservation,
    RunOperation,
    StoreSettings,
)

RENEW_S = 20.0
RETURN_S = 120.0
"""How much longer the lease of an allowance is than its use, so that usage is booked within the
lease."""
DRAWN_SHARE = 0.75
"""Allowances are taken from this share of a budget only."""
TIGHT_SHARE = 0.9
"""Allowances are given back when this share of a budget is spent and reserved."""


class Account(NamedTuple):
    """A budget in one of its periods."""

    budget: str
    period: str


class Allowance(msgspec.Struct):
    """Amounts in the smallest unit of the budget."""

    amount: int = 0
    """Reserved in the store for it."""
    taken: int = 0
    """The part that was used, or that is held for work in progress."""
    holds: int = 0
    """How many reservations take from it."""
    until: float = 0.0
    """Unix seconds; nothing is taken from it after that. Its leases end later."""
    ids: list[str] = msgspec.field(default_factory=list)
    """The ids of its reservations in the store."""


class Allowances:
    """The allowances of a process, by budget and period. No I/O."""

    def __init__(self) -> None:
        self._by_account: dict[Account, Allowance] = {}

    def __iter__(self) -> Iterator[tuple[Account, Allowance]]:
        return iter(tuple(self._by_account.items()))

    def get(self, account: Account) -> Allowance | None:
        return self._by_account.get(account)

    def add(self, account: Account, amount: int, id_: str, until: float) -> None:
        """This much more was reserved in the store."""
        allowance = self._by_account.setdefault(account, Allowance())
        allowance.amount += amount
        allowance.ids.append(id_)
        allowance.until = until if len(allowance.ids) == 1 else min(until, allowance.until)

    def remove(self, account: Account) -> list[str]:
        """Remove an allowance from which nothing is taken; return the ids of its reservations."""
        return self._by_account.pop(account, Allowance()).ids

    def lacking(self, charges: Iterable[Charge], now: float) -> str | None:
        """The first budget whose allowance is too small for these amounts; None: there is none."""
        for charge in limited(charges):
            allowance = self._by_account.get(Account(charge.budget, charge.period))
            if allowance is None or now >= allowance.until:
                return charge.budget
            if allowance.taken + charge.amount > allowance.amount:
                return charge.budget
        return None

    def take(self, charges: Iterable[Charge]) -> None:
        """Take amounts from allowances, none of which is lacking."""
        for charge in limited(charges):
            allowance = self._by_account[Account(charge.budget, charge.period)]
            allowance.taken += charge.amount
            allowance.holds += 1

    def give_back(self, charges: Iterable[Charge]) -> None:
        """Return amounts that were taken and not used."""
        for charge in limited(charges):
            allowance = self._by_account[Account(charge.budget, charge.period)]
            allowance.taken -= charge.amount
            allowance.holds -= 1

    def use(self, charges: Iterable[Charge]) -> None:
        """Amounts were spent, which were returned before or never taken."""
        for charge in limited(charges):
            allowance = self._by_account.get(Account(charge.budget, charge.period))
            if allowance is not None:
                allowance.taken += charge.amount


def limited(charges: Iterable[Charge]) -> Iterator[Charge]:
    """The charges on budgets, without places among sessions and without zeros."""
    return (charge for charge in charges if charge.period != AT_ONCE and charge.amount)


class Need(msgspec.Struct):
    """What a process has reserved of a budget now."""

    limit: int
    total: int = 0
    largest: int = 0


def needs_of(reserved: Iterable[Charge]) -> dict[Account, Need]:
    """The needs, by budget and period."""
    needs: dict[Account, Need] = {}
    for charge in limited(reserved):
        need = needs.setdefault(Account(charge.budget, charge.period), Need(charge.limit))
        need.total += charge.amount
        need.largest = max(need.largest, charge.amount)
    return needs


class AllowanceLeases:
    """Draws, renews and gives back allowances in a store that answers."""

    def __init__(
        self,
        allowances: Allowances,
        settings: StoreSettings,
        store: AccountStore,
        run: RunOperation,
    ) -> None:
        self._allowances = allowances
        self._settings = settings
        self._store = store
        self._run = run
        self._renewed_at = 0.0
        self.uncertain: set[str] = set()
        """Reservations that are no longer needed and that the store may still have."""

    async def tend(self, reserved: Iterable[Charge], now: float) -> None:
        """reserved: what the process has reserved now. Raises StoreError."""
        needs = needs_of(reserved) if self._settings.allowance else {}
        renews = now >= self._renewed_at + RENEW_S
        for account, allowance in self._allowances:
            if allowance.holds:
                continue
            used = account not in needs or allowance.taken or now >= allowance.until
            if used or (renews and await self._is_tight(account, needs[account])):
                await self.give_up(account)
        for account, need in needs.items():
            await self._draw(account, need, now)
        if renews:
            await self._renew(now)

    async def give_up_unused(self, charges: Iterable[Charge]) -> bool:
        """Give back the allowances of some budgets; return whether there were any.

        Raises StoreError.
        """
        found = False
        for charge in limited(charges):
            account = Account(charge.budget, charge.period)
            allowance = self._allowances.get(account)
            if allowance is not None and not allowance.holds:
                await self.give_up(account)
                found = True
        return found

    async def give_up(self, account: Account) -> None:
        """Raises StoreError; then the allowance is removed, and its reservations may be in the
        store."""
        ids = self._allowances.remove(account)
        self.uncertain.update(ids)
        for id_ in ids:
            await self._run(partial(self._store.release, id_))
            self.uncertain.discard(id_)

    async def _draw(self, account: Account, need: Need, now: float) -> None:
        """Reserve what an allowance lacks, if it has less than half of what is wanted."""
        allowance = self._allowances.get(account)
        has = allowance.amount if allowance else 0
        wanted = self._settings.allowance * need.total
        if allowance is not None and (allowance.holds or 2 * has >= wanted):
            return
        balance = await self._run(partial(self._store.balance, *account))
        room = int(DRAWN_SHARE * need.limit) - balance.spent - balance.reserved
        amount = min(wanted - has, room)
        if amount < need.largest:
            return
        id_ = f"alw_{secrets.token_hex(12)}"
        until = now + self._settings.away_seconds
        charge = Charge(*account, amount, need.limit)
        self.uncertain.add(id_)
        drawn = Reservation(id=id_, charges=(charge,), lease_until=until + RETURN_S)
        refused = await self._run(partial(self._store.reserve, drawn))
        self.uncertain.discard(id_)
        if refused is None:
            self._allowances.add(account, amount, id_, until)

    async def _renew(self, now: float) -> None:
        until = now + self._settings.away_seconds
        renewed = [each for _, each in self._allowances if now < each.until + RETURN_S]
        ids = [id_ for each in renewed for id_ in each.ids]
        if ids:
            await self._run(partial(self._store.renew, ids, until + RETURN_S))
        for each in renewed:
            each.until = until
        self._renewed_at = now

    async def _is_tight(self, account: Account, need: Need) -> bool:
        balance = await self._run(partial(self._store.balance, *account))
        return balance.spent + balance.reserved > TIGHT_SHARE * need.limit
