"""Full collections of garbage, when they keep few waiting."""

import asyncio
import gc
from collections.abc import Callable
from typing import Protocol, Self

LOOK_S = 1.0
"""Between two looks at whether one is due."""
FEWEST_ENDED, ENDED_FOR_EACH = 100, 2
"""Sessions that have ended since the last one, before the next while others are open: that many at
least, and that many for each open one."""
IDLE_YOUNGER = 10
BUSY_YOUNGER = 500
"""Collections of younger objects since the last full one, before the next: while no session is
open, and while some are. Each is made when some 7,700 objects have come and stayed."""
_NEVER = 1_000_000_000


class CountedSessions(Protocol):
    """Sessions, counted."""

    ended: int
    """All that have ended so far."""

    def __len__(self) -> int:
        """How many are open."""
        ...


class FullCollections:
    """Decides when all objects of the process are visited, as an async context manager.

    Python does it whenever a quarter more objects have become old. That visits all objects of all
    open sessions, and is for nothing while sessions only begin: they are no garbage. So Python's
    own full collections are switched off (those of younger objects go on), and one is made

    * when no session is open, and some have ended or many objects have become old;
    * while sessions are open, when twice as many have ended: an ended session leaves some
      reference cycles (the tracebacks of its tasks), so the cost of a session stays bounded.
    """

    def __init__(
        self,
        sessions: CountedSessions,
        *,
        collect: Callable[[], object] = gc.collect,
        younger: Callable[[], int] = lambda: gc.get_count()[2],
    ) -> None:
        """younger: collections of younger objects since the last full one."""
        self._sessions = sessions
        self._collect = collect
        self._younger = younger
        self._ended = sessions.ended  # at the last full collection
        self._looking: asyncio.Task[None] | None = None
        self._thresholds = gc.get_threshold()

    async def __aenter__(self) -> Self:
        gc.set_threshold(*self._thresholds[:2], _NEVER)
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *exc: object) -> None:
        gc.set_threshold(*self._thresholds)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))

    @property
    def is_due(self) -> bool:
        """Whether a full collection is to be made now."""
        ended, opened = self._sessions.ended - self._ended, len(self._sessions)
        if opened == 0:
            return ended > 0 or self._younger() >= IDLE_YOUNGER
        return (
            ended >= max(FEWEST_ENDED, ENDED_FOR_EACH * opened) or self._younger() >= BUSY_YOUNGER
        )

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if self.is_due:
                self._ended = self._sessions.ended
                self._collect()
