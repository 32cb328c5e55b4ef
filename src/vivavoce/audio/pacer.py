"""Paces audio in real time. No clock: the time is an argument."""

from collections import deque
from typing import NamedTuple

import numpy as np

from vivavoce.audio.formats import RATE

FRAME_SECONDS = 0.02
FRAME_BYTES = int(2 * RATE * FRAME_SECONDS)
AHEAD_SECONDS = 0.04  # of audio at the client; a browser's audio thread needs one frame or two
DUCKED_GAIN = 0.25  # -12 dB
_EPSILON = 1e-6  # seconds


class PlayoutQueue:
    """Audio that waits to be played, by item, first in, first out: 16-bit mono PCM at 24 kHz."""

    def __init__(self) -> None:
        self.ducked = False
        """Whether it is played softly. Takes effect within the next frame."""
        self._gain = 1.0
        self._pieces: deque[tuple[str, bytes]] = deque()
        self._taken = 0  # bytes of the first piece
        self._bytes = 0

    @property
    def seconds(self) -> float:
        return self._bytes / (2 * RATE)

    def put(self, item_id: str, pcm: bytes) -> None:
        if pcm:
            self._pieces.append((item_id, pcm))
            self._bytes += len(pcm)

    def take(self, size: int) -> tuple[bytes, dict[str, int]]:
        """At most so many bytes, and how many samples of which items they are."""
        parts: list[bytes] = []
        samples: dict[str, int] = {}
        while size and self._pieces:
            item_id, piece = self._pieces[0]
            part = piece[self._taken : self._taken + size]
            self._taken += len(part)
            size -= len(part)
            parts.append(part)
            samples[item_id] = samples.get(item_id, 0) + len(part) // 2
            if self._taken == len(piece):
                self._pieces.popleft()
                self._taken = 0
        pcm = b"".join(parts)
        self._bytes -= len(pcm)
        return self._at_level(pcm), samples

    def clear(self) -> None:
        self._pieces.clear()
        self._taken = self._bytes = 0

    def _at_level(self, pcm: bytes) -> bytes:
        """At the gain that is wanted, in a ramp where it changes."""
        gain, self._gain = self._gain, DUCKED_GAIN if self.ducked else 1.0
        if gain == self._gain == 1.0 or not pcm:
            return pcm
        gains = np.linspace(gain, self._gain, len(pcm) // 2, dtype=np.float32)
        return (np.frombuffer(pcm, "<i2") * gains).astype("<i2").tobytes()


class PacedFrame(NamedTuple):
    """Audio to be sent now, and how many samples of which items it is."""

    audio: bytes
    samples: dict[str, int]


class Pacer:
    """Releases queued audio in frames, at most `ahead_seconds` before each is played.

    The client is taken to play what it gets without a gap. Where it has run out of audio, the next
    frame begins anew at the time it is sent: lost time is not made up for by a burst.
    `continuous`: frames of silence are released while nothing is queued.
    """

    def __init__(self, *, ahead_seconds: float = AHEAD_SECONDS, continuous: bool = False) -> None:
        self.queue = PlayoutQueue()
        self._ahead = max(ahead_seconds, FRAME_SECONDS)
        self._continuous = continuous
        self._began = 0.0  # when the client began to play without a gap
        self._samples = 0  # sent since then

    def take(self, now: float) -> list[PacedFrame]:
        """The frames that are to be sent now."""
        frames: list[PacedFrame] = []
        if self._played_until < now:
            self._began, self._samples = now, 0
        while self._due <= now + _EPSILON:
            audio, samples = self.queue.take(FRAME_BYTES)
            if not audio:
                if not self._continuous:
                    break
                audio = bytes(FRAME_BYTES)
            self._samples += len(audio) // 2
            frames.append(PacedFrame(audio, samples))
        return frames

    def wait_seconds(self, now: float) -> float | None:
        """Seconds until take() has a frame; None: not before more audio is queued."""
        if not self.queue.seconds and not self._continuous:
            return None
        return max(0.0, self._due - now)

    @property
    def _played_until(self) -> float:
        return self._began + self._samples / RATE

    @property
    def _due(self) -> float:
        return self._played_until + FRAME_SECONDS - self._ahead
