"""When a turn is over: how long a silence must be to end it. Pure functions.

Under semantic_vad, the likelier the user has finished, the shorter the silence. Several sources
give a probability for that: the words so far, the sound of the voice, and, where that is switched
on, a language model that is asked about the words. Their log odds are added, each times its weight,
so that an undecided source (0.5) changes nothing. The silence lies between two bounds set by
`eagerness`, on a geometric scale, and is adapted to the pauses that this speaker makes in mid-turn.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.audio.formats import to_ms, to_samples
from vivavoce.protocol.server import TurnDecision
from vivavoce.protocol.session import Eagerness
from vivavoce.session.facts import TurnSource

Weight: TypeAlias = Annotated[float, Meta(ge=0, le=4)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Anticipation: TypeAlias = Literal["off", "transcript", "llm", "speech"]
EndedBy: TypeAlias = Literal["silence", "gap", "full"]

UNKNOWN = 0.3
"""The probability that a turn is over where no source has said anything."""
MAX_ODDS = 6.0
"""Log odds that count as certain: 0.9975."""
MIN_SOUND_ODDS, MAX_SOUND_ODDS = -2.5, 1.5
"""Limits for the sound alone, 0.08 and 0.82: that model is just as sure when it is wrong, and it is
wrong more often about the end of a turn than about a pause."""
USUAL_CERTAINTY = -0.5
"""A last word with this log probability changes nothing;"""
CERTAINTY_WEIGHT, MIN_CERTAINTY_ODDS = 1.3, -3.0
"""log odds for each by which it is higher, and the least."""
SOUND_WAIT = to_samples(64)
"""While the sound is being scored, the silence is so much longer than for a turn that sounds
finished, at least."""
USUAL_PAUSE_MS = 500
"""A pause in mid-turn between people in conversation, and as how many of the speaker's own pauses
it counts:"""
USUAL_PAUSES = 3
MAX_PAUSES = 8
"""Number of the speaker's last pauses that are used."""
MIN_FACTOR, MAX_FACTOR = 0.75, 1.5
"""Bounds of the factor by which the speaker's pauses change the silence."""


class TurnSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[turns]: how the end of a turn is decided, and what begins before it is decided."""

    words_weight: Weight = 1.0
    """Weight of the words so far, under semantic_vad; 0: not used, as for the next two."""
    sound_weight: Weight = 1.0
    """Weight of the sound of the voice, if the turn detector of the model reads sound."""
    llm_weight: Weight = 0.0
    """Weight of the language model of the conversation, which is asked about the words in each
    pause; 0: it is not asked."""
    llm_timeout_ms: Annotated[int, Meta(ge=50, le=4000)] = 600
    """How long the language model may take to answer."""
    adapt: bool = True
    """Whether the speaker's pauses change the silence that ends a turn."""
    anticipation: Anticipation = "transcript"
    """What is begun when the end of a turn is likely but not decided: nothing; the transcript, if
    the recogniser works only at the end of a recording; the text of the answer; or its first clause
    of speech as well."""
    anticipation_after_ms: Annotated[int, Meta(ge=32, le=5000)] = 200
    """The silence after which it is begun."""
    anticipation_likelihood: Share = 0.5
    """The least likelihood of the end at which it is begun, if any source gives one."""
    anticipation_max_tokens: Annotated[int, Meta(ge=0)] = 20_000
    """The most tokens of one session for early work that was not used, and for questions about the
    ends of turns. When they are used up, nothing is begun early, and no language model is asked."""
    anticipation_max_load: Share = 0.7
    """Nothing is begun early while the event loop or the processors are busier than this; 1: no
    limit."""


class PauseRules(msgspec.Struct, frozen=True):
    """The silence, in samples, that ends a turn which sounds finished, and one which does not."""

    finished: int
    unfinished: int

    def wait(self, likelihood: float, factor: float = 1.0) -> int:
        """A silence between the two, on a geometric scale: likelihood 1 gives `finished`, 0
        `unfinished`."""
        share = min(1.0, max(0.0, likelihood))
        wait = self.unfinished * math.pow(self.finished / self.unfinished, share)
        return min(self.unfinished, int(wait * factor))


PAUSE_RULES: dict[Eagerness, PauseRules] = {
    "low": PauseRules(to_samples(800), to_samples(8_000)),
    "medium": PauseRules(to_samples(192), to_samples(4_000)),
    "auto": PauseRules(to_samples(192), to_samples(4_000)),
    "high": PauseRules(to_samples(160), to_samples(2_000)),
}


class Evidence(msgspec.Struct, frozen=True):
    """Probabilities, 0..1, that the turn is over, by source; None: the source has given none."""

    words: float | None = None
    sound: float | None = None
    llm: float | None = None
    certainty: float | None = None
    """Log probability of the last word, if the recogniser gives it."""


class SpeakerPauses:
    """The pauses that this speaker has made in mid-turn, samples."""

    def __init__(self, known: Iterable[int] = (), spoken_until: int = 0) -> None:
        """known: the pauses of an earlier session of the same conversation."""
        self._last = tuple(known)
        self.spoken_until = spoken_until
        """The end of the speech of the last turn, as a position; 0: there was none."""

    def __iter__(self) -> Iterator[int]:
        return iter(self._last)

    def add(self, samples: int) -> None:
        """The speaker resumed after a pause of this length."""
        self._last = (*self._last, samples)[-MAX_PAUSES:]

    @property
    def usual_ms(self) -> int:
        """The mean of the pauses.

        While few are known, the usual pause of other people counts as well.
        """
        total = USUAL_PAUSES * USUAL_PAUSE_MS + sum(map(to_ms, self._last))
        return round(total / (USUAL_PAUSES + len(self._last)))

    @property
    def factor(self) -> float:
        """The factor by which the silence is changed."""
        return min(MAX_FACTOR, max(MIN_FACTOR, self.usual_ms / USUAL_PAUSE_MS))


def odds_of(evidence: Evidence, settings: TurnSettings) -> dict[TurnSource, float]:
    """The weighted log odds of each source that has given a probability."""
    said: dict[TurnSource, tuple[float | None, float]] = {
        "words": (evidence.words, settings.words_weight),
        "sound": (evidence.sound, settings.sound_weight),
        "llm": (evidence.llm, settings.llm_weight),
    }
    limits = {"sound": (MIN_SOUND_ODDS, MAX_SOUND_ODDS)}
    odds = {
        source: weight * _odds(p, *limits.get(source, (-MAX_ODDS, MAX_ODDS)))
        for source, (p, weight) in said.items()
        if p is not None
    }
    if "words" in odds and evidence.certainty is not None:
        odds["words"] += settings.words_weight * _certainty_odds(evidence.certainty)
    return odds


def likelihood_of(evidence: Evidence, settings: TurnSettings) -> float:
    """The probability, 0..1, that the turn is over, from all sources together."""
    odds = odds_of(evidence, settings)
    if not odds:
        return UNKNOWN
    total = sum(odds.values())
    if abs(total) >= MAX_ODDS:
        return 1.0 if total > 0 else 0.0
    return 1 / (1 + math.exp(-total))


def silence_for(
    evidence: Evidence,
    eagerness: Eagerness,
    pauses: SpeakerPauses,
    settings: TurnSettings,
    *,
    sound_due: bool = False,
) -> int:
    """Samples of silence that end the turn.

    sound_due: the sound of this pause is being scored.
    """
    factor = pauses.factor if settings.adapt else 1.0
    rules = PAUSE_RULES[eagerness]
    silence = rules.wait(likelihood_of(evidence, settings), factor)
    return max(silence, rules.finished + SOUND_WAIT) if sound_due else silence


def decision_of(
    waited: int,
    ended_by: EndedBy,
    evidence: Evidence | None,
    pauses: SpeakerPauses,
    settings: TurnSettings,
) -> TurnDecision:
    """The record of a decision, with its inputs. evidence: None under server_vad.

    waited: samples of silence before it.
    """
    if evidence is None or ended_by != "silence":
        reasons = {"silence": "silence_duration_ms", "gap": "audio stopped", "full": "buffer full"}
        return TurnDecision(waited_ms=to_ms(waited), reason=reasons[ended_by])
    return TurnDecision(
        waited_ms=to_ms(waited),
        reason=_reason(odds_of(evidence, settings)),
        likelihood=round(likelihood_of(evidence, settings), 3),
        words=_shown(evidence.words),
        certainty=_shown(None if evidence.certainty is None else math.exp(evidence.certainty)),
        sound=_shown(evidence.sound),
        llm=_shown(evidence.llm),
        usual_pause_ms=pauses.usual_ms if settings.adapt else UNSET,
    )


def _certainty_odds(certainty: float) -> float:
    """Log odds of the log probability of the last word: a doubtful one may be cut off, or the
    beginning of another."""
    return max(MIN_CERTAINTY_ODDS, CERTAINTY_WEIGHT * (certainty - USUAL_CERTAINTY))


def _odds(probability: float, least: float, most: float) -> float:
    """Log odds, bounded."""
    if probability <= 0 or probability >= 1:
        return most if probability >= 1 else least
    return max(least, min(most, math.log(probability / (1 - probability))))


def _reason(odds: dict[TurnSource, float]) -> str:
    """The source with the most weight in the decision, and what it says."""
    if not odds:
        return "nothing known of the words or the voice"
    over = sum(odds.values()) >= 0
    source = (max if over else min)(odds, key=lambda source: odds[source])
    texts: dict[TurnSource, tuple[str, str]] = {
        "words": ("sentence complete", "sentence incomplete"),
        "sound": ("voice sounds finished", "voice sounds unfinished"),
        "llm": ("language model: complete", "language model: incomplete"),
    }
    return texts[source][0 if over else 1]


def _shown(probability: float | None) -> float | UnsetType:
    return UNSET if probability is None else round(probability, 3)
