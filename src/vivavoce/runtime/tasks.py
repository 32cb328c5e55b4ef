"""Timers, flags and named tasks of a session."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable
from types import TracebackType
from typing import Any, Self

from vivavoce.errors import EngineError


class Timer:
    """Calls `fire` at the deadline that was set last. Call cancel() when it is no longer needed."""

    def __init__(self, fire: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = fire
        self._deadline = float("inf")
        self._rings_at = float("inf")  # of the handle, because uvloop's does not have it
        self._handle: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        """Set the deadline. A later one costs nothing: the handle is set again when it fires."""
        self._deadline = deadline
        if self._handle is not None:
            if self._rings_at <= deadline:
                return
            self._handle.cancel()
        self._rings_at = deadline
        self._handle = asyncio.get_running_loop().call_at(deadline, self._fire)

    def cancel(self) -> None:
        """Never call `fire` again, and drop the reference to it."""
        self._call = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        if self._call is None:
            return
        if asyncio.get_running_loop().time() >= self._deadline:
            self._call()
        else:
            self.set(self._deadline)


class _Nothing:
    """An awaitable that returns at once.

    A coroutine that has nothing to wait for costs three times as much.
    """

    __slots__ = ("_ended",)

    def __init__(self) -> None:
        self._ended: Any = iter(())

    def __await__(self) -> Generator[None, None, None]:
        ended: Generator[None, None, None] = self._ended
        return ended


NOTHING: Awaitable[None] = _Nothing()
"""Await this where there is nothing to wait for."""


class Signal:
    """A flag that tasks can wait for. It does what asyncio.Event does in 150 bytes instead of 800;
    a session has several."""

    __slots__ = ("_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        """Read only: change it with set() and clear()."""
        self._waiting: list[asyncio.Future[None]] = []

    def set(self) -> None:
        """Wake all tasks that wait. Until clear(), wait() returns at once."""
        if self.is_set:
            return
        self.is_set = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def clear(self) -> None:
        self.is_set = False

    async def wait(self) -> None:
        """Wait until it is set."""
        if self.is_set:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            self._waiting.remove(future)


class StallGuard:
    """Ends a wait for an engine that gives nothing, with one timer for all waits of a stream.

    A time-out of its own for each wait would cost as much as a piece of audio.
    """

    def __init__(self, seconds: float | None, error: Callable[[], EngineError]) -> None:
        """seconds: the longest wait; None: there is no limit. Use it in the task that waits."""
        self._seconds = float("inf") if seconds is None else seconds
        self._error = error
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None  # when the wait in progress began
        self._timeout = asyncio.timeout(None)
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._look)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._timeout.__aexit__(kind, exc, traceback)
        except TimeoutError as stall:
            raise self._error() from stall

    def begin(self) -> None:
        """A wait begins, for at most the given seconds; after that, __aexit__ raises `error`."""
        self._since = self._loop.time()

    def end(self) -> None:
        """The wait is over: the time until begin() does not count."""
        self._since = None

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._since is None else self._since) + self._seconds
        if due <= now:
            self._timeout.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._look)


class Tasks:
    """Tasks of one owner, each under a key with which it can be cancelled."""

    def __init__(
        self, group: asyncio.TaskGroup, fail: Callable[[Exception], None], ended: Callable[[], None]
    ) -> None:
        """fail: called with an exception that a task raises.

        ended: called when one is over. The tasks run in `group`, which waits for them.
        """
        self._group = group
        self._fail = fail
        self._ended = ended
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, key: Hashable, work: Coroutine[Any, Any, None]) -> None:
        """Start a task; a task with the same key is cancelled."""
        self.cancel(key)
        task = self._group.create_task(self._guarded(work))
        self._tasks[key] = task
        task.add_done_callback(self._over)
        task.add_done_callback(lambda _: work.close())  # cancelled before it began, so it never ran

    def rename(self, old: Hashable, new: Hashable) -> None:
        """Give a task another key. It need not be running any more."""
        if task := self._tasks.pop(old, None):
            self._tasks[new] = task

    def cancel(self, key: Hashable) -> None:
        if task := self._tasks.pop(key, None):
            task.cancel()
            self._ended()

    def cancel_all(self) -> None:
        for key in tuple(self._tasks):
            self.cancel(key)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001  a bug: it ends the session
            self._fail(exc)

    def _over(self, task: asyncio.Task[None]) -> None:
        for key, each in self._tasks.items():
            if each is task:
                del self._tasks[key]
                self._ended()
                return
