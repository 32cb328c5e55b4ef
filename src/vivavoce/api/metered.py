"""Meters one HTTP request: finds the budgets that pay for it, and books its usage."""

import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from vivavoce.api.auth import WHO
from vivavoce.limits.accounts import Budget, Owner, Unit
from vivavoce.limits.prices import Quantities
from vivavoce.session.policy import Rules
from vivavoce.session.usage import estimate
from vivavoce.store.base import AT_ONCE, Charge, UsageKind, UsageRow
from vivavoce.telemetry.metering import Metering, charges_on
from vivavoce.telemetry.rating import DEFAULT_CONTEXT, Rated

METERING = web.AppKey("metering", Metering)
EXPECTED_OUTPUT = 1_000
"""Tokens that must be free in the budget before a request begins; what it uses beyond them is
booked, too."""
_KEPT_BYTES = 16 * 1024
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


class RequestMeter:
    """Collects the usage of a request. Without metering nothing is booked."""

    def __init__(self, service: Metering | None) -> None:
        self._service = service
        self._rater = None if service is None else service.rater
        self._used: list[tuple[UsageKind, str, Rated]] = []

    def speech(self, model: str, characters: int, ms: int) -> None:
        """A text was spoken by a configured model."""
        if (rater := self._rater) is not None:
            rated = rater.spoken(rater.tariff(model), characters, ms, self._now)
            self._used.append(("speech", model, rated))

    def transcription(self, model: str, ms: int) -> None:
        """Audio was recognised by a configured model."""
        if (rater := self._rater) is not None:
            tariff = rater.tariff(model)
            rated = rater.recognised(tariff.stt, ms, self._now, tariff.percent)
            self._used.append(("transcription", model, rated))

    def analysis(self, model: str, ms: int) -> None:
        """Audio was analysed by engines of a configured model, which run here."""
        if self._service is not None:
            rated = Rated(Quantities(audio_ms=ms), 0, "")
            self._used.append(("analysis", model, rated))

    def completion(
        self, model: str, used: Quantities, *, asked: str = "", estimated: bool = False
    ) -> None:
        """A configured model answered a chat completion.

        asked: another model of its endpoint, if one was requested.
        """
        if (rater := self._rater) is not None:
            rated = rater.completed(model, used, self._now, asked)
            if estimated and not rated.problem:
                rated = rated._replace(problem="not_reported")
            self._used.append(("completion", model, rated))

    @property
    def _now(self) -> float:
        assert self._service is not None
        return self._service.wall_clock()

    def rows(self, owner: Owner, at: float) -> list[UsageRow]:
        """The rows of a request that ends."""
        id_, service = f"req_{secrets.token_hex(12)}", self._service
        assert service is not None
        return [
            rated.row(f"{id_}:{number}", kind, model, owner, at)
            for number, (kind, model, rated) in enumerate(self._used)
        ]


def check_model(
    request: web.Request, asked: str, model: str, *, served: str | None = None, own: str = ""
) -> None:
    """Raise InvalidRequest for a model that the key of the request does not allow.

    asked: the name that the client gives; model: the configured one that serves it; served, own:
    the engine for that name, and that of the configured model, where these are known.
    """
    service = request.app.get(METERING)
    allowed = service.directory.models_of(request.get(WHO, "")) if service else None
    if allowed is not None and not allowed & {asked, served}:
        rules = Rules(models=allowed)
        rules.check_served(asked, served, own, "model")
        rules.check_model(model)


@asynccontextmanager
async def metered(request: web.Request, model: str) -> AsyncGenerator[RequestMeter]:
    """The meter of a request, which books when the block ends, however it ends.

    Raises QuotaExceeded, Unauthorized and StoreError before the block. model: a configured one.
    """
    service = request.app.get(METERING)
    meter = RequestMeter(service)
    if service is None:
        yield meter
        return
    now = service.wall_clock()
    owner = service.admit(request.get(WHO, ""))
    budgets = service.directory.budgets_of(owner)
    charges = _expected(service, owner, budgets, model, now)
    held = await service.reserve(charges, opens=True) if charges else ""
    try:
        yield meter
    finally:
        jobs, rows = service.booking.jobs(), meter.rows(owner, service.wall_clock())

        async def book() -> None:
            for row in rows:
                used = msgspec.convert(row.used, Quantities)
                amounts: dict[Unit, int] = {"usd": row.nano_usd, "tokens": used.tokens}
                await service.settle(row, charges_on(budgets, amounts, now))
            if held:
                await service.release(held)

        jobs.add(book)


def _expected(
    service: Metering, owner: Owner, budgets: tuple[Budget, ...], model: str, now: float
) -> tuple[Charge, ...]:
    """The amounts that must be free for a request to begin: a place among those of its key, and
    some money."""
    nano = service.rater.bound(model, DEFAULT_CONTEXT, EXPECTED_OUTPUT, now)
    charges = charges_on(budgets, {"usd": max(1, nano), "tokens": 1}, now)
    record = service.directory.keys.get(owner.key)
    if record is not None and record.max_requests:
        seat = Charge(f"requests:{record.name}", AT_ONCE, 1, record.max_requests)
        charges = (*charges, seat)
    return charges


class CompletionTap:
    """Finds the usage in an answer of a chat endpoint that is passed on as it comes."""

    def __init__(self) -> None:
        self._tail = b""
        self._chunks = 0

    def feed(self, part: bytes) -> None:
        self._tail = (self._tail + part)[-_KEPT_BYTES:]
        self._chunks += part.count(b"data:")

    def used(self, request: bytes) -> tuple[Quantities, bool]:
        """What was used, and whether that is an estimate: the endpoint has not said it.

        request: the body that it was sent. A streamed answer has about one token a chunk.
        """
        for found in reversed(_USAGE.findall(self._tail)):
            try:
                usage = msgspec.json.decode(found, type=_Usage)
            except msgspec.MsgspecError:
                continue
            cached = (usage.prompt_tokens_details or {}).get("cached_tokens") or 0
            return chat_quantities(usage.prompt_tokens, cached, usage.completion_tokens), False
        written = self._chunks or estimate(self._tail.decode(errors="replace"))
        return chat_quantities(len(request) // 4, 0, written), True


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None


def chat_quantities(read: int, cached: int, written: int) -> Quantities:
    """Tokens of a chat completion."""
    read, written = max(0, read), max(0, written)
    return Quantities(text_input=read, text_cached=max(0, min(cached, read)), text_output=written)
