"""Evidence on whether the open turn is over: what is requested, and which source ended the turn.

Positions are samples.
"""

from typing import Literal

import msgspec

from vivavoce.audio.formats import to_samples
from vivavoce.protocol.server import TurnDecision
from vivavoce.protocol.session import SemanticVad
from vivavoce.session.brain import Shared
from vivavoce.session.cascade.turn_detection import PAUSE, TurnDetector
from vivavoce.session.conversation import Conversation, shown
from vivavoce.session.effects import RecordUsage
from vivavoce.session.endpointing import (
    EndedBy,
    Evidence,
    decision_of,
    silence_for,
)
from vivavoce.session.facts import TokenCounts, TurnScored
from vivavoce.session.usage import estimate, response_usage, words_of

MAX_WORDS_BEFORE = 400  # characters of the item before a turn, given to a language model
MAX_CUT_GAP = to_samples(1000)  # who speaks again after a shorter silence had not finished


class TurnScoring:
    """The evidence of the open turn, and the pauses of its speaker."""

    def __init__(self, shared: Shared) -> None:
        self.evidence = Evidence()
        """Evidence about the end of the turn, in this pause."""
        self.resumed = 0
        """How often the user has resumed speaking after a silence in mid-turn."""
        self.scores_words = False
        """Whether words are scored while the user still speaks."""
        self.ended_by: EndedBy = "silence"
        """The decision that ends the turn."""
        self._shared = shared
        self._options = shared.options
        self._pauses = shared.pauses
        self._text: str | None = None  # the text that was scored last
        self._in_pause = False  # whether it was scored in this pause
        self._llm_asked = False  # whether the language model was asked about that text

    @property
    def awaits_sound(self) -> bool:
        """Whether the sound of this pause is being scored."""
        return self._in_pause and self.evidence.sound is None and self._options.turn_samples > 0

    def begin(self, onset: int) -> None:
        """A turn begins. If it follows the last one at once, that one was ended too soon."""
        gap = onset - self._pauses.spoken_until
        if self._pauses.spoken_until and gap <= MAX_CUT_GAP:
            self._pauses.add(max(0, gap))

    def resume(self, silence: int) -> None:
        """The user resumes after so much silence: the next pause is a new one."""
        self.resumed += 1
        self.repeat()
        self.evidence = msgspec.structs.replace(self.evidence, sound=None)
        if silence >= PAUSE:
            self._pauses.add(silence)

    def repeat(self) -> None:
        """Request the same scores again, in the next pause or with the next settings."""
        self._in_pause = False

    def forget(self) -> None:
        """The turn is over."""
        self.evidence = Evidence()
        self._text = None
        self._in_pause = False

    def is_due(self, detector: TurnDetector) -> bool:
        """Whether the words are to be scored now, and in a pause the sound."""
        return self.scores_words or (detector.is_semantic and detector.pausing)

    def asks(
        self, detector: TurnDetector, text: str, certainty: float | None = None
    ) -> Literal["words", "sound"] | None:
        """What is to be scored of a turn with these words, each once: the words alone, or the sound
        as well. None: nothing new. Call while is_due().

        certainty: log probability of the last word.
        """
        fresh = text != self._text
        if certainty != self.evidence.certainty:
            self.evidence = msgspec.structs.replace(self.evidence, certainty=certainty)
        if detector.pausing:
            if not fresh and self._in_pause:
                return None
            asked: Literal["words", "sound"] = "words" if self._in_pause else "sound"
            self._in_pause = True
        elif fresh and text:
            asked = "words"
        else:
            return None
        if fresh:
            self.evidence = Evidence(sound=self.evidence.sound, certainty=certainty)
            self._text = text
            self._llm_asked = False
        return asked

    def llm_request(self, detector: TurnDetector) -> tuple[float, str]:
        """How many seconds a language model has to score the words, and the words before them.

        0 seconds: none is asked, or it was asked about these words already. Call after asks().
        """
        turns, used = self._options.turns, self._shared.usage.totals.speculative_tokens
        may_ask = used < turns.anticipation_max_tokens and turns.llm_weight > 0
        if not (may_ask and detector.pausing and self._text) or self._llm_asked:
            return 0.0, ""
        self._llm_asked = True
        return turns.llm_timeout_ms / 1000, _last_words(self._shared.conversation)

    def book(self, fact: TurnScored, text: str) -> None:
        """Count tokens that a language model has used to score that text."""
        counted = fact.tokens or TokenCounts(estimate(text), 1)
        usage = response_usage(counted, context=0, heard=0, said="", spoken=0)
        record_id = self._shared.effects.ids.next("turn")
        model = self._options.served_by.model
        self._shared.usage.add(RecordUsage(record_id, model, usage, "speculative"))

    def take(self, fact: TurnScored, detector: TurnDetector) -> None:
        """Take a score, and set the silence that ends the turn."""
        if self._text is None:
            return
        if fact.source == "sound" and not self._in_pause:  # of an earlier pause
            return
        self.evidence = msgspec.structs.replace(self.evidence, **{fact.source: fact.likelihood})
        if isinstance(detector.settings, SemanticVad):
            eagerness, turns = detector.settings.eagerness, self._options.turns
            silence = silence_for(
                self.evidence, eagerness, self._pauses, turns, sound_due=self.awaits_sound
            )
            detector.wait_for(silence)

    def decide(self, detector: TurnDetector, position: int) -> TurnDecision:
        """The decision that has just ended the turn at that position."""
        waited, ended_by = detector.waited, self.ended_by
        self._pauses.spoken_until, self.ended_by = position - waited, "silence"
        evidence = self.evidence if detector.is_semantic else None
        return decision_of(waited, ended_by, evidence, self._pauses, self._options.turns)


def _last_words(conversation: Conversation) -> str:
    """The end of what was said last in the conversation."""
    items = shown(list(conversation)[-1:])
    return " ".join(words_of(item) for item in items)[-MAX_WORDS_BEFORE:]
