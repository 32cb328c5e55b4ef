"""Accounts that continue to work while their store cannot be reached.

While the store answers, each operation is passed on to it, and an allowance is reserved for each
budget that this process uses, as soon as it uses it. When an operation fails or takes too long, the
store counts as unreachable: from then on reservations are taken from the allowances, and usage is
kept in memory and in a journal until the store answers again. Nothing is booked twice, since the
ids of rows are unique.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Self, TypeVar

import msgspec

from vivavoce.errors import StorageFull, StoreError
from vivavoce.store.allowance import Account, AllowanceLeases, Allowances, limited
from vivavoce.store.base import (
    AT_ONCE,
    AccountStore,
    Balance,
    Charge,
    RecordKind,
    Reservation,
    StoreSettings,
    UsageRow,
)
from vivavoce.store.journal import Journal, UsageEntry
from vivavoce.store.waiting import MAX_WAITING, WaitingUsage

log = logging.getLogger(__name__)
T = TypeVar("T")

ANSWER_TIMEOUT_S = 2.0
"""The longest time for an operation that a user waits for in silence; after it the store counts as
unreachable."""
OTHER_TIMEOUT_S = 5.0
"""... for any other operation, also while the server starts."""
MAX_WAIT_S = 15.0
"""How long a session that goes on waits for the store where no allowance pays, and then for one
operation more. Nobody waits for it in silence, since its answers go on, and they are booked in any
case. But in this time it may begin a response that its budget has no room for: so it is no longer
than the store needs, after one answer of OTHER_TIMEOUT_S that did not come, to be found again and
to answer."""
MIN_RETRY_S, MAX_RETRY_S = 0.5, 5.0
TEND_S = 5.0
"""How often allowances are renewed and given back, at least."""
REAP_PAUSE_S = 60.0
"""After the store was unreachable: other processes first book what they hold."""
_PROBE = "store:probe"


class _Held(msgspec.Struct):
    """A reservation of this process."""

    charges: tuple[Charge, ...]
    stored: bool
    """Whether it is in the store."""
    from_allowance: bool = False
    """Whether its amounts are taken from an allowance of this process."""
    journaled: bool = False
    """Whether the journal has an entry that its work has begun."""


class BufferedAccounts:
    """An AccountStore, whose methods it has. An async context manager; the store is entered.

    settle(), book() and release() raise no StoreError. reserve() and begin() raise it where the
    store is unreachable and the allowance is used up: whether the budget is spent is not known.
    reserve() raises it as well for what may not begin meanwhile (`Reservation.opens`).
    """

    def __init__(
        self,
        store: AccountStore,
        settings: StoreSettings,
        *,
        journal: Journal | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """journal: entered."""
        self._store = store
        self._settings = settings
        self._wall_clock = wall_clock
        self._usage = WaitingUsage(journal)
        self._allowances = Allowances()
        self._leases = AllowanceLeases(self._allowances, settings, store, self._call)
        self._held: dict[str, _Held] = {}
        self._reserved: Counter[Account] = Counter()  # the sums of them
        self._tended: Counter[Account] = Counter()  # those sums when allowances were tended last
        self._outgrown = asyncio.Event()  # an allowance was, by what is reserved
        self._to_release: set[str] = set()  # reservations that are, or may be, in the store
        self._reap_from = 0.0
        self._away_since: float | None = None
        self._answers = asyncio.Event()  # while it does
        self._answers.set()
        self._reason = StoreError("")
        self._recovering: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Books what processes that have died have left in the journal."""
        if await self._usage.read_journal():
            await self.try_again()
        self._tending = asyncio.create_task(self._tend_for_ever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in (self._tending, self._recovering):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        try:
            if self._away_since is not None:
                await self._write_waiting()
                self._away_since = None
            for account, _ in self._allowances:
                await self._leases.give_up(account)
            await self._tidy()
        except StoreError as exc_:
            self._usage.log_left(exc_)

    @property
    def away(self) -> bool:
        """Whether the store cannot be reached."""
        return self._away_since is not None

    @property
    def waiting(self) -> int:
        """Usage rows that are not in the store yet."""
        return len(self._usage)

    @property
    def overdue(self) -> bool:
        """Whether the store has been unreachable for longer than sessions with budgets may
        continue."""
        since = self._away_since
        return since is not None and self._wall_clock() >= since + self._settings.away_seconds

    @property
    def overfull(self) -> bool:
        """Whether so much usage is kept that no session may continue."""
        return len(self._usage) >= 2 * MAX_WAITING

    async def tend(self) -> None:
        """Reserve, renew and give back allowances. Raises StoreError."""
        self._tended = self._reserved.copy()
        reserved = [charge for held in self._held.values() for charge in held.charges]
        await self._leases.tend(reserved, self._wall_clock())

    # reservations

    async def reserve(self, reservation: Reservation, *, waits: bool = False) -> str | None:
        """waits: up to MAX_WAIT_S, because no user waits for it."""
        if not waits:
            return await self._reserve(reservation, ANSWER_TIMEOUT_S)
        timeout = self._timeout_s(reservation.charges)
        return await self._or_wait(lambda: self._reserve(reservation, timeout))

    async def begin(self, reservation_id: str, row: UsageRow, *, waits: bool = False) -> None:
        """waits: see reserve()."""
        held = self._held.get(reservation_id)
        if not waits:
            await self._begin(reservation_id, held, row, ANSWER_TIMEOUT_S)
        else:
            timeout = self._timeout_s(held.charges if held else ())
            await self._or_wait(lambda: self._begin(reservation_id, held, row, timeout))

    async def settle(
        self, row: UsageRow, charges: Sequence[Charge], reservation_id: str = ""
    ) -> bool:
        held = self._drop(reservation_id)
        if self._away_since is None:
            try:
                first = await self._call(
                    partial(self._store.settle, row, charges, reservation_id), ANSWER_TIMEOUT_S
                )
            except StoreError:
                pass
            else:
                self._end_hold(held, charges)
                await self._tidy()
                return first
        self._end_hold(held, charges)
        if held is None:
            self._allowances.use(charges)
        return bool(await self._usage.add(UsageEntry(row, tuple(charges), reservation_id)))

    async def book(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        if self._away_since is None:
            try:
                return await self._call(partial(self._store.book, rows), ANSWER_TIMEOUT_S)
            except StoreError:
                pass
        return await self._usage.add(*(UsageEntry(row) for row in rows))

    async def release(self, reservation_id: str) -> None:
        held = self._drop(reservation_id)
        if held is not None and held.from_allowance:
            self._allowances.give_back(held.charges)
        if held is not None and not held.stored:
            await self._tidy()
            return
        if self._away_since is None:
            try:
                await self._call(partial(self._store.release, reservation_id), ANSWER_TIMEOUT_S)
            except StoreError:
                pass
            else:
                return
        self._to_release.add(reservation_id)

    async def renew(self, reservation_ids: Collection[str], lease_until: float) -> None:
        await self._call(partial(self._store.renew, reservation_ids, lease_until))

    async def reap(self, now: float) -> int:
        if now < self._reap_from:
            return 0
        return await self._call(partial(self._store.reap, now))

    # cannot be done while the store is unreachable

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        await self._call(partial(self._store.put, key, value, ttl_s=ttl_s))

    async def get(self, key: str) -> bytes | None:
        return await self._call(partial(self._store.get, key))

    async def delete(self, key: str) -> None:
        await self._call(partial(self._store.delete, key))

    async def save(self, kind: RecordKind, name: str, data: bytes) -> None:
        await self._call(partial(self._store.save, kind, name, data))

    async def remove(self, kind: RecordKind, name: str) -> bool:
        return await self._call(partial(self._store.remove, kind, name))

    async def records(self, kind: RecordKind) -> dict[str, bytes]:
        return await self._call(partial(self._store.records, kind))

    async def balance(self, budget: str, period: str) -> Balance:
        return await self._call(partial(self._store.balance, budget, period))

    async def usage(self, since: float, until: float) -> AsyncGenerator[list[UsageRow]]:
        pages = self._store.usage(since, until)

        async def next_page() -> list[UsageRow]:
            return await anext(pages, [])

        while page := await self._call(next_page):
            yield page

    # the store

    async def _or_wait(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of an attempt, repeated when the store answers again. Raises StoreError."""
        clock = asyncio.get_running_loop().time
        until = clock() + min(MAX_WAIT_S, self._settings.away_seconds)
        while True:
            try:
                return await attempt()
            except StoreError:
                if clock() >= until:
                    raise
                try:
                    async with asyncio.timeout_at(until):
                        await self._answers.wait()
                except TimeoutError:
                    pass  # the last attempt, whose allowance may have been drawn meanwhile

    def _timeout_s(self, charges: Sequence[Charge]) -> float:
        """For an operation on these charges: without an allowance for them all depends on it."""
        paid = self._allowances.lacking(charges, self._wall_clock()) is None
        return ANSWER_TIMEOUT_S if paid else OTHER_TIMEOUT_S

    async def _call(
        self, operation: Callable[[], Awaitable[T]], timeout_s: float = OTHER_TIMEOUT_S
    ) -> T:
        """Raises StoreError, and at once while the store is known to be unreachable."""
        if self._away_since is not None:
            raise self._unreachable()
        try:
            return await _bounded(operation, timeout_s)
        except StoreError as exc:
            self._lose(exc)
            raise

    def _hold(self, reservation_id: str, held: _Held) -> None:
        self._held[reservation_id] = held
        for charge in limited(held.charges):
            account = Account(charge.budget, charge.period)
            self._reserved[account] += charge.amount
            if self._reserved[account] > 2 * self._tended[account]:
                self._outgrown.set()

    def _drop(self, reservation_id: str) -> _Held | None:
        held = self._held.pop(reservation_id, None)
        for charge in limited(held.charges if held else ()):
            account = Account(charge.budget, charge.period)
            self._reserved[account] -= charge.amount
            if not self._reserved[account]:
                del self._reserved[account]  # its period may be over
        return held

    async def _reserve(self, reservation: Reservation, timeout_s: float) -> str | None:
        if self._away_since is None:
            try:
                refused = await self._reserve_stored(reservation, timeout_s)
            except StoreError:
                self._to_release.add(reservation.id)
            else:
                if refused is None:
                    self._hold(reservation.id, _Held(reservation.charges, stored=True))
                return refused
        return self._reserve_here(reservation)

    async def _reserve_stored(self, reservation: Reservation, timeout_s: float) -> str | None:
        refused = await self._call(partial(self._store.reserve, reservation), timeout_s)
        if refused is not None and await self._leases.give_up_unused(reservation.charges):
            refused = await self._call(partial(self._store.reserve, reservation), timeout_s)
        return refused

    async def _begin(
        self, reservation_id: str, held: _Held | None, row: UsageRow, timeout_s: float
    ) -> None:
        if self._away_since is None and (held is None or held.stored):
            try:
                await self._call(partial(self._store.begin, reservation_id, row), timeout_s)
            except StoreError:
                pass
            else:
                return
        if held is None:
            return
        # The store does not know that the work has begun. It releases the reservation when the
        # lease ends, and then other processes may reserve the same money. So it is taken from the
        # allowance of this process as well.
        if not held.from_allowance:
            self._take_from_allowance(held.charges)
            held.from_allowance = True
        held.journaled = True
        await self._usage.write_down(UsageEntry(row, held.charges, reservation_id, begun=True))

    def _lose(self, exc: StoreError) -> None:
        self._reason = exc
        if self._away_since is not None:
            return
        self._away_since = self._wall_clock()
        self._answers.clear()
        log.warning(
            "the store cannot be reached: %s; sessions with budgets go on for %d s at most, "
            "new ones are %s",
            exc,
            self._settings.away_seconds,
            "refused" if self._settings.when_away == "refuse" else "served from allowances",
        )
        self._recovering = asyncio.create_task(self._recover())

    def _unreachable(self) -> StoreError:
        if isinstance(self._reason, StorageFull):
            return StorageFull(str(self._reason))
        return StoreError(f"the store cannot be reached: {self._reason}")

    # while it is unreachable

    def _reserve_here(self, reservation: Reservation) -> str | None:
        if reservation.opens:
            self._check_open()
        full = self._full_place(reservation.charges)
        if full is None:
            self._take_from_allowance(reservation.charges)
            self._hold(
                reservation.id, _Held(reservation.charges, stored=False, from_allowance=True)
            )
        return full

    def _take_from_allowance(self, charges: Sequence[Charge]) -> None:
        lacking = self._allowances.lacking(charges, self._wall_clock())
        if lacking is not None:
            raise StoreError(
                f"the store cannot be reached, and the allowance of {lacking} is used up"
            )
        self._allowances.take(charges)

    def _check_open(self) -> None:
        """Raise StoreError where nothing new may begin."""
        if self._settings.when_away == "refuse" or self.overdue:
            raise self._unreachable()
        if self._usage.failure is not None:
            raise StoreError(
                "the store cannot be reached, and the journal cannot be written: "
                f"{self._usage.failure}"
            )
        if len(self._usage) >= MAX_WAITING:
            raise StoreError(
                f"the store cannot be reached, and {MAX_WAITING} rows of usage wait for it"
            )

    def _full_place(self, charges: Sequence[Charge]) -> str | None:
        """The first of the limits on things in progress that this process has reached by itself.

        What other processes have in progress is not known.
        """
        for charge in charges:
            if charge.period == AT_ONCE:
                own = sum(
                    other.amount
                    for held in self._held.values()
                    for other in held.charges
                    if other.budget == charge.budget and other.period == AT_ONCE
                )
                if own + charge.amount > charge.limit:
                    return charge.budget
        return None

    def _end_hold(self, held: _Held | None, used: Sequence[Charge]) -> None:
        """End a reservation, of which this much was used."""
        if held is not None and held.from_allowance:
            self._allowances.give_back(held.charges)
            self._allowances.use(used)

    # when it answers again

    async def _recover(self) -> None:
        """Try until everything kept is in the store."""
        delay = MIN_RETRY_S
        while True:
            await asyncio.sleep(delay * random.uniform(0.75, 1.25))
            if self._usage.failure is not None:
                await self._usage.write_down()
            if await self.try_again():
                return
            delay = min(2 * delay, MAX_RETRY_S)

    async def try_again(self) -> bool:
        """Write what is kept, if the store answers; return whether it does."""
        waiting = len(self._usage)
        try:
            await self._write_waiting()
        except StoreError as exc:
            self._lose(exc)
            return False
        since, self._away_since = self._away_since, None
        self._answers.set()
        if since is not None:
            now = self._wall_clock()
            self._reap_from = now + REAP_PAUSE_S
            log.warning(
                "the store answers again after %d s; %d rows of usage were written",
                now - since,
                waiting,
            )
        await self._tidy()
        return True

    async def _write_waiting(self) -> None:
        """Raises StoreError; then the rest is still kept."""
        await _bounded(partial(self._store.put, _PROBE, b"", ttl_s=60.0))
        while self._usage or self._to_release or self._leases.uncertain:
            while self._usage:
                await self._usage.write_first(self._store, _bounded)
            self._to_release |= self._leases.uncertain
            self._leases.uncertain.clear()
            for id_ in tuple(self._to_release):
                await _bounded(partial(self._store.release, id_))
                self._to_release.discard(id_)

    async def _tidy(self) -> None:
        """Delete the journal when everything in it is in the store."""
        is_needed = self.away or any(held.journaled for held in self._held.values())
        if not is_needed:
            await self._usage.clear_journal()

    async def _tend_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TEND_S):
                    await self._outgrown.wait()
            self._outgrown.clear()
            if not self.away:
                try:
                    await self.tend()
                except StoreError as exc:
                    log.debug("allowances could not be renewed: %s", exc)


async def _bounded(operation: Callable[[], Awaitable[T]], timeout_s: float = OTHER_TIMEOUT_S) -> T:
    """Raises StoreError, also if there is no answer in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await operation()
    except TimeoutError as exc:
        raise StoreError(f"it has not answered within {timeout_s:g} s") from exc
