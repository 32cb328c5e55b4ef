from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.formats import to_ms, to_samples
from vivavoce.protocol.server import TurnDecision
from vivavoce.protocol.session import Eagerness
from vivavoce.session.endpointing import (
    MAX_FACTOR,
    PAUSE_RULES,
    UNKNOWN,
    EndedBy,
    Evidence,
    SpeakerPauses,
    TurnSettings,
    decision_of,
    likelihood_of,
    silence_for,
)

SETTINGS = TurnSettings()
probabilities = st.none() | st.floats(0, 1)
evidence_of = st.builds(Evidence, probabilities, probabilities)


def pauses_of(*ms: int) -> SpeakerPauses:
    pauses = SpeakerPauses()
    for each in ms:
        pauses.add(to_samples(each))
    return pauses


@dataclass(frozen=True)
class Joined:
    """What two sources say, and what both together are taken for."""

    words: float | None
    sound: float | None
    together: float


@pytest.mark.parametrize(
    "case",
    [
        Joined(None, None, UNKNOWN),
        Joined(0.9, None, 0.9),
        Joined(0.5, 0.8, 0.8),  # one that does not know changes nothing
        Joined(0.5, 0.999, 0.818),  # the sound is never taken for certain
        Joined(0.5, 0.0, 0.076),
        Joined(0.9, 0.8, 0.973),
        Joined(0.2, 0.8, 0.5),
        Joined(1.0, 0.5, 1.0),
        Joined(0.0, 0.9, 0.011),
    ],
)
def test_likelihood_is_the_sum_of_log_odds(case: Joined) -> None:
    joined = likelihood_of(Evidence(case.words, case.sound), SETTINGS)
    assert joined == pytest.approx(case.together, abs=1e-3)


def test_source_without_weight_does_not_count() -> None:
    settings = TurnSettings(words_weight=0)
    assert likelihood_of(Evidence(0.01, 0.8), settings) == pytest.approx(0.8)
    assert likelihood_of(Evidence(sound=0.8, llm=0.2), SETTINGS) == pytest.approx(0.8)
    asked = TurnSettings(llm_weight=1)
    assert likelihood_of(Evidence(sound=0.8, llm=0.2), asked) == pytest.approx(0.5)
    decision = decision_of(9_600, "silence", Evidence(llm=0.1), SpeakerPauses(), asked)
    assert (decision.llm, decision.reason) == (0.1, "language model: incomplete")


@given(evidence_of, st.sampled_from(list(PAUSE_RULES)), st.lists(st.integers(0, 9000)))
def test_silence_lies_within_its_bounds(
    evidence: Evidence, eagerness: Eagerness, pauses: list[int]
) -> None:
    silence = silence_for(evidence, eagerness, pauses_of(*pauses), SETTINGS)
    rules = PAUSE_RULES[eagerness]
    assert rules.finished * 0.74 <= silence <= rules.unfinished


@given(st.floats(0, 1), st.floats(0, 1), probabilities)
def test_silence_is_no_longer_where_the_words_are_more_complete(
    one: float, other: float, sound: float | None
) -> None:
    less, more = sorted((one, other))
    waits = [
        silence_for(Evidence(words, sound), "auto", SpeakerPauses(), SETTINGS)
        for words in (less, more)
    ]
    assert waits[0] >= waits[1]


def test_words_say_the_more_the_more_certain_the_last_one_is() -> None:
    def likely(certainty: float | None, words: float | None = 0.85) -> float:
        return likelihood_of(Evidence(words, certainty=certainty), SETTINGS)

    assert likely(None) == likely(-0.5) == pytest.approx(0.85)
    assert likely(0.0) == pytest.approx(0.916, abs=1e-3)
    assert likely(-1.0) == pytest.approx(0.747, abs=1e-3)
    assert likely(-9.0) == likely(-99.0) == pytest.approx(0.22, abs=1e-3)
    assert likely(-9.0, words=None) == UNKNOWN
    unused = TurnSettings(words_weight=0)
    assert likelihood_of(Evidence(0.85, 0.8, certainty=-9.0), unused) == pytest.approx(0.8)


def test_sound_that_is_being_scored_is_waited_for_a_little() -> None:
    def wait(evidence: Evidence, eagerness: Eagerness = "auto") -> int:
        silence = silence_for(evidence, eagerness, pauses_of(), SETTINGS, sound_due=True)
        return to_ms(silence)

    assert (wait(Evidence(1.0)), wait(Evidence(1.0), "high")) == (256, 224)
    assert wait(Evidence(0.5)) == to_ms(silence_for(Evidence(0.5), "auto", pauses_of(), SETTINGS))


def test_pauses_of_the_speaker_change_the_silence_that_is_waited_for() -> None:
    def wait(pauses: SpeakerPauses, settings: TurnSettings = SETTINGS) -> int:
        return to_ms(silence_for(Evidence(0.5), "auto", pauses, settings))

    quick, slow = pauses_of(*8 * [170]), pauses_of(*8 * [900])
    assert [wait(quick), wait(SpeakerPauses()), wait(slow)] == [657, 876, 1314]
    assert wait(pauses_of(900)) == 1051  # one says little
    assert wait(pauses_of(*50 * [60_000])) == int(876.35 * MAX_FACTOR)
    assert wait(slow, TurnSettings(adapt=False)) == 876
    assert wait(pauses_of(*8 * [900], *8 * [170])) == wait(quick)  # the last eight count


def test_pauses_are_drawn_to_the_usual_ones_while_few_are_known() -> None:
    assert pauses_of().usual_ms == 500
    assert pauses_of(1000).usual_ms == 625
    assert pauses_of(*8 * [1000]).usual_ms == 864


@dataclass(frozen=True)
class Explained:
    evidence: Evidence | None
    ended_by: EndedBy
    reason: str


@pytest.mark.parametrize(
    "case",
    [
        Explained(None, "silence", "silence_duration_ms"),
        Explained(None, "gap", "audio stopped"),
        Explained(Evidence(0.9), "gap", "audio stopped"),
        Explained(Evidence(0.9), "full", "buffer full"),
        Explained(Evidence(), "silence", "nothing known of the words or the voice"),
        Explained(Evidence(0.9, 0.6), "silence", "sentence complete"),
        Explained(Evidence(0.6, 0.9), "silence", "voice sounds finished"),
        Explained(Evidence(0.1, 0.6), "silence", "sentence incomplete"),
        Explained(Evidence(0.6, 0.1), "silence", "voice sounds unfinished"),
    ],
)
def test_decision_names_the_source_that_decided(case: Explained) -> None:
    decision = decision_of(14_880, case.ended_by, case.evidence, SpeakerPauses(), SETTINGS)
    assert (decision.waited_ms, decision.reason) == (620, case.reason)


def test_decision_has_its_inputs() -> None:
    evidence = Evidence(0.1, 0.8, certainty=-0.5)
    decision = decision_of(14_880, "silence", evidence, pauses_of(1000), SETTINGS)
    assert decision == TurnDecision(
        waited_ms=620,
        reason="sentence incomplete",
        likelihood=0.308,
        words=0.1,
        certainty=0.607,
        sound=0.8,
        usual_pause_ms=625,
    )
    fixed = decision_of(0, "silence", Evidence(0.9), SpeakerPauses(), TurnSettings(adapt=False))
    assert fixed == TurnDecision(waited_ms=0, reason="sentence complete", likelihood=0.9, words=0.9)
