"""Compares what was booked here for a day with what the provider charges for it.

`GET /v1/organization/costs` of OpenAI has sums by day and project, in USD, some hours late; with a
project of its own nothing else is in the number of a server.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Self, TypeAlias

import msgspec

from vivavoce.engines.http import HttpClient, ResponseTimeouts
from vivavoce.engines.remote import RemoteServer, ServerKind
from vivavoce.errors import EngineError, StoreError
from vivavoce.limits.prices import NANO, usd
from vivavoce.secret import Secret, conceal
from vivavoce.store.base import UsageRow

if TYPE_CHECKING:
    from prometheus_client import Gauge

log = logging.getLogger(__name__)

ReadUsage: TypeAlias = Callable[[float, float], AsyncGenerator[list[UsageRow]]]
"""The rows from one Unix time up to another, in pages."""

COMPARE_INTERVAL_S = 3600.0
DELAY = timedelta(hours=6)
"""How long after the end of a day its costs are complete."""
MIN_CAPTURE = 0.95
"""A share of what the provider has billed; if less was booked, that is logged."""
MAX_COSTS_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_KIND = ServerKind("cost report", "the costs of a day", options="[spend] admin_key")
_TIMEOUTS = ResponseTimeouts(first_s=_TIMEOUT_S, gap_s=_TIMEOUT_S)


class SpendSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[spend]: compares what is booked with what the provider has billed, once an hour."""

    admin_key: str = ""
    """An admin key of the organization, sk-admin-…, which reads its costs. Empty: no comparison."""
    project: str = ""
    """The project of this server, proj_…. Empty: the costs of the whole organization."""
    url: str = "https://api.openai.com/v1"
    """Where the costs are read."""

    def __post_init__(self) -> None:
        conceal(self, "admin_key")


class _Amount(msgspec.Struct):
    value: Decimal


class _Result(msgspec.Struct):
    amount: _Amount


class _Bucket(msgspec.Struct):
    results: list[_Result]


class _Costs(msgspec.Struct):
    data: list[_Bucket]


class SpendComparison:
    """Compares the last whole day, UTC, for ever: an async context manager."""

    def __init__(
        self,
        settings: SpendSettings,
        usage: ReadUsage,
        models: Callable[[], Collection[str]],
        ratio: "Gauge",
        wall_clock: Callable[[], float],
    ) -> None:
        """usage: of a store. models: the configured models whose parts are all paid to OpenAI."""
        self._settings = settings
        self._usage = usage
        self._models = models
        self._ratio = ratio
        self._wall_clock = wall_clock
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if Secret(self._settings.admin_key).reveal():
            self._task = asyncio.create_task(self._compare_for_ever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def compare(self) -> float | None:
        """Our sum of the last whole day by that of OpenAI, which is set as the gauge.

        None: it has cost nothing. Raises EngineError, and StoreError.
        """
        begin = _last_day(self._wall_clock())
        since = begin.timestamp()
        billed = await self._billed(int(since))
        if not billed:
            return None
        booked, models = 0, self._models()
        async for page in self._usage(since, since + 86_400):
            booked += sum(row.nano_usd for row in page if row.model in models)
        ratio = booked / billed
        self._ratio.labels("openai").set(ratio)
        if ratio < MIN_CAPTURE:
            log.warning(
                "%s: $%s booked here, $%s billed by OpenAI: is the key used elsewhere?",
                begin.date(),
                usd(booked),
                usd(billed),
            )
        return ratio

    async def _compare_for_ever(self) -> None:
        while True:
            try:
                await self.compare()
            except (EngineError, StoreError) as exc:
                log.warning("[spend] %s", exc)
            await asyncio.sleep(COMPARE_INTERVAL_S)

    async def _billed(self, since: int) -> int:
        """Nano-USD of the day that begins then. Raises EngineError."""
        settings = self._settings
        query = f"start_time={since}&end_time={since + 86_400}&bucket_width=1d&limit=1"
        if settings.project:
            query += f"&project_ids={settings.project}"
        server = RemoteServer(
            f"{settings.url.rstrip('/')}/organization/costs?{query}",
            _KIND,
            api_key=Secret(settings.admin_key).reveal(),
            headers={},
        )
        deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
        async with (
            HttpClient(server, connect_timeout_s=_TIMEOUT_S) as http,
            http.request("GET", "", timeouts=_TIMEOUTS) as response,
        ):
            if response.status != 200:
                raise await response.refusal(_TIMEOUT_S)
            body = await response.read(MAX_COSTS_BYTES, deadline)
        try:
            costs = msgspec.json.decode(body, type=_Costs)
        except msgspec.MsgspecError as exc:
            raise server.unexpected("no costs") from exc
        total = sum(result.amount.value for day in costs.data for result in day.results)
        return round(total * NANO)


def _last_day(now: float) -> datetime:
    """The beginning of the last day whose costs are complete."""
    at = datetime.fromtimestamp(now, UTC) - DELAY
    return datetime(at.year, at.month, at.day, tzinfo=UTC) - timedelta(days=1)
