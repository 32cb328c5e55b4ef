"""When the objects of the process are visited for garbage."""

import asyncio
import gc
from collections.abc import Callable

import pytest

from vivavoce.runtime.full_collections import (
    BUSY_YOUNGER,
    FEWEST_ENDED,
    IDLE_YOUNGER,
    LOOK_S,
    FullCollections,
)
from vivavoce.testing.virtual_time import run


class Process:
    """Its sessions, and what the collector has done."""

    def __init__(self) -> None:
        self.open = self.ended = self.younger = 0
        self.collected: list[float] = []

    def __len__(self) -> int:
        return self.open

    def collect(self) -> None:
        self.younger = 0
        self.collected.append(asyncio.get_running_loop().time())


def collected(*steps: Callable[[Process], None]) -> list[int]:
    """How many full collections there were after each of these steps, LOOK_S after it."""

    async def main() -> list[int]:
        process = Process()
        counts = []
        async with FullCollections(
            process, collect=process.collect, younger=lambda: process.younger
        ):
            for step in steps:
                step(process)
                await asyncio.sleep(LOOK_S + 0.1)
                counts.append(len(process.collected))
        await asyncio.sleep(10 * LOOK_S)
        assert len(process.collected) == counts[-1]
        return counts

    return run(main())


def a_change(*, opened: int = 0, ended: int = 0, younger: int = 0) -> Callable[[Process], None]:
    def step(process: Process) -> None:
        process.open += opened - ended
        process.ended += ended
        process.younger += younger

    return step


def test_nothing_is_visited_while_sessions_begin() -> None:
    steps = [a_change(opened=100, younger=40)] * 10
    assert collected(*steps) == [0] * 10


def test_all_is_visited_when_the_last_session_has_ended_and_then_no_more() -> None:
    assert collected(a_change(opened=2), a_change(ended=1), a_change(ended=1), a_change()) == [
        *(0, 0, 1, 1)
    ]


def test_all_is_visited_when_twice_as_many_sessions_have_ended_as_are_open() -> None:
    steps = [a_change(opened=600), a_change(ended=399), a_change(ended=1), a_change(ended=40)]
    assert collected(*steps) == [0, 0, 1, 1]


def test_with_few_open_sessions_some_must_have_ended() -> None:
    replaced = a_change(opened=FEWEST_ENDED - 1, ended=FEWEST_ENDED - 1)
    one_more = a_change(opened=1, ended=1)
    assert collected(a_change(opened=3), replaced, one_more, one_more) == [0, 0, 1, 1]


@pytest.mark.parametrize(("opened", "limit"), [(0, IDLE_YOUNGER), (1, BUSY_YOUNGER)])
def test_all_is_visited_when_many_objects_have_become_old(opened: int, limit: int) -> None:
    steps = [a_change(opened=opened), a_change(younger=limit - 1), a_change(younger=1), a_change()]
    assert collected(*steps) == [0, 0, 1, 1]


def test_full_collections_of_the_interpreter_are_off_and_on_again() -> None:
    async def main() -> tuple[int, ...]:
        async with FullCollections(Process()):
            return gc.get_threshold()

    before = gc.get_threshold()
    first, second, full = run(main())
    assert ((first, second), full > 1_000_000) == (before[:2], True)
    assert gc.get_threshold() == before
