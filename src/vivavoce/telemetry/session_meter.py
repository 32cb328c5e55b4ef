"""The meter of one session: an observer that reserves, books and, when a budget is spent, ends."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import UNSET

from vivavoce.errors import QuotaExceeded
from vivavoce.limits.accounts import Budget, Unit
from vivavoce.limits.prices import Quantities
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.session.effects import Effect, Generate, RecordUsage
from vivavoce.session.facts import AccessEnded, BudgetLow, Fact, UpstreamEventReceived
from vivavoce.store.base import Charge, UsageKind, UsageRow
from vivavoce.telemetry.metering import QUOTA_CLOSE, Holder, Metering, charges_on
from vivavoce.telemetry.rating import DEFAULT_CONTEXT, DEFAULT_OUTPUT, TURN_TOKENS, Rated

WINDOW_S = 30
"""Sessions that are paid by the clock, or have a budget of minutes, pay for so long in advance."""
LAST_WINDOW_S = 5
"""Where no whole window is left."""


@dataclass(slots=True)
class Held:
    """A reservation."""

    id: str
    charges: tuple[Charge, ...]
    at: float
    """When it was made: it is settled in the periods of that time."""
    nano_usd: int = 0


@dataclass(slots=True)
class Window:
    """Time that is paid for."""

    held: Held
    ends_at: float


class SessionMeter(Holder):
    """See runtime/sessions.py for when its methods are called. `who`: the name of the key."""

    def __init__(self, service: Metering, settings: SessionObject, who: str) -> None:
        self.owner = service.directory.owner(who)
        self.post: Callable[[Fact], None] = lambda _: None
        self._service = service
        self._jobs = service.jobs()
        self._session = settings.id
        self._model = _model_of(settings)
        self._output = _max_output(settings)
        self._context = DEFAULT_CONTEXT
        self._budgets: tuple[Budget, ...] = ()
        self._reserves = False
        self._begun_at = service.wall_clock()
        self._seat: Held | None = None  # of the sessions that the key may have
        self._next: Held | None = None  # for the response that comes next
        self._open: dict[str, Held] = {}  # by response
        self._window: Window | None = None
        self._windows = 0
        self._entered = False
        self._warned = False  # that most of a budget is spent
        self._left = False

    async def enter(self) -> None:
        """Reserve what the session begins with. Raises QuotaExceeded, Unauthorized, StoreError."""
        service = self._service
        self.owner = service.admit(self.owner.key)
        now = self._begun_at = service.wall_clock()
        self._budgets = service.directory.budgets_of(self.owner)
        self.has_budgets = bool(self._budgets)
        relayed = service.rater.tariff(self._model).mode == "relay"
        self._reserves = relayed or any(budget.unit != "minutes" for budget in self._budgets)
        in_money = any(budget.unit == "usd" for budget in self._budgets)
        if in_money and not service.rater.is_priced(self._model, now):
            raise QuotaExceeded(
                f"The model {self._model!r} has no price, and your budget is in money."
            )
        record = service.directory.keys.get(self.owner.key)
        try:
            if record is not None and record.max_sessions:
                seat = Charge(f"sessions:{record.name}", "now", 1, record.max_sessions)
                self._seat = await self._hold((seat,))
            if self._reserves:
                self._next = await self._hold_response()
            if self._pays_by_clock:
                await self._open_window(now)
        except BaseException:
            self.leave()
            raise
        self._entered = True
        service.add(self)

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        if type(fact) is UpstreamEventReceived and fact.event.type == "response.created":
            self._begin(fact.event.response.id if fact.event.response else "")
        for effect in effects:
            if type(effect) is RecordUsage:
                self._record(effect)
            elif type(effect) is Generate:
                self._begin(effect.response_id)

    def tick(self) -> None:
        """Pay for the next window when one is about to end."""
        window, now = self._window, self._service.wall_clock()
        if window is not None and now >= window.ends_at - LAST_WINDOW_S / 2:
            self._jobs.add(self._next_window)

    def end_access(self, reason: AccessEnded) -> None:
        self.post(reason)

    def leave(self) -> None:
        """Give back what is reserved, and book how long the session lasted."""
        if not self._left:
            self._left = True
            self._service.discard(self)
            self._jobs.add(self._settle_all)

    @property
    def _pays_by_clock(self) -> bool:
        minutes = any(budget.unit == "minutes" for budget in self._budgets)
        return minutes or self._service.rater.by_clock(self._model, self._begun_at)

    def _begin(self, response_id: str) -> None:
        if not self._reserves:
            return

        async def job() -> None:
            try:
                held = self._next or await self._hold_response()
            except QuotaExceeded as exc:
                self._end(exc)
                return
            rated = Rated(self._bound_used(), held.nano_usd, "", True)
            row = self._row(response_id, "response", self._model, rated, confirmed=False)
            await self._service.store.begin(held.id, row)
            self._open[response_id], self._next = held, None

        self._jobs.add(job)

    def _record(self, record: RecordUsage) -> None:
        rated = self._service.rater.record(record, self._model, self._service.wall_clock())

        async def job() -> None:
            held, cost = self._open.get(record.id), rated
            if held is not None and not record.confirmed:
                cost = Rated(rated.used, held.nano_usd, "", True)
            row = self._row(record.id, record.kind, record.model, cost, confirmed=record.confirmed)
            amounts: dict[Unit, int] = {"usd": row.nano_usd, "tokens": cost.used.tokens}
            await self._settle(row, amounts, held)
            self._open.pop(record.id, None)
            if record.kind == "response":
                self._context = max(cost.used.tokens, DEFAULT_CONTEXT)
                await self._hold_next()
                await self._warn_if_low()

        self._jobs.add(job)

    async def _hold_next(self) -> None:
        """Reserve for the response after this one, or end the session before it can begin."""
        if self._reserves and self._next is None and not self._left:
            try:
                self._next = await self._hold_response()
            except QuotaExceeded as exc:
                self._end(exc)

    async def _warn_if_low(self) -> None:
        if not self._warned and not self._left and await self._service.is_low(self._budgets):
            self._warned = True
            self.post(BudgetLow())

    async def _next_window(self) -> None:
        window, now = self._window, self._service.wall_clock()
        if window is None or self._left:
            return
        await self._settle_window(window, now)
        try:
            await self._open_window(now)
            await self._warn_if_low()
        except QuotaExceeded as exc:
            self._end(exc)

    async def _open_window(self, now: float) -> None:
        """Raises QuotaExceeded."""
        for seconds in (WINDOW_S, LAST_WINDOW_S):
            rated = self._service.rater.lasted(self._model, seconds * 1000, now)
            amounts: dict[Unit, int] = {"minutes": seconds * 1000}
            if rated.nano_usd:
                amounts["usd"] = rated.nano_usd
            try:
                held = await self._hold(charges_on(self._budgets, amounts, now), rated.nano_usd)
            except QuotaExceeded:
                if seconds == LAST_WINDOW_S:
                    raise
                continue
            self._window = Window(held, now + seconds)
            row = self._row(self._window_id, "session", self._model, rated, confirmed=False)
            await self._service.store.begin(held.id, row)
            return

    async def _settle_window(self, window: Window, now: float) -> None:
        ms = max(0, round((now - window.held.at) * 1000))
        rated = self._service.rater.lasted(self._model, ms, now)
        row = self._row(self._window_id, "session", self._model, rated)
        await self._settle(row, {"minutes": ms, "usd": rated.nano_usd}, window.held)
        self._window = None
        self._windows += 1

    @property
    def _window_id(self) -> str:
        return f"time{self._windows}"

    async def _settle_all(self) -> None:
        """Everything that may be repeated when the store fails in the middle."""
        now = self._service.wall_clock()
        for response_id, held in tuple(self._open.items()):
            rated = Rated(self._bound_used(), held.nano_usd, "", True)
            row = self._row(response_id, "response", self._model, rated, confirmed=False)
            await self._settle(row, {"usd": held.nano_usd, "tokens": rated.used.tokens}, held)
            del self._open[response_id]
        if self._next is not None:
            await self._service.release(self._next.id)
            self._next = None
        if self._window is not None:
            await self._settle_window(self._window, now)
        elif self._entered and not self._windows:
            ms = max(0, round((now - self._begun_at) * 1000))
            rated = self._service.rater.lasted(self._model, ms, now)
            await self._settle(self._row(self._window_id, "session", self._model, rated), {}, None)
        if self._seat is not None:
            await self._service.release(self._seat.id)
            self._seat = None

    async def _hold_response(self) -> Held:
        """Reserve the highest cost of a response. Raises QuotaExceeded."""
        now = self._service.wall_clock()
        nano = self._service.rater.bound(self._model, self._context, self._output, now)
        amounts: dict[Unit, int] = {"usd": nano, "tokens": self._bound_used().tokens}
        return await self._hold(charges_on(self._budgets, amounts, now), nano)

    async def _hold(self, charges: tuple[Charge, ...], nano_usd: int = 0) -> Held:
        at = self._service.wall_clock()
        return Held(await self._service.reserve(charges), charges, at, nano_usd)

    async def _settle(self, row: UsageRow, amounts: dict[Unit, int], held: Held | None) -> None:
        at = row.at if held is None else held.at
        charges = charges_on(self._budgets, amounts, at)
        await self._service.settle(row, charges, "" if held is None else held.id)

    def _bound_used(self) -> Quantities:
        return Quantities(other_input=self._context + TURN_TOKENS, other_output=self._output)

    def _row(
        self, id_: str, kind: UsageKind, model: str, rated: Rated, *, confirmed: bool = True
    ) -> UsageRow:
        return rated.row(
            f"{self._session}:{id_}",
            kind,
            model,
            self.owner,
            self._service.wall_clock(),
            session=self._session,
            confirmed=confirmed,
            mode=self._service.rater.tariff(self._model).mode,
        )

    def _end(self, exc: QuotaExceeded) -> None:
        self.end_access(AccessEnded("insufficient_quota", str(exc), QUOTA_CLOSE))


def _model_of(settings: SessionObject) -> str:
    """The configured model that serves a session; "" for the default one."""
    if isinstance(settings, RealtimeSession) and settings.served_by is not UNSET:
        return settings.served_by.model
    return ""


def _max_output(settings: SessionObject) -> int:
    limit = settings.max_output_tokens if isinstance(settings, RealtimeSession) else "inf"
    return DEFAULT_OUTPUT if limit == "inf" else limit
