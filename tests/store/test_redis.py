"""What the library of Redis does to cancelled tasks."""

import asyncio

import pytest

from vivavoce.store.redis import cancellable
from vivavoce.testing.virtual_time import run


async def loses_a_cancellation(answered: list[str]) -> str:
    """As asyncio.wait_for() in Python 3.11 does, where the answer has come meanwhile."""
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        answered.append("meanwhile")
    return "answer"


def test_cancellation_that_the_library_loses_is_raised() -> None:
    answered: list[str] = []

    async def main() -> None:
        calling = asyncio.create_task(cancellable(loses_a_cancellation(answered)))
        await asyncio.sleep(0.5)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert answered == ["meanwhile"]

    run(main())


def test_command_in_a_task_that_is_being_cancelled_is_answered() -> None:
    answers = []

    async def leaving() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            answers.append(await cancellable(asyncio.sleep(1, "answer")))

    async def main() -> None:
        task = asyncio.create_task(leaving())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert answers == ["answer"]

    run(main())
