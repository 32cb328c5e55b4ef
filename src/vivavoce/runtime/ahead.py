"""A stream that is made ahead of whoever takes it, by so much and no more."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    """Of a stream, and why it broke off if it did."""

    error: Exception | None = None


@asynccontextmanager
async def ahead(stream: AsyncGenerator[T], most: int) -> AsyncGenerator[AsyncGenerator[T]]:
    """The same stream, of which `most` pieces are made before they are asked for.

    What it raises comes after the pieces before it. Leaving closes the stream.
    """
    queue: asyncio.Queue[T | _End] = asyncio.Queue(most)
    making = asyncio.create_task(_make(stream, queue))
    try:
        async with aclosing(_taken(queue)) as taken:
            yield taken
    finally:
        making.cancel()
        await asyncio.wait((making,))


async def _make(stream: AsyncGenerator[T], queue: asyncio.Queue[T | _End]) -> None:
    end = _End()
    try:
        async with aclosing(stream):
            async for one in stream:
                await queue.put(one)
    except Exception as exc:  # noqa: BLE001  raised again, by _taken()
        end = _End(exc)
    await queue.put(end)


async def _taken(queue: asyncio.Queue[T | _End]) -> AsyncGenerator[T]:
    while True:
        one = await queue.get()
        if isinstance(one, _End):
            break
        yield one
    if one.error is not None:
        raise one.error
