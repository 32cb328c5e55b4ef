"""The reservations of one session on its owner's budgets: for its responses, and for its time.

Once a session has begun, StoreError means that the store cannot be reached and the allowance is
used up: see store/buffered.py.
"""

import msgspec

from vivavoce.errors import QuotaExceeded, StoreError
from vivavoce.limits.accounts import Budget, Owner, Unit
from vivavoce.limits.prices import Quantities
from vivavoce.session.effects import RecordUsage
from vivavoce.store.base import Charge, UsageKind, UsageRow
from vivavoce.telemetry.metering import Metering, charges_on
from vivavoce.telemetry.rating import DEFAULT_CONTEXT, TURN_TOKENS, Rated

WINDOW_S = 30
"""How much time is reserved in advance for sessions that are charged by time, or have a budget of
minutes."""
LAST_WINDOW_S = 5
"""The shorter time that is reserved if the budget has no room for a whole window."""


class Held(msgspec.Struct):
    """A reservation."""

    id: str
    charges: tuple[Charge, ...]
    at: float
    """The time of the reservation: it is settled in the periods that contain that time."""
    nano_usd: int = 0


class SessionAccount:
    """Who pays for a session, and from which budgets."""

    def __init__(self, service: Metering, session: str, model: str, who: str) -> None:
        """model: the configured one. who: the name of the key."""
        self.service = service
        self.rater = service.rater
        """The model of the settings with which the session began."""
        self.session = session
        self.model = model
        self.owner: Owner = service.directory.owner(who)
        self.budgets: tuple[Budget, ...] = ()
        self.opens = False
        """Whether the session has not begun yet."""
        self.waits = False
        """Whether it may wait for a slow store: not while a client waits for its session."""

    @property
    def now(self) -> float:
        return self.service.wall_clock()

    def admit(self) -> None:
        """Look up the budgets. Raises QuotaExceeded, and Unauthorized."""
        service = self.service
        self.owner = service.admit(self.owner.key)
        self.budgets = service.directory.budgets_of(self.owner)
        in_money = any(budget.unit == "usd" for budget in self.budgets)
        if in_money and not self.rater.is_priced(self.model, self.now):
            raise QuotaExceeded(
                f"The model {self.model!r} has no price, and your budget is in money."
            )

    def has_unit(self, *units: Unit) -> bool:
        return any(budget.unit in units for budget in self.budgets)

    async def hold(self, amounts: dict[Unit, int], nano_usd: int = 0) -> Held:
        """Reserve amounts on all budgets. Raises QuotaExceeded, and StoreError."""
        return await self.hold_charges(charges_on(self.budgets, amounts, self.now), nano_usd)

    async def hold_charges(self, charges: tuple[Charge, ...], nano_usd: int = 0) -> Held:
        """Raises QuotaExceeded, and StoreError."""
        at = self.now
        id_ = await self.service.reserve(charges, opens=self.opens, waits=self.waits)
        return Held(id_, charges, at, nano_usd)

    async def settle(self, row: UsageRow, amounts: dict[Unit, int], held: Held | None) -> None:
        """Book a row and end the reservation for it."""
        at = row.at if held is None else held.at
        charges = charges_on(self.budgets, amounts, at)
        await self.service.settle(row, charges, "" if held is None else held.id)

    def note_overrun(self, model: str, nano_usd: int) -> None:
        """A response has cost this much more, or less, than was reserved for it."""
        if nano_usd > 0:
            for seen in self.service.on_overrun:
                seen(model, nano_usd)

    def row(
        self,
        id_: str,
        kind: UsageKind,
        model: str,
        rated: Rated,
        *,
        confirmed: bool = True,
        recogniser: str = "",
    ) -> UsageRow:
        """model: the configured one; recogniser: that of an upstream server, which is named."""
        return rated.row(
            f"{self.session}:{id_}",
            kind,
            recogniser or model,
            self.owner,
            self.now,
            session=self.session,
            confirmed=confirmed,
            mode=self.rater.tariff(model).mode,
        )


class ResponseReservations:
    """Reserves the highest cost of each response before it begins."""

    def __init__(self, account: SessionAccount, output: int) -> None:
        """output: the most tokens that a response may have."""
        self.needed = False
        """Whether responses have to be reserved."""
        self._account = account
        self._output = output
        self._context = DEFAULT_CONTEXT
        self._next: Held | None = None
        self._open: dict[str, Held] = {}  # by response

    async def hold_next(self) -> None:
        """Reserve the cost of the next response. Raises QuotaExceeded, and StoreError."""
        if self.needed and self._next is None:
            self._next = await self._hold()

    async def begin(self, response_id: str) -> None:
        """A response has begun. Raises QuotaExceeded, and StoreError."""
        account = self._account
        if self._next is None:
            self._next = await self._hold()
        held = self._next
        row = account.row(
            response_id, "response", account.model, self._at_most(held), confirmed=False
        )
        await account.service.store.begin(held.id, row, waits=account.waits)
        self._open[response_id], self._next = held, None

    async def book(self, record: RecordUsage, rated: Rated) -> None:
        """Book a response or a transcription."""
        account, held = self._account, self._open.get(record.id)
        by_clock = account.rater.by_clock(record.model, account.now)
        confirmed = record.confirmed or by_clock  # its usage is part of the session's time
        cost = rated
        if held is not None and not confirmed:
            cost = Rated(rated.used, held.nano_usd, "", "not_reported")
        row = account.row(
            record.id,
            record.kind,
            record.model,
            cost,
            confirmed=confirmed,
            recogniser=record.recogniser,
        )
        await account.settle(row, {"usd": row.nano_usd, "tokens": cost.used.tokens}, held)
        if self._open.pop(record.id, None) is not None and held is not None:
            account.note_overrun(record.model, row.nano_usd - held.nano_usd)
        if record.kind == "response":
            self._context = max(cost.used.tokens, DEFAULT_CONTEXT)

    async def give_back(self) -> None:
        """Book open responses with the amounts that were reserved, and release the other
        reservations."""
        account = self._account
        for response_id, held in tuple(self._open.items()):
            rated = self._at_most(held)
            row = account.row(response_id, "response", account.model, rated, confirmed=False)
            await account.settle(row, {"usd": held.nano_usd, "tokens": rated.used.tokens}, held)
            del self._open[response_id]
        if self._next is not None:
            await account.service.release(self._next.id)
            self._next = None

    async def _hold(self) -> Held:
        account = self._account
        nano = account.rater.bound(account.model, self._context, self._output, account.now)
        return await account.hold({"usd": nano, "tokens": self._used_at_most.tokens}, nano)

    def _at_most(self, held: Held) -> Rated:
        return Rated(self._used_at_most, held.nano_usd, "", "not_reported")

    @property
    def _used_at_most(self) -> Quantities:
        return Quantities(other_input=self._context + TURN_TOKENS, other_output=self._output)


class SessionTime:
    """Books the time of a session: one row at its end, or windows that are reserved in advance."""

    def __init__(self, account: SessionAccount) -> None:
        self.messages = 0
        """Messages typed in the present window, or in the session if there are no windows."""
        self._account = account
        self._begun_at: float | None = None  # of time that is not paid in advance
        self._held: Held | None = None  # of the present window
        self._ends_at = 0.0  # of the present window
        self._rows = 0
        self._serving = ""

    async def begin(self, serving: str = "") -> None:
        """serving: see Meter.serving. Raises QuotaExceeded, and StoreError."""
        self._serving = serving
        await self._go_on(self._account.now)

    async def serve_with(self, model: str, at: float) -> None:
        """Another model has served since `at`. Raises QuotaExceeded, and StoreError."""
        await self._book(at)
        self._account.model = model
        await self._go_on(at)

    def next_is_due(self) -> bool:
        """Whether the present window is about to end."""
        return self._held is not None and self._account.now >= self._ends_at - LAST_WINDOW_S / 2

    async def next_window(self) -> None:
        """Raises QuotaExceeded, and StoreError."""
        await self._book(self._account.now)
        await self._open_window()

    async def end(self, *, has_begun: bool) -> None:
        """Book what is not booked yet.

        has_begun: whether there was a session; it may have been refused.
        """
        if has_begun or self._held is not None:
            await self._book(self._account.now)

    async def _go_on(self, at: float) -> None:
        account = self._account
        if account.has_unit("minutes") or account.rater.by_clock(account.model, account.now):
            await self._open_window()
        else:
            self._begun_at = at

    async def _open_window(self) -> None:
        account, now = self._account, self._account.now
        for seconds in (WINDOW_S, LAST_WINDOW_S):
            rated = account.rater.lasted(account.model, seconds * 1000, now)
            amounts: dict[Unit, int] = {"minutes": seconds * 1000}
            if rated.nano_usd:
                amounts["usd"] = rated.nano_usd
            try:
                held = await account.hold(amounts, rated.nano_usd)
            except (QuotaExceeded, StoreError):
                if seconds == LAST_WINDOW_S:
                    raise
                continue
            self._held, self._ends_at = held, now + seconds
            row = account.row(self._id, "session", account.model, rated, confirmed=False)
            await account.service.store.begin(held.id, row, waits=account.waits)
            return

    async def _book(self, until: float) -> None:
        """Book the time up to then that is not booked yet."""
        account, held = self._account, self._held
        since = self._begun_at if held is None else held.at
        if since is None:
            return
        ms = max(0, round((until - since) * 1000))
        rated = account.rater.lasted(account.model, ms, account.now, self.messages)
        row = account.row(self._id, "session", account.model, rated)
        amounts: dict[Unit, int] = {} if held is None else {"minutes": ms, "usd": row.nano_usd}
        await account.settle(row, amounts, held)
        self._held = self._begun_at = None
        self._rows += 1
        self.messages = 0

    @property
    def _id(self) -> str:
        name = f"time{self._rows}"
        return f"{name}.{self._serving}" if self._serving else name
