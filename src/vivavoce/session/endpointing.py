"""When a turn is over: the silence that ends it, from all that is known. Pure functions.

Under semantic_vad a silence ends a turn sooner the likelier its end is. Sources say how likely that
is, each with a probability: the words so far, the sound of the voice, and, where that is switched
on, a language model that is asked about the words. Their log odds are added, each times its weight,
so that a source which does not know (0.5) changes nothing. The wait lies between two silences, set
by `eagerness`, on a geometric scale, and grows or shrinks with the pauses that this speaker has
made in mid-turn.
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
MAX_SOUND_ODDS = 2.5
"""Of the sound of the voice alone, 0.92: the model is as sure where it errs."""
USUAL_PAUSE_MS = 500
"""A pause in mid-turn, of people who talk to each other; counts as so many of the speaker's own:"""
USUAL_PAUSES = 3
MAX_PAUSES = 8
"""Of the speaker's pauses the last ones count."""
MIN_FACTOR, MAX_FACTOR = 0.75, 1.5
"""By which the speaker's pauses change the wait at the most."""


class TurnSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[turns]: how the end of a turn is decided, and what begins before it is decided."""

    words_weight: Weight = 1.0
    """Of the words so far, under semantic_vad; 0: they do not count, as of the following."""
    sound_weight: Weight = 1.0
    """Of the sound of the voice, where the turn detection of the model reads sound."""
    llm_weight: Weight = 0.0
    """Of what the language model of the conversation says of the words, which it is asked in each
    pause; 0: it is not asked."""
    llm_timeout_ms: Annotated[int, Meta(ge=50, le=4000)] = 600
    """How long it is given to answer."""
    adapt: bool = True
    """Whether the pauses of the speaker change the silence that is waited for."""
    anticipation: Anticipation = "transcript"
    """What begins when the end of a turn is likely, before it is decided: nothing, the transcript
    (where the recogniser begins only then), the answer's text, or its first clause of speech."""
    anticipation_after_ms: Annotated[int, Meta(ge=32, le=5000)] = 200
    """A silence after which it begins."""
    anticipation_likelihood: Share = 0.5
    """It begins where the end is so likely, as far as a source says so."""
    anticipation_max_tokens: Annotated[int, Meta(ge=0)] = 20_000
    """Of one session, in vain or asked about the ends of turns; then nothing begins early, and
    nothing is asked, any more."""
    anticipation_max_load: Share = 0.7
    """Nothing begins early while the event loop, or the machine, is busier than that; 1: it may
    always."""


class PauseRules(msgspec.Struct, frozen=True):
    """Silence, in samples, after which a turn that sounds finished or unfinished ends."""

    finished: int
    unfinished: int

    def wait(self, likelihood: float, factor: float = 1.0) -> int:
        """Between the two on a geometric scale: likelihood 1 gives the one, 0 the other."""
        share = min(1.0, max(0.0, likelihood))
        wait = self.unfinished * math.pow(self.finished / self.unfinished, share)
        return min(self.unfinished, int(wait * factor))


PAUSE_RULES: dict[Eagerness, PauseRules] = {
    "low": PauseRules(to_samples(800), to_samples(8_000)),
    "medium": PauseRules(to_samples(224), to_samples(4_000)),
    "auto": PauseRules(to_samples(224), to_samples(4_000)),
    "high": PauseRules(to_samples(192), to_samples(2_000)),
}


class Evidence(msgspec.Struct, frozen=True):
    """What each source says: a probability, 0..1, that the turn is over; None: nothing yet."""

    words: float | None = None
    sound: float | None = None
    llm: float | None = None


class SpeakerPauses:
    """The pauses that this speaker has made in mid-turn, samples."""

    def __init__(self, known: Iterable[int] = (), spoken_until: int = 0) -> None:
        """known: those of an earlier session of the same conversation."""
        self._last = tuple(known)
        self.spoken_until = spoken_until
        """The end of the speech of the last turn, as a position; 0: there was none."""

    def __iter__(self) -> Iterator[int]:
        return iter(self._last)

    def add(self, samples: int) -> None:
        """The speaker went on after that."""
        self._last = (*self._last, samples)[-MAX_PAUSES:]

    @property
    def usual_ms(self) -> int:
        """The mean, drawn to that of other people while few are known."""
        total = USUAL_PAUSES * USUAL_PAUSE_MS + sum(map(to_ms, self._last))
        return round(total / (USUAL_PAUSES + len(self._last)))

    @property
    def factor(self) -> float:
        """By which the wait is changed."""
        return min(MAX_FACTOR, max(MIN_FACTOR, self.usual_ms / USUAL_PAUSE_MS))


def odds_of(evidence: Evidence, settings: TurnSettings) -> dict[TurnSource, float]:
    """Weighted log odds of each source that says something."""
    said: dict[TurnSource, tuple[float | None, float]] = {
        "words": (evidence.words, settings.words_weight),
        "sound": (evidence.sound, settings.sound_weight),
        "llm": (evidence.llm, settings.llm_weight),
    }
    most = {"sound": MAX_SOUND_ODDS}
    return {
        source: weight * _odds(p, most.get(source, MAX_ODDS))
        for source, (p, weight) in said.items()
        if p is not None
    }


def likelihood_of(evidence: Evidence, settings: TurnSettings) -> float:
    """The probability, 0..1, that the turn is over, of all sources together."""
    odds = odds_of(evidence, settings)
    if not odds:
        return UNKNOWN
    total = sum(odds.values())
    if abs(total) >= MAX_ODDS:
        return 1.0 if total > 0 else 0.0
    return 1 / (1 + math.exp(-total))


def silence_for(
    evidence: Evidence, eagerness: Eagerness, pauses: SpeakerPauses, settings: TurnSettings
) -> int:
    """Samples of silence that end the turn."""
    factor = pauses.factor if settings.adapt else 1.0
    return PAUSE_RULES[eagerness].wait(likelihood_of(evidence, settings), factor)


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
        sound=_shown(evidence.sound),
        llm=_shown(evidence.llm),
        usual_pause_ms=pauses.usual_ms if settings.adapt else UNSET,
    )


def _odds(probability: float, most: float) -> float:
    """Log odds, bounded."""
    if probability <= 0 or probability >= 1:
        return most if probability >= 1 else -most
    return max(-most, min(most, math.log(probability / (1 - probability))))


def _reason(odds: dict[TurnSource, float]) -> str:
    """The source that decided, and what it said."""
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
