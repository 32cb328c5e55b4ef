"""Evidence on whether the open turn is over: what is requested, and which source ended the turn.

Positions are samples.
"""

from typing import Literal

import msgspec

from vivavoce.audio.formats import to_samples
from vivavoce.protocol.server import TurnDecision
from vivavoce.protocol.session import SemanticVad
from vivavoce.session.cascade.turn_detection import PAUSE, TurnDetector
from vivavoce.session.conversation import Conversation, shown
from vivavoce.session.endpointing import (
    EndedBy,
    Evidence,
    SpeakerPauses,
    decision_of,
    silence_for,
)
from vivavoce.session.facts import TurnScored
from vivavoce.session.options import Options
from vivavoce.session.usage import words_of

MAX_WORDS_BEFORE = 400  # characters of the item before a turn, given to a language model
MAX_CUT_GAP = to_samples(1000)  # who speaks again after a shorter silence had not finished


class TurnScoring:
    """The evidence of the open turn, and the pauses of its speaker."""

    def __init__(self, options: Options, pauses: SpeakerPauses) -> None:
        self.evidence = Evidence()
        """Evidence about the end of the turn, in this pause."""
        self.resumed = 0
        """How often the user has resumed speaking after a silence in mid-turn."""
        self.scores_words = False
        """Whether words are scored while the user still speaks."""
        self.ended_by: EndedBy = "silence"
        """The decision that ends the turn."""
        self._options = options
        self._pauses = pauses
        self._text: str | None = None  # the text that was scored last
        self._in_pause = False  # whether it was scored in this pause
        self._llm_asked = False  # whether the language model was asked about that text

    @property
    def awaits_sound(self) -> bool:
        """Whether the sound of this pause is being scored."""
        return self._options.turn_samples > 0 and self._in_pause and self.evidence.sound is None

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

    def asks(self, detector: TurnDetector, text: str) -> Literal["words", "sound"] | None:
        """What is to be scored of a turn with these words, each once: the words alone, or the sound
        as well. None: nothing new. Call while is_due()."""
        fresh = text != self._text
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
            self.evidence = Evidence(sound=self.evidence.sound)
            self._text = text
            self._llm_asked = False
        return asked

    def asks_llm(self, detector: TurnDetector) -> bool:
        """Whether a language model is to be asked about the words, once. Call after asks()."""
        wanted = self._options.turns.llm_weight > 0 and detector.pausing and self._text
        if not wanted or self._llm_asked:
            return False
        self._llm_asked = True
        return True

    def take(self, fact: TurnScored, detector: TurnDetector) -> None:
        """Take a score, and set the silence that ends the turn."""
        if self._text is None:
            return
        if fact.source == "sound" and not self._in_pause:  # of an earlier pause
            return
        self.evidence = msgspec.structs.replace(self.evidence, **{fact.source: fact.likelihood})
        if isinstance(detector.settings, SemanticVad):
            eagerness, turns = detector.settings.eagerness, self._options.turns
            detector.wait_for(silence_for(self.evidence, eagerness, self._pauses, turns))

    def decide(self, detector: TurnDetector, position: int) -> TurnDecision:
        """The decision that has just ended the turn at that position."""
        waited, ended_by = detector.waited, self.ended_by
        self._pauses.spoken_until, self.ended_by = position - waited, "silence"
        evidence = self.evidence if detector.is_semantic else None
        return decision_of(waited, ended_by, evidence, self._pauses, self._options.turns)


def last_words(conversation: Conversation) -> str:
    """The end of what was said last in the conversation."""
    items = shown(list(conversation)[-1:])
    return " ".join(words_of(item) for item in items)[-MAX_WORDS_BEFORE:]
