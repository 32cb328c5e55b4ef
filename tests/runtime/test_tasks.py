"""The timer of a session, and its tasks by key."""

import asyncio
from dataclasses import dataclass, field

import pytest

from vivavoce.runtime.tasks import Signal, Tasks, Timer
from vivavoce.testing.virtual_time import run


async def fired(*moves: tuple[float, float]) -> list[float]:
    """When a timer fires that is set to b at time a, for each (a, b)."""
    loop, times = asyncio.get_running_loop(), list[float]()
    timer = Timer(lambda: times.append(loop.time()))
    for at, deadline in moves:
        await asyncio.sleep(at - loop.time())
        timer.set(deadline)
    await asyncio.sleep(1000)
    return times


@pytest.mark.parametrize(
    ("moves", "times"),
    [
        ([(0, 5)], [5]),
        ([(0, 50), (1, 5)], [5]),
        ([(0, 5), (1, 50)], [50]),
        ([(0, 5), (1, 50), (2, 40), (3, 60)], [60]),
        ([(3, 1)], [3]),
        ([(0, 5), (7, 9)], [5, 9]),
    ],
)
def test_timer_fires_once_at_the_deadline_set_last(
    moves: list[tuple[float, float]], times: list[float]
) -> None:
    assert run(fired(*moves)) == times


def test_a_deadline_that_has_come_may_be_set_again_under_uvloop() -> None:
    """Its handle for a time that has come is none of a timer, and does not say when."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        loop, rung = asyncio.get_running_loop(), asyncio.Event()
        timer = Timer(rung.set)
        timer.set(loop.time())
        timer.set(loop.time() - 1)
        timer.set(loop.time())
        await rung.wait()

    uvloop.run(main())


def test_cancelled_timer_never_fires_and_keeps_no_callback() -> None:
    class Owner:
        count = 0

        def fire(self) -> None:
            self.count += 1

    async def main() -> tuple[int, object]:
        owner = Owner()
        timer = Timer(owner.fire)
        timer.set(2)
        await asyncio.sleep(1)
        timer.cancel()
        await asyncio.sleep(5)
        timer.set(7)
        await asyncio.sleep(5)
        return owner.count, timer._call

    assert run(main()) == (0, None)


@dataclass
class Log:
    lines: list[str] = field(default_factory=list)
    ended: int = 0

    def tasks(self, group: asyncio.TaskGroup) -> Tasks:
        def over() -> None:
            self.ended += 1

        return Tasks(group, lambda exc: self.lines.append(repr(exc)), over)

    async def work(self, name: str, seconds: float = 100.0, cleanup: float = 0.0) -> None:
        try:
            await asyncio.sleep(seconds)
            self.lines.append(f"{name} done")
        except asyncio.CancelledError:
            await asyncio.sleep(cleanup)
            self.lines.append(f"{name} cancelled")
            raise


def test_cancel_all_cancels_every_task_and_the_group_waits_for_them() -> None:
    async def main() -> tuple[list[str], float]:
        log = Log()
        async with asyncio.TaskGroup() as group:
            tasks = log.tasks(group)
            tasks.start("a", log.work("a", cleanup=3))
            tasks.start("b", log.work("b", seconds=1))
            await asyncio.sleep(2)
            assert (len(tasks), log.ended) == (1, 1)
            tasks.cancel_all()
        return log.lines, asyncio.get_running_loop().time()

    assert run(main()) == (["b done", "a cancelled"], 5.0)


def test_cancel_ends_one_task_and_leaves_the_others() -> None:
    async def main() -> list[str]:
        log = Log()
        async with asyncio.TaskGroup() as group:
            tasks = log.tasks(group)
            tasks.start("a", log.work("a"))
            tasks.start("b", log.work("b", seconds=1))
            await asyncio.sleep(0.5)
            tasks.cancel("a")
            tasks.cancel("nobody")
            assert log.ended == 1
        return log.lines

    assert run(main()) == ["a cancelled", "b done"]


def test_start_with_a_key_in_use_replaces_that_task() -> None:
    async def main() -> list[str]:
        log = Log()
        async with asyncio.TaskGroup() as group:
            tasks = log.tasks(group)
            tasks.start("a", log.work("first", cleanup=1))
            await asyncio.sleep(1)
            tasks.start("a", log.work("second", seconds=3))
            await asyncio.sleep(2)
            assert len(tasks) == 1  # the end of the first is not taken for that of the second
        return log.lines

    assert run(main()) == ["first cancelled", "second done"]


def test_task_cancelled_before_it_began_never_runs() -> None:
    async def main() -> list[str]:
        log = Log()
        async with asyncio.TaskGroup() as group:
            tasks = log.tasks(group)
            tasks.start("a", log.work("a"))
            tasks.cancel("a")
        return log.lines

    assert run(main()) == []


def test_exception_in_a_task_is_reported_and_others_go_on() -> None:
    async def broken() -> None:
        raise KeyError("a bug")

    async def main() -> list[str]:
        log = Log()
        async with asyncio.TaskGroup() as group:
            tasks = log.tasks(group)
            tasks.start("a", broken())
            tasks.start("b", log.work("b", seconds=1))
        return log.lines

    assert run(main()) == ["KeyError('a bug')", "b done"]


def test_signal_wakes_all_that_wait_until_it_is_cleared() -> None:
    async def scenario() -> list[str]:
        signal, woken = Signal(), list[str]()

        async def wait(name: str) -> None:
            await signal.wait()
            woken.append(name)

        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(wait("first")), group.create_task(wait("second"))
            cancelled = group.create_task(wait("cancelled"))
            await asyncio.sleep(0)
            cancelled.cancel()
            signal.set()
            signal.set()
            await asyncio.gather(first, second)
            assert signal.is_set
            await wait("third")
            signal.clear()
            late = group.create_task(wait("late"))
            await asyncio.sleep(0)
            assert woken == ["first", "second", "third"]
            signal.set()
            await late
        return woken

    assert run(scenario()) == ["first", "second", "third", "late"]
