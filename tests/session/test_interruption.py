"""The judge of speech over an answer: pure functions, tables and laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.hypothesis_examples import examples
from vivavoce.session.interruption import (
    InterruptionSettings,
    Overlap,
    brightness,
    correlation,
    envelope,
    evidence_of,
    judge,
    level_db,
    odds_of,
    spoken_words,
    without_backchannels,
)
from vivavoce.session.interruption_model import WEIGHTS, OverlapEvidence, facts, odds

DEFAULT = InterruptionSettings()
RULES = InterruptionSettings(trained=False)
BACKCHANNELS = (
    *(("Mm-hm.", "en"), ("Uh-huh.", "en"), ("Yeah, yeah.", "en"), ("Oh, okay.", "en")),
    *(("I see.", "en"), ("That makes sense.", "en"), ("Hm", None), ("Mhm, right.", "en-GB")),
    *(("Ja, genau.", "de"), ("Ach so!", "de"), ("D\u2019accord.", "fr"), ("Ya veo", "es")),
    *(("Va bene", "it"), ("Ik snap het", "nl"), ("Pois \u00e9", "pt"), ("Ja", "xx")),
)
SPEECH = ("Stop!", "Wait a moment", "Yeah, but what about Friday?", "No", "Tell me more", "Nein")
overlaps = st.builds(
    Overlap,
    sound_ms=st.integers(0, 6000),
    silence_ms=st.integers(0, 2000),
    level_db=st.floats(-60, 60),
    words=st.sampled_from(("", "yeah", "mm-hm okay", "stop", "no I meant", "st", "y")),
    complete=st.booleans(),
    language=st.sampled_from((None, "en", "de-AT", "xx")),
    early=st.booleans(),
    answer=st.sampled_from(("", "no i meant the other one", "stop")),
    echo=st.floats(0, 1),
    brightness=st.sampled_from((0.01, 0.1, 1.0)),
)


@pytest.mark.parametrize(("words", "language"), BACKCHANNELS)
def test_judge_of_a_backchannel_lets_the_answer_go_on(words: str, language: str | None) -> None:
    overlap = Overlap(400, 0, words=words, language=language)
    assert judge(overlap, DEFAULT) == "undecided"
    assert judge(replace(overlap, silence_ms=200), DEFAULT) == "backchannel"
    assert judge(replace(overlap, complete=True), DEFAULT) == "backchannel"
    assert judge(replace(overlap, sound_ms=1600), DEFAULT) == "interruption"


@pytest.mark.parametrize("words", SPEECH)
def test_judge_of_other_words_is_interruption(words: str) -> None:
    overlap = Overlap(600, 0, words=words, language="en")
    assert judge(overlap, DEFAULT) == "interruption"
    assert judge(replace(overlap, complete=True), DEFAULT) == "interruption"


@pytest.mark.parametrize("words", ["ye", "o", "tha", "go"])
def test_judge_of_the_beginning_of_a_backchannel_waits(words: str) -> None:
    overlap = Overlap(200, 0, words=words, language="en")
    assert judge(overlap, DEFAULT) == "undecided"
    assert judge(replace(overlap, sound_ms=900), DEFAULT) == "interruption"
    assert judge(replace(overlap, complete=True), DEFAULT) == "interruption"


def test_several_words_interrupt_when_the_sound_is_long_enough_to_hold_them() -> None:
    words = Overlap(590, level_db=-4.0, words="Tell me more", language="en")
    assert judge(words, DEFAULT) == "undecided"
    assert judge(replace(words, sound_ms=600), DEFAULT) == "interruption"
    repeated = replace(words, words="Tell tell tell tell tell", sound_ms=890)
    assert judge(repeated, DEFAULT) == "undecided"
    begun = Overlap(540, words="I say", language="en")
    assert judge(begun, DEFAULT) == "undecided"
    assert judge(replace(begun, sound_ms=550), DEFAULT) == "interruption"
    assert judge(replace(begun, sound_ms=840, level_db=-2.0), DEFAULT) == "undecided"
    assert judge(replace(begun, sound_ms=850, level_db=-2.0), DEFAULT) == "interruption"


def test_one_word_that_says_nothing_leaves_it_to_the_sound() -> None:
    mama = Overlap(470, words="Mama", language="en")
    assert judge(mama, DEFAULT) == judge(replace(mama, words=""), DEFAULT) == "undecided"
    assert judge(replace(mama, sound_ms=480), DEFAULT) == "interruption"


def test_soft_first_word_to_interrupt_with_counts_when_a_recogniser_is_sure_of_it() -> None:
    assert judge(Overlap(200, words="No, no, no", language="en"), DEFAULT) == "interruption"
    soft = Overlap(390, level_db=-2.0, words="No", language="en")
    assert judge(soft, DEFAULT) == "undecided"
    assert judge(replace(soft, sound_ms=400), DEFAULT) == "interruption"
    assert judge(replace(soft, complete=True), DEFAULT) == "interruption"


@pytest.mark.parametrize("words", ["Them,", "Am I?"])
def test_short_soft_burst_is_a_backchannel_but_for_words_to_interrupt_with(words: str) -> None:
    burst = Overlap(350, 300, level_db=-3.0, words=words, complete=True, language="en")
    assert judge(burst, DEFAULT) == "backchannel"
    for changed in (
        replace(burst, words="Stop"),
        replace(burst, words="Give it to them"),
        replace(burst, level_db=0.0),
        replace(burst, sound_ms=710),
    ):
        assert judge(changed, DEFAULT) == "interruption"


def test_hum_is_a_backchannel_whatever_a_recogniser_makes_of_it() -> None:
    hum = Overlap(600, brightness=0.01, language="en")
    assert judge(hum, DEFAULT) == "undecided"
    assert judge(replace(hum, words="My name is"), DEFAULT) == "undecided"
    settled = replace(hum, words="My name is", silence_ms=200)
    assert judge(settled, DEFAULT) == "backchannel"
    assert judge(replace(hum, words="No"), DEFAULT) == "interruption"
    assert judge(replace(hum, words="My name is", sound_ms=1100), DEFAULT) == "interruption"
    assert judge(replace(hum, sound_ms=1100), DEFAULT) == "interruption"


def test_voice_that_is_far_softer_than_the_users_is_somebody_elses() -> None:
    far = Overlap(2000, level_db=-18.0, words="Did you see the bread?", language="en")
    assert judge(far, DEFAULT) == "undecided"
    assert judge(replace(far, complete=True), DEFAULT) == "noise"
    assert judge(far, InterruptionSettings(far_db=0)) == "interruption"


def test_brightness_tells_a_hum_from_a_voice() -> None:
    def tone(hertz: int) -> bytes:
        at = np.arange(4800) / 24_000
        return (8000 * np.sin(2 * np.pi * hertz * at)).astype("<i2").tobytes()

    assert brightness(tone(300)) == pytest.approx(0.006, abs=1e-3)
    assert brightness(tone(1000)) == pytest.approx(0.068, abs=2e-3)
    assert brightness(bytes(100)) == brightness(b"") == 1.0


def test_judge_without_words_decides_by_length_and_level() -> None:
    assert judge(Overlap(100, level_db=12), DEFAULT) == "undecided"
    assert judge(Overlap(400), DEFAULT) == "undecided"
    assert judge(Overlap(480), DEFAULT) == "interruption"
    assert judge(Overlap(400, level_db=2), DEFAULT) == "interruption"
    assert judge(Overlap(890, level_db=-6), DEFAULT) == "undecided"
    assert judge(Overlap(900, level_db=-6), DEFAULT) == "interruption"
    assert judge(Overlap(500, level_db=-6), DEFAULT) == "undecided"
    assert judge(Overlap(270, early=True), RULES) == "undecided"
    assert judge(Overlap(280, early=True), RULES) == "interruption"
    assert judge(Overlap(500, early=True, level_db=-2), RULES) == "undecided"
    assert judge(Overlap(200, early=True, level_db=1), RULES) == "interruption"
    assert judge(Overlap(900, silence_ms=200), DEFAULT) == "undecided"
    assert judge(Overlap(900, silence_ms=200, complete=True), DEFAULT) == "noise"
    level_does_not_count = InterruptionSettings(level_weight=0)
    assert judge(Overlap(500, level_db=-12), level_does_not_count) == "interruption"


def test_trained_judge_weighs_length_level_and_words() -> None:
    loud = Overlap(128, early=True, level_db=4.0)
    assert judge(loud, DEFAULT) == "interruption"
    assert judge(replace(loud, level_db=0.0), DEFAULT) == "undecided"
    assert judge(replace(loud, level_db=0.0, sound_ms=576), DEFAULT) == "interruption"
    soft = Overlap(576, early=True, level_db=-4.0, language="en")
    assert judge(soft, DEFAULT) == "undecided"
    assert judge(replace(soft, words="It's a"), DEFAULT) == "undecided"
    assert judge(replace(soft, sound_ms=1400), DEFAULT) == "interruption"
    assert judge(replace(soft, words="Stop, wait", level_db=-1.0), DEFAULT) == "interruption"
    eager = InterruptionSettings(trained_odds=-4)
    assert judge(replace(soft, words="It's a"), eager) == "interruption"


def test_trained_judge_asks_for_lower_odds_of_the_first_96_ms() -> None:
    first = Overlap(96, early=True, level_db=2.0)
    assert judge(first, DEFAULT) == "interruption"
    assert judge(replace(first, sound_ms=97), DEFAULT) == "undecided"
    assert judge(replace(first, level_db=1.5), DEFAULT) == "undecided"
    assert judge(first, InterruptionSettings(trained_odds=1.0)) == "undecided"


def test_trained_judge_takes_a_hum_without_words_for_no_interruption() -> None:
    hum = Overlap(300, early=True, level_db=6.0, brightness=0.01, language="en")
    assert judge(hum, DEFAULT) == "undecided"
    assert judge(replace(hum, brightness=0.1), DEFAULT) == "interruption"
    assert judge(replace(hum, words="Stop"), DEFAULT) == "interruption"


def test_trained_judge_of_a_complete_transcript_lets_no_sentence_and_no_stop_pass() -> None:
    short = Overlap(400, 200, early=True, level_db=-6.0, complete=True, language="en")
    assert judge(replace(short, words="It's a"), DEFAULT) == "backchannel"
    assert judge(replace(short, words="And then they came"), DEFAULT) == "backchannel"
    assert judge(replace(short, words="Stop"), DEFAULT) == "interruption"
    sentence = replace(short, words="What does it cost", sound_ms=900)
    assert judge(sentence, DEFAULT) == "interruption"
    assert judge(replace(short, words="It's a", level_db=2.0), DEFAULT) == "interruption"


def test_weights_are_those_of_the_facts() -> None:
    evidence = evidence_of(Overlap(700, 100, 3.0, words="No, the red one", language="en"), DEFAULT)
    assert evidence == OverlapEvidence(700, 100, 3.0, others=4, stop=True)
    values = facts(evidence)
    assert list(values) == list(WEIGHTS)
    assert odds(evidence) == pytest.approx(sum(WEIGHTS[name] * values[name] for name in WEIGHTS))
    assert all(weight >= 0 for name, weight in WEIGHTS.items() if name.startswith("length"))


def test_judge_of_the_answers_own_words_is_noise() -> None:
    answer = "Bread begins with flour, water, salt and yeast. The baker weighs all of it."
    heard = Overlap(2000, words="begins with flower water salt and yeast", answer=answer)
    assert judge(heard, DEFAULT) == "undecided"
    assert judge(replace(heard, complete=True), DEFAULT) == "noise"
    spoken_over = replace(heard, words="water salt and yeast wait stop")
    assert judge(spoken_over, DEFAULT) == "interruption"
    assert judge(replace(heard, words="salt water"), DEFAULT) == "interruption"


def test_judge_of_the_answers_envelope_is_noise() -> None:
    heard = Overlap(2000, echo=0.9)
    assert judge(heard, DEFAULT) == "undecided"
    assert judge(replace(heard, complete=True), DEFAULT) == "noise"
    assert judge(heard, InterruptionSettings(own_voice=1.0)) == "interruption"


def test_settings_name_more_backchannels() -> None:
    more = InterruptionSettings(backchannels=("roger that", "copy"))
    assert judge(Overlap(300, 200, words="Roger that.", language="en"), more) == "backchannel"
    assert judge(Overlap(300, words="rog", language="en"), more) == "undecided"
    assert without_backchannels(["copy", "roger", "that"], "en", ("copy",)) == ["roger", "that"]


@given(overlaps)
@settings(max_examples=examples(200))
def test_judge_of_a_complete_transcript_always_decides(overlap: Overlap) -> None:
    verdict = judge(replace(overlap, complete=True), DEFAULT)
    assert verdict != "undecided"
    if not spoken_words(overlap.words):
        assert verdict == "noise"
    elif not without_backchannels(spoken_words(overlap.words), overlap.language):
        assert verdict in ("backchannel", "noise") or overlap.sound_ms > DEFAULT.backchannel_ms


@given(overlaps, st.integers(1, 3000))
@settings(max_examples=examples(200))
def test_judge_of_a_longer_sound_is_no_less_an_interruption(overlap: Overlap, more: int) -> None:
    if judge(overlap, DEFAULT) == "interruption":
        assert judge(replace(overlap, sound_ms=overlap.sound_ms + more), DEFAULT) == "interruption"
    longer = replace(overlap, sound_ms=overlap.sound_ms + more)
    assert odds_of(longer, DEFAULT) >= odds_of(overlap, DEFAULT)


def test_correlation_finds_a_late_and_soft_echo_and_no_other_voice() -> None:
    random = np.random.default_rng(1)

    def voice(seconds: int) -> np.ndarray:
        loudness = np.repeat(random.uniform(0, 1, seconds * 10) ** 3, 2400)
        return loudness * random.normal(0, 3000, len(loudness))

    played = voice(3)
    late = np.concatenate((np.zeros(4800), 0.1 * played))[: len(played)]
    heard = envelope((late + random.normal(0, 2, len(late))).astype("<i2").tobytes(), 60)
    whole = envelope(played.astype("<i2").tobytes())
    assert correlation(heard, whole) > 0.9
    other = envelope(voice(3).astype("<i2").tobytes(), 60)
    assert correlation(other, whole) < 0.6
    assert correlation(heard[:5], whole) == 0.0
    assert correlation(np.zeros(60, np.float32), whole) == 0.0
    assert correlation(heard, np.zeros(100, np.float32)) == 0.0
    assert correlation(heard, whole[:10]) == 0.0


def test_envelope_and_level_are_in_decibels() -> None:
    full = (np.sin(np.arange(24_000) / 10) * 32767).astype("<i2").tobytes()
    assert level_db(full) == pytest.approx(-3.01, abs=0.05)
    assert level_db(b"") == -math.inf
    assert len(envelope(full)) == 50
    assert len(envelope(full, 7)) == 7
    assert len(envelope(full, 0)) == 0
