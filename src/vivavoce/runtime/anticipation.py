"""Carries out work that begins before the end of a turn is decided: drafts of transcripts, and
answers that are held. Nothing of it is posted until the session asks for it: see
session/cascade/anticipation.py."""

import logging
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.generation import Gate, Post, WaitWritable, answer
from vivavoce.runtime.tasks import Tasks
from vivavoce.runtime.text_generation import ServerCalls
from vivavoce.runtime.transcription import AudioFeed, transcribe_item
from vivavoce.session.effects import DraftTranscript, Generate, Speculate
from vivavoce.session.facts import (
    AnticipationEnded,
    AudioGenerated,
    DraftTranscribed,
    Fact,
    GenerationFact,
    GenerationFailed,
    GenerationFinished,
    ItemTranscriptionFailed,
    TextGenerated,
    TokenCounts,
    ToolCallArguments,
    TranscriptionKey,
    TranscriptUpdated,
)

log = logging.getLogger(__name__)

TakeDraft: TypeAlias = Callable[[TranscriptUpdated | None], None]
"""Takes the words of a draft; None: the draft has none."""


class HeldAnswer:
    """An answer that is generated, and held until it is adopted.

    Pass its post(), writable() and gate to answer(). Until it is adopted, only some clauses are
    synthesised, and it does not wait for the client.
    """

    def __init__(
        self, speculation_id: str, post: Post, wait_writable: WaitWritable, *, clauses: int
    ) -> None:
        """clauses: how many are spoken before it is adopted."""
        self._id = speculation_id
        self._response_id = ""  # once it is adopted
        self._post = post
        self._wait_writable = wait_writable
        self._held: list[GenerationFact] = []
        self.gate = Gate(clauses)
        self.failed = False
        """Whether it has failed before it was adopted."""

    def post(self, fact: GenerationFact) -> None:
        """Hold a fact, or once the answer is adopted pass it on as one of the response."""
        if self._response_id:
            self._post(msgspec.structs.replace(fact, response_id=self._response_id))
            return
        self._held.append(fact)
        self.failed = self.failed or isinstance(fact, GenerationFailed)

    def adopt(self, response_id: str) -> None:
        """The answer becomes that response: pass on the facts that were held, and let it
        continue."""
        self._response_id = response_id
        held, self._held = self._held, []
        for fact in held:
            self.post(fact)
        self.gate.open()

    async def writable(self) -> None:
        if self._response_id:
            await self._wait_writable()

    def used(self) -> AnticipationEnded:
        """The usage so far."""
        tokens: TokenCounts | None = None
        characters, spoken, samples = self.gate.characters, 0, 0
        for fact in self._held:
            match fact:
                case TextGenerated(text=text):
                    spoken += len(text)
                case ToolCallArguments(arguments=arguments):
                    characters += len(arguments)
                case AudioGenerated(audio=audio):
                    samples += len(audio) // 2
                case GenerationFinished(tokens=counted):
                    tokens = counted
        return AnticipationEnded(self._id, tokens, characters, spoken if samples else 0, samples)


class _Draft:
    """A transcript that is made early, and kept until it is known whether it is used."""

    def __init__(self, draft_id: str) -> None:
        self.id = draft_id
        self.final: TranscriptUpdated | None = None
        self.wanted: TakeDraft | None = None
        """Called with the words, once the turn has ended."""

    def note(self, fact: TranscriptUpdated | ItemTranscriptionFailed) -> None:
        """Take a fact about its transcription."""
        if isinstance(fact, ItemTranscriptionFailed):
            log.info("a draft of a transcript failed: %s", fact.reason)
        elif fact.final:
            self.final = fact


class AnticipationWork:
    """The drafts and held answers of one session."""

    def __init__(
        self,
        catalog: ModelCatalog,
        post: Callable[[Fact], None],
        wait_writable: WaitWritable,
        tasks: Tasks,
        is_busy: Callable[[], bool],
        calls: ServerCalls | None = None,
    ) -> None:
        """is_busy: whether the server is too busy for work that may turn out not to be needed."""
        self._catalog = catalog
        self._post = post
        self._wait_writable = wait_writable
        self._tasks = tasks
        self._is_busy = is_busy
        self._calls = calls
        self._drafts: dict[TranscriptionKey, _Draft] = {}
        self._held: dict[str, HeldAnswer] = {}  # not adopted yet

    def draft(self, effect: DraftTranscript, audio: bytes | None) -> None:
        """Begin a draft. audio: what was fed so far, PCM at 24 kHz; None: it was not kept."""
        if self._is_busy() or audio is None:
            self._post(AnticipationEnded(effect.draft_id, refused=True))
            return
        key = effect.order.key
        self.cancel(key)
        self._drafts[key] = _Draft(effect.draft_id)
        self._tasks.start(("draft", key), self._transcribe(effect, self._drafts[key], audio))

    def take_draft(self, key: TranscriptionKey, draft_id: str, take: TakeDraft) -> None:
        """The turn has ended: call `take` with the words of that draft."""
        draft = self._drafts.get(key)
        if draft is None or draft.id != draft_id:
            take(None)
        elif draft.final is None:
            draft.wanted = take
        else:
            del self._drafts[key]
            take(draft.final)

    def cancel(self, key: TranscriptionKey) -> None:
        """Stop the draft of a recording."""
        if self._drafts.pop(key, None) is not None:
            self._tasks.cancel(("draft", key))

    def speculate(self, effect: Speculate) -> None:
        """Generate an answer, and hold it."""
        speculation_id = effect.speculation_id
        if self._is_busy():
            self._post(AnticipationEnded(speculation_id, refused=True))
            return
        clauses = 1 if effect.speak else 0
        held = HeldAnswer(speculation_id, self._post, self._wait_writable, clauses=clauses)
        self._held[speculation_id] = held
        self._tasks.start(speculation_id, self._answer(effect, held))

    def adopt(self, speculation_id: str, response_id: str) -> bool:
        """Use that answer for a response. False: it has ended."""
        held = self._held.pop(speculation_id, None)
        if held is None:
            return False
        self._tasks.rename(speculation_id, response_id)
        held.adopt(response_id)
        return True

    def drop(self, id_: str) -> None:
        """Stop a draft or an answer."""
        for key in [key for key, draft in self._drafts.items() if draft.id == id_]:
            self.cancel(key)
        held = self._held.pop(id_, None)
        if held is not None:
            self._tasks.cancel(id_)
            self._post(held.used())

    async def _transcribe(self, effect: DraftTranscript, draft: _Draft, audio: bytes) -> None:
        order = effect.order
        async with self._catalog.of(order.model).use_stt(order.asked_model) as stt:
            feed = AudioFeed(stt.sample_rate, lambda: None)
            feed.feed(audio)
            feed.finish()
            await transcribe_item(stt, order, feed, draft.note)
        final = draft.final
        if draft.wanted is not None:
            del self._drafts[order.key]
            draft.wanted(final)
        elif final is None:
            del self._drafts[order.key]
            self._post(AnticipationEnded(draft.id, refused=True))
        else:
            self._post(DraftTranscribed(draft.id, final.text))

    async def _answer(self, effect: Speculate, held: HeldAnswer) -> None:
        order = Generate(effect.speculation_id, effect.prompt)
        cascade = self._catalog.of(effect.prompt.model)
        await answer(order, cascade, held.post, held.writable, held.gate, calls=self._calls)
        if held.failed and self._held.pop(effect.speculation_id, None) is not None:
            self._post(held.used())
