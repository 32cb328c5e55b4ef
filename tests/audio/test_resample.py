import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.hypothesis_examples import examples
from vivavoce.audio.resample import Resampler, resample
from vivavoce.errors import AudioError

RATIOS = [
    (24_000, 16_000),
    (24_000, 8_000),
    (8_000, 24_000),
    (16_000, 24_000),
    (22_050, 24_000),
    (48_000, 24_000),
    (24_000, 24_000),
]
AMPLITUDE = 16_000


def tone(hertz: float, rate: int, seconds: float = 1.0) -> bytes:
    phase = 2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate
    return np.round(AMPLITUDE * np.sin(phase)).astype("<i2").tobytes()


def middle(pcm: bytes) -> NDArray[np.float64]:
    """Without the ends, where the sound begins and stops suddenly."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    return samples[len(samples) // 8 : -len(samples) // 8]


def level_db(samples: NDArray[np.float64]) -> float:
    """Relative to the tone above."""
    return float(10 * np.log10((np.mean(samples**2) + 1e-6) / (AMPLITUDE**2 / 2)))


@pytest.mark.parametrize(("source", "target"), RATIOS)
@settings(max_examples=examples(25))
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.one_of(st.integers(0, 5), st.integers(0, 1500)), max_size=12),
)
def test_stream_is_the_same_however_it_is_cut(
    source: int, target: int, seed: int, cuts: list[int]
) -> None:
    # Noise at full scale, so that clipping is met too.
    noise = np.random.default_rng(seed).integers(-32768, 32768, sum(cuts)).astype("<i2").tobytes()
    stream = Resampler(source, target)
    made, at = b"", 0
    for cut in cuts:
        made += stream.feed(noise[at : at + 2 * cut])
        at += 2 * cut
    made += stream.flush()
    assert made == resample(noise, source, target)
    assert len(made) == 2 * round(sum(cuts) * target / source)


@pytest.mark.parametrize(("source", "target"), RATIOS)
def test_long_recording_has_the_right_length(source: int, target: int) -> None:
    samples = 2 * source + 1234
    assert len(resample(bytes(2 * samples), source, target)) == 2 * round(samples * target / source)


@pytest.mark.parametrize(("source", "target"), RATIOS)
def test_less_than_2_ms_is_held_back(source: int, target: int) -> None:
    stream = Resampler(source, target)
    pcm = tone(440, source)
    made = 0
    for at in range(0, len(pcm), 46):  # 23 samples divide no period of any ratio
        made += len(stream.feed(pcm[at : at + 46])) // 2
        taken = min(at + 46, len(pcm)) // 2
        assert taken / source - made / target < 0.002
    assert stream.lag / source < 0.002


@pytest.mark.parametrize(("source", "target"), RATIOS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.85])
def test_common_band_passes_unchanged_and_in_place(source: int, target: int, share: float) -> None:
    hertz = round(share * min(source, target) / 2)
    expected = middle(tone(hertz, target))
    error = middle(resample(tone(hertz, source), source, target)) - expected
    assert level_db(error) < -60


@pytest.mark.parametrize(
    ("source", "target", "hertz"),
    [
        (24_000, 16_000, 8_850),
        (24_000, 16_000, 11_000),
        (48_000, 24_000, 13_300),
        (48_000, 24_000, 20_000),
        (24_000, 8_000, 4_620),
        (24_000, 8_000, 9_000),
    ],
)
def test_content_above_the_target_band_is_damped_by_60_db(
    source: int, target: int, hertz: int
) -> None:
    assert level_db(middle(resample(tone(hertz, source), source, target))) < -60


def test_nine_tenths_of_the_band_pass_at_16_khz() -> None:
    assert abs(level_db(middle(resample(tone(7_200, 24_000), 24_000, 16_000)))) < 0.05


def test_full_scale_is_clipped_and_does_not_wrap() -> None:
    square = np.where(np.arange(2400) // 40 % 2, 32767, -32768).astype("<i2")
    made = np.frombuffer(resample(square.tobytes(), 24_000, 16_000), "<i2")
    # The filter overshoots at every edge; the middle of each half period keeps its sign.
    assert made.max() == 32767
    assert made.min() == -32768
    assert [int(np.sign(made[at])) for at in (13, 40, 67, 93)] == [-1, 1, -1, 1]


def test_equal_rates_return_the_same_bytes() -> None:
    stream = Resampler(16_000, 16_000)
    pcm = b"\x01\x02\x03\x04"
    assert stream.feed(pcm) is pcm
    assert stream.flush() == b""
    assert stream.lag == 0


def test_new_stream_may_begin_after_flush() -> None:
    stream = Resampler(24_000, 16_000)
    first = stream.feed(tone(300, 24_000)) + stream.flush()
    assert stream.feed(tone(300, 24_000)) + stream.flush() == first


def test_ratio_that_needs_a_huge_filter_is_refused() -> None:
    with pytest.raises(AudioError, match=r"44101 Hz cannot be converted to 24000 Hz"):
        Resampler(44_101, 24_000)
