"""Meters what sessions and requests use, and holds them to the budgets of their owners.

A response is paid for before it begins: its highest cost is reserved on every budget that applies.
When its usage is known, that is booked and the reservation released, in one transaction. A
reservation is a lease: where its holder died, the reserved amounts are booked if work had begun.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, Self, TypeVar

import msgspec

from vivavoce.errors import QuotaExceeded, StoreError, Unauthorized
from vivavoce.limits.accounts import ApiKey, Budget, Directory, Owner, Team, Unit, User, refusal
from vivavoce.limits.prices import PriceTable
from vivavoce.session.facts import AccessEnded
from vivavoce.session.limits import SessionLimits
from vivavoce.store.base import Charge, RecordKind, Reservation, UsageRow
from vivavoce.store.buffered import BufferedAccounts
from vivavoce.telemetry.booking import Booking
from vivavoce.telemetry.rating import Rater, Tariff

log = logging.getLogger(__name__)
T = TypeVar("T")

LEASE_S = 60.0
SEAT_LEASE_S = 15.0
"""The lease of a place among the sessions of a key: places of processes that died become free after
it."""
RENEW_S = 20.0
REFRESH_S = 5.0
"""How often keys, users and budgets are read again."""
DEFAULT_WARN_AT = SessionLimits().warn_at
QUOTA_CLOSE = 4002
"""A WebSocket close code on which no SDK connects again."""
STORE_LOST = AccessEnded("store_unavailable", "The budget store cannot be reached.", 1011)
"""Ends a session that cannot be paid for now; its client may come back, also to another server."""
UNAUTHORIZED_CLOSE = 3000
_TYPES: Mapping[RecordKind, type[msgspec.Struct]] = {
    "key": ApiKey,
    "user": User,
    "team": Team,
    "budget": Budget,
}


class Holder(Protocol):
    """A session or a request with reservations. It is ended when its owner's access ends."""

    @property
    def owner(self) -> Owner: ...

    @property
    def has_budgets(self) -> bool: ...

    def end_access(self, reason: AccessEnded) -> None:
        """End it: the owner may use nothing more."""
        ...

    def tick(self) -> None:
        """Called every few seconds."""
        ...


class Metering:
    """The accounts of a server: an async context manager."""

    def __init__(
        self,
        store: BufferedAccounts,
        prices: PriceTable,
        tariffs: Mapping[str, Tariff],
        *,
        keys: Iterable[ApiKey] = (),
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """keys: those of the settings, which the store does not hold. The store is entered."""
        self.store = store
        self.booking = Booking(store, self._on_booked)
        self.rater = Rater(prices, tariffs)
        self.wall_clock = wall_clock
        self.directory = Directory(keys)
        self.warn_at = DEFAULT_WARN_AT
        """The share of a budget from which on the sessions of its owner are warned."""
        self.on_change: Callable[[Directory], None] = lambda _: None
        """Called with the directory when it was read again."""
        self.on_row: list[Callable[[UsageRow], None]] = []
        """Called with each row that is booked for the first time."""
        self.on_refusal: list[Callable[[str], None]] = []
        """Called with each budget, by its id, that has refused."""
        self.on_overrun: list[Callable[[str, int], None]] = []
        """Called with a model and the nano-USD that a response cost beyond what was reserved."""
        self.expired_reservations = 0
        """How many reservations of other processes, which had died, this process has ended."""
        self._static_keys = tuple(keys)
        self._holders: set[Holder] = set()
        self._leases: set[str] = set()
        self._seats: set[str] = set()
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises StoreError."""
        await self.refresh()
        await self._reap(self.wall_clock())
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait((self._ticking,))
        await self.booking.close()

    async def replace(
        self, prices: PriceTable, tariffs: Mapping[str, Tariff], keys: Iterable[ApiKey]
    ) -> None:
        """Other prices, for sessions that begin now, and other keys of the settings.

        Sessions of keys that are gone end. Raises StoreError: the keys are taken over once the
        store can be read.
        """
        self.rater = Rater(prices, tariffs)
        before, self._static_keys = self._static_keys, tuple(keys)
        await self.refresh()
        gone = {key.name for key in before} - self.directory.keys.keys()
        for holder in tuple(self._holders):
            if holder.owner.key in gone:
                holder.end_access(
                    AccessEnded("invalid_api_key", "The key was revoked.", UNAUTHORIZED_CLOSE)
                )

    def add(self, holder: Holder) -> None:
        self._holders.add(holder)

    def discard(self, holder: Holder) -> None:
        self._holders.discard(holder)

    def admit(self, key: str) -> Owner:
        """The owner who is charged.

        Raises Unauthorized for a key that may not be used, and StoreError if the store was
        unreachable for so long that the key may have been revoked.
        """
        is_stored = key in self.directory.keys and key not in {
            one.name for one in self._static_keys
        }
        if is_stored and self.store.overdue:
            raise StoreError("the store is away for too long: the key may have been revoked")
        problem = self.directory.problem(key, self.wall_clock())
        if problem is not None:
            raise Unauthorized(f"Incorrect API key provided: {problem}.")
        return self.directory.owner(key)

    def takes_images(self, model: str, key: str) -> bool:
        """Whether the owner of a key may send pictures to a model.

        Not if pictures have no price and the owner has a budget in money.
        """
        if self.rater.prices_images(model, self.wall_clock()):
            return True
        budgets = self.directory.budgets_of(self.directory.owner(key))
        return not any(budget.unit == "usd" for budget in budgets)

    @property
    def stored_keys(self) -> int:
        """How many keys the store has."""
        return len(self.directory.keys.keys() - {key.name for key in self._static_keys})

    @property
    def open_reservations(self) -> int:
        """Of this process."""
        return len(self._leases)

    async def reserve(
        self, charges: tuple[Charge, ...], *, opens: bool = False, waits: bool = False
    ) -> str:
        """Reserve amounts; return the id of the reservation.

        Raises QuotaExceeded, and StoreError. opens: for a session or a request that has not begun
        yet. waits: see BufferedAccounts.
        """
        id_ = f"rsv_{secrets.token_hex(12)}"
        until = self.wall_clock() + LEASE_S
        reservation = Reservation(id=id_, charges=charges, lease_until=until, opens=opens)
        refused = await self.store.reserve(reservation, waits=waits)
        if refused is not None:
            raise self._refused(refused)
        self._leases.add(id_)
        return id_

    async def take_seat(self, id_: str, charge: Charge, before: str = "") -> None:
        """Take a place among the sessions of a key.

        Raises QuotaExceeded, and StoreError. before: the place that another process took for the
        same conversation; it is given back.
        """
        if before:
            await self.store.release(before)
        now = self.wall_clock()
        until = now + SEAT_LEASE_S
        seat = Reservation(id=id_, charges=(charge,), lease_until=until, opens=not before)
        refused = await self.store.reserve(seat)
        # if all are taken, some may be of processes that died
        if refused is not None and not self.store.away and await self._reap(now):
            refused = await self.store.reserve(seat)
        if refused is not None:
            raise self._refused(refused)
        self._seats.add(id_)

    async def free_seat(self, id_: str) -> None:
        """Give a place back."""
        await self.store.release(id_)
        self._seats.discard(id_)

    def _refused(self, budget: str) -> QuotaExceeded:
        for seen in self.on_refusal:
            seen(budget)
        return QuotaExceeded(refusal(budget))

    async def settle(
        self, row: UsageRow, charges: tuple[Charge, ...], reservation_id: str = ""
    ) -> None:
        """Book a row.

        A row that costs nothing, and is charged to no budget, is booked later, with others: a
        commit in the middle of a turn would delay the answer.
        """
        if not (charges or reservation_id or row.nano_usd):
            self.booking.add(row)
            return
        first = await self.store.settle(row, charges, reservation_id)
        self._leases.discard(reservation_id)
        if first:
            self._on_booked(row)

    def _on_booked(self, row: UsageRow) -> None:
        for seen in self.on_row:
            seen(row)

    async def is_low(self, budgets: Iterable[Budget]) -> bool:
        """Whether most of any budget is spent or reserved, by `warn_at`; False if that is
        unknown."""
        now = self.wall_clock()
        for budget in budgets:
            try:
                balance = await self.store.balance(budget.id, budget.period_at(now))
            except StoreError:
                return False
            if balance.spent + balance.reserved >= self.warn_at * budget.limit:
                return True
        return False

    async def release(self, reservation_id: str) -> None:
        await self.store.release(reservation_id)
        self._leases.discard(reservation_id)

    async def refresh(self) -> None:
        """Read keys, users, teams and budgets. Ends the access of keys that were revoked."""
        found: dict[RecordKind, list[msgspec.Struct]] = {}
        for kind, type_ in _TYPES.items():
            records = await self.store.records(kind)
            found[kind] = [_decoded(kind, name, data, type_) for name, data in records.items()]
        self.directory = Directory(
            [*self._static_keys, *_of(ApiKey, found["key"])],
            _of(User, found["user"]),
            _of(Team, found["team"]),
            _of(Budget, found["budget"]),
        )
        self.on_change(self.directory)
        now = self.wall_clock()
        for holder in tuple(self._holders):
            problem = self.directory.problem(holder.owner.key, now)
            if problem is not None:
                holder.end_access(
                    AccessEnded("invalid_api_key", f"{problem.capitalize()}.", UNAUTHORIZED_CLOSE)
                )

    async def _tick(self) -> None:
        """Read the directory, renew leases and end expired reservations, for ever."""
        next_renewal = self.wall_clock() + RENEW_S
        while True:
            await asyncio.sleep(REFRESH_S)
            self._tick_holders()
            try:
                await self.refresh()
                if self._seats:
                    until = self.wall_clock() + SEAT_LEASE_S
                    await self.store.renew(tuple(self._seats), until)
                if self.wall_clock() >= next_renewal:
                    await self._renew()
                    next_renewal = self.wall_clock() + RENEW_S
            except StoreError as exc:
                if not self.store.away:  # other errors are logged already
                    log.warning("%s", exc)
                self._end_unpaid()

    def _tick_holders(self) -> None:
        """A function of its own: a variable of _tick() would hold the last session while it
        sleeps."""
        for holder in tuple(self._holders):
            holder.tick()

    async def _renew(self) -> None:
        now = self.wall_clock()
        await self.store.renew(tuple(self._leases), now + LEASE_S)
        await self._reap(now)

    async def _reap(self, now: float) -> int:
        """How many reservations were ended."""
        if ended := await self.store.reap(now):
            log.warning("%d reservations of processes that died were ended", ended)
            self.expired_reservations += ended
        return ended

    def _end_unpaid(self) -> None:
        """End sessions that cost money if the store was unreachable for too long."""
        overfull = self.store.overfull
        if not (self.store.overdue or overfull):
            return
        for holder in tuple(self._holders):
            if holder.has_budgets or overfull:
                holder.end_access(STORE_LOST)


def charges_on(
    budgets: Iterable[Budget], amounts: Mapping[Unit, int], at: float
) -> tuple[Charge, ...]:
    """The charge on each budget, in the period that contains a time."""
    return tuple(
        Charge(budget.id, budget.period_at(at), amounts[budget.unit], budget.limit)
        for budget in budgets
        if budget.unit in amounts
    )


def _decoded(kind: str, name: str, data: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"the {kind} {name!r} in the store cannot be read: {exc}") from exc


def _of(type_: type[T], records: Iterable[object]) -> list[T]:
    return [record for record in records if isinstance(record, type_)]
