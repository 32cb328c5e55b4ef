"""The clock of the store, by which claims of conversations are ordered."""

import asyncio
from collections.abc import Callable
from typing import Self

from vivavoce.errors import StoreError
from vivavoce.store.base import SessionStore

READ_EVERY_S = 60.0
READ_AGAIN_S = 5.0
"""The pause after a failure."""
READ_TIMEOUT_S = 3.0


class StoreClock:
    """An async context manager that compares the store's clock with that of the loop.

    Until the store has answered once, the clock of this machine is used.
    """

    def __init__(self, store: SessionStore, wall_clock: Callable[[], float]) -> None:
        """wall_clock: of this machine, in Unix seconds."""
        self._store = store
        self._wall_clock = wall_clock
        self._ahead_ms: int | None = None  # of the clock of the loop
        self._last = 0
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read_for_ever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._reading
        self._reading.cancel()
        await asyncio.wait((self._reading,))

    def epoch(self, *, above: int) -> int:
        """The epoch of a claim that is made without the store.

        It is the time of the store in ms since 1970; or more, because it is above `above` and all
        epochs returned before.
        """
        if self._ahead_ms is None:
            now = int(self._wall_clock() * 1000)
        else:
            now = self._loop_ms + self._ahead_ms
        self._last = max(now, above + 1, self._last + 1)
        return self._last

    @property
    def _loop_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    async def _read_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    now = await self._store.now()
            except (StoreError, TimeoutError):
                await asyncio.sleep(READ_AGAIN_S)
            else:
                self._ahead_ms = now - self._loop_ms - 1  # rounded down: the store decides a tie
                await asyncio.sleep(READ_EVERY_S)
