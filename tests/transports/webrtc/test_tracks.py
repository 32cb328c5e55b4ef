"""When the frames of a call's audio are due."""

from vivavoce.transports.webrtc.tracks import FrameClock


def due(clock: FrameClock, now: float) -> tuple[int, float]:
    frame, delay = clock.next(now)
    return frame, round(delay, 6)


def test_frames_are_due_every_twenty_milliseconds() -> None:
    clock = FrameClock()
    assert clock.next(10.0) == (0, 0.0)
    assert due(clock, 10.0) == (1, 0.02)
    assert due(clock, 10.03) == (2, 0.01)


def test_short_delay_is_made_up_for() -> None:
    clock = FrameClock()
    clock.next(10.0)
    assert clock.next(10.09) == (1, 0.0)
    assert clock.next(10.09) == (2, 0.0)


def test_long_delay_skips_frames() -> None:
    clock = FrameClock()
    clock.next(10.0)
    frame, delay = clock.next(10.5)
    assert (frame, delay) == (25, 0.0)
    assert due(clock, 10.5) == (26, 0.02)
