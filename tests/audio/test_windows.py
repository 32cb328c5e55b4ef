"""Windows that are converted together come out as each stream by itself would."""

import numpy as np
import pytest

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.audio.windows import WindowResampler

WINDOW = 768
STREAMS = 5
ROUNDS = 4


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 32_000, 48_000])
def test_window_equals_the_resampler_of_its_own_stream(rate: int) -> None:
    sound = np.random.default_rng(1).integers(-9_000, 9_000, (STREAMS, ROUNDS * WINDOW))
    sound = sound.astype(np.int16)
    convert = WindowResampler(RATE, rate, WINDOW)
    before = np.zeros((STREAMS, convert.history), np.int16)
    padded = np.concatenate((before, sound), axis=1)
    alone = [Resampler(RATE, rate) for _ in range(STREAMS)]
    for stream in alone:
        stream.feed(bytes(2 * stream.lag))
    for start in range(0, ROUNDS * WINDOW, WINDOW):
        heard = np.ascontiguousarray(padded[:, start : start + convert.history + WINDOW])
        together = convert(heard) * 32768
        for n, stream in enumerate(alone):
            piece = sound[n, start : start + WINDOW].astype("<i2").tobytes()
            made = np.frombuffer(stream.feed(piece), "<i2")
            assert together.shape == (STREAMS, len(made))
            assert np.abs(together[n] - made).max() < 0.51  # the one is rounded, the other not


def test_beyond_full_scale_is_clipped() -> None:
    convert = WindowResampler(RATE, 16_000, WINDOW)
    square = np.where(np.arange(convert.history + WINDOW) % 60 < 30, 32_767, -32_768)
    made = convert(square.astype(np.int16)[None, :])
    assert (made.min(), made.max()) == (-1.0, 1.0)


def test_window_without_whole_target_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="700 samples at 24000 Hz are none at 16000 Hz"):
        WindowResampler(RATE, 16_000, 700)
