"""What begins before the end of a turn is decided: a draft of its transcript, and an answer.

Both stand beside the conversation. Nothing of them is sent, stored or run. The draft becomes the
transcript when the turn ends after nothing but silence; the answer is adopted when the confirmed
turn gives the very prompt that it was generated from, but for case and punctuation of the words.
In every other case they are dropped, and what was used in vain is counted.
"""

import dataclasses
import re

import msgspec

from vivavoce.audio.formats import to_ms
from vivavoce.protocol.items import InputAudio, Item, Message
from vivavoce.protocol.responses import ResponseParams
from vivavoce.session.brain import Shared
from vivavoce.session.cascade.input_turns import InputTurns
from vivavoce.session.cascade.planning import plan_of
from vivavoce.session.cascade.transcriptions import Transcriptions
from vivavoce.session.conversation import Entry, shown
from vivavoce.session.effects import (
    DraftTranscript,
    DropAnticipated,
    Prompt,
    RecordUsage,
    Speculate,
    StartTranscription,
)
from vivavoce.session.endpointing import Evidence, likelihood_of
from vivavoce.session.facts import (
    AnticipationEnded,
    DraftTranscribed,
    TokenCounts,
    TranscriptionKey,
)
from vivavoce.session.usage import (
    estimate,
    response_usage,
    tokens_in,
    transcription_usage,
    words_of,
)

MAX_DRAFTS_PER_TURN = 3
MAX_SPECULATIONS_PER_TURN = 3
SPOKEN_END_LIKELIHOOD = 0.8
"""Probability of the end of the turn, by its words, from which on an answer begins while the user
still speaks."""
_IGNORED = re.compile(r"[^\w']+")


class Draft(msgspec.Struct):
    """A transcript of a turn that has not ended."""

    id: str
    order: StartTranscription
    samples: int
    resumed: int
    """The value of TurnScoring.resumed when the draft was begun; the draft is valid while that
    stays the same."""
    text: str | None = None


class Speculation(msgspec.Struct, frozen=True):
    """An answer to a turn that has not ended."""

    id: str
    prompt: Prompt
    words: str


class Anticipations:
    """Holds at most one draft and one answer that were begun before the turn was over."""

    def __init__(self, shared: Shared, transcriptions: Transcriptions, turns: InputTurns) -> None:
        self._shared = shared
        self._settings = shared.options.turns
        self._transcriptions = transcriptions
        self._turns = turns
        self._draft: Draft | None = None
        self._speculation: Speculation | None = None
        self._item_id = ""  # of the turn that the counts are of
        self._drafts = 0
        self._tried: set[str] = set()  # words for which an answer was begun in this turn
        self._dropped: dict[str, Speculation] = {}  # their usage has not been reported yet
        turns.scoring.scores_words = self.answers

    @property
    def drafting(self) -> bool:
        """Whether there is a draft. Speech makes it invalid."""
        return self._draft is not None

    @property
    def on(self) -> bool:
        """Whether anything may begin early."""
        wasted, most = self._shared.usage.totals.speculative_tokens, self._settings
        return most.anticipation != "off" and wasted < most.anticipation_max_tokens

    @property
    def answers(self) -> bool:
        """Whether an answer may begin early."""
        return self._settings.anticipation in ("llm", "speech") and self.on

    def consider(self, *, answered: bool) -> None:
        """Begin or drop work.

        Call after each change of the turn. answered: whether the end of the turn requests a
        response.
        """
        turns = self._turns
        if self._draft is not None and self._draft.resumed != turns.scoring.resumed:
            self._drop_draft()  # the user goes on
        turns.scoring.scores_words = self.answers
        if not (turns.speaking and self.on):
            return
        if turns.item_id != self._item_id:
            self._item_id, self._drafts = turns.item_id, 0
            self._tried.clear()
        due = self._is_due
        if due and self._draft is None:
            self._begin_draft()
        if self.answers and answered:
            self._consider_answer(due)

    def draft_of(self, key: TranscriptionKey) -> str:
        """The turn has ended after silence only: return the id of the draft that becomes its
        transcript, or ""."""
        draft, transcription = self._draft, self._transcriptions.working(key)
        if draft is None:
            return ""
        fits = draft.order.key == key and draft.resumed == self._turns.scoring.resumed
        if fits and transcription:
            begins = transcription.sent_text
            if draft.text is None or draft.text.startswith(begins):
                self._draft = None
                return draft.id
        self._drop_draft()
        return ""

    def answer_of(self, prompt: Prompt) -> str:
        """Return the id of the answer that was generated from exactly that prompt, or ""."""
        speculation, self._speculation = self._speculation, None
        if speculation is None:
            return ""
        if _alike(prompt, speculation):
            return speculation.id
        self._drop(speculation)
        return ""

    def take(self, fact: DraftTranscribed | AnticipationEnded) -> bool:
        """Take a report on a draft or an answer; return whether there are new words."""
        draft, speculation = self._draft, self._speculation
        if isinstance(fact, DraftTranscribed):
            if draft is None or draft.id != fact.draft_id:
                return False
            draft.text = fact.text
            self._transcriptions.set_draft(draft.order.key, fact.text)
            return True
        if draft is not None and draft.id == fact.id:
            self._draft = None
        elif speculation is not None and speculation.id == fact.id:
            self._speculation = None
            self._count(speculation, fact)
        elif (dropped := self._dropped.pop(fact.id, None)) is not None:
            self._count(dropped, fact)
        return False

    def words_changed(self) -> None:
        """The final words differ from those that an answer was begun for: drop the answer."""
        speculation, words = self._speculation, self._words
        if speculation is not None and words and _bare(words) != _bare(speculation.words):
            self._drop_answer()

    def drop(self) -> None:
        """The user goes on, or the client changes something: drop the draft and the answer."""
        self._drop_draft()
        self._drop_answer()

    def stop(self) -> None:
        """The session ends, or another brain takes over: drop both and report nothing more."""
        self.drop()
        for dropped in tuple(self._dropped.values()):
            self._count(dropped, AnticipationEnded(dropped.id))
        self._dropped.clear()

    @property
    def _words(self) -> str:
        if self._draft is not None and self._draft.text is not None:
            return self._draft.text
        return self._transcriptions.text(self._turns.key)

    @property
    def _is_due(self) -> bool:
        """Whether the user is silent, and is likely to have finished."""
        turns, settings = self._turns, self._settings
        if to_ms(turns.silence) < settings.anticipation_after_ms:
            return False
        if turns.scoring.awaits_sound:
            return False
        evidence = (
            turns.scoring.evidence if self._words else Evidence(None, turns.scoring.evidence.sound)
        )
        if evidence == Evidence():  # no source says that the turn goes on
            return True
        return likelihood_of(evidence, settings) >= settings.anticipation_likelihood

    def _begin_draft(self) -> None:
        transcription = self._transcriptions.working(self._turns.key)
        if transcription is None or self._drafts >= MAX_DRAFTS_PER_TURN:
            return
        options = self._shared.options
        if not options.transcribes_at_end and (options.decodes_pauses or not self.answers):
            return  # the recogniser would do its work twice
        self._drafts += 1
        draft_id = self._shared.effects.ids.next("draft")
        order, samples = transcription.order, transcription.samples
        self._draft = Draft(draft_id, order, samples, self._turns.scoring.resumed)
        self._shared.effects.add(DraftTranscript(draft_id, order))

    def _consider_answer(self, due: bool) -> None:
        words = self._words
        if not words or self._speculation is not None or words in self._tried:
            return
        likelihood = self._turns.scoring.evidence.words
        if not due and (likelihood is None or likelihood < SPOKEN_END_LIKELIHOOD):
            return
        if len(self._tried) >= MAX_SPECULATIONS_PER_TURN:
            return
        others = self._transcriptions.keys_of({e.item.id for e in self._shared.conversation})
        if others:  # their words are part of the prompt
            return
        self._tried.add(words)
        prompt = self._prompt(words)
        speculation_id = self._shared.effects.ids.next("spec")
        self._speculation = Speculation(speculation_id, prompt, words)
        speak = self._settings.anticipation == "speech"
        self._shared.effects.add(Speculate(speculation_id, prompt, speak))

    def _prompt(self, words: str) -> Prompt:
        """The prompt from which the turn is answered, if these are its words."""
        shared = self._shared
        item = Message(id=self._turns.item_id, role="user", content=(InputAudio(),))
        items = shown([*shared.conversation, Entry(item, words={0: words})])
        return dataclasses.replace(plan_of(ResponseParams(), shared).prompt, items=items)

    def _drop_draft(self) -> None:
        if (draft := self._draft) is None:
            return
        self._draft = None
        self._discard(draft)
        if draft.text is not None:  # an answer is to these words
            self._drop_answer()

    def _discard(self, draft: Draft) -> None:
        shared = self._shared
        self._transcriptions.set_draft(draft.order.key, "")
        shared.effects.add(DropAnticipated(draft.id))
        usage = transcription_usage(draft.samples)
        shared.usage.add(RecordUsage(draft.id, draft.order.model, usage, "speculative"))

    def _drop_answer(self) -> None:
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            self._drop(speculation)

    def _drop(self, speculation: Speculation) -> None:
        self._dropped[speculation.id] = speculation
        self._shared.effects.add(DropAnticipated(speculation.id))

    def _count(self, speculation: Speculation, used: AnticipationEnded) -> None:
        """Count the usage of work that was not used."""
        if used.refused:
            return
        prompt = speculation.prompt
        context = estimate(prompt.instructions) + sum(estimate(words_of(i)) for i in prompt.items)
        tokens = used.tokens or TokenCounts(context, tokens_in(used.characters))
        usage = response_usage(tokens, context=0, heard=0, said="", spoken=used.samples)
        record = RecordUsage(
            speculation.id, prompt.model, usage, "speculative", used.spoken_characters
        )
        self._shared.usage.add(record)


def _alike(prompt: Prompt, speculation: Speculation) -> bool:
    """Whether an answer to the first prompt also answers the second."""
    made_from = speculation.prompt
    if prompt == made_from:
        return True
    last = (_with_words(item, speculation.words) for item in prompt.items[-1:])
    items = (*prompt.items[:-1], *last)
    return dataclasses.replace(prompt, items=items) == made_from


def _with_words(item: Item, words: str) -> Item:
    """The entry with these words, if its own words differ only in case and punctuation."""
    match item:
        case Message(content=(InputAudio(transcript=str() as own),)) if _bare(own) == _bare(words):
            return msgspec.structs.replace(item, content=(InputAudio(transcript=words),))
        case _:
            return item


def _bare(words: str) -> str:
    return _IGNORED.sub(" ", words).strip().casefold()
