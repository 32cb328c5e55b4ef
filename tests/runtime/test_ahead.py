import asyncio
from collections.abc import AsyncGenerator

import pytest

from vivavoce.errors import EngineError
from vivavoce.runtime.ahead import ahead
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
    async with ahead(numbers(), 2) as pieces:
        return [number async for number in pieces]


def test_all_of_it_comes_in_order() -> None:
    assert run(all_of(Numbers())) == [0, 1, 2, 3, 4]


def test_so_much_is_made_before_it_is_asked_for_and_no_more() -> None:
    numbers = Numbers()

    async def main() -> list[int]:
        async with ahead(numbers(), 2) as pieces:
            made = []
            for _ in range(2):
                await asyncio.sleep(1)
                made.append(numbers.made)
                await anext(pieces)
            return made

    assert run(main()) == [3, 4]  # two wait, and one more is at the door


@pytest.mark.parametrize("error", [EngineError("it broke"), ZeroDivisionError()])
def test_what_goes_wrong_comes_after_what_was_made(error: Exception) -> None:
    heard = []

    async def main() -> None:
        async with ahead(Numbers(error)(), 10) as pieces:
            async for number in pieces:
                heard.append(number)

    with pytest.raises(type(error)):
        run(main())
    assert heard == [0, 1, 2]


def test_leaving_closes_the_stream() -> None:
    numbers = Numbers()

    async def main() -> int:
        async with ahead(numbers(), 2) as pieces:
            return await anext(pieces)

    assert run(main()) == 0
    assert numbers.closed
