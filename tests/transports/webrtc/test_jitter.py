"""Packets in order, nothing held back without need."""

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.transports.webrtc.jitter import JitterBuffer

TICKS = 960
FRAME = 0x68  # one frame of 20 ms: RFC 6716, table 2


def packet(n: int) -> bytes:
    return bytes((FRAME, n % 256))


def add(buffer: JitterBuffer, *numbers: int) -> list[bytes | int]:
    """Packets of one stream come in that order."""
    out: list[bytes | int] = []
    for n in numbers:
        out += buffer.add(n % 2**16, n * TICKS % 2**32, packet(n))
    return out


def test_what_comes_in_order_goes_on_at_once() -> None:
    buffer = JitterBuffer()
    assert [add(buffer, n) for n in (7, 8, 9)] == [[packet(7)], [packet(8)], [packet(9)]]


def test_what_comes_too_early_waits_for_what_is_before_it() -> None:
    buffer = JitterBuffer()
    add(buffer, 1)
    assert add(buffer, 3) == []
    assert add(buffer, 4) == []
    assert add(buffer, 2) == [packet(2), packet(3), packet(4)]


def test_what_does_not_come_is_lost_when_three_wait_and_its_length_is_told() -> None:
    buffer = JitterBuffer()
    add(buffer, 1)
    assert add(buffer, 4, 5) == []
    assert add(buffer, 6) == [2 * TICKS, packet(4), packet(5), packet(6)]
    assert add(buffer, 7) == [packet(7)]


def test_what_comes_twice_or_too_late_is_dropped() -> None:
    buffer = JitterBuffer()
    add(buffer, 1, 3, 4, 5)
    assert add(buffer, 2, 5, 1) == []
    assert add(buffer, 6) == [packet(6)]


def test_numbers_begin_anew() -> None:
    buffer = JitterBuffer()
    first = 2**16 - 2
    assert add(buffer, *range(first, first + 4)) == [packet(n) for n in range(first, first + 4)]


def test_timestamps_begin_anew() -> None:
    buffer = JitterBuffer()
    buffer.add(1, 2**32 - TICKS, packet(1))
    assert buffer.add(2, 0, packet(2)) == [packet(2)]


def test_another_stream_begins_where_it_likes() -> None:
    buffer = JitterBuffer()
    add(buffer, 1, 3)
    assert add(buffer, 5000) == [packet(5000)]
    assert add(buffer, 5001) == [packet(5001)]


def test_silence_that_was_not_sent_is_told() -> None:
    buffer = JitterBuffer()
    add(buffer, 1)
    assert buffer.add(2, 12 * TICKS, packet(2)) == [10 * TICKS, packet(2)]


def test_silence_that_was_put_in_already_is_not_told_again() -> None:
    buffer = JitterBuffer()
    buffer.fill(TICKS)
    add(buffer, 1)
    for _ in range(10):
        buffer.fill(TICKS)
    assert buffer.add(2, 12 * TICKS, packet(2)) == [packet(2)]


def test_a_gap_of_more_than_a_second_is_not_made_up_for() -> None:
    buffer = JitterBuffer()
    add(buffer, 1)
    assert buffer.add(2, 100 * TICKS, packet(2)) == [packet(2)]


@given(st.permutations(range(12)))
def test_whatever_the_order_each_goes_on_once_and_in_order(order: list[int]) -> None:
    buffer = JitterBuffer()
    add(buffer, 0)
    numbers = [
        piece[1] for piece in add(buffer, *(n + 1 for n in order)) if not isinstance(piece, int)
    ]
    assert numbers == sorted(set(numbers))
