"""How much of what was sent the client has played by now."""

from vivavoce.session.playback import ClientPlayback

SECOND = 24_000


def test_playback_without_audio_has_played_nothing() -> None:
    playout = ClientPlayback()
    assert playout.until == float("-inf")
    assert playout.stop(5.0) == {}
    assert playout.drop("a", 5.0) == 0
    assert playout.until == float("-inf")


def test_sound_is_played_from_the_moment_it_comes() -> None:
    playout = ClientPlayback()
    playout.add("resp", "a", bytes(2 * (3 * SECOND)), 10.0)
    assert playout.until == 13.0
    assert playout.stop(11.0) == {"a": 2 * SECOND}
    assert playout.until == 11.0


def test_audio_that_comes_faster_than_playout_waits() -> None:
    playout = ClientPlayback()
    playout.add("resp", "a", bytes(2 * (SECOND)), 10.0)
    playout.add("resp", "a", bytes(2 * (SECOND)), 10.5)
    assert playout.until == 12.0
    assert playout.stop(10.75) == {"a": 30_000}


def test_gap_is_not_played() -> None:
    playout = ClientPlayback()
    playout.add("resp", "a", bytes(2 * (SECOND)), 10.0)
    playout.add("resp", "a", bytes(2 * (SECOND)), 20.0)
    assert playout.until == 21.0
    assert playout.stop(20.5) == {"a": 12_000}


def test_answer_that_was_played_is_not_stopped() -> None:
    playout = ClientPlayback()
    playout.add("resp", "a", bytes(2 * (SECOND)), 10.0)
    assert playout.stop(11.0) == {}
    assert playout.until == 11.0


def test_answer_queues_behind_the_one_before_it() -> None:
    playout = ClientPlayback()
    playout.add("resp", "a", bytes(2 * (2 * SECOND)), 10.0)
    playout.add("resp", "b", bytes(2 * (3 * SECOND)), 10.5)
    assert playout.until == 15.0
    assert playout.stop(11.5) == {"a": 12_000, "b": 3 * SECOND}


def test_answer_that_was_played_is_not_stopped_with_the_next() -> None:
    playout = ClientPlayback()
    playout.add("resp", "a", bytes(2 * (2 * SECOND)), 10.0)
    playout.add("resp", "b", bytes(2 * (3 * SECOND)), 10.5)
    assert playout.stop(13.0) == {"b": 2 * SECOND}


def test_removed_answer_leaves_the_other_playing() -> None:
    playout = ClientPlayback()
    playout.add("resp", "a", bytes(2 * (2 * SECOND)), 10.0)
    playout.add("resp", "b", bytes(2 * (3 * SECOND)), 10.5)
    assert playout.drop("b", 11.0) == 3 * SECOND
    assert playout.until == 12.0
    assert playout.drop("b", 11.0) == 0
    assert playout.stop(11.0) == {"a": SECOND}


def test_rest_of_a_removed_answer_is_not_played() -> None:
    playout = ClientPlayback()
    playout.add("resp", "a", bytes(2 * (2 * SECOND)), 10.0)
    playout.add("resp", "b", bytes(2 * (3 * SECOND)), 10.5)
    assert playout.drop("a", 11.0) == SECOND
    assert playout.until == 14.0
