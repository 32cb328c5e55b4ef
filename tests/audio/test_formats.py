from io import BytesIO

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vivavoce.audio.formats import BYTES_PER_MS, RATE, Decoder, Encoder, Format, decode, encode, ms
from vivavoce.audio.resample import resample

LAWS: list[Format] = ["audio/pcmu", "audio/pcma"]
LAG = 15  # samples of 8 kHz
EVERY_CODE = bytes(range(256))


def samples(pcm: bytes) -> NDArray[np.int64]:
    return np.frombuffer(pcm, "<i2").astype(np.int64)


def held(value: int, seconds: float = 0.1) -> bytes:
    """A constant: no filter changes it but at its ends."""
    return np.full(int(RATE * seconds), value, "<i2").tobytes()


def expanded(code: int, law: Format) -> int:
    pcm = samples(decode(bytes([code]) * 200, law))
    return int(pcm[len(pcm) // 2])


def compressed(value: int, law: Format) -> int:
    wire = encode(held(value), law)
    return wire[len(wire) // 2]


def reference(law: Format) -> NDArray[np.int64]:
    """All 256 codes as FFmpeg expands them."""
    made = BytesIO()
    tag = {"audio/pcmu": "pcm_mulaw", "audio/pcma": "pcm_alaw"}[law]
    with av.open(made, "w", format="wav") as container:
        stream = container.add_stream(tag, rate=8000, layout="mono")
        packet = av.Packet(EVERY_CODE)
        packet.stream = stream
        packet.pts = packet.dts = 0
        container.mux(packet)
    made.seek(0)
    with av.open(made, "r") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.int64)


@pytest.mark.parametrize("law", LAWS)
def test_g711_codes_decode_as_in_ffmpeg(law: Format) -> None:
    assert [expanded(code, law) for code in range(256)] == reference(law).tolist()


@pytest.mark.parametrize(
    ("law", "value", "code"),
    [
        ("audio/pcmu", 0, 0xFF),
        ("audio/pcmu", 3, 0xFF),
        ("audio/pcmu", 4, 0xFE),
        ("audio/pcmu", -4, 0x7E),
        ("audio/pcmu", 123, 0xF0),
        ("audio/pcmu", 124, 0xEF),  # a new segment, of steps twice as large
        ("audio/pcmu", 32_767, 0x80),
        ("audio/pcmu", -32_768, 0x00),
        ("audio/pcma", 0, 0xD5),
        ("audio/pcma", -1, 0x55),
        ("audio/pcma", 15, 0xD5),
        ("audio/pcma", 16, 0xD4),
        ("audio/pcma", 511, 0xCA),
        ("audio/pcma", 32_767, 0xAA),
        ("audio/pcma", -32_768, 0x2A),
    ],
)
def test_g711_samples_beside_a_decision_value_get_neighbouring_codes(
    law: Format, value: int, code: int
) -> None:
    assert compressed(value, law) == code


@pytest.mark.parametrize("law", LAWS)
def test_g711_code_round_trips(law: Format) -> None:
    codes = {compressed(expanded(code, law), law) for code in range(256)}
    # mu-law has two zeros, 0xFF and 0x7F; only the positive one is made of a sample.
    assert codes == set(range(256)) - ({0x7F} if law == "audio/pcmu" else set())


@pytest.mark.parametrize("law", LAWS)
@given(value=st.integers(-32_768, 32_767))
def test_g711_round_trip_error_is_at_most_half_a_step(law: Format, value: int) -> None:
    error = abs(expanded(compressed(value, law), law) - value)
    # Steps are a sixteenth of a segment, and a segment is as long as where it begins (less bias).
    largest = 32_767 - 32_124 + 1 if abs(value) > 32_124 else max(8, (abs(value) + 132) // 32 + 1)
    assert error <= largest


@pytest.mark.parametrize("law", LAWS)
def test_g711_codes_are_monotonic(law: Format) -> None:
    ramp = np.arange(-32_768, 32_768, 64)
    heard = [expanded(compressed(int(value), law), law) for value in ramp]
    assert heard == sorted(heard)


@pytest.mark.parametrize("law", LAWS)
def test_voice_band_tone_survives_g711(law: Format) -> None:
    pcm = (8_000 * np.sin(2 * np.pi * 1_000 * np.arange(RATE) / RATE)).astype("<i2").tobytes()
    error = samples(decode(encode(pcm, law), law)) - samples(pcm)
    assert np.abs(error[500:-500]).max() < 8_000 / 24
    assert np.mean(error[500:-500].astype(float) ** 2) < 8_000**2 / 2 / 10**3.5  # 35 dB


@pytest.mark.parametrize("law", LAWS)
def test_g711_byte_makes_three_samples_1_9_ms_late(law: Format) -> None:
    wire = np.random.default_rng(1).integers(0, 256, 600, np.uint8).tobytes()
    decoder = Decoder(law)
    made = b""
    for size in (1, 0, 7, 160, 160, 272):
        piece = decoder.feed(wire[len(made) // 6 : len(made) // 6 + size])
        assert len(piece) == 6 * size
        made += piece
    late = 6 * LAG
    assert made[late:] == decode(wire, law)[: len(made) - late]


@pytest.mark.parametrize("law", LAWS)
def test_g711_stream_equals_the_whole_recording(law: Format) -> None:
    pcm = np.random.default_rng(2).integers(-9_000, 9_000, 2_401).astype("<i2").tobytes()
    encoder = Encoder(law)
    made = b"".join(encoder.feed(pcm[at : at + 334]) for at in range(0, len(pcm), 334))
    made += encoder.flush()
    assert made == encode(pcm, law)
    assert len(made) == 800
    assert encoder.feed(pcm) + encoder.flush() == made  # the next stream


def test_g711_encoder_filters_above_4_khz() -> None:
    hiss = (16_000 * np.sin(2 * np.pi * 7_000 * np.arange(RATE) / RATE)).astype("<i2").tobytes()
    heard = samples(decode(encode(hiss, "audio/pcmu"), "audio/pcmu"))
    assert np.abs(heard[500:-500]).max() < 32


def test_pcm_passes_unchanged() -> None:
    pcm = b"\x01\x02\x03\x04"
    assert Decoder("audio/pcm").feed(pcm) is pcm
    encoder = Encoder("audio/pcm")
    assert (encoder.feed(pcm), encoder.flush()) == (pcm, b"")
    assert encode(pcm, "audio/pcm") == pcm
    assert decode(pcm + b"\x05", "audio/pcm") == pcm


@given(st.lists(st.binary(max_size=7)))
def test_pcm_cut_inside_a_sample_is_joined(pieces: list[bytes]) -> None:
    decoder = Decoder("audio/pcm")
    whole = b"".join(pieces)
    made = [decoder.feed(piece) for piece in pieces]
    assert all(len(piece) % 2 == 0 for piece in made)
    assert b"".join(made) == whole[: len(whole) // 2 * 2]
    assert decoder.carrying == bool(len(whole) % 2)


def test_drop_half_forgets_half_a_sample() -> None:
    decoder = Decoder("audio/pcm")
    assert decoder.feed(b"\x01\x02\x03") == b"\x01\x02"
    assert decoder.carrying
    decoder.drop_half()
    assert not decoder.carrying
    assert decoder.feed(b"\x04\x05") == b"\x04\x05"


def test_g711_never_carries_half_a_sample() -> None:
    decoder = Decoder("audio/pcma")
    decoder.feed(b"\xd5")
    assert not decoder.carrying


def test_empty_input_gives_empty_output() -> None:
    for law in LAWS:
        assert decode(b"", law) == encode(b"", law) == Decoder(law).feed(b"") == b""


def test_durations_are_whole_milliseconds() -> None:
    assert (ms(bytes(4_799)), ms(4_800), BYTES_PER_MS) == (99, 100, 48)
    assert ms(resample(bytes(16_000), 8_000, RATE)) == 1_000
