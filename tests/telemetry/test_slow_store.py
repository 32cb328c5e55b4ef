"""Sessions with budgets whose store is slow, in virtual time."""

import asyncio
from functools import partial
from typing import cast

import pytest

from tests.store.line import InlineSQLite, Line
from tests.telemetry.test_metering import USED, Stage, answer
from vivavoce.errors import StoreError
from vivavoce.limits.prices import NANO
from vivavoce.store.base import AccountStore
from vivavoce.store.buffered import ANSWER_TIMEOUT_S
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


def test_client_that_comes_back_does_not_wait_in_silence_for_a_store_that_hangs() -> None:
    async def main() -> None:
        async with InlineSQLite(":memory:") as store:
            line = Line(store)
            async with Stage(cast(AccountStore, line)) as stage:
                await stage.budget("key", "usd", NANO, period="day")
                line.hangs = True
                again = stage.meter()
                again.serving = "a1"
                clock = asyncio.get_running_loop().time
                began = clock()
                with pytest.raises(StoreError, match="the allowance of key:k:usd:day is used up"):
                    await again.enter()
                assert clock() - began == pytest.approx(ANSWER_TIMEOUT_S)
                line.hangs = False
                await stage.service.store.try_again()

    run(main())
