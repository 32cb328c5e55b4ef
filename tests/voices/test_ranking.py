"""From comparisons to an order, and what is measured of speech."""

from itertools import combinations

import numpy as np
import pytest

from vivavoce.audio.formats import RATE
from vivavoce.voices.measures import (
    SILENT_LUFS,
    k_weighting,
    levelled,
    loudness_lufs,
    mean_of,
    measured,
    pauses_ms,
)
from vivavoce.voices.ranking import Comparison, agreement, bradley_terry, scale_scores

VOICES = [f"v{number}" for number in range(8)]


def planted(answers: int, seed: int = 3) -> tuple[list[Comparison], list[float]]:
    """Answers drawn from the model itself, and its strengths."""
    chance = np.random.default_rng(seed)
    strengths = [1.75 - 0.5 * place for place in range(len(VOICES))]
    found = []
    for one, other in combinations(range(len(VOICES)), 2):
        wins = 1 / (1 + np.exp(strengths[other] - strengths[one]))
        for rater in range(answers):
            score = float(chance.random() < wins)
            found.append(Comparison(VOICES[one], VOICES[other], score, f"r{rater % 3}"))
    return found, strengths


def test_planted_strengths_are_recovered_with_intervals_that_hold_them() -> None:
    comparisons, strengths = planted(60)
    ranked = bradley_terry(VOICES, comparisons)
    assert [each.voice for each in ranked] == VOICES
    inside = [each.low <= s <= each.high for each, s in zip(ranked, strengths, strict=True)]
    assert sum(inside) >= 7  # of 95 % intervals
    assert ranked[0].comparisons == 7 * 60
    assert 0.8 < ranked[0].chance < 0.95


def test_strengths_of_two_voices_are_the_log_odds_where_answers_are_many() -> None:
    # three wins of four: the log odds are ln 3, of which each voice gets half
    comparisons = [Comparison("a", "b", float(n % 4 > 0)) for n in range(4000)]
    first, second = bradley_terry(["b", "a"], comparisons)
    assert (first.voice, second.voice) == ("a", "b")
    assert first.strength == pytest.approx(np.log(3) / 2, rel=0.01)
    assert first.strength == pytest.approx(-second.strength)


def test_voice_that_always_wins_has_a_finite_strength_and_a_wide_interval() -> None:
    first, second = bradley_terry(["a", "b"], [Comparison("a", "b", 1.0)] * 3)
    assert first.voice == "a"
    assert np.isfinite([first.strength, first.low, first.high]).all()
    assert first.low < second.high  # three answers do not tell them apart


def test_ties_alone_leave_all_equal() -> None:
    ranked = bradley_terry(["a", "b", "c"], [Comparison("a", "b", 0.5), Comparison("b", "c", 0.5)])
    assert [each.strength for each in ranked] == pytest.approx([0, 0, 0], abs=1e-9)
    assert [each.strength for each in bradley_terry(["a"], [])] == [0.0]


def test_agreement_is_the_share_of_decided_answers_along_the_order() -> None:
    comparisons, _ = planted(30)
    contrary = [
        Comparison(VOICES[0], VOICES[7], 0.0, "x"),
        Comparison(VOICES[1], VOICES[2], 0.5, "x"),
    ]
    shares = agreement(bradley_terry(VOICES, comparisons), [*comparisons, *contrary])
    assert shares["x"] == 0.0
    assert shares["r0"] > 0.7


def test_scores_on_scales_have_means_and_intervals() -> None:
    scores = [("a", {"trust": 5}), ("a", {"trust": 4}), ("b", {"trust": 2})]
    first, second = scale_scores(["a", "b"], scores)
    assert (first.voice, first.mean, first.answers) == ("a", 4.5, 2)
    assert first.low == pytest.approx(4.5 - 1.96 * 0.5, abs=0.01)
    assert second.low == -np.inf


# --- measures


def tone(hertz: float, seconds: float, level: float = 1.0) -> bytes:
    at = np.arange(round(seconds * RATE)) / RATE
    return (np.sin(2 * np.pi * hertz * at) * 32767 * level).astype("<i2").tobytes()


def test_loudness_of_a_full_tone_is_that_of_the_standard() -> None:
    # BS.1770-4: a sine of 997 Hz at 0 dBFS in one channel reads -3.01 LUFS
    assert loudness_lufs(tone(997, 3)) == pytest.approx(-3.01, abs=0.1)
    assert loudness_lufs(tone(997, 3, 0.1)) == pytest.approx(-23.01, abs=0.1)


def test_silence_around_speech_is_gated_out_of_its_loudness() -> None:
    with_silence = bytes(2 * RATE * 4) + tone(997, 3, 0.1) + bytes(2 * RATE * 4)
    assert loudness_lufs(with_silence) == pytest.approx(-23.0, abs=0.5)
    assert loudness_lufs(bytes(2 * RATE)) == SILENT_LUFS
    assert loudness_lufs(b"") == SILENT_LUFS


def test_sound_is_played_at_one_loudness_without_clipping() -> None:
    quiet = tone(997, 2, 0.02)
    assert loudness_lufs(levelled(quiet, loudness_lufs(quiet))) == pytest.approx(-23, abs=0.1)
    click = b"\xff\x7f" + quiet[2:]
    assert levelled(click, loudness_lufs(click)) == click  # its peak allows no gain
    assert levelled(bytes(10), SILENT_LUFS) == bytes(10)


def test_k_weighting_raises_high_and_removes_low_frequencies() -> None:
    low, middle, high = 10 * np.log10(k_weighting(np.array([20.0, 997.0, 10_000.0])))
    assert middle == pytest.approx(0.69, abs=0.05)  # what the -0.691 of the formula takes back
    assert high == pytest.approx(4.0, abs=0.1)
    assert low < -10


def test_pauses_are_counted_between_the_first_and_the_last_sound() -> None:
    pcm = b"".join(
        (bytes(2 * RATE), tone(200, 1), bytes(RATE), tone(200, 1), bytes(RATE // 5), tone(200, 1))
    )
    spoken_ms, pauses = pauses_ms(pcm)
    assert spoken_ms == pytest.approx(3600, abs=40)
    assert pauses == [pytest.approx(500, abs=20)]  # 100 ms is none
    assert pauses_ms(bytes(1000)) == (0.0, [])


def test_measures_of_a_clip_and_their_means() -> None:
    clip = measured(
        tone(200, 30), 75, first_chunk_s=0.2, work_s=3.0, word_error_rate=0.1, nano_usd=15_000_000
    )
    assert clip.words_per_minute == pytest.approx(150, rel=0.01)
    assert clip.first_chunk_ms == 200
    assert clip.usd_per_minute == pytest.approx(0.03)
    assert clip.realtime_factor == pytest.approx(0.1)
    silent = measured(b"", 0, first_chunk_s=0.4, work_s=0.1)
    both = mean_of([clip, silent])
    assert both.first_chunk_ms == pytest.approx(300)
    assert both.word_error_rate == 0.1
    assert mean_of([silent]).word_error_rate is None
