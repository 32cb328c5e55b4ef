"""What a stream gives, and when, on the loop's clock."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def timed(stream: AsyncGenerator[T]) -> list[tuple[float, T]]:
    """Each thing with the second at which it came."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with aclosing(stream):
        return [(round(loop.time() - start, 6), thing) async for thing in stream]


async def until_error(stream: AsyncGenerator[T], patience_seconds: float) -> tuple[list[T], str]:
    """All that comes, and the name of the error that ends it: TimeoutError if nothing more does."""
    got: list[T] = []
    try:
        async with asyncio.timeout(patience_seconds), aclosing(stream):
            async for thing in stream:
                got.append(thing)
    except Exception as exc:  # noqa: BLE001 - it is the result
        return got, type(exc).__name__
    return got, ""
