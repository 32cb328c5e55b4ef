"""Sound that waits, and the beat in which it leaves."""

from vivavoce.transports.webrtc.playout import PlayoutPace, Waiting


def test_sound_is_taken_in_order_and_counted_by_item() -> None:
    waiting = Waiting()
    waiting.put("a", b"\1\0" * 3)
    waiting.put("b", b"\2\0" * 4)
    waiting.put("b", b"")
    assert waiting.take(8) == (b"\1\0" * 3 + b"\2\0", {"a": 3, "b": 1})
    assert waiting.take(100) == (b"\2\0" * 3, {"b": 3})
    assert waiting.take(100) == (b"", {})


def test_a_piece_is_taken_bit_by_bit() -> None:
    waiting = Waiting()
    waiting.put("a", b"\1\0\2\0\3\0")
    assert [waiting.take(4)[0], waiting.take(4)[0]] == [b"\1\0\2\0", b"\3\0"]


def test_what_waits_is_known_in_seconds_and_dropped_at_once() -> None:
    waiting = Waiting()
    waiting.put("a", bytes(48_000))
    assert waiting.seconds == 1.0
    waiting.take(24_000)
    assert waiting.seconds == 0.5
    waiting.clear()
    assert waiting.seconds == 0.0
    waiting.put("b", b"\1\0")
    assert waiting.take(100) == (b"\1\0", {"b": 1})


def due(pace: PlayoutPace, now: float) -> tuple[int, float]:
    frame, delay = pace.next(now)
    return frame, round(delay, 6)


def test_frames_are_due_every_twenty_milliseconds() -> None:
    pace = PlayoutPace()
    assert pace.next(10.0) == (0, 0.0)
    assert due(pace, 10.0) == (1, 0.02)
    assert due(pace, 10.03) == (2, 0.01)


def test_a_little_delay_is_made_up_for() -> None:
    pace = PlayoutPace()
    pace.next(10.0)
    assert pace.next(10.09) == (1, 0.0)
    assert pace.next(10.09) == (2, 0.0)


def test_a_long_delay_is_not() -> None:
    pace = PlayoutPace()
    pace.next(10.0)
    frame, delay = pace.next(10.5)
    assert (frame, delay) == (25, 0.0)
    assert due(pace, 10.5) == (26, 0.02)
