"""Windows of many streams, converted together: one matrix product for all of them. No I/O."""

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.resample import filter_of

_FULL_SCALE = 32768


class WindowResampler:
    """Makes of each window what a Resampler of that stream would, but for the rounding.

    What the filter looks ahead is not waited for: sound comes out as much later as that takes, and
    every window in whole.
    """

    def __init__(self, source_rate: int, target_rate: int, window: int) -> None:
        """window: source samples; they must make a whole number. Raises AudioError as Resampler."""
        self.history = 0
        """Source samples that stand before each window: silence before the first of a stream."""
        self._window = window
        self._matrix: NDArray[np.float32] | None = None
        if source_rate == target_rate:
            return
        fir = filter_of(source_rate, target_rate)
        groups, rest = divmod(window, fir.down)
        if rest:
            raise ValueError(f"{window} samples at {source_rate} Hz are none at {target_rate} Hz")
        self.history = 2 * fir.half - 1
        self._rows = next(n for n in range(-(-groups // fir.groups), groups + 1) if not groups % n)
        self._step = window // self._rows
        width = (groups // self._rows * fir.up - 1) * fir.down // fir.up + 2 * fir.half
        matrix = fir.matrix[:width, : groups // self._rows * fir.up] / _FULL_SCALE
        self._matrix = np.ascontiguousarray(matrix, np.float32)
        self._grow(1)

    def __call__(self, samples_in: NDArray[np.int16]) -> NDArray[np.float32]:
        """samples_in [n, history + window]: each window behind the sound before it, contiguous.

        Returns [n, window * target / source], in -1..1; the next call overwrites it.
        """
        if self._matrix is None:
            return samples_in.astype(np.float32) / np.float32(_FULL_SCALE)
        if (n := len(samples_in)) > len(self._seen):
            self._grow(n)
        line, sample = samples_in.strides
        strides = (line, self._step * sample, sample)
        seen = self._seen[:n]
        seen[...] = np.ndarray(seen.shape, np.int16, samples_in.data, 0, strides)
        made = self._made[: n * self._rows]
        np.matmul(seen.reshape(len(made), -1), self._matrix, made)
        np.minimum(made, 1, out=made)
        np.maximum(made, -1, out=made)
        return made.reshape(n, -1)

    def _grow(self, n: int) -> None:
        """Make the work space for so many windows. Arrays of this size that are made for each batch
        are mapped and unmapped each time, which takes longer than to fill them."""
        assert self._matrix is not None
        width, height = self._matrix.shape
        self._seen = np.empty((n, self._rows, width), np.float32)
        self._made = np.empty((n * self._rows, height), np.float32)
