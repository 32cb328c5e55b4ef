"""Voice activity by loudness over the noise of the room. No weights, nothing to install.

It takes any sound that begins louder than what was heard before for speech: good for clean lines
and headsets, no match for a network where others talk, music plays or doors slam.
"""

from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_WINDOW = 512
_BLOCK = 16  # windows, 0.5 s
_BLOCKS = 6  # so that the noise is what was least in the last 3 s: hardly anyone speaks on so long
_QUIETEST = 1e-10  # of power, -100 dB: digital silence has a level, too


class EnergySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Levels are in decibels of full scale."""

    margin_db: float = 10.0
    """A window this much above the noise is as likely speech as not."""
    softness_db: float = 2.0
    """So much above the margin, the likelihood is 0.73; so much below, 0.27."""
    first_noise_db: float = -40.0
    """What the noise is taken for until something is heard that is less."""
    least_noise_db: float = -58.0
    """The noise is never taken for less: about what a microphone makes in a silent room."""
    release_db: float = 8.0
    """A window counts for at most this much less than the last: bridges the stops within words."""


class EnergyVAD:
    """Loudness over the least loudness of the last seconds."""

    Settings = EnergySettings
    sample_rate = 16_000
    window_samples = _WINDOW
    max_batch = 128

    def __init__(self, settings: EnergySettings) -> None:
        self._settings = settings
        self._free: list[int] = []
        # A row is a stream.
        self._least = np.zeros((0, _BLOCKS), np.float32)  # dB of each block; the oldest is next
        self._heard = np.zeros(0, np.intp)  # windows, counted round and round the blocks
        self._level = np.zeros(0, np.float32)  # dB the last window counted for

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def open(self) -> int:
        if not self._free:
            self._grow()
        stream = self._free.pop()
        self._least[stream] = self._settings.first_noise_db
        self._heard[stream] = 0
        self._level[stream] = self._settings.least_noise_db
        return stream

    def close(self, stream: int) -> None:
        self._free.append(stream)

    def score(self, windows: Floats, streams: NDArray[np.intp]) -> Floats:
        told = self._settings
        level = _levels(windows)
        heard = self._heard[streams]
        block = heard // _BLOCK
        least = np.where(heard % _BLOCK == 0, level, np.minimum(level, self._least[streams, block]))
        self._least[streams, block] = least
        self._heard[streams] = (heard + 1) % (_BLOCK * _BLOCKS)
        noise = np.maximum(self._least[streams].min(axis=1), told.least_noise_db)
        level = np.maximum(level, self._level[streams] - told.release_db)
        self._level[streams] = level
        above = (level - noise - told.margin_db) / told.softness_db
        likely: Floats = (0.5 + 0.5 * np.tanh(above / 2)).astype(np.float32)
        return likely

    def _grow(self) -> None:
        old = len(self._heard)
        more = max(16, old)
        self._least = np.pad(self._least, ((0, more), (0, 0)))
        self._heard = np.pad(self._heard, (0, more))
        self._level = np.pad(self._level, (0, more))
        self._free.extend(range(old + more - 1, old - 1, -1))


def _levels(windows: Floats) -> Floats:
    """Decibels of each window's power, a constant offset left out."""
    offset = windows.mean(axis=1)
    power = np.einsum("ij,ij->i", windows, windows) / windows.shape[1] - offset * offset
    level: Floats = 10 * np.log10(np.maximum(power, _QUIETEST))
    return level
