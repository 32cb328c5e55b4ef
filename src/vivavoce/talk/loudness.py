"""How loud sound is, and where speech ends in it. Arithmetic on PCM, 24 kHz mono."""

import math

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import BYTES_PER_MS

FRAME_MS = 20
_FRAME_BYTES = FRAME_MS * BYTES_PER_MS
_FAINT = 30.0  # of 32768: nothing below that is speech, however quiet the rest
_LEAST, _MOST = 0.05, 0.1  # of the loudest frame: 26 and 20 dB below it
_NOISE = 2.0  # speech stands out of the noise of its room by so much


def level_db(pcm24: bytes) -> float:
    """RMS in decibels below full scale; -inf for silence and for nothing."""
    samples = np.frombuffer(pcm24, np.dtype("<i2")).astype(np.float64)
    power = float(np.mean(samples**2)) if samples.size else 0.0
    return 10 * math.log10(power / 32768.0**2) if power else -math.inf


def speech_end_ms(pcm24: bytes) -> int | None:
    """Where the last loud frame of 20 ms ends; None: none is loud.

    Loud is what stands out of the quietest tenth of the frames by 6 dB, but nothing more than
    26 dB and all that is less than 20 dB below the loudest frame.
    """
    rms = _frames(pcm24)
    if not rms.size or rms.max() < _FAINT:
        return None
    loudest = float(rms.max())
    noise = float(np.percentile(rms, 10))
    limit = max(_FAINT, min(max(_NOISE * noise, _LEAST * loudest), _MOST * loudest))
    last = int(np.flatnonzero(rms >= limit)[-1])
    return min((last + 1) * FRAME_MS, len(pcm24) // BYTES_PER_MS)


def _frames(pcm24: bytes) -> NDArray[np.float64]:
    """RMS of each frame; the last one is filled up with silence."""
    padded = pcm24 + bytes(-len(pcm24) % _FRAME_BYTES)
    samples = np.frombuffer(padded, np.dtype("<i2")).astype(np.float64)
    rms: NDArray[np.float64] = np.sqrt(np.mean(samples.reshape(-1, _FRAME_BYTES // 2) ** 2, axis=1))
    return rms
