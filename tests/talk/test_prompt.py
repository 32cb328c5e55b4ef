import asyncio
import os
from collections.abc import Iterator

import pytest

from vivavoce.talk.prompt import Prompt


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    os.close(ends[0])


def test_lines_are_read_one_by_one_to_the_end(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b" hello \n\nhow are you\nlast")
    os.close(pipe[1])

    async def main() -> list[str | None]:
        prompt = Prompt(pipe[0])
        return [await prompt.line() for _ in range(6)]

    assert asyncio.run(main()) == ["hello", "", "how are you", "last", None, None]


def test_a_line_that_was_waited_for_in_vain_is_not_lost(pipe: tuple[int, int]) -> None:
    async def main() -> str | None:
        prompt = Prompt(pipe[0])
        waiting = asyncio.ensure_future(prompt.line())
        os.write(pipe[1], b"hel")
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        os.write(pipe[1], b"lo\n")
        os.close(pipe[1])
        return await prompt.line()

    assert asyncio.run(main()) == "hello"
