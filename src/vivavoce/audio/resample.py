"""Sample rate conversion of 16-bit mono PCM, streaming. Arithmetic only.

A polyphase FIR filter: a windowed sinc (Kaiser; Oppenheim & Schafer, Discrete-Time Signal
Processing, 7.5) whose transition band is centred on the narrower of the two Nyquist frequencies.
Up to 0.9 of that frequency everything passes (0.85 at 8 kHz); what lies as far above it as that
edge lies below is damped by more than 60 dB. Half of the filter's length is the lag: below 2 ms.
"""

from functools import lru_cache
from math import ceil, gcd

import msgspec
import numpy as np
from numpy.typing import NDArray

from vivavoce.errors import AudioError

_CROSSINGS = 20  # of the sinc, on each side of its peak ...
_LAG_S = 0.0019  # ... but never so many that the lag comes to 2 ms
_ATTENUATION_DB = 66.0
_FRACTION_BITS = 24  # of a coefficient
_PCM16 = np.dtype("<i2")
# of samples worked on at once: a larger array is new memory each time, which takes longer to touch
_BLOCK_BYTES = 32_000
_MAX_TERM = 1000  # of the ratio in lowest terms: what a filter costs grows with both


class Filter(msgspec.Struct, frozen=True):
    """Every `down` source samples make `up` samples; a row makes `groups` times that."""

    up: int
    down: int
    half: int
    """A sample needs the `half` source samples that follow its instant, and as many before."""
    groups: int
    matrix: NDArray[np.float64]
    """[source samples seen by a row, target samples made of them]"""


@lru_cache(maxsize=32)
def filter_of(source_rate: int, target_rate: int) -> Filter:
    """The filter between two rates in hertz; one for each pair. Raises AudioError."""
    common = gcd(source_rate, target_rate)
    up, down = target_rate // common, source_rate // common
    if max(up, down) > _MAX_TERM:
        raise AudioError(
            f"sound of {source_rate} Hz cannot be converted to {target_rate} Hz: "
            f"the ratio {up}:{down} is not simple enough"
        )
    narrow = min(source_rate, target_rate)
    reach = min(_CROSSINGS, int(_LAG_S * narrow)) * source_rate / narrow  # in source samples
    half = ceil(reach)
    # One row does several groups, so that BLAS multiplies a few wide rows, not many narrow ones.
    groups = max(1, round(half / down))
    instants = np.arange(groups * up) * down / up
    seen = np.arange(1 - half, int(instants[-1]) + half + 1)
    distance = seen[:, None] - instants[None, :]
    beta = 0.1102 * (_ATTENUATION_DB - 8.7)
    window = np.i0(beta * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None))) / np.i0(beta)
    window[np.abs(distance) > reach] = 0
    matrix = np.sinc(distance * narrow / source_rate) * window
    matrix /= matrix.sum(axis=0)
    # Whole numbers, scaled: sums of products then stay below 2**53 and are exact in whatever
    # order BLAS adds them, so a stream comes out the same to the bit however it is cut.
    whole = np.round(matrix * 2**_FRACTION_BITS)
    return Filter(up, down, half, groups, np.ldexp(whole, -_FRACTION_BITS))


class Resampler:
    """One stream. What it makes in all does not depend on how the stream is cut into pieces."""

    __slots__ = ("_fir", "_held", "_made", "_taken")

    def __init__(self, source_rate: int, target_rate: int) -> None:
        """Rates in hertz. Raises AudioError where their ratio has terms above 1000."""
        self._fir = None if source_rate == target_rate else filter_of(source_rate, target_rate)
        self._begin()

    @property
    def lag(self) -> int:
        """Source samples that must follow an instant before its sample is made."""
        return 0 if self._fir is None else self._fir.half

    def feed(self, pcm16: bytes) -> bytes:
        """Convert what can be; keep the rest. Whole samples only."""
        if self._fir is None:
            return pcm16
        self._taken += len(pcm16) // 2
        ready = -((self._fir.half - self._taken) * self._fir.up // self._fir.down)
        return self._make(self._fir, pcm16, ready)

    def flush(self) -> bytes:
        """The end: round(taken * target / source) samples in all. Then a new stream may begin."""
        if self._fir is None:
            return b""
        rest = self._make(self._fir, b"", round(self._taken * self._fir.up / self._fir.down))
        self._begin()
        return rest

    def _begin(self) -> None:
        self._taken = 0  # source samples so far
        self._made = 0  # target samples so far
        # From the first source sample that the group in progress needs. Before the first: silence.
        self._held = b"" if self._fir is None else bytes(2 * self._fir.half - 2)

    def _make(self, fir: Filter, pcm16: bytes, ready: int) -> bytes:
        held = self._held + pcm16
        group, first = divmod(self._made, fir.up)
        count = ready - self._made
        if count <= 0:
            self._held = held
            return b""
        step = fir.groups * fir.down
        width, height = fir.matrix.shape
        rows = -(-(first + count) // height)
        missing = 2 * (step * (rows - 1) + width) - len(held)
        padded = held + bytes(missing) if missing > 0 else held
        blocks = []
        most = max(1, _BLOCK_BYTES // (8 * width))
        for row in range(0, rows, most):
            # The array is made by hand: as_strided alone takes as long as the product below.
            shape, begin = (min(most, rows - row), width), 2 * step * row
            seen = np.ndarray(shape, _PCM16, padded, begin, (2 * step, 2)).astype(np.float64)
            made = seen @ fir.matrix
            np.rint(made, out=made)
            np.minimum(made, 32767.0, out=made)
            np.maximum(made, -32768.0, out=made)
            blocks.append(made.astype(_PCM16).tobytes())
        self._made = ready
        self._held = held[2 * fir.down * (ready // fir.up - group) :]
        return b"".join(blocks)[2 * first : 2 * (first + count)]


def resample(pcm16: bytes, source_rate: int, target_rate: int) -> bytes:
    """Convert a whole recording: exactly round(samples * target / source) samples."""
    stream = Resampler(source_rate, target_rate)
    piece = 2 * source_rate  # a second at a time: the work space is many times the sound's size
    made = [stream.feed(pcm16[at : at + piece]) for at in range(0, len(pcm16), piece)]
    return b"".join((*made, stream.flush()))
