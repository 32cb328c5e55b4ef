import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from vivavoce.errors import EngineError, LimitReached
from vivavoce.runtime.concurrency import WorkSlots, in_thread, prefetched, task_group
from vivavoce.testing.virtual_time import run


class Numbers:
    """Counts to five, and how far it came; it may break off on the way."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.made = 0
        self.closed = False

    async def __call__(self) -> AsyncGenerator[int]:
        try:
            for number in range(5):
                if number == 3 and self._error is not None:
                    raise self._error
                self.made += 1
                yield number
        finally:
            self.closed = True


async def all_of(numbers: Numbers) -> list[int]:
    async with prefetched(numbers(), 2) as pieces:
        return [number async for number in pieces]


def test_prefetched_stream_comes_in_order() -> None:
    assert run(all_of(Numbers())) == [0, 1, 2, 3, 4]


def test_prefetched_stream_is_made_ahead_by_a_bounded_number() -> None:
    numbers = Numbers()

    async def main() -> list[int]:
        async with prefetched(numbers(), 2) as pieces:
            made = []
            for _ in range(2):
                await asyncio.sleep(1)
                made.append(numbers.made)
                await anext(pieces)
            return made

    assert run(main()) == [3, 4]  # two wait, and one more is made


@pytest.mark.parametrize("error", [EngineError("it broke"), ZeroDivisionError()])
def test_prefetched_error_comes_after_the_pieces_before_it(error: Exception) -> None:
    made = []

    async def main() -> None:
        async with prefetched(Numbers(error)(), 10) as pieces:
            async for number in pieces:
                made.append(number)

    with pytest.raises(type(error)):
        run(main())
    assert made == [0, 1, 2]


def test_leaving_closes_the_prefetched_stream() -> None:
    numbers = Numbers()

    async def main() -> int:
        async with prefetched(numbers(), 2) as pieces:
            return await anext(pieces)

    assert run(main()) == 0
    assert numbers.closed


def test_in_thread_returns_and_raises_what_the_work_does() -> None:
    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await in_thread(divmod, 1, 0)
        return await in_thread(int, "12", base=8)

    assert asyncio.run(main()) == 10


@pytest.mark.parametrize("fails", [False, True])
def test_cancelled_in_thread_waits_until_the_thread_is_done(fails: bool) -> None:
    begun, may_end = threading.Event(), threading.Event()
    done = []

    def work() -> None:
        begun.set()
        may_end.wait(5)
        done.append(True)
        if fails:
            raise ValueError

    async def main() -> bool:
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        await asyncio.wait((task,), timeout=0)
        still_waiting = not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return still_waiting

    assert asyncio.run(main())
    assert done == [True]


def test_task_group_raises_the_first_error_by_itself() -> None:
    async def fail() -> None:
        raise EngineError("it broke")

    async def main() -> None:
        async with task_group() as tasks:
            tasks.create_task(asyncio.sleep(60))
            async with task_group() as inner:
                inner.create_task(fail())

    with pytest.raises(EngineError, match="it broke"):
        run(main())


def test_work_slots_bound_what_runs_and_what_waits() -> None:
    async def main() -> None:
        slots, running, peak = WorkSlots(2, 3, "files"), 0, 0

        async def work() -> None:
            nonlocal running, peak
            async with slots.one():
                running += 1
                peak = max(peak, running)
                await asyncio.sleep(1)
                running -= 1

        jobs = [asyncio.create_task(work()) for _ in range(5)]
        await asyncio.sleep(0.5)
        with pytest.raises(LimitReached, match=r"^too many files are being worked on"):
            await work()
        jobs[-1].cancel()  # a cancelled waiting job frees its slot
        await asyncio.wait((jobs[-1],))
        await work()
        assert (peak, running) == (2, 0)

    run(main())
