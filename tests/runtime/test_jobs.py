"""Tasks of a session: dropped by name, awaited in the end, and never a danger to each other."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from vivavoce.runtime.jobs import Jobs
from vivavoce.runtime.transcription import AudioFeed
from vivavoce.testing.virtual_time import run


@dataclass
class Log:
    lines: list[str] = field(default_factory=list)
    ended: int = 0

    def jobs(self) -> Jobs:
        def over() -> None:
            self.ended += 1

        return Jobs(lambda exc: self.lines.append(repr(exc)), over)

    async def work(self, name: str, seconds: float = 100.0, goodbye: float = 0.0) -> None:
        try:
            await asyncio.sleep(seconds)
            self.lines.append(f"{name} done")
        except asyncio.CancelledError:
            await asyncio.sleep(goodbye)
            self.lines.append(f"{name} dropped")
            raise


def test_leaving_drops_what_runs_and_waits_for_it() -> None:
    async def main() -> tuple[list[str], float]:
        log = Log()
        async with log.jobs() as jobs:
            jobs.start("a", log.work("a", goodbye=3))
            jobs.start("b", log.work("b", seconds=1))
            await asyncio.sleep(2)
            assert (len(jobs), log.ended) == (1, 1)
        return log.lines, asyncio.get_running_loop().time()

    assert run(main()) == (["b done", "a dropped"], 5.0)


def test_a_job_is_dropped_by_its_name_and_others_go_on() -> None:
    async def main() -> list[str]:
        log = Log()
        async with log.jobs() as jobs:
            jobs.start("a", log.work("a"))
            jobs.start("b", log.work("b", seconds=1))
            await asyncio.sleep(0.5)
            jobs.drop("a")
            jobs.drop("nobody")
            assert log.ended == 1
            await asyncio.sleep(5)
        return log.lines

    assert run(main()) == ["a dropped", "b done"]


def test_a_job_of_the_same_name_takes_the_place_of_the_first() -> None:
    async def main() -> list[str]:
        log = Log()
        async with log.jobs() as jobs:
            jobs.start("a", log.work("first", goodbye=1))
            await asyncio.sleep(1)
            jobs.start("a", log.work("second", seconds=3))
            await asyncio.sleep(2)
            assert len(jobs) == 1  # the end of the first one is not taken for that of the second
            await asyncio.sleep(5)
        return log.lines

    assert run(main()) == ["first dropped", "second done"]


def test_a_job_dropped_before_it_began_never_begins() -> None:
    async def main() -> list[str]:
        log = Log()
        async with log.jobs() as jobs:
            jobs.start("a", log.work("a"))
            jobs.drop("a")
        return log.lines

    assert run(main()) == []


def test_a_bug_in_one_job_is_told_and_leaves_the_others_alone() -> None:
    async def broken() -> None:
        raise KeyError("a bug")

    async def main() -> list[str]:
        log = Log()
        async with log.jobs() as jobs:
            jobs.start("a", broken())
            jobs.start("b", log.work("b", seconds=1))
            await asyncio.sleep(2)
        return log.lines

    assert run(main()) == ["KeyError('a bug')", "b done"]


def test_when_whoever_waits_is_cancelled_the_jobs_are_too() -> None:
    async def main() -> list[str]:
        log = Log()

        async def inside() -> None:
            async with log.jobs() as jobs:
                jobs.start("a", log.work("a"))
                await asyncio.sleep(1000)

        task = asyncio.create_task(inside())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return log.lines

    assert run(main()) == ["a dropped"]


def test_sound_is_found_by_the_name_of_its_job_while_that_runs() -> None:
    async def listen(sound: AudioFeed) -> None:
        async for _ in sound:
            pass

    def a_sound(taken: Callable[[], None] = lambda: None) -> AudioFeed:
        return AudioFeed(24_000, taken)

    async def main() -> None:
        log = Log()
        async with log.jobs() as jobs:
            first, second = a_sound(), a_sound()
            jobs.start("a", log.work("a"), first)
            jobs.start("b", listen(second), second)
            assert (jobs.sound("a"), jobs.sound("c")) == (first, None)
            first.feed(bytes(100))
            second.feed(bytes(50))
            assert (jobs.waiting_bytes, jobs.unheard()) == (150, ["a", "b"])
            await asyncio.sleep(1)
            assert (jobs.waiting_bytes, jobs.unheard()) == (100, ["a"])
            second.finish()
            await asyncio.sleep(1)
            assert jobs.sound("b") is None

    run(main())
