"""Opus packets: encoded, decoded, and put into order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transports.webrtc.call_stage import loud_ms, tone
from vivavoce.audio.pacer import FRAME_BYTES
from vivavoce.transports.webrtc.opus import (
    JitterBuffer,
    OpusDecoder,
    OpusEncoder,
    duration,
    silent_packet,
)

TICKS = 960
FRAME = 0x68  # one frame of 20 ms: RFC 6716, table 2


def test_encoded_tone_is_decoded_with_its_pitch_and_length() -> None:
    encoder, decoder, sound = OpusEncoder(), OpusDecoder(), tone(0.4)
    frames = [sound[at : at + FRAME_BYTES] for at in range(0, len(sound), FRAME_BYTES)]
    packets = [encoder.encode(frame) for frame in frames]
    heard = b"".join(decoder.decode(packet) for packet in packets)
    assert len(sound) - len(heard) < 100  # the filter's lag
    assert 380 <= loud_ms(heard) <= 400
    spectrum = np.abs(np.fft.rfft(np.frombuffer(heard, "<i2")))
    assert abs(int(spectrum.argmax()) / (len(heard) / 48_000) - 440) < 5
    assert sum(map(len, packets)) < 32_000 / 8 * 0.4 * 1.5


def test_encoded_packet_lasts_twenty_milliseconds() -> None:
    assert duration(OpusEncoder().encode(bytes(FRAME_BYTES))) == 960
    assert duration(silent_packet()) == 960


def test_silent_packet_decodes_to_silence() -> None:
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
def test_duration_is_read_from_the_packet_header(packet: bytes, ticks: int) -> None:
    assert duration(packet) == ticks


def test_invalid_packet_decodes_to_silence_of_its_duration() -> None:
    decoder = OpusDecoder()
    heard = decoder.decode(bytes((31 << 3 | 3, 0)))
    assert heard.strip(b"\0") == b""
    assert len(decoder.silence(960)) <= FRAME_BYTES


def packet(n: int) -> bytes:
    return bytes((FRAME, n % 256))


def add(buffer: JitterBuffer, *numbers: int) -> list[bytes | int]:
    """Packets of one stream come in that order."""
    out: list[bytes | int] = []
    for n in numbers:
        out += buffer.add(n % 2**16, n * TICKS % 2**32, packet(n))
    return out


def test_packet_in_order_is_returned_at_once() -> None:
    buffer = JitterBuffer()
    assert [add(buffer, n) for n in (7, 8, 9)] == [[packet(7)], [packet(8)], [packet(9)]]


def test_early_packet_waits_for_the_missing_one() -> None:
    buffer = JitterBuffer()
    add(buffer, 1)
    assert add(buffer, 3) == []
    assert add(buffer, 4) == []
    assert add(buffer, 2) == [packet(2), packet(3), packet(4)]


def test_missing_packets_are_replaced_by_their_duration_when_three_wait() -> None:
    buffer = JitterBuffer()
    add(buffer, 1)
    assert add(buffer, 4, 5) == []
    assert add(buffer, 6) == [2 * TICKS, packet(4), packet(5), packet(6)]
    assert add(buffer, 7) == [packet(7)]


def test_duplicate_or_late_packet_is_dropped() -> None:
    buffer = JitterBuffer()
    add(buffer, 1, 3, 4, 5)
    assert add(buffer, 2, 5, 1) == []
    assert add(buffer, 6) == [packet(6)]


def test_sequence_numbers_that_wrap_stay_in_order() -> None:
    buffer = JitterBuffer()
    first = 2**16 - 2
    assert add(buffer, *range(first, first + 4)) == [packet(n) for n in range(first, first + 4)]


def test_timestamps_that_wrap_show_no_gap() -> None:
    buffer = JitterBuffer()
    buffer.add(1, 2**32 - TICKS, packet(1))
    assert buffer.add(2, 0, packet(2)) == [packet(2)]


def test_sequence_number_far_off_begins_a_new_stream() -> None:
    buffer = JitterBuffer()
    add(buffer, 1, 3)
    assert add(buffer, 5000) == [packet(5000)]
    assert add(buffer, 5001) == [packet(5001)]


def test_gap_in_timestamps_is_returned_as_its_duration() -> None:
    buffer = JitterBuffer()
    add(buffer, 1)
    assert buffer.add(2, 12 * TICKS, packet(2)) == [10 * TICKS, packet(2)]


def test_filled_silence_is_not_returned_again() -> None:
    buffer = JitterBuffer()
    buffer.fill(TICKS)
    add(buffer, 1)
    for _ in range(10):
        buffer.fill(TICKS)
    assert buffer.add(2, 12 * TICKS, packet(2)) == [packet(2)]


def test_gap_above_one_second_is_skipped() -> None:
    buffer = JitterBuffer()
    add(buffer, 1)
    assert buffer.add(2, 100 * TICKS, packet(2)) == [packet(2)]


@given(st.permutations(range(12)))
def test_packets_in_any_order_are_returned_once_and_sorted(order: list[int]) -> None:
    buffer = JitterBuffer()
    add(buffer, 0)
    numbers = [
        piece[1] for piece in add(buffer, *(n + 1 for n in order)) if not isinstance(piece, int)
    ]
    assert numbers == sorted(set(numbers))
