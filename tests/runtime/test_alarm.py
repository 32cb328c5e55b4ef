"""A deadline that moves rings once, and at its time."""

import asyncio

from tests.virtual_time import run
from vivavoce.runtime.tasks import Alarm


async def rung(*moves: tuple[float, float]) -> list[float]:
    """When an alarm rings that is set to b at time a, for each (a, b)."""
    loop, times = asyncio.get_running_loop(), list[float]()
    alarm = Alarm(lambda: times.append(loop.time()))
    for at, deadline in moves:
        await asyncio.sleep(at - loop.time())
        alarm.set(deadline)
    await asyncio.sleep(1000)
    return times


def test_it_rings_once_at_its_deadline() -> None:
    assert run(rung((0, 5))) == [5]


def test_a_deadline_may_come_nearer_or_move_away() -> None:
    assert run(rung((0, 50), (1, 5))) == [5]
    assert run(rung((0, 5), (1, 50))) == [50]
    assert run(rung((0, 5), (1, 50), (2, 40), (3, 60))) == [60]


def test_a_deadline_that_has_passed_rings_at_once() -> None:
    assert run(rung((3, 1))) == [3]


def test_it_can_be_set_again_after_it_rang() -> None:
    assert run(rung((0, 5), (7, 9))) == [5, 9]


def test_an_alarm_that_is_off_stays_silent() -> None:
    async def main() -> list[str]:
        rings: list[str] = []
        alarm = Alarm(lambda: rings.append("ring"))
        alarm.set(2)
        await asyncio.sleep(1)
        alarm.off()
        await asyncio.sleep(5)
        return rings

    assert run(main()) == []
