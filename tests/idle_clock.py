"""An event loop whose clock stands still while there is anything to do.

A short time-out of a test then runs out where nobody answers, and never because the machine is
slow: what clients and servers of the same loop take to compute is no time by this clock.
"""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _WaitingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = time.monotonic()

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        began = time.monotonic()
        ready = super().select(timeout)
        waited = time.monotonic() - began
        self.now += waited if timeout is None else min(waited, timeout)
        return ready


class IdleClockLoop(asyncio.SelectorEventLoop):
    """Its time goes on while it waits for sockets, threads and timers."""

    def __init__(self) -> None:
        self._waiting = _WaitingSelector()
        super().__init__(self._waiting)

    def time(self) -> float:
        return self._waiting.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on such a loop."""
    with asyncio.Runner(loop_factory=IdleClockLoop) as runner:
        return runner.run(main)
