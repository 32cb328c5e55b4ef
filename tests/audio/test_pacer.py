"""Audio is released as fast as it is heard, in order, at most a little ahead."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.audio.formats import RATE
from vivavoce.audio.pacer import FRAME_BYTES, FRAME_SECONDS, Pacer, PlayoutQueue


def pcm(frames: float, value: int = 1) -> bytes:
    return bytes([value, 0]) * int(frames * FRAME_BYTES / 2)


def released(pacer: Pacer, now: float) -> int:
    return sum(len(frame.audio) for frame in pacer.take(now)) // FRAME_BYTES


def test_queue_takes_across_pieces_and_counts_samples_by_item() -> None:
    queue = PlayoutQueue()
    queue.put("a", b"aaaa")
    queue.put("b", b"")
    queue.put("b", b"bbbb")
    assert queue.seconds == 4 / RATE
    assert queue.take(6) == (b"aaaabb", {"a": 2, "b": 1})
    assert queue.take(6) == (b"bb", {"b": 1})
    assert queue.take(6) == (b"", {})
    queue.put("a", b"aaaa")
    queue.clear()
    assert (queue.seconds, queue.take(6)) == (0, (b"", {}))


def test_pacer_begins_with_what_may_be_ahead_and_goes_on_in_real_time() -> None:
    pacer = Pacer()
    pacer.queue.put("a", pcm(10))
    assert pacer.wait_seconds(7.0) == 0
    assert released(pacer, 7.0) == 2
    assert released(pacer, 7.0) == 0
    assert pacer.wait_seconds(7.0) == pytest.approx(FRAME_SECONDS)
    for n in range(1, 9):
        assert released(pacer, 7.0 + n * FRAME_SECONDS) == 1
    assert pacer.wait_seconds(8.0) is None
    assert released(pacer, 8.0) == 0


def test_pacer_that_is_called_late_makes_up_for_what_the_client_still_had() -> None:
    pacer = Pacer()
    pacer.queue.put("a", pcm(20))
    assert released(pacer, 0.0) == 2
    assert released(pacer, 0.03) == 1
    assert released(pacer, 0.0599) == 1


def test_pacer_after_a_gap_begins_anew_without_a_burst() -> None:
    pacer = Pacer()
    pacer.queue.put("a", pcm(20))
    pacer.take(0.0)
    assert released(pacer, 5.0) == 2
    assert released(pacer, 5.0 + FRAME_SECONDS) == 1


def test_cleared_audio_is_not_released() -> None:
    pacer = Pacer()
    pacer.queue.put("a", pcm(20))
    pacer.take(0.0)
    pacer.queue.clear()
    assert pacer.wait_seconds(0.0) is None
    assert pacer.take(1.0) == []
    pacer.queue.put("b", pcm(1))
    (frame,) = pacer.take(1.0)
    assert frame.samples == {"b": FRAME_BYTES // 2}


def test_continuous_pacer_releases_silence_between_audio() -> None:
    pacer = Pacer(ahead_seconds=FRAME_SECONDS, continuous=True)
    assert [frame.audio for frame in pacer.take(0.0)] == [bytes(FRAME_BYTES)]
    assert pacer.wait_seconds(0.0) == pytest.approx(FRAME_SECONDS)
    pacer.queue.put("a", pcm(1))
    (frame,) = pacer.take(FRAME_SECONDS)
    assert frame == (pcm(1), {"a": FRAME_BYTES // 2})
    assert released(pacer, 2 * FRAME_SECONDS) == 1


@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.floats(0, 0.2)), max_size=30),
    st.sampled_from([0.0, 0.02, 0.04, 0.2]),
)
@settings(deadline=None)
def test_pacer_releases_all_in_order_and_never_more_than_ahead(
    steps: list[tuple[int, float]], ahead: float
) -> None:
    pacer = Pacer(ahead_seconds=ahead)
    put, got, now, played_until = b"", b"", 100.0, 0.0
    for samples, pause in [*steps, (0, 0.0), *[(0, 1.0)] * 100]:
        piece = bytes(range(256)) * (samples // 128 + 1)
        piece = piece[: 2 * samples]
        put += piece
        pacer.queue.put("a", piece)
        now += pause
        for frame in pacer.take(now):
            got += frame.audio
            assert sum(frame.samples.values()) * 2 == len(frame.audio) <= FRAME_BYTES
            played_until = max(played_until, now) + len(frame.audio) / 2 / RATE
            assert played_until - now <= max(ahead, FRAME_SECONDS) + 1e-5
        while wait := pacer.wait_seconds(now):
            now += wait
            for frame in pacer.take(now):
                got += frame.audio
                played_until = max(played_until, now) + len(frame.audio) / 2 / RATE
                assert played_until - now <= max(ahead, FRAME_SECONDS) + 1e-5
    assert got == put


def test_playout_queue_ducked_plays_softly_with_a_ramp() -> None:
    queue = PlayoutQueue()
    loud = np.full(3 * FRAME_BYTES // 2, 8000, "<i2")
    queue.put("a", loud.tobytes())
    queue.ducked = True
    first = np.frombuffer(queue.take(FRAME_BYTES)[0], "<i2")
    assert (first[0], first[-1]) == (8000, 2000)
    assert np.all(np.diff(first) <= 0)
    second = np.frombuffer(queue.take(FRAME_BYTES)[0], "<i2")
    assert set(second.tolist()) == {2000}
    queue.ducked = False
    third = np.frombuffer(queue.take(FRAME_BYTES)[0], "<i2")
    assert (third[0], third[-1]) == (2000, 8000)
    assert queue.take(FRAME_BYTES) == (b"", {})
