"""Measures whether this process is overloaded; an overloaded process takes no new sessions.

Two things are measured: how late timers of the event loop fire, and how many streams wait for voice
activity detection. A measure counts as exceeded when WINDOW samples in a row, two seconds, are over
its limit, so that no session is refused for a single stall. Sessions are taken again when half of
the samples are below half of the limit.
"""

from collections import deque
from collections.abc import Callable, Iterable

from vivavoce.limits.connections import ConnectionLimits
from vivavoce.runtime.load import WINDOW
from vivavoce.runtime.vad_batcher import VadBatcher

MIN_BEHIND = 8
"""A limit in streams: when fewer are waiting, they are recordings, which clients send faster than
speech."""


class _Limit:
    """A measure that is over its limit or not, with hysteresis. A limit of 0 is never exceeded."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self.exceeded = False

    def note(self, value: float) -> None:
        recent = self._recent
        recent.append(value)
        if self._limit and len(recent) == WINDOW and min(recent) > self._limit:
            self.exceeded = True
        elif sorted(recent)[(len(recent) - 1) // 2] < self._limit / 2:
            self.exceeded = False


class Admission:
    """Measures whether this process is overloaded, by what a LoadProbe tells it."""

    def __init__(
        self, limits: ConnectionLimits, vads: Callable[[], Iterable[VadBatcher]] = tuple
    ) -> None:
        """vads: returns those that are in use now."""
        self._vads = vads
        self._lag = _Limit(limits.overload_lag_ms / 1000)
        self._behind = _Limit(limits.overload_vad_share)

    @property
    def overloaded(self) -> bool:
        """Whether new sessions are to be refused."""
        return self._lag.exceeded or self._behind.exceeded

    def note(self, lag_s: float) -> None:
        """Take a sample; lag_s: how late a timer has fired, seconds."""
        self._lag.note(lag_s)
        vads = tuple(self._vads())
        behind = sum(vad.behind for vad in vads)
        streams = sum(len(vad) for vad in vads)
        self._behind.note(behind / streams if behind >= MIN_BEHIND else 0.0)
