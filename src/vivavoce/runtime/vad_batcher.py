"""Voice activity detection for all sessions, in batches.

Windows that arrive within one tick are scored together: one matrix product for many users. The tick
grows with the load, from nothing to MAX_TICK_S, so that a window costs less the more there are, and
a server with few users adds no delay. A window that arrives after an idle tick is scored at once.
Scores are delivered in slices of a millisecond, or of a quarter of those that wait, so that other
callbacks run in between: an answer that follows from the first scores begins before the last are
delivered.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import RATE
from vivavoce.audio.windows import WindowResampler
from vivavoce.engines.base import VAD
from vivavoce.session.cascade.turn_detection import WINDOW

MAX_TICK_S = 0.010
FULL_LOAD = 1600  # windows a second, 51 talking users: from this rate on the tick is MAX_TICK_S
# windows of a stream; above this they are scored without waiting for the tick
MAX_BACKLOG_WINDOWS = 8
SLICE_S = 0.001  # spent on delivering scores, until other callbacks of the event loop run
# the most slices for all scores that wait: under load the other callbacks take longer than a tick
SLICES = 4
_WINDOW_BYTES = 2 * WINDOW

Floats = NDArray[np.float32]
Deliver = Callable[[int, tuple[float, ...]], None]
Fail = Callable[[Exception], None]


class VadStream:
    """The stream of one session. close() releases it."""

    def __init__(self, batcher: "VadBatcher", stream: int, deliver: Deliver, fail: Fail) -> None:
        self.stream = stream
        self.deliver = deliver
        self.fail = fail
        self.waiting = 0
        """Windows that were not scored yet."""
        self.closed = False
        self._batcher = batcher
        self._queue: deque[tuple[int, bytes]] = deque()
        self._taken = 0  # bytes of the first piece that were scored
        self._before = bytes(2 * batcher.history)  # the audio before the next window

    def score(self, at: int, audio: bytes) -> None:
        """Queue whole windows of PCM at 24 kHz; their scores are delivered in order."""
        self._queue.append((at, audio))
        self.waiting += len(audio) // _WINDOW_BYTES
        self._batcher.wake(self)

    def take(self) -> tuple[int, bytes]:
        """The position of the next window, and its audio preceded by `history` samples."""
        at, audio = self._queue[0]
        start, self._taken = self._taken, self._taken + _WINDOW_BYTES
        window = self._before + audio[start : self._taken]
        self._before = window[_WINDOW_BYTES:]
        if self._taken == len(audio):
            self._queue.popleft()
            self._taken = 0
        self.waiting -= 1
        return at + start // 2, window

    def close(self) -> None:
        self.closed = True
        self._queue.clear()
        self.waiting = 0
        self._batcher.release(self)


class VadBatcher:
    """One VAD engine, shared by all sessions that use it. Needs a running loop."""

    def __init__(self, vad: VAD) -> None:
        if vad.window_samples * RATE != WINDOW * vad.sample_rate:
            raise ValueError(f"a VAD window must last {WINDOW * 1000 // RATE} ms")
        self._vad = vad
        self._convert = WindowResampler(RATE, vad.sample_rate, WINDOW)
        # the audio of a batch; bytes of this size would be mapped and unmapped for each
        self._sounds = np.empty((vad.max_batch, self._convert.history + WINDOW), np.int16)
        self._open = 0  # streams
        self._ready: dict[int, VadStream] = {}
        self._scored: deque[tuple[VadStream, int, float]] = deque()  # scores not delivered yet
        self._delivering = False
        self._timer: asyncio.TimerHandle | None = None
        self._last = float("-inf")
        self._recent = 0.0  # windows of the last second, with exponential decay

    def open(self, deliver: Deliver, fail: Fail) -> VadStream:
        """A new stream. `fail` is called with the exception if the engine fails on a window."""
        self._open += 1
        return VadStream(self, self._vad.open(), deliver, fail)

    def __len__(self) -> int:
        """The number of open streams."""
        return self._open

    def __bool__(self) -> bool:
        return True

    @property
    def behind(self) -> int:
        """The streams with more than MAX_BACKLOG_WINDOWS windows to be scored."""
        return sum(stream.waiting > MAX_BACKLOG_WINDOWS for stream in self._ready.values())

    @property
    def history(self) -> int:
        """Samples before a window that the resampler needs."""
        return self._convert.history

    def wake(self, stream: VadStream) -> None:
        """Schedule a batch if the stream has windows to be scored."""
        if stream.waiting:
            self._ready[stream.stream] = stream
            self._schedule(behind=stream.waiting > MAX_BACKLOG_WINDOWS)

    def release(self, stream: VadStream) -> None:
        self._open -= 1
        self._ready.pop(stream.stream, None)
        self._vad.close(stream.stream)

    def _schedule(self, *, behind: bool) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due = loop.time() if behind else max(loop.time(), self._last + self._tick)
            self._timer = loop.call_at(due, self._score_batch)

    @property
    def _tick(self) -> float:
        return MAX_TICK_S * min(1.0, self._recent / FULL_LOAD)

    def _score_batch(self) -> None:
        """Score one window of each stream that has any, up to `max_batch`."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        decay, self._last = math.exp(self._last - now), now
        batch = list(self._ready.values())[: self._vad.max_batch]
        self._recent = self._recent * decay + len(batch)
        taken = [stream.take() for stream in batch]
        for stream in batch:
            del self._ready[stream.stream]  # a stream with more windows moves to the end
            if stream.waiting:
                self._ready[stream.stream] = stream
        if self._ready:
            self._schedule(
                behind=any(stream.waiting > MAX_BACKLOG_WINDOWS for stream in self._ready.values())
            )
        scores = self._scores(batch, self._windows(taken)) if batch else ()
        for stream, (at, _), speech in zip(batch, taken, scores, strict=True):
            if speech is not None:
                self._scored.append((stream, at, speech))
        if not self._delivering:
            self._deliver()

    def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + SLICE_S
        least = len(self._scored) // SLICES
        while self._scored and (least > 0 or loop.time() < end):
            least -= 1
            stream, at, speech = self._scored.popleft()
            if not stream.closed:
                stream.deliver(at, (speech,))
        if self._scored:
            loop.call_soon(self._deliver)
        self._delivering = bool(self._scored)

    def _windows(self, taken: list[tuple[int, bytes]]) -> Floats:
        """The windows at the sample rate of the engine, [n, window_samples]."""
        sounds, at = self._sounds.data.cast("B"), 0
        for _, sound in taken:
            sounds[at : at + len(sound)] = sound
            at += len(sound)
        return self._convert(self._sounds[: len(taken)])

    def _scores(self, batch: list[VadStream], windows: Floats) -> Sequence[float | None]:
        """One score for each stream; None where the engine failed."""
        streams = np.array([stream.stream for stream in batch])
        try:
            scores: list[float | None] = self._vad.score(windows, streams).tolist()
        except Exception as exc:  # noqa: BLE001  it fails only the stream that caused it
            if len(batch) > 1:
                return [
                    self._scores([stream], windows[n : n + 1])[0] for n, stream in enumerate(batch)
                ]
            batch[0].fail(exc)
            return [None]
        return scores
