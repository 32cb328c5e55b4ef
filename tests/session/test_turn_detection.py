from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol.session import Eagerness, SemanticVad, ServerVad, TurnDetection
from vivavoce.session.cascade.turn_detection import (
    WINDOW,
    Edge,
    TurnDetector,
    hisses,
    rise_db,
)
from vivavoce.session.endpointing import Evidence, SpeakerPauses, TurnSettings, silence_for

MARKS = {None: " ", Edge.STARTED: "[", Edge.STOPPED: "]"}
LEVELS = {"#": 0.9, ".": 0.1, "~": 0.4}  # '~': below the threshold, within the hysteresis


def a_detector(settings: TurnDetection | None = None, *, windows: int = 3) -> TurnDetector:
    """A detector that ends a turn after so many windows of silence."""
    return TurnDetector(settings or ServerVad(silence_duration_ms=32 * windows))


def believe(detector: TurnDetector, likelihood: float) -> None:
    """It comes to be known how finished the words sound."""
    eagerness: Eagerness = getattr(detector.settings, "eagerness", "medium")
    evidence = Evidence(words=likelihood)
    detector.wait_for(silence_for(evidence, eagerness, SpeakerPauses(), TurnSettings()))


def edges(
    pattern: str,
    settings: TurnDetection | None = None,
    *,
    windows: int = 3,
    believing: dict[int, float] | None = None,
) -> str:
    """Feed windows of 32 ms and draw the edges under them.

    believing: how finished the words sound, by the window after which it comes to be known.
    """
    detector = a_detector(settings, windows=windows)
    drawn = ""
    for n, c in enumerate(pattern):
        edge = detector.feed(n * WINDOW, LEVELS[c] if c in LEVELS else int(c) / 10)
        if believing and n in believing:
            believe(detector, believing[n])
            edge = edge or detector.end_if_silent()
        drawn += MARKS[edge]
    return drawn


@pytest.mark.parametrize(
    ("heard", "drawn"),
    [
        ("...####......", "    [    ]   "),  # it begins with the second window of speech
        ("...#.#.#.....", "             "),  # a click is not a turn
        ("##..##..##...", " [          ]"),  # a pause shorter than the silence is part of the turn
        ("##...##......", " [  ] [  ]   "),  # one as long as it ends the turn
        ("##~~~~~~~...", " [         ]"),  # what has begun goes on in a lower voice
        ("~~~~~~~~~~~~", "            "),  # which does not begin a turn
        ("#~##........", "   [  ]     "),
        ("............", "            "),
    ],
)
def test_turn_edges(heard: str, drawn: str) -> None:
    assert edges(heard) == drawn


@pytest.mark.parametrize(
    ("threshold", "heard", "drawn"),
    [
        (0.8, "777788800000000", "     [   ]     "),
        (0.2, "112211000000000", "   [    ]      "),
        (0.0, "000011100000000", "     [   ]     "),
    ],
)
def test_threshold_separates_speech_from_silence(threshold: float, heard: str, drawn: str) -> None:
    settings = ServerVad(threshold=threshold, silence_duration_ms=96)
    assert edges(heard, settings) == drawn


def test_half_a_second_of_silence_ends_a_turn_unless_the_client_says_otherwise() -> None:
    assert edges("##" + 20 * ".", ServerVad()).index("]") == 16  # 15 windows are 480 ms


def test_silence_duration_of_zero_means_one_window() -> None:
    assert edges("##.##.", ServerVad(silence_duration_ms=0)) == " [] []"


def test_onset_is_the_beginning_of_the_first_window_of_speech() -> None:
    detector = a_detector()
    for n, speech in enumerate([0.1, 0.9, 0.1, 0.9, 0.9]):
        detector.feed(n * WINDOW, speech)
    assert detector.speaking
    assert detector.onset == 3 * WINDOW


def test_prefix_has_the_length_that_the_client_sets() -> None:
    assert TurnDetector(ServerVad()).prefix == 300 * 24
    assert TurnDetector(ServerVad(prefix_padding_ms=0)).prefix == 0
    assert TurnDetector(SemanticVad()).prefix == 300 * 24


def test_reset_ends_a_turn_without_an_event() -> None:
    detector = a_detector()
    for n in range(3):
        detector.feed(n * WINDOW, 0.9)
    detector.reset()
    assert not detector.speaking
    assert detector.end_if_silent() is None
    assert [detector.feed(n * WINDOW, 0.9) for n in (3, 4)] == [None, Edge.STARTED]


def test_one_window_of_speech_before_a_reset_does_not_count_after_it() -> None:
    detector = a_detector()
    detector.feed(0, 0.9)
    detector.reset()
    assert detector.feed(WINDOW, 0.9) is None
    assert detector.feed(2 * WINDOW, 0.9) is Edge.STARTED
    assert detector.onset == WINDOW


def test_new_settings_hold_for_a_turn_that_is_under_way() -> None:
    detector = a_detector(windows=30)
    for n, c in enumerate("##.."):
        detector.feed(n * WINDOW, LEVELS[c])
    detector.apply_settings(ServerVad(silence_duration_ms=96))
    assert detector.feed(4 * WINDOW, 0.1) is Edge.STOPPED


@pytest.mark.parametrize(
    ("eagerness", "seconds"), [("low", 8), ("medium", 4), ("auto", 4), ("high", 2)]
)
def test_turn_without_a_high_score_ends_after_the_longest_wait(
    eagerness: Eagerness, seconds: int
) -> None:
    drawn = edges("##" + 260 * ".", SemanticVad(eagerness=eagerness))
    assert drawn.index("]") == 1 + seconds * 24_000 // WINDOW


@pytest.mark.parametrize(("eagerness", "ms"), [("low", 800), ("medium", 192), ("high", 160)])
def test_words_that_sound_finished_end_soon(eagerness: Eagerness, ms: int) -> None:
    drawn = edges("##" + 100 * ".", SemanticVad(eagerness=eagerness), believing={6: 1.0})
    assert drawn.index("]") == 1 + ms * 24 // WINDOW


def test_wait_is_longer_for_a_lower_turn_score() -> None:
    waits = [
        edges("##" + 260 * ".", SemanticVad(), believing={8: likelihood}).index("]")
        for likelihood in (1.0, 0.75, 0.5, 0.25, 0.0)
    ]
    assert waits == [8, 13, 28, 59, 126]  # 0.2, 0.5, 0.9, 1.9 and 4 seconds


def test_turn_score_beyond_its_bounds_is_clipped() -> None:
    drawn = [
        edges("##" + 130 * ".", SemanticVad(), believing={8: likelihood})
        for likelihood in (-3.0, 0.0, 1.0, 7.0)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]


def test_late_turn_score_ends_a_turn_at_once() -> None:
    assert edges("##" + 30 * ".", SemanticVad(), believing={25: 1.0}).index("]") == 25


def test_speech_makes_patient_again() -> None:
    heard = "##" + 5 * "." + "#" + 30 * "."
    assert "]" not in edges(heard, SemanticVad(), believing={6: 1.0})


def test_a_pause_begins_after_160_ms_of_silence() -> None:
    semantic = TurnDetector(SemanticVad())
    asked = []
    for n, c in enumerate("##" + 8 * "." + "#"):
        semantic.feed(n * WINDOW, LEVELS[c])
        asked.append(semantic.pausing)
    assert asked == [False] * 6 + [True] * 4 + [False]  # from 160 ms of silence on


def test_turn_score_that_was_not_requested_changes_nothing() -> None:
    talking = edges("##" + 30 * ".", SemanticVad(), believing={1: 1.0, 3: 1.0})
    assert "]" not in talking
    assert edges("##" + 6 * ".", windows=5, believing={4: 1.0}) == edges("##......", windows=5)


def test_equal_settings_leave_a_turn_score_in_force() -> None:
    detector = TurnDetector(SemanticVad())
    for n, c in enumerate("##" + 5 * "."):
        detector.feed(n * WINDOW, LEVELS[c])
    believe(detector, 1.0)
    detector.apply_settings(SemanticVad())
    rest = [detector.feed((7 + n) * WINDOW, 0.1) for n in range(3)]
    assert rest == [Edge.STOPPED, None, None]


@given(
    st.lists(st.floats(0, 1)),
    st.floats(0, 1),
    st.integers(0, 500),
    st.sampled_from(["low", "medium", "high", "auto", None]),
)
def test_turns_begin_and_end_in_turn(
    speech: list[float], threshold: float, silence_ms: int, eagerness: Eagerness | None
) -> None:
    settings: TurnDetection = ServerVad(threshold=threshold, silence_duration_ms=silence_ms)
    detector = TurnDetector(SemanticVad(eagerness=eagerness) if eagerness else settings)
    found = []
    for n, likely in enumerate(speech):
        was_speaking = detector.speaking
        edge = detector.feed(n * WINDOW, likely)
        assert (edge is not None) == (detector.speaking != was_speaking)
        if edge:
            found.append(edge)
    assert found[:1] in ([], [Edge.STARTED])
    assert all(one is not other for one, other in pairwise(found))


def started(*windows: tuple[float, float], threshold: float = 0.5) -> tuple[int, int] | None:
    """The window at which a turn begins, and the one from which on it counts."""
    detector = TurnDetector(ServerVad(threshold=threshold))
    for n, (speech, rise) in enumerate(windows):
        if detector.feed(n * WINDOW, speech, rise) is Edge.STARTED:
            return n, detector.onset // WINDOW
    return None


def test_turn_begins_with_one_window_that_is_sure_and_rises() -> None:
    assert started((0.1, 0.0), (0.95, 30.0)) == (1, 1)
    assert started((0.1, 0.0), (0.95, 10.0), (0.1, 0.0)) is None  # a click
    assert started((0.1, 0.0), (0.5, 40.0), (0.1, 0.0)) is None


def test_soft_onset_is_summed_over_windows() -> None:
    soft = ((0.1, 0.0), (0.45, 20.0), (0.48, 26.0), (0.6, 26.0))
    assert started(*soft) == (3, 3)
    assert started(*((speech, 0.0) for speech, _ in soft)) is None
    assert started((0.45, 20.0), (0.48, 26.0), (0.05, 0.0), (0.6, 9.0)) is None


def test_evidence_follows_the_threshold() -> None:
    assert started((0.95, 30.0), threshold=0.9) is None
    assert started((0.95, 30.0), (0.95, 30.0), threshold=0.9) == (1, 0)
    assert started(*[(0.4, 30.0)] * 20, threshold=0.9) is None
    assert started(*[(0.005, 0.0)] * 100, threshold=0.0) is None


def test_rise_is_that_of_the_last_window_above_the_lowest_before_it() -> None:
    def level(db: float) -> bytes:
        return np.full(WINDOW, 32768 * 10 ** (db / 20), "<i2").tobytes()

    assert rise_db(level(-40) + level(-50) + level(-20)) == pytest.approx(30, abs=0.2)
    assert rise_db(bytes(2 * WINDOW) + level(-36)) == pytest.approx(30, abs=0.2)  # silence: -66 dB
    assert rise_db(b"\1\0" * 5 + level(-40) + level(-50)) == pytest.approx(-10, abs=0.2)
    assert rise_db(level(-20)) == 0.0
    assert rise_db(b"") == 0.0


def hiss(db: float, windows: int = 1) -> bytes:
    """White noise of that level."""
    noise = np.random.default_rng(windows).normal(0, 32768 * 10 ** (db / 20), windows * WINDOW)
    return noise.astype("<i2").tobytes()


def voiced(db: float, windows: int = 1) -> bytes:
    """A tone of 200 Hz."""
    at = np.arange(windows * WINDOW)
    wave = np.sin(at * (2 * np.pi * 200 / 24_000)) * 2**0.5 * 32768 * 10 ** (db / 20)
    return bytes(wave.astype("<i2").data)


@pytest.mark.parametrize(
    ("pcm", "found"),
    [
        (hiss(-60, 7) + hiss(-40, 2), True),
        (hiss(-60, 6) + hiss(-40, 2) + hiss(-60), True),  # "st": the closure before the "t"
        (hiss(-60, 8) + hiss(-40), False),  # one window: a click
        (hiss(-60, 7) + hiss(-54, 2), False),  # it hardly rises
        (hiss(-60, 7) + voiced(-40, 2), False),
        (hiss(-40, 9), False),  # it has lasted: noise
        (hiss(-40, 2), False),
        (b"", False),
    ],
)
def test_hiss_is_a_loud_sound_whose_samples_change_their_sign(pcm: bytes, found: bool) -> None:
    assert hisses(pcm) is found


def test_after_a_hiss_one_window_that_may_be_speech_begins_a_turn() -> None:
    def edge(speech: float, *, hissed: bool, threshold: float = 0.5) -> Edge | None:
        detector = TurnDetector(ServerVad(threshold=threshold))
        assert not detector.goes_on(speech)
        return detector.feed(0, speech, hissed=hissed)

    assert edge(0.3, hissed=True) is Edge.STARTED
    assert edge(0.3, hissed=False) is None
    assert edge(0.7, hissed=True, threshold=0.9) is Edge.STARTED


def test_hiss_begins_no_turn_without_a_window_that_may_be_speech() -> None:
    assert a_detector().feed(0, 0.25, hissed=True) is None
    assert TurnDetector(ServerVad(threshold=0.9)).feed(0, 0.6, hissed=True) is None
    assert TurnDetector(ServerVad(threshold=0.0)).feed(0, 0.0, hissed=True) is None
