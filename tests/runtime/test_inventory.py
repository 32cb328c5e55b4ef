"""Pulls of model packs: one at a time, followed by several, ended at shutdown."""

import asyncio
from typing import cast

import pytest

from vivavoce.errors import EngineError
from vivavoce.runtime.inventory import Inventory, Progress, Pull, Pulls, Report
from vivavoce.testing import run


class Shelf:
    """Fetches in steps that the test allows."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.ended = 0
        self.steps: asyncio.Queue[int | None] = asyncio.Queue()

    async def fetch(self, name: str, report: Report) -> None:
        self.fetched.append(name)
        try:
            while (done := await self.steps.get()) is not None:
                if done < 0:
                    raise EngineError("the disk is full")
                report("downloading", done, 10)
            report("installed", 10, 10)
        finally:
            self.ended += 1


def begin(pulls: Pulls, shelf: Shelf) -> Pull:
    return pulls.start("tiny", cast(Inventory, shelf))


async def followed(pull: Pull) -> list[Progress]:
    return [progress async for progress in pull.follow()]


def test_second_pull_of_a_pack_follows_the_first() -> None:
    async def main() -> None:
        pulls, shelf = Pulls(), Shelf()
        first = asyncio.create_task(followed(begin(pulls, shelf)))
        shelf.steps.put_nowait(3)
        await asyncio.sleep(0.01)
        second = asyncio.create_task(followed(begin(pulls, shelf)))
        assert "tiny" in pulls
        shelf.steps.put_nowait(None)
        end = Progress("installed", 10, 10)
        assert await first == [
            Progress("downloading", 0, 0),
            Progress("downloading", 3, 10),
            end,
        ]
        assert await second == [Progress("downloading", 3, 10), end]
        assert shelf.fetched == ["tiny"]
        assert "tiny" not in pulls

    run(main())


def test_failed_pull_raises_in_all_who_follow_and_can_be_begun_again() -> None:
    async def main() -> None:
        pulls, shelf = Pulls(), Shelf()
        both = [asyncio.create_task(followed(begin(pulls, shelf))) for _ in range(2)]
        shelf.steps.put_nowait(-1)
        for task in both:
            with pytest.raises(EngineError, match="the disk is full"):
                await task
        shelf.steps.put_nowait(None)
        assert (await followed(begin(pulls, shelf)))[-1].state == "installed"
        assert shelf.fetched == ["tiny", "tiny"]

    run(main())


def test_close_ends_pulls_and_those_who_follow_them() -> None:
    async def main() -> None:
        pulls, shelf = Pulls(), Shelf()
        following = asyncio.create_task(followed(begin(pulls, shelf)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await pulls.close()
        with pytest.raises(EngineError, match="shutting down"):
            await following
        assert shelf.ended == 1

    run(main())
