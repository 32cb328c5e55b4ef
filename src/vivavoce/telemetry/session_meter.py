"""The meter of one session: an observer that reserves and books amounts, and ends the session when
a budget is spent. At the end it logs the usage by the model that served the session."""

import logging
from collections.abc import Awaitable, Callable, Iterator

from msgspec import UNSET

from vivavoce.errors import QuotaExceeded, StoreError
from vivavoce.limits.accounts import Owner
from vivavoce.limits.prices import usd
from vivavoce.protocol.client import ItemCreate
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.session.effects import Effect, Generate, RecordModel, RecordUsage
from vivavoce.session.facts import (
    AccessEnded,
    BudgetLow,
    Fact,
    Received,
    UpstreamEventReceived,
)
from vivavoce.session.usage import UsageTotals
from vivavoce.store.base import AT_ONCE, Charge
from vivavoce.telemetry.metering import QUOTA_CLOSE, STORE_LOST, Metering
from vivavoce.telemetry.rating import DEFAULT_OUTPUT
from vivavoce.telemetry.reservations import (
    ResponseReservations,
    SessionAccount,
    SessionTime,
)

log = logging.getLogger(__name__)


class ServedTime:
    """How long each model has served a session, in seconds of the clock of its facts."""

    def __init__(self, model: str) -> None:
        self.begun_at: float | None = None
        """When the session began; None: it has not."""
        self._served: list[tuple[str, float]] = []  # models, and when each ended
        self._model = model

    def change(self, model: str, now: float) -> None:
        self._served.append((self._model, now - (self.begun_at or 0.0)))
        self._model = model

    def spans(self, seconds: float) -> Iterator[tuple[str, float]]:
        """Each model, and how long it has served a session of this length."""
        begun = 0.0
        for model, ended in (*self._served, (self._model, seconds)):
            yield model, ended - begun
            begun = ended


class SessionMeter:
    """When its methods are called: see runtime/sessions.py. `who`: the name of the key."""

    skips_audio = True

    def __init__(self, service: Metering, settings: SessionObject, who: str) -> None:
        self.post: Callable[[Fact], None] = lambda _: None
        self.serving = self.former = ""
        self.confirm_claim: Callable[[], Awaitable[object]] | None = None
        self._service = service
        self._account = SessionAccount(service, settings.id, _model_of(settings), who)
        self._responses = ResponseReservations(self._account, _max_output(settings))
        self._time = SessionTime(self._account)
        self._seat = ""  # the id of a place among the sessions that the key may have
        self._jobs = service.booking.jobs()
        self._entered = False
        self._used: dict[str, UsageTotals] = {}  # by model
        self._warned = False  # that most of a budget is spent
        self._left = False
        self._clock = ServedTime(self._account.model)

    @property
    def owner(self) -> Owner:
        return self._account.owner

    @property
    def has_budgets(self) -> bool:
        return bool(self._account.budgets)

    def cost(self, record: RecordUsage) -> int:
        """Nano-USD of a response or a transcription."""
        return self._account.rater.record(record, self._account.now).nano_usd

    def time_cost(self, seconds: float) -> int:
        """The cost in nano-USD of a session that is charged by time, without the messages that are
        typed in it."""
        account, total = self._account, 0
        for model, served in self._clock.spans(seconds):
            total += account.rater.lasted(model, round(served * 1000), account.now).nano_usd
        return total

    async def enter(self) -> None:
        """Reserve what is needed to begin the session.

        Raises QuotaExceeded, Unauthorized, StoreError.
        """
        service, account = self._service, self._account
        account.admit()
        relayed = account.rater.tariff(account.model).mode == "relay"
        self._responses.needed = relayed or account.has_unit("usd", "tokens")
        record = service.directory.keys.get(self.owner.key)
        account.opens = not self.serving  # a session that is resumed may continue
        try:
            if record is not None and record.max_sessions:
                seat = Charge(f"sessions:{record.name}", AT_ONCE, 1, record.max_sessions)
                self._seat = _seat_of(account.session, self.serving)
                before = _seat_of(account.session, self.former) if self.serving else ""
                await service.take_seat(self._seat, seat, before)
            await self._responses.hold_next()
            await self._time.begin(self.serving)
        except BaseException:
            self.leave()
            raise
        finally:
            account.opens = False
        self._entered = account.waits = True
        service.add(self)

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        if self._clock.begun_at is None:
            self._clock.begun_at = now
        if type(fact) is UpstreamEventReceived:
            self._on_upstream(fact)
        elif type(fact) is Received:
            self._on_client(fact)
        for effect in effects:
            if type(effect) is RecordUsage:
                self._record(effect)
            elif type(effect) is Generate:
                self._begin(effect.response_id)
            elif type(effect) is RecordModel:
                self._serve_with(effect.model, now)

    def tick(self) -> None:
        """Reserve the next window when the present one is about to end."""
        if self._time.next_is_due():
            self._jobs.add(self._next_window)

    def end_access(self, reason: AccessEnded) -> None:
        self.post(reason)

    def leave(self) -> None:
        """Release what is reserved, and book how long the session lasted."""
        if not self._left:
            self._left = True
            self._service.discard(self)
            self._jobs.add(self._settle_all)
            self._log()

    def _on_upstream(self, fact: UpstreamEventReceived) -> None:
        if fact.event.type == "response.created":
            self._begin(fact.event.response.id if fact.event.response else "")

    def _on_client(self, fact: Received) -> None:
        match fact.event:
            case ItemCreate(item=Message(role="user", content=content)):
                self._time.messages += any(isinstance(part, InputText) for part in content)

    def _begin(self, response_id: str) -> None:
        if self._responses.needed:
            self._jobs.add(lambda: self._or_end(self._responses.begin(response_id)))

    def _record(self, record: RecordUsage) -> None:
        rated = self._account.rater.record(record, self._account.now)
        used = self._used.setdefault(record.recogniser or record.model, UsageTotals())
        used.add(record, rated.nano_usd)

        async def job() -> None:
            await self._responses.book(record, rated)
            if record.kind == "response" and not self._left:
                await self._or_end(self._responses.hold_next())
                await self._warn_if_low()

        self._jobs.add(job)

    def _serve_with(self, model: str, now: float) -> None:
        """Another model serves: a service that is charged by time costs nothing from now on."""
        self._clock.change(model, now)
        at = self._account.now
        self._jobs.add(lambda: self._or_end(self._time.serve_with(model, at)))

    async def _next_window(self) -> None:
        if not self._left:
            await self._or_end(self._time.next_window())
            await self._warn_if_low()

    async def _warn_if_low(self) -> None:
        if not self._warned and await self._service.is_low(self._account.budgets):
            self._warned = True
            self.post(BudgetLow())

    async def _settle_all(self) -> None:
        await self._responses.give_back()
        await self._time.end(has_begun=self._entered)
        if self._seat:
            await self._service.free_seat(self._seat)
            self._seat = ""

    def _log(self) -> None:
        for model, used in self._used.items():
            log.info(
                "%s: used by %s of %s: %d responses, %d tokens in, %d out, %d s transcribed, $%s",
                self._account.session,
                self.owner.key or "anonymous",
                model,
                used.responses,
                used.input_tokens,
                used.output_tokens,
                used.transcribed_seconds,
                usd(used.nano_usd),
            )

    async def _or_end(self, holding: Awaitable[None]) -> None:
        """End the session if a budget has no room, or if that cannot be known."""
        try:
            await holding
        except QuotaExceeded as exc:
            self._warned = True
            if self.confirm_claim is not None:  # where it has another server, that pays for it
                await self.confirm_claim()
            self.end_access(AccessEnded("insufficient_quota", str(exc), QUOTA_CLOSE))
        except StoreError as exc:
            log.warning("%s ends: %s", self._account.session, exc)
            self.end_access(STORE_LOST)


def _seat_of(session: str, serving: str) -> str:
    """The id of the place of a session that one process serves: see Meter.serving."""
    return f"seat_{session}_{serving}" if serving else f"seat_{session}"


def _model_of(settings: SessionObject) -> str:
    """The configured model that serves a session; "" for the default one."""
    if isinstance(settings, RealtimeSession) and settings.served_by is not UNSET:
        return settings.served_by.model
    return ""


def _max_output(settings: SessionObject) -> int:
    limit = settings.max_output_tokens if isinstance(settings, RealtimeSession) else "inf"
    return DEFAULT_OUTPUT if limit == "inf" else limit
