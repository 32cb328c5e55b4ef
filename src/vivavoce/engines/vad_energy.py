"""Voice activity by loudness above the noise floor. No weights, nothing to install.

It takes any sound for speech that begins louder than the sound before: good for clean lines and
headsets, worse than a network where others talk, music plays or doors slam.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from vivavoce.engines.base import BaseEngine, Capabilities

Floats = NDArray[np.float32]

_WINDOW = 512
_BLOCK = 16  # windows, 0.5 s
_BLOCKS = 6  # 3 s: speech without a pause is hardly ever longer
_MIN_POWER = 1e-10  # -100 dB: digital silence has a level, too


class EnergySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Levels are in decibels of full scale."""

    margin_db: float = 10.0
    """A window this much above the noise floor has a probability of 0.5."""
    softness_db: float = 2.0
    """This much above the margin, the probability is 0.73; this much below, 0.27."""
    first_noise_db: float = -40.0
    """The noise floor until a window is quieter."""
    least_noise_db: float = -58.0
    """The lowest noise floor: about what a microphone makes in a silent place."""
    release_db: float = 8.0
    """The level falls by at most this much a window: bridges the stops within words."""


class EnergyVAD(BaseEngine):
    """Loudness above the least loudness of the last seconds."""

    Settings = EnergySettings
    capabilities = Capabilities(licence="Apache-2.0")
    sample_rate = 16_000
    window_samples = _WINDOW
    max_batch = 128

    def __init__(self, settings: EnergySettings) -> None:
        self._settings = settings
        self._free: list[int] = []
        # A row is a stream.
        self._least = np.zeros((0, _BLOCKS), np.float32)  # dB of each block; the oldest is next
        self._count = np.zeros(0, np.intp)  # windows, modulo all blocks
        self._level = np.zeros(0, np.float32)  # dB of the last window

    def open(self) -> int:
        if not self._free:
            self._grow()
        stream = self._free.pop()
        self._least[stream] = self._settings.first_noise_db
        self._count[stream] = 0
        self._level[stream] = self._settings.least_noise_db
        return stream

    def close(self, stream: int) -> None:
        self._free.append(stream)

    def score(self, windows: Floats, streams: NDArray[np.intp]) -> Floats:
        settings = self._settings
        level = _levels(windows)
        count = self._count[streams]
        block = count // _BLOCK
        least = np.where(count % _BLOCK == 0, level, np.minimum(level, self._least[streams, block]))
        self._least[streams, block] = least
        self._count[streams] = (count + 1) % (_BLOCK * _BLOCKS)
        noise = np.maximum(self._least[streams].min(axis=1), settings.least_noise_db)
        level = np.maximum(level, self._level[streams] - settings.release_db)
        self._level[streams] = level
        above = (level - noise - settings.margin_db) / settings.softness_db
        likely: Floats = (0.5 + 0.5 * np.tanh(above / 2)).astype(np.float32)
        return likely

    def _grow(self) -> None:
        old = len(self._count)
        more = max(16, old)
        self._least = np.pad(self._least, ((0, more), (0, 0)))
        self._count = np.pad(self._count, (0, more))
        self._level = np.pad(self._level, (0, more))
        self._free.extend(range(old + more - 1, old - 1, -1))


def _levels(windows: Floats) -> Floats:
    """Decibels of each window's power, a constant offset left out."""
    offset = windows.mean(axis=1)
    power = np.einsum("ij,ij->i", windows, windows) / windows.shape[1] - offset * offset
    level: Floats = 10 * np.log10(np.maximum(power, _MIN_POWER))
    return level
