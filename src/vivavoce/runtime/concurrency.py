"""Streams produced ahead of their use, work in threads, groups of tasks, and slots for limited
work."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import ParamSpec, TypeVar

import msgspec

from vivavoce.errors import LimitReached

P = ParamSpec("P")
T = TypeVar("T")


class _StreamEnd(msgspec.Struct, frozen=True):
    """The end of a stream, and the error that ended it."""

    error: Exception | None = None


@asynccontextmanager
async def prefetched(stream: AsyncGenerator[T], most: int) -> AsyncGenerator[AsyncGenerator[T]]:
    """The same stream, with up to `most` items produced ahead of the consumer.

    An error comes after the pieces before it. Leaving closes the stream.
    """
    queue: asyncio.Queue[T | _StreamEnd] = asyncio.Queue(most)
    making = asyncio.create_task(_fill(stream, queue))
    try:
        async with aclosing(_drain(queue)) as pieces:
            yield pieces
    finally:
        making.cancel()
        await asyncio.wait((making,))


async def _fill(stream: AsyncGenerator[T], queue: asyncio.Queue[T | _StreamEnd]) -> None:
    end = _StreamEnd()
    try:
        async with aclosing(stream):
            async for piece in stream:
                await queue.put(piece)
    except Exception as exc:  # noqa: BLE001  raised again, by _drain()
        end = _StreamEnd(exc)
    await queue.put(end)


async def _drain(queue: asyncio.Queue[T | _StreamEnd]) -> AsyncGenerator[T]:
    while True:
        piece = await queue.get()
        if isinstance(piece, _StreamEnd):
            break
        yield piece
    if piece.error is not None:
        raise piece.error


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking work in a thread; return or raise what it does.

    Cancelling waits until the thread is done with it: a file that a thread still reads must not be
    closed under it.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it
        raise


@asynccontextmanager
async def task_group() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group that raises its first error itself, not in an exception group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


class WorkSlots:
    """At most `running` jobs at a time, and at most `waiting` more that wait for a slot."""

    def __init__(self, running: int, waiting: int, what: str) -> None:
        """what: the jobs, in the error message, such as "recordings"."""
        self._slots = asyncio.Semaphore(running)
        self._waiting = 0
        self._max_waiting = waiting
        self._what = what

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[None]:
        """Hold a slot during the block. Raises LimitReached: too many are waiting."""
        if self._slots.locked() and self._waiting >= self._max_waiting:
            raise LimitReached(f"too many {self._what} are being worked on; try again later")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
