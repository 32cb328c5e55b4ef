from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.talk.speaker import Cut, Speaker

MS10 = 10 * BYTES_PER_MS
ONE, TWO = b"\1" * 2 * MS10, b"\2" * 2 * MS10


def test_sound_is_played_in_order_and_silence_after_it() -> None:
    speaker = Speaker()
    speaker.feed("a", 0, ONE)
    speaker.feed("b", 0, TWO)
    assert speaker.take(3 * MS10) == ONE + TWO[:MS10]
    assert speaker.take(3 * MS10) == TWO[:MS10] + bytes(2 * MS10)


def test_what_was_cut_off_is_told_with_what_was_played_of_it() -> None:
    speaker = Speaker()
    speaker.feed("a", 0, ONE)
    speaker.feed("b", 1, TWO)
    speaker.take(MS10)
    assert speaker.stop() == [Cut("a", 0, 10), Cut("b", 1, 0)]
    assert speaker.take(MS10) == bytes(MS10)
    assert speaker.stop() == []


def test_late_sound_of_what_was_stopped_is_dropped() -> None:
    speaker = Speaker()
    speaker.feed("a", 0, ONE)
    speaker.stop()
    speaker.feed("a", 0, ONE)
    speaker.feed("b", 0, TWO)
    assert speaker.take(2 * MS10) == TWO


def test_silence_while_sound_is_awaited_does_not_count_as_played() -> None:
    speaker = Speaker()
    speaker.feed("a", 0, ONE)
    speaker.take(9 * MS10)
    speaker.feed("a", 0, ONE)
    speaker.take(MS10)
    assert speaker.stop() == [Cut("a", 0, 30)]


def test_what_was_played_to_its_end_was_not_cut() -> None:
    speaker = Speaker()
    speaker.feed("a", 0, ONE)
    speaker.end("a", 0)
    speaker.take(3 * MS10)
    assert speaker.stop() == []
