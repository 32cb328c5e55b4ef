"""Measures how busy this process and its processors are now: over the last two seconds."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

SAMPLE_S = 0.25
WINDOW = 8
"""Number of samples."""
PROCESSORS_EVERY = 4
"""Samples between two looks at the processors: /proc/stat is long where there are many."""
CGROUP = Path("/sys/fs/cgroup")
STAT = Path("/proc/stat")


class CpuTime(NamedTuple):
    """CPU time since any instant, in any unit."""

    used: float
    available: float


class _Sample(NamedTuple):
    """Times in seconds."""

    at: float
    late: float
    """How late the timer has fired."""
    computed: float
    """For how long the thread of the event loop has run so far."""


class LoadProbe:
    """Sets a timer every SAMPLE_S, as an async context manager."""

    def __init__(
        self,
        *takers: Callable[[float], None],
        thread_time: Callable[[], float] = time.thread_time,
        processors: Callable[[], CpuTime | None] | None = None,
    ) -> None:
        """takers: called with every sample: how late the timer has fired, seconds."""
        self._takers = takers
        self._thread_time = thread_time
        self._processors = processors or cpu_time
        self._samples: deque[_Sample] = deque(maxlen=WINDOW + 1)
        self._looks: deque[CpuTime] = deque(maxlen=WINDOW // PROCESSORS_EVERY + 1)
        self._measuring: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._measuring = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait((self._measuring,))

    @property
    def share(self) -> float:
        """The load from 0 to 1; 0 before it is known.

        The highest of three shares: of the time, that for which the thread of the event loop has
        run, and that by which its timers have fired late (something else ran); of the processors
        that this process may use, what any process has used, the engines among them.
        """
        return max(self._loop_share(), self._processors_share())

    def _loop_share(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        first, *others = self._samples
        late = sum(sample.late for sample in others)
        last = others[-1]
        return min(1.0, max(late, last.computed - first.computed) / (last.at - first.at))

    def _processors_share(self) -> float:
        if len(self._looks) < 2:
            return 0.0
        used = self._looks[-1].used - self._looks[0].used
        available = self._looks[-1].available - self._looks[0].available
        return min(1.0, used / available) if available > 0 else 0.0

    async def _measure(self) -> None:
        clock = asyncio.get_running_loop().time
        taken, late = 0, 0.0
        while True:
            self._samples.append(_Sample(clock(), late, self._thread_time()))
            if taken % PROCESSORS_EVERY == 0 and (look := self._processors()) is not None:
                self._looks.append(look)
            due = clock() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            taken, late = taken + 1, max(0.0, clock() - due)
            for take in self._takers:
                take(late)


def cpu_time(cgroup: Path = CGROUP, stat: Path = STAT) -> CpuTime | None:
    """That of the processors that this process may use; None where it is not known.

    In a container with a quota (cgroup v2) that of the container, else that of the processors to
    which this process is bound.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    bound = os.sched_getaffinity(0)
    try:
        return _of_container(cgroup, len(bound)) or _of_processors(stat, bound)
    except (OSError, ValueError, LookupError):
        return None


def _of_container(cgroup: Path, bound: int) -> CpuTime | None:
    """None where it has no quota. bound: a number of processors."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except OSError:  # no container, or one of cgroup v1
        return None
    if quota == "max":
        return None
    usage = dict(line.split() for line in (cgroup / "cpu.stat").read_text().splitlines())
    processors = min(int(quota) / int(period), bound)
    return CpuTime(int(usage["usage_usec"]) / 1e6, processors * time.monotonic())


def _of_processors(stat: Path, bound: set[int]) -> CpuTime | None:
    used = available = 0
    for line in stat.read_text().splitlines()[1:]:  # the first line is their sum
        name, *values = line.split()
        if not name.startswith("cpu"):
            break
        if int(name.removeprefix("cpu")) in bound:
            ticks = [int(value) for value in values[:8]]  # proc_stat(5): the rest is counted twice
            available += sum(ticks)
            used += sum(ticks) - ticks[3] - ticks[4]  # idle, and waiting for a disk
    return CpuTime(used, available) if available else None
