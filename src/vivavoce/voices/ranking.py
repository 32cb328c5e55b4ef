"""From comparisons and scores to an order with intervals. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PRIOR_SD: Final = 2.0
"""The prior standard deviation of a strength, in log odds: a voice that always wins stays
finite."""
Z95: Final = 1.959964
"""The standard normal distribution has 95 % within this many standard deviations."""
MAX_STEPS: Final = 100
TOLERANCE: Final = 1e-9


class Comparison(NamedTuple):
    """One answer of a rater about two voices."""

    first: str
    second: str
    score: float
    """The result of the first voice: 1 better, 0 worse, 0.5 no difference."""
    rater: str = ""


class RankedVoice(NamedTuple):
    """The strength of a voice, in log odds against the mean of all, with its 95 % interval."""

    voice: str
    strength: float
    low: float
    high: float
    comparisons: int

    @property
    def chance(self) -> float:
        """To be preferred to a voice of mean strength, 0..1."""
        return 1 / (1 + float(np.exp(-self.strength)))


class ScaleScore(NamedTuple):
    """The mean of the scores of a voice on a scale, with its 95 % interval."""

    voice: str
    scale: str
    mean: float
    low: float
    high: float
    answers: int


def bradley_terry(voices: Sequence[str], comparisons: Iterable[Comparison]) -> list[RankedVoice]:
    """The voices by strength, the strongest first.

    The model of Bradley and Terry (Biometrika 39, 1952): voice i is preferred to j with the
    probability 1 / (1 + exp(b_j - b_i)). A tie counts as half a win of each. The strengths b are
    those of the greatest posterior density, with independent normal priors of mean 0 and PRIOR_SD,
    found by Newton's method: the log posterior is concave, so there is one (Hunter, Annals of
    Statistics 32, 2004, on the likelihood). Intervals are those of the normal approximation there:
    the inverse of the Hessian is the covariance.
    """
    place = {voice: number for number, voice in enumerate(voices)}
    wins = np.zeros((len(voices), len(voices)))
    for each in comparisons:
        wins[place[each.first], place[each.second]] += each.score
        wins[place[each.second], place[each.first]] += 1 - each.score
    games = wins + wins.T
    strengths, covariance = _fit(wins, games)
    spread = Z95 * np.sqrt(np.diag(covariance))
    ranked = [
        RankedVoice(voice, float(b), float(b - d), float(b + d), round(float(games[n].sum())))
        for n, (voice, b, d) in enumerate(zip(voices, strengths, spread, strict=True))
    ]
    return sorted(ranked, key=lambda each: -each.strength)


def _fit(wins: Floats, games: Floats) -> tuple[Floats, Floats]:
    """Strengths [n], and their covariance [n, n]."""
    size = len(wins)
    strengths = np.zeros(size)
    hessian = np.eye(size) / PRIOR_SD**2
    for _ in range(MAX_STEPS):
        expected = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
        gradient = (wins - games * expected).sum(axis=1) - strengths / PRIOR_SD**2
        weights = games * expected * (1 - expected)
        hessian = np.diag(weights.sum(axis=1) + 1 / PRIOR_SD**2) - weights
        step = np.linalg.solve(hessian, gradient)
        strengths += np.clip(step, -2, 2)
        if float(np.abs(step).max(initial=0.0)) < TOLERANCE:
            break
    covariance: Floats = np.linalg.inv(hessian).astype(np.float64)
    return strengths, covariance


def agreement(ranked: Sequence[RankedVoice], comparisons: Iterable[Comparison]) -> dict[str, float]:
    """For each rater the share of decided answers that agree with the order, 0..1."""
    strength = {each.voice: each.strength for each in ranked}
    counts: dict[str, list[bool]] = {}
    for each in comparisons:
        if each.score != 0.5:
            prefers_first = strength[each.first] > strength[each.second]
            counts.setdefault(each.rater, []).append(prefers_first == (each.score > 0.5))
    return {rater: sum(right) / len(right) for rater, right in counts.items()}


def scale_scores(
    voices: Sequence[str], scores: Iterable[tuple[str, Mapping[str, int]]]
) -> list[ScaleScore]:
    """The means of each voice on each scale; scores: pairs of a voice and its scores by scale.

    Intervals are those of the normal approximation of a mean, mean +- z s / sqrt(n); of one score
    alone the interval is unbounded.
    """
    given: dict[tuple[str, str], list[int]] = {}
    for voice, by_scale in scores:
        for scale, score in by_scale.items():
            given.setdefault((scale, voice), []).append(score)
    found = []
    for (scale, voice), values in given.items():
        if voice in voices:
            mean = float(np.mean(values))
            many = len(values) > 1
            spread = Z95 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if many else np.inf
            found.append(ScaleScore(voice, scale, mean, mean - spread, mean + spread, len(values)))
    return sorted(found, key=lambda each: (each.scale, -each.mean))
