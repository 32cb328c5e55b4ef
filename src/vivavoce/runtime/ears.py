"""Voice activity of all sessions, judged in batches.

Windows that come within one tick are judged together: one matrix product for many users. With
few users the tick costs nothing, since a window that comes after a quiet time is judged at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import VAD
from vivavoce.session.turns import WINDOW

TICK_SECONDS = 0.004
_SCALE = np.float32(1 / 32768)

Deliver = Callable[[int, tuple[float, ...]], None]


class Ear:
    """One session's stream. Give it back with close()."""

    def __init__(self, ears: "Ears", stream: int, deliver: Deliver, sample_rate: int) -> None:
        self.stream = stream
        self.deliver = deliver
        self.waiting: deque[tuple[int, NDArray[np.float32]]] = deque()
        self._ears = ears
        self._resampler = Resampler(RATE, sample_rate)
        # what the filter looks ahead is silence put in front: so every window comes out whole
        self._resampler.feed(bytes(2 * self._resampler.lag))

    def judge(self, at: int, audio: bytes) -> None:
        """Have whole windows of PCM at 24 kHz judged; the verdicts are delivered in order."""
        pcm = np.frombuffer(self._resampler.feed(audio), "<i2").astype(np.float32) * _SCALE
        windows = pcm.reshape(len(audio) // (2 * WINDOW), -1)
        for n, window in enumerate(windows):
            self.waiting.append((at + n * WINDOW, window))
        self._ears.wake(self)

    def close(self) -> None:
        self.waiting.clear()
        self._ears.give_back(self)


class Ears:
    """One VAD engine, shared by all sessions that use it. Needs a running loop."""

    def __init__(self, vad: VAD) -> None:
        if vad.window_samples * RATE != WINDOW * vad.sample_rate:
            raise ValueError(f"a VAD window must last {WINDOW * 1000 // RATE} ms")
        self._vad = vad
        self._ready: dict[int, Ear] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last = float("-inf")

    def open(self, deliver: Deliver) -> Ear:
        return Ear(self, self._vad.open(), deliver, self._vad.sample_rate)

    def wake(self, ear: Ear) -> None:
        """Windows of that ear wait."""
        if ear.waiting:
            self._ready[ear.stream] = ear
            self._schedule()

    def give_back(self, ear: Ear) -> None:
        self._ready.pop(ear.stream, None)
        self._vad.close(ear.stream)

    def _schedule(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due = max(loop.time(), self._last + TICK_SECONDS)
            self._timer = loop.call_at(due, self._judge)

    def _judge(self) -> None:
        """Judge one window of each waiting stream, as many as make a batch."""
        self._timer = None
        self._last = asyncio.get_running_loop().time()
        batch = [
            ear for ear, _ in zip(self._ready.values(), range(self._vad.max_batch), strict=False)
        ]
        taken = [ear.waiting.popleft() for ear in batch]
        verdicts = self._vad.judge(
            np.stack([window for _, window in taken]), np.array([ear.stream for ear in batch])
        )
        for ear in batch:
            del self._ready[ear.stream]  # whoever has more goes to the end of the line
            if ear.waiting:
                self._ready[ear.stream] = ear
        if self._ready:
            self._schedule()
        for ear, (at, _), speech in zip(batch, taken, verdicts.tolist(), strict=True):
            ear.deliver(at, (speech,))
