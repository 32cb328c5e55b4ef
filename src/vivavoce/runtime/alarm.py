"""A deadline that moves: one timer, set anew only where it would ring too late."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls `ring` at the deadline that was set last. Turn it off in the end."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._deadline = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        """A deadline that moves back costs nothing: the timer finds out when it fires."""
        self._deadline = deadline
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._fire)

    def off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if asyncio.get_running_loop().time() >= self._deadline:
            self._ring()
        else:
            self.set(self._deadline)
