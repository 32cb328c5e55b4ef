"""What was booked of a day beside what the provider has billed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from tests.server import HOST
from vivavoce.accounting import billed_by
from vivavoce.errors import EngineError
from vivavoce.limits.prices import NANO
from vivavoce.store.base import UsageRow
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.telemetry.rating import PriceRef, Tariff
from vivavoce.telemetry.spend import SpendComparison, SpendSettings

DAY = 1_790_985_600  # midnight, UTC
NOW = DAY + 86_400 + 7 * 3_600.0
BILLED = {"object": "page", "data": [{"results": [{"amount": {"value": 1.5, "currency": "usd"}}]}]}


class CostReport:
    """OpenAI's, as far as it is asked."""

    def __init__(self, body: Any = BILLED, status: int = 200) -> None:
        self.body = body
        self.status = status
        self.asked: list[web.Request] = []
        self.was_asked = asyncio.Event()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/v1/organization/costs", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            yield f"http://{HOST}:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        self.was_asked.set()
        return web.json_response(self.body, status=self.status)


async def compared(report: CostReport, *, project: str = "") -> tuple[float | None, float | None]:
    """The ratio that is returned, and the one that is measured."""
    registry = CollectorRegistry()
    gauge = Gauge("ratio", "", ["provider"], registry=registry)
    async with report.serve() as url, SQLiteStore(":memory:") as store:
        for number, (at, model, usd) in enumerate(
            (
                (DAY, "far", 1),
                (DAY + 86_399, "far", 0.2),
                (DAY + 5, "local", 9),
                (DAY - 1, "far", 9),
            )
        ):
            row = UsageRow(
                id=str(number), at=at, kind="response", model=model, nano_usd=int(usd * NANO)
            )
            await store.book((row,))
        settings = SpendSettings("sk-admin-1", project, url)
        comparison = SpendComparison(settings, store.usage, lambda: {"far"}, gauge, lambda: NOW)
        ratio = await comparison.compare()
    return ratio, registry.get_sample_value("ratio", {"provider": "openai"})


def test_money_booked_of_the_last_whole_day_is_divided_by_what_was_billed() -> None:
    report = CostReport()
    assert asyncio.run(compared(report, project="proj_1")) == (0.8, 0.8)
    (request,) = report.asked
    assert request.headers["Authorization"] == "Bearer sk-admin-1"
    assert request.query["start_time"] == str(DAY)
    assert request.query["end_time"] == str(DAY + 86_400)
    assert request.query["project_ids"] == "proj_1"


def test_day_without_costs_has_no_ratio() -> None:
    assert asyncio.run(compared(CostReport({"data": [{"results": []}]}))) == (None, None)


@pytest.mark.parametrize(("body", "status"), [({"data": 5}, 200), ({}, 401)])
def test_report_that_cannot_be_read_is_an_error_without_the_key(body: Any, status: int) -> None:
    with pytest.raises(EngineError) as caught:
        asyncio.run(compared(CostReport(body, status)))
    assert "sk-admin-1" not in str(caught.value)


def test_comparison_runs_where_there_is_a_key() -> None:
    async def main() -> None:
        report = CostReport()
        async with report.serve() as url, SQLiteStore(":memory:") as store:
            gauge = Gauge("ratio", "", ["provider"], registry=CollectorRegistry())
            for key in ("", "sk-admin-1"):
                settings = SpendSettings(key, "", url)
                async with SpendComparison(
                    settings, store.usage, set, gauge, lambda: NOW
                ) as comparison:
                    assert (comparison._task is not None) == bool(key)
                    if key:
                        await report.was_asked.wait()
        assert len(report.asked) == 1

    asyncio.run(main())


def test_models_of_which_one_provider_is_paid_for_everything_are_compared() -> None:
    openai, other = PriceRef("a", "openai"), PriceRef("b", "groq")
    tariffs = {
        "relay": Tariff("relay", openai),
        "mixed": Tariff("local", openai, other),
        "cascade": Tariff("local", openai, openai, openai),
        "free": Tariff(),
    }
    assert billed_by("openai", tariffs) == {"relay", "cascade"}
