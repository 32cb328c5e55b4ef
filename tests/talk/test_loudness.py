import math

import numpy as np
import pytest

from tests.talk.stage import silence, tone
from vivavoce.talk.loudness import level_db, speech_end_ms


def noise(ms: int, amplitude: float) -> bytes:
    samples = np.random.default_rng(1).uniform(-amplitude, amplitude, 24 * ms)
    pcm: bytes = samples.astype("<i2").tobytes()
    return pcm


def mixed(first: bytes, second: bytes) -> bytes:
    total = np.frombuffer(first, "<i2") + np.frombuffer(second, "<i2")
    pcm: bytes = total.astype("<i2").tobytes()
    return pcm


def test_the_level_of_a_full_sine_is_3_db_below_full_scale() -> None:
    assert level_db(tone(1000, 32767)) == pytest.approx(-3.01, abs=0.01)


@pytest.mark.parametrize("pcm", [b"", silence(100)])
def test_silence_has_no_level(pcm: bytes) -> None:
    assert level_db(pcm) == -math.inf


@pytest.mark.parametrize(
    ("pcm", "end_ms"),
    [
        (tone(200), 200),
        (silence(100) + tone(300) + silence(500), 400),
        (tone(100) + silence(300) + tone(100) + silence(60), 500),
        (tone(190), 190),  # a frame that is cut short ends with the sound
        (tone(200) + silence(100) + tone(100, 100), 200),  # 38 dB below the rest
        (tone(200) + silence(100) + tone(100, 1000), 400),  # 18 dB below it
        (mixed(silence(200) + tone(200) + silence(400), noise(800, 500)), 400),
    ],
)
def test_speech_ends_with_its_last_loud_frame(pcm: bytes, end_ms: int) -> None:
    assert speech_end_ms(pcm) == end_ms


@pytest.mark.parametrize("pcm", [b"", silence(500), noise(500, 20)])
def test_where_nothing_is_loud_there_is_no_speech(pcm: bytes) -> None:
    assert speech_end_ms(pcm) is None
