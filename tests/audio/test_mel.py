import numpy as np
import pytest

from vivavoce.audio.mel import HOP, RATE, WINDOW, mel_filters, mel_power


@pytest.mark.parametrize(("hertz", "band"), [(200, 2), (1000, 13), (3000, 27)])
def test_power_of_a_tone_is_in_its_band(hertz: int, band: int) -> None:
    samples = np.sin(np.arange(RATE) * (2 * np.pi * hertz / RATE)).astype(np.float32)
    power = mel_power(np.pad(samples, WINDOW // 2), mel_filters(40))
    assert power.shape == (RATE // HOP + 1, 40)
    assert set(power[5:-5].argmax(axis=1)) == {band}
