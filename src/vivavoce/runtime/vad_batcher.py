"""Voice activity of all sessions, judged in batches.

Windows that come within one tick are judged together: one matrix product for many users. With
few users the tick costs nothing, since a window that comes after a quiet time is judged at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import RATE
from vivavoce.audio.windows import WindowResampler
from vivavoce.engines.base import VAD
from vivavoce.session.cascade.turn_detection import WINDOW

TICK_SECONDS = 0.004
DEEP = 8  # windows: a stream that is so far behind does not wait for the tick
_WINDOW_BYTES = 2 * WINDOW

Floats = NDArray[np.float32]
Deliver = Callable[[int, tuple[float, ...]], None]
Fail = Callable[[Exception], None]


class VadStream:
    """One session's stream. Give it back with close()."""

    def __init__(self, ears: "VadBatcher", stream: int, deliver: Deliver, fail: Fail) -> None:
        self.stream = stream
        self.deliver = deliver
        self.fail = fail
        self.waiting = 0
        """Windows whose verdicts have not been delivered."""
        self._ears = ears
        self._sounds: deque[tuple[int, bytes]] = deque()
        self._taken = 0  # bytes of the first of them
        self._before = bytes(2 * ears.history)  # what was heard before the next window

    def score(self, at: int, audio: bytes) -> None:
        """Have whole windows of PCM at 24 kHz judged; the verdicts are delivered in order."""
        self._sounds.append((at, audio))
        self.waiting += len(audio) // _WINDOW_BYTES
        self._ears.wake(self)

    def take(self) -> tuple[int, bytes]:
        """The place of the next window that waits, and its sound behind what came before it."""
        at, audio = self._sounds[0]
        start, self._taken = self._taken, self._taken + _WINDOW_BYTES
        heard = self._before + audio[start : self._taken]
        self._before = heard[_WINDOW_BYTES:]
        if self._taken == len(audio):
            self._sounds.popleft()
            self._taken = 0
        self.waiting -= 1
        return at + start // 2, heard

    def close(self) -> None:
        self._sounds.clear()
        self.waiting = 0
        self._ears.give_back(self)


class VadBatcher:
    """One VAD engine, shared by all sessions that use it. Needs a running loop."""

    def __init__(self, vad: VAD) -> None:
        if vad.window_samples * RATE != WINDOW * vad.sample_rate:
            raise ValueError(f"a VAD window must last {WINDOW * 1000 // RATE} ms")
        self._vad = vad
        self._convert = WindowResampler(RATE, vad.sample_rate, WINDOW)
        self._ready: dict[int, VadStream] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last = float("-inf")

    def open(self, deliver: Deliver, fail: Fail) -> VadStream:
        """A new stream. `fail` is told why the engine could not judge a window of it."""
        return VadStream(self, self._vad.open(), deliver, fail)

    @property
    def history(self) -> int:
        """Samples of the sound before a window that are needed with it."""
        return self._convert.history

    def wake(self, ear: VadStream) -> None:
        """Windows of that ear wait."""
        if ear.waiting:
            self._ready[ear.stream] = ear
            self._schedule(deep=ear.waiting > DEEP)

    def give_back(self, ear: VadStream) -> None:
        self._ready.pop(ear.stream, None)
        self._vad.close(ear.stream)

    def _schedule(self, *, deep: bool) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due = loop.time() if deep else max(loop.time(), self._last + TICK_SECONDS)
            self._timer = loop.call_at(due, self._judge)

    def _judge(self) -> None:
        """Judge one window of each waiting stream, as many as make a batch."""
        self._timer = None
        self._last = asyncio.get_running_loop().time()
        batch = list(self._ready.values())[: self._vad.max_batch]
        taken = [ear.take() for ear in batch]
        for ear in batch:
            del self._ready[ear.stream]  # whoever has more goes to the end of the line
            if ear.waiting:
                self._ready[ear.stream] = ear
        if self._ready:
            self._schedule(deep=any(ear.waiting > DEEP for ear in self._ready.values()))
        verdicts = self._verdicts(batch, self._windows(taken)) if batch else ()
        for ear, (at, _), speech in zip(batch, taken, verdicts, strict=True):
            if speech is not None:
                ear.deliver(at, (speech,))

    def _windows(self, taken: list[tuple[int, bytes]]) -> Floats:
        """As the engine wants them, [n, window_samples]."""
        heard = np.frombuffer(b"".join([sound for _, sound in taken]), "<i2")
        return self._convert(heard.reshape(len(taken), -1))

    def _verdicts(self, batch: list[VadStream], windows: Floats) -> Sequence[float | None]:
        """Of each ear; None where the engine failed."""
        streams = np.array([ear.stream for ear in batch])
        try:
            verdicts: list[float | None] = self._vad.score(windows, streams).tolist()
        except Exception as exc:  # noqa: BLE001  who shares a batch does not share its mishap
            if len(batch) > 1:
                return [self._verdicts([ear], windows[n : n + 1])[0] for n, ear in enumerate(batch)]
            batch[0].fail(exc)
            return [None]
        return verdicts
