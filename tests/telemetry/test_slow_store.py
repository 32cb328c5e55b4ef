"""Sessions with budgets whose store is slow, in virtual time."""

import asyncio
from functools import partial
from typing import cast

from tests.store.line import InlineSQLite, Line
from tests.telemetry.test_metering import USED, Stage, answer
from vivavoce.limits.prices import NANO
from vivavoce.store.base import AccountStore
from vivavoce.testing.virtual_time import run


def test_session_whose_store_is_slow_before_an_allowance_is_drawn_goes_on() -> None:
    async def main() -> None:
        async with InlineSQLite(":memory:") as store:
            line = Line(store)
            async with Stage(cast(AccountStore, line)) as stage:
                budget = await stage.budget("key", "usd", NANO, period="day")
                meter = stage.meter()
                await meter.enter()
                line.delay = partial(asyncio.sleep, 1.5)  # and as long on the way back
                for count in range(3):
                    answer(meter, f"r{count}")
                    await stage.settled()
                meter.leave()
                await stage.settled()
                line.delay = None
                await stage.service.store.try_again()
                assert stage.posted == []
                assert (await stage.balance(budget)).spent == 3 * USED

    run(main())
