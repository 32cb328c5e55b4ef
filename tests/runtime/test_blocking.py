import asyncio
import threading

import pytest

from vivavoce.runtime.blocking import blocking


def test_it_returns_and_raises_what_the_work_does() -> None:
    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await blocking(divmod, 1, 0)
        return await blocking(int, "12", base=8)

    assert asyncio.run(main()) == 10


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_gives_up_waits_until_the_thread_is_done(fails: bool) -> None:
    begun, may_end = threading.Event(), threading.Event()
    done = []

    def work() -> None:
        begun.set()
        may_end.wait(5)
        done.append(True)
        if fails:
            raise ValueError

    async def main() -> bool:
        task = asyncio.create_task(blocking(work))
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
