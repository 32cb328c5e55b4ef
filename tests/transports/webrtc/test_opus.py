"""Sound to packets and back."""

import numpy as np
import pytest

from tests.transports.webrtc.call_stage import loud_ms, tone
from vivavoce.transports.webrtc.opus import (
    FRAME_BYTES,
    OpusDecoder,
    OpusEncoder,
    duration,
    silent_packet,
)


def test_what_is_encoded_is_heard_again() -> None:
    encoder, decoder, sound = OpusEncoder(), OpusDecoder(), tone(0.4)
    frames = [sound[at : at + FRAME_BYTES] for at in range(0, len(sound), FRAME_BYTES)]
    packets = [encoder.encode(frame) for frame in frames]
    heard = b"".join(decoder.decode(packet) for packet in packets)
    assert len(sound) - len(heard) < 100  # the filter's lag
    assert 380 <= loud_ms(heard) <= 400
    spectrum = np.abs(np.fft.rfft(np.frombuffer(heard, "<i2")))
    assert abs(int(spectrum.argmax()) / (len(heard) / 48_000) - 440) < 5
    assert sum(map(len, packets)) < 32_000 / 8 * 0.4 * 1.5


def test_a_packet_is_twenty_milliseconds() -> None:
    assert duration(OpusEncoder().encode(bytes(FRAME_BYTES))) == 960
    assert duration(silent_packet()) == 960


def test_silence_is_silent() -> None:
    decoder = OpusDecoder()
    heard = b"".join(decoder.decode(silent_packet()) for _ in range(20))
    assert np.abs(np.frombuffer(heard, "<i2")).max() <= 1


@pytest.mark.parametrize(
    ("packet", "ticks"),
    [
        (b"", 0),
        (bytes((0 << 3,)), 480),
        (bytes((3 << 3,)), 2880),
        (bytes((13 << 3,)), 960),
        (bytes((16 << 3,)), 120),
        (bytes((31 << 3 | 1,)), 1920),
        (bytes((31 << 3 | 2,)), 1920),
        (bytes((31 << 3 | 3, 3)), 2880),
        (bytes((31 << 3 | 3,)), 0),
    ],
)
def test_a_packet_says_how_long_it_is(packet: bytes, ticks: int) -> None:
    assert duration(packet) == ticks


def test_what_is_no_opus_is_as_much_silence_as_it_claims() -> None:
    decoder = OpusDecoder()
    heard = decoder.decode(bytes((31 << 3 | 3, 0)))
    assert heard.strip(b"\0") == b""
    assert len(decoder.silence(960)) <= FRAME_BYTES
