"""Sound of clients in several encodings and rates, and its recognition from the bytes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vivavoce.audio.samples import (
    RATES,
    Encoding,
    SampleDecoder,
    SampleEncoder,
    SampleFormat,
    default_rate,
    nearest_rate,
    recognised,
)


def tone(rate: int, seconds: float = 0.5, level: float = 0.3) -> NDArray[np.float64]:
    """440 Hz between -level and level."""
    return level * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)


def written(values: NDArray[np.float64], encoding: Encoding) -> bytes:
    if encoding == "f32":
        return bytes(values.astype("<f4"))
    return bytes(np.rint(values * 32767).astype("<i2"))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("encoding", ["pcm16", "f32"])
def test_decoder_gives_the_same_tone_at_24_khz(encoding: Encoding, rate: int) -> None:
    data = written(tone(rate), encoding)
    got = np.frombuffer(SampleDecoder(SampleFormat(encoding, rate)).feed(data), "<i2")
    expected = tone(24_000)[: len(got)] * 32767
    middle = slice(500, len(got) - 500)
    assert len(got) > 11_900
    assert np.abs(got[middle] - expected[middle]).max() < 60


@pytest.mark.parametrize("encoding", ["pcm16", "f32"])
@pytest.mark.parametrize("size", [1, 3, 999])
def test_decoder_stream_may_be_cut_anywhere(encoding: Encoding, size: int) -> None:
    data = written(tone(16_000, 0.05), encoding)
    format_ = SampleFormat(encoding, 16_000)
    whole, cut = SampleDecoder(format_), SampleDecoder(format_)
    pieces = [cut.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert b"".join(pieces) == whole.feed(data)


def test_decoder_clips_floats_and_takes_no_number_as_silence() -> None:
    data = np.array([0, 2, -9, np.nan, np.inf, -np.inf, 0.5], "<f4").tobytes()
    got = np.frombuffer(SampleDecoder(SampleFormat("f32", 24_000)).feed(data), "<i2")
    assert got.tolist() == [0, 32767, -32767, 0, 32767, -32767, 16384]


@pytest.mark.parametrize("encoding", ["g711_ulaw", "g711_alaw"])
def test_g711_goes_through_both_ways(encoding: Encoding) -> None:
    format_ = SampleFormat(encoding, default_rate(encoding, 16_000))
    encoder = SampleEncoder(format_)
    coded = encoder.feed(written(tone(24_000), "pcm16")) + encoder.flush()
    assert len(coded) == 4000
    got = np.frombuffer(SampleDecoder(format_).feed(coded), "<i2")
    assert abs(np.abs(got).max() / 32767 - 0.3) < 0.02


@pytest.mark.parametrize("encoding", ["pcm16", "f32"])
def test_encoder_makes_every_sample_of_a_sound(encoding: Encoding) -> None:
    format_ = SampleFormat(encoding, 16_000)
    encoder = SampleEncoder(format_)
    data = encoder.feed(written(tone(24_000), "pcm16")) + encoder.flush()
    assert len(data) == format_.bytes_per_second // 2
    got = np.frombuffer(data, "<i2" if encoding == "pcm16" else "<f4")
    assert abs(got.max() / (32767 if encoding == "pcm16" else 1) - 0.3) < 0.01


@pytest.mark.parametrize("level", [0.001, 0.3, 1.0])
@pytest.mark.parametrize("encoding", ["pcm16", "f32"])
def test_encoding_is_recognised_from_the_bytes(encoding: Encoding, level: float) -> None:
    noise = np.random.default_rng(1).normal(size=2000) * level / 4
    assert recognised(written(np.clip(noise, -1, 1), encoding)) == encoding
    assert recognised(bytes(2000) + written(np.clip(noise, -1, 1), encoding)) == encoding


@pytest.mark.parametrize("data", [b"", b"\x01\x02" * 100, bytes(5000), b"\0" * 1025 + b"\1"])
def test_encoding_of_silence_or_too_few_bytes_is_not_recognised(data: bytes) -> None:
    assert recognised(data) is None


def test_rate_nearest_to_a_measured_one() -> None:
    assert [nearest_rate(rate) for rate in (1, 15_000, 46_000, 1e9)] == [8000, 16000, 44100, 48000]


def test_format_says_what_it_is() -> None:
    assert str(SampleFormat("f32", 48_000)) == "32-bit floats at 48000 Hz"
    assert str(SampleFormat("g711_ulaw", 8_000)) == "g711_ulaw at 8000 Hz"
    assert SampleFormat("g711_ulaw", 8_000).bytes_per_second == 8_000
    assert default_rate("pcm16", 16_000) == 16_000
