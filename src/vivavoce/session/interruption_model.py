"""The trained part of the judge of interruptions: a logistic regression. Pure.

Version 1 was trained on 2026-11-29 on 452 sounds of eight synthetic voices with
`python -m bench.overlaps`; docs/turn-taking.md has the results with other voices.
"""

from collections.abc import Mapping
from typing import NamedTuple

MAX_LEVEL_DB = 12.0
MAX_SILENCE_MS = 200
MAX_OTHERS = 4


class OverlapEvidence(NamedTuple):
    """What is known about a sound over an answer."""

    sound_ms: int
    silence_ms: int
    level_db: float
    """Above the user's usual level."""
    others: int
    """Different words that are no backchannel."""
    stop: bool
    """Whether one of them is "stop" or the like."""


WEIGHTS: Mapping[str, float] = {
    "constant": -0.54,
    "length without words, 300 to 600 ms": 0.52,
    "length without words, above 600 ms": 0.48,
    "length with words, to 600 ms": 0.12,
    "length with words, above 600 ms": 0.24,
    "level": 3.15,
    "silence": -0.49,
    "words": 0.46,
    "stop": 1.3,
}


def odds(evidence: OverlapEvidence) -> float:
    """The log odds that the sound is an interruption. They never fall with its length."""
    return sum(WEIGHTS[name] * value for name, value in facts(evidence).items())


def facts(one: OverlapEvidence) -> dict[str, float]:
    """The values that are weighted, by name: lengths per 100 ms, the level per 6 dB."""
    words = one.others > 0
    length = one.sound_ms / 100
    return {
        "constant": 1.0,
        "length without words, 300 to 600 ms": (not words) * min(3.0, max(0.0, length - 3)),
        "length without words, above 600 ms": (not words) * max(0.0, length - 6),
        "length with words, to 600 ms": words * min(6.0, length),
        "length with words, above 600 ms": words * max(0.0, length - 6),
        "level": max(-MAX_LEVEL_DB, min(MAX_LEVEL_DB, one.level_db)) / 6,
        "silence": min(MAX_SILENCE_MS, one.silence_ms) / 100,
        "words": float(min(MAX_OTHERS, one.others)),
        "stop": float(one.stop),
    }
