"""Mel spectra of sound at 16 kHz, as models of speech read them: 25 ms every 10 ms. No I/O.

Slaney's scale, each triangle of area one (Slaney 1998, "Auditory Toolbox").
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RATE = 16_000
WINDOW, HOP = 400, 160
BREAK_HERTZ, BREAK_MEL = 1000.0, 15.0
"""Slaney's scale is linear below, 200/3 Hz a mel, and logarithmic above, 27 mels a factor 6.4."""
HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def mel_filters(bands: int) -> Floats:
    """[bands, WINDOW // 2 + 1]: triangles over the frequencies of the spectrum."""
    highest = BREAK_MEL + 27 * np.log(RATE / 2 / BREAK_HERTZ) / np.log(6.4)
    mels = np.linspace(0, highest, bands + 2)
    above = BREAK_HERTZ * np.exp((mels - BREAK_MEL) * np.log(6.4) / 27)
    corners = np.where(mels < BREAK_MEL, mels * 200 / 3, above)
    spectrum = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rows = []
    for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
        rows.append(np.interp(spectrum, (low, middle, high), (0, 2 / (high - low), 0)))
    return np.array(rows, np.float32)


def mel_power(padded: Floats, filters: Floats) -> Floats:
    """[frames, bands] of samples [n], -1..1, which are padded by WINDOW // 2 at both ends."""
    framed = sliding_window_view(padded, WINDOW)[::HOP]
    spectrum = np.fft.rfft(framed * HANN, axis=1)
    power: Floats = (np.abs(spectrum) ** 2).astype(np.float32) @ filters.T
    return power
