import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.formats import decode, to_ms, to_samples
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.session.cascade.input_buffer import ArrivalPace, HalfSample, InputBuffer, Intake


def sound(samples: int, begin: int = 0) -> bytes:
    """Sound of which every sample tells its position."""
    return b"".join(n.to_bytes(2, "little") for n in range(begin, begin + samples))


class Taker(Intake):
    """An intake that puts what it decodes into its buffer at once."""

    def append(self, event: InputAudioAppend, now: float, *, begin: int = 0) -> None:
        self.add(self.decode(event, now, begin=begin), now)


def an_intake(*, longest: int = 1000) -> Taker:
    return Taker(max_samples=longest)


def append(audio: bytes, event_id: str | None = None) -> InputAudioAppend:
    return InputAudioAppend(audio=audio, event_id=event_id)


def test_positions_and_milliseconds_translate() -> None:
    assert to_samples(100) == 2400
    assert to_ms(2400) == 100
    assert to_ms(23) == 0  # whole milliseconds only


def test_buffer_counts_all_sound_that_ever_came() -> None:
    buffer = InputBuffer()
    buffer.append(sound(10))
    assert buffer.cut(4) == sound(4)
    buffer.append(sound(5, 10))
    assert (buffer.start, buffer.end, len(buffer)) == (4, 15, 11)


def test_buffer_reads_what_is_still_here() -> None:
    buffer = InputBuffer()
    buffer.append(sound(10))
    buffer.drop(4)
    assert buffer.read(0, 6) == sound(2, 4)
    assert buffer.read(8, 99) == sound(2, 8)
    assert buffer.read(0, 3) == b""
    assert buffer.read(7, 5) == b""


def test_forgotten_audio_is_not_forgotten_again() -> None:
    buffer = InputBuffer()
    buffer.append(sound(10))
    buffer.drop(6)
    buffer.drop(2)
    assert (buffer.start, buffer.read(0, 10)) == (6, sound(4, 6))


def test_forgetting_ahead_does_not_count_sound_that_never_came() -> None:
    buffer = InputBuffer()
    buffer.append(sound(10))
    buffer.drop(25)
    assert (buffer.start, buffer.end) == (10, 10)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("forget"), st.integers(0, 200), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 200), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 200), st.integers(0, 200)),
    ),
    max_size=40,
)


@given(STEPS)
def test_buffer_equals_a_window_on_all_audio(
    steps: list[tuple[str, int, int]],
) -> None:
    buffer, everything, start = InputBuffer(), b"", 0
    for step, a, b in steps:
        end = len(everything) // 2
        match step:
            case "append":
                piece = sound(a, end)
                everything += piece
                buffer.append(piece)
            case "forget":
                buffer.drop(a)
                start = max(start, min(a, end))
            case "cut":
                assert buffer.cut(a) == everything[2 * start : 2 * max(start, a)]
                start = max(start, min(a, end))
            case _:
                assert buffer.read(a, b) == everything[2 * max(start, a) : 2 * max(start, a, b)]
        assert (buffer.start, buffer.end) == (start, len(everything) // 2)
        assert len(buffer) == buffer.end - buffer.start


@given(st.lists(st.binary(max_size=9), max_size=30))
def test_samples_do_not_depend_on_the_cutting_of_the_bytes(pieces: list[bytes]) -> None:
    intake = an_intake()
    for piece in pieces:
        intake.append(append(piece), 0.0)
    everything = b"".join(pieces)
    assert intake.buffer.read(0, 1000) == everything[: len(everything) // 2 * 2]
    assert (intake.half is not None) == bool(len(everything) % 2)


def test_half_a_sample_waits_a_second_for_the_next_append() -> None:
    intake = an_intake()
    intake.append(append(b"\x01\x02\x03", "event_odd"), 7.0)
    assert intake.half == HalfSample("event_odd", deadline=8.0)
    intake.append(append(b"\x04"), 7.5)
    assert intake.half is None
    assert intake.buffer.read(0, 2) == b"\x01\x02\x03\x04"


def test_half_a_sample_is_of_the_append_that_left_it_last() -> None:
    intake = an_intake()
    intake.append(append(b"\x01", "event_1"), 7.0)
    intake.append(append(b"\x02\x03", "event_2"), 7.5)
    assert intake.half == HalfSample("event_2", deadline=8.5)


def test_half_a_sample_is_dropped_once_and_what_follows_is_whole() -> None:
    intake = an_intake()
    intake.append(append(b"\x01\x02\x03", "event_odd"), 7.0)
    half = intake.drop_half()
    assert half == HalfSample("event_odd", deadline=8.0)
    assert intake.drop_half() is None
    intake.append(append(b"\x05\x06"), 9.0)
    assert intake.buffer.read(0, 9) == b"\x01\x02\x05\x06"


def test_half_a_sample_is_reported_by_the_event_that_left_it() -> None:
    problem = HalfSample("event_odd", deadline=8.0).problem
    assert (problem.code, problem.param, problem.event_id) == (
        "invalid_value",
        "audio",
        "event_odd",
    )
    assert "odd number of bytes" in problem.message


def test_change_of_format_gives_back_half_a_sample_of_the_old_one() -> None:
    intake = an_intake()
    intake.append(append(b"\x01\x02\x03", "event_odd"), 7.0)
    assert intake.set_format("audio/pcm") is None  # no change: the half may still be completed
    assert intake.set_format("audio/pcmu") == HalfSample("event_odd", deadline=8.0)
    assert intake.half is None


def test_g711_becomes_three_samples_a_byte() -> None:
    intake = an_intake()
    intake.set_format("audio/pcmu")
    intake.append(append(bytes(range(100))), 0.0)
    assert len(intake.buffer) == 300
    assert intake.half is None
    # 1.9 ms (45 samples) late, so that every byte makes its samples at once
    assert intake.buffer.read(45, 270) == decode(bytes(range(100)), "audio/pcmu")[: 2 * 225]


def test_full_buffer_takes_no_more_until_there_is_room() -> None:
    intake = an_intake(longest=to_samples(10))
    intake.append(append(sound(300)), 0.0)  # the append that fills it is still taken whole
    with pytest.raises(InvalidRequest) as refused:
        intake.append(append(sound(1)), 0.0)
    assert (refused.value.code, refused.value.param) == ("input_audio_buffer_full", "audio")
    assert refused.value.message == (
        "The input audio buffer is full: it holds 12ms of the 10ms it may. Commit or clear it."
    )
    intake.buffer.drop(300)
    intake.append(append(sound(1)), 0.0)
    assert len(intake.buffer) == 1


def test_audio_bounded_elsewhere_takes_no_room() -> None:
    intake = an_intake(longest=100)
    intake.append(append(sound(300)), 0.0)
    intake.append(append(sound(1)), 0.0, begin=200)
    with pytest.raises(InvalidRequest):
        intake.append(append(sound(1)), 0.0, begin=200)


@pytest.mark.parametrize(
    ("pieces", "live"),
    [
        ([(0.0, 0.04)], True),
        ([(n * 0.04, 0.04) for n in range(100)], True),
        ([(0.0, 2.0)], False),
        ([(n * 0.004, 0.04) for n in range(100)], False),
        ([(0.0, 0.04), (0.5, 0.5)], True),  # a network that stumbled
        ([(0.0, 2.0), (9.0, 0.04)], True),  # a recording, and then somebody who speaks
    ],
)
def test_sound_that_comes_faster_than_it_is_spoken_is_a_recording(
    pieces: list[tuple[float, float]], live: bool
) -> None:
    pace = ArrivalPace()
    for at, seconds in pieces:
        pace.take(round(seconds * 24_000), at)
    assert pace.live is live
