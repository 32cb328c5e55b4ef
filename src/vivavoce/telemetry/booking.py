"""Work on the store that nobody waits for: each session's in order, and rows that cost nothing
together."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from vivavoce.store.base import UsageRow
from vivavoce.store.buffered import BufferedAccounts

log = logging.getLogger(__name__)

MAX_JOBS = 1_000
"""Operations of one session that wait for a slow store."""
BOOK_INTERVAL_S = 0.25
"""How long rows that cost nothing are collected, so that one commit serves all sessions."""
MAX_ROWS = 10_000
"""Such rows that wait for a store which is too slow."""
CLOSE_TIMEOUT_S = 5.0
"""At shutdown, for what is not booked yet."""

Job: TypeAlias = Callable[[], Awaitable[None]]


class Jobs:
    """A queue of operations on the store, performed in order."""

    def __init__(self, tasks: set[asyncio.Task[None]]) -> None:
        self._tasks = tasks
        # mostly none or one; an empty deque would take 760 bytes for each session
        self._jobs: list[Job] = []
        self._running = False

    def add(self, job: Job) -> None:
        """Never waits."""
        self._jobs.append(job)
        if len(self._jobs) > MAX_JOBS:
            del self._jobs[1]  # the first one is being performed
            log.error("the store is too slow: usage is lost")
        if not self._running:
            self._running = True
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        try:
            while self._jobs:
                try:
                    await self._jobs[0]()
                except Exception:
                    log.exception("usage could not be booked")
                del self._jobs[0]
        finally:
            self._running = False


class Booking:
    """The queues of all sessions, and the rows that cost nothing and were not booked yet."""

    def __init__(self, store: BufferedAccounts, booked: Callable[[UsageRow], None]) -> None:
        """booked: called with each row that was added here and is booked for the first time."""
        self.tasks: set[asyncio.Task[None]] = set()
        """What is being performed."""
        self._store = store
        self._booked = booked
        self._rows: deque[UsageRow] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def jobs(self) -> Jobs:
        """A new queue."""
        return Jobs(self.tasks)

    def add(self, row: UsageRow) -> None:
        """Book a row within BOOK_INTERVAL_S. Never waits."""
        if len(self._rows) >= MAX_ROWS:
            self._rows.popleft()
            log.error("the store is too slow: usage is lost")
        self._rows.append(row)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(BOOK_INTERVAL_S, self._start)

    async def flush(self) -> None:
        """Book the rows that were added."""
        while self._rows:
            rows = tuple(self._rows)
            new = await self._store.book(rows)
            for row in rows:
                if self._rows and self._rows[0] is row:  # else booked meanwhile, or dropped
                    self._rows.popleft()
            for row in new:
                self._booked(row)

    async def close(self) -> None:
        """Perform what is left, within CLOSE_TIMEOUT_S."""
        await self._finish()
        if self._timer is not None:
            self._timer.cancel()
            self._start()
            await self._finish()

    def _start(self) -> None:
        self._timer = None
        self.jobs().add(self.flush)

    async def _finish(self) -> None:
        if self.tasks:
            _, late = await asyncio.wait(tuple(self.tasks), timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
            if late:
                log.error("usage of %d sessions was not booked: the store is too slow", len(late))
                await asyncio.wait(late)
