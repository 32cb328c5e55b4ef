"""The transcription of each recording, from its first audio to its final words."""

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.audio.formats import BYTES_PER_SAMPLE
from vivavoce.protocol.logprobs import TokenLogprob, token_logprobs
from vivavoce.protocol.server import (
    InputTranscriptionSegment,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
)
from vivavoce.session.brain import Shared
from vivavoce.session.conversation import Entry
from vivavoce.session.effects import (
    CancelTranscription,
    EndAudio,
    FeedAudio,
    RecordUsage,
    StartTranscription,
)
from vivavoce.session.facts import TranscriptionKey, TranscriptUpdated
from vivavoce.session.options import Options
from vivavoce.session.usage import transcription_usage

INFINITY = float("inf")
DIARIZES = "-diarize"
"""A recogniser model whose name ends like this distinguishes speakers."""


def language_of(options: Options) -> str | None:
    """The spoken language that the client has set."""
    return options.transcription.language if options.transcription else None


class Failure(msgspec.Struct, frozen=True):
    """A transcription that failed after all its audio was received."""

    key: TranscriptionKey
    code: str
    reason: str


class ItemTranscription(msgspec.Struct):
    """One recording that is being transcribed."""

    order: StartTranscription
    reported: bool
    """Whether the client requested transcripts."""
    scored: bool = False
    """Whether the client requested the probabilities of the words."""
    samples: int = 0
    sent_text: str = ""
    """The words that were sent as deltas."""
    text: str = ""
    certainty: float | None = None
    """Log probability of the last word of the text."""
    draft: str = ""
    """The words of a draft, while the transcription itself has none."""
    deadline: float = INFINITY
    """When the next words are overdue; infinite while audio still comes."""
    failure: tuple[str, str] | None = None
    """Code and reason, once it has failed."""


class Transcriptions:
    """The transcriptions in progress."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._active: dict[TranscriptionKey, ItemTranscription] = {}

    @property
    def deadline(self) -> float:
        """When the first of them is overdue."""
        first = INFINITY
        # evaluated after every fact: a loop is faster than a generator
        for active in self._active.values():
            first = min(first, active.deadline)
        return first

    @property
    def busy(self) -> bool:
        return bool(self._active)

    def pending(self, key: TranscriptionKey) -> bool:
        return key in self._active

    def reported(self, key: TranscriptionKey) -> bool:
        """Whether its words go to the client."""
        active = self._active.get(key)
        return active is not None and active.reported

    def keys_of(self, item_ids: set[str]) -> set[TranscriptionKey]:
        """The transcriptions in progress that belong to these items."""
        return {key for key in self._active if key.item_id in item_ids}

    def text(self, key: TranscriptionKey) -> str:
        """The words so far, or those of its draft."""
        active = self._active.get(key)
        return (active.text or active.draft) if active else ""

    def certainty(self, key: TranscriptionKey) -> float | None:
        """Log probability of the last word so far; None: the recogniser gives none."""
        active = self._active.get(key)
        return active.certainty if active else None

    def working(self, key: TranscriptionKey) -> ItemTranscription | None:
        """The transcription of that recording, if it is in progress and has not failed."""
        active = self._active.get(key)
        return None if active is None or active.failure else active

    def set_draft(self, key: TranscriptionKey, text: str) -> None:
        """Set the words of its draft; "": there is no draft any more."""
        if active := self._active.get(key):
            active.draft = text

    def start(self, key: TranscriptionKey, *, reported: bool = True) -> None:
        """Start one with the settings as they are now.

        reported: False for an item that the client does not know of; otherwise the client's
        settings say whether it gets transcripts.
        """
        options = self._shared.options
        transcription = options.transcription
        order = StartTranscription(
            key,
            model=options.served_by.model,
            language=language_of(options),
            prompt=transcription.hint if transcription else "",
            asked_model=transcription.model if transcription else "",
            scored=options.includes_logprobs,
            diarized=transcription is not None and transcription.model.endswith(DIARIZES),
        )
        self._active[key] = ItemTranscription(
            order,
            reported and transcription is not None,
            options.includes_logprobs,
            sent_text=self._shared.sent_words.pop(key, ""),
        )
        self._shared.effects.add(order)

    def report(self, key: TranscriptionKey) -> None:
        """The client knows about its item from now on: it gets the words, if it requested
        transcripts."""
        if active := self._active.get(key):
            active.reported = self._shared.options.transcription is not None

    def failed(self, key: TranscriptionKey) -> bool:
        """Whether no more words will come, because the transcription failed or is complete."""
        active = self._active.get(key)
        return active is None or active.failure is not None

    def transcribe(self, entry: Entry, *, now: float, reported: bool = True) -> None:
        """Transcribe all recordings of an item whose words are not known."""
        for index, recording in entry.recordings.items():
            if index not in entry.words:
                key = TranscriptionKey(entry.item.id, index)
                self.start(key, reported=reported)
                self.feed(key, recording)
                self.finish(key, now)

    def feed(self, key: TranscriptionKey, audio: bytes) -> None:
        active = self._active.get(key)
        if audio and active and not active.failure:
            active.samples += len(audio) // BYTES_PER_SAMPLE
            self._shared.effects.add(FeedAudio(key, audio))

    def finish(self, key: TranscriptionKey, now: float, *, draft_id: str = "") -> None:
        """All its audio has come: the words are due. draft_id: see EndAudio."""
        if active := self._active.get(key):
            active.deadline = now + self._shared.limits.stall_seconds
            if not active.failure:
                self._shared.effects.add(EndAudio(key, draft_id, active.sent_text))

    def cancel(self, item_id: str) -> None:
        """Cancel the transcriptions of an item."""
        for key in self.keys_of({item_id}):
            del self._active[key]
            self._shared.effects.add(CancelTranscription(key))

    def hand_over(self) -> None:
        """Cancel all.

        The next brain may transcribe the recordings again, and continues after the words that were
        sent.
        """
        for key, active in self._active.items():
            self._shared.effects.add(CancelTranscription(key))
            if active.sent_text:
                self._shared.sent_words[key] = active.sent_text
        self._active.clear()

    def fail_overdue(self, now: float) -> None:
        """Fail those that have made no progress for stall_seconds."""
        seconds = self._shared.limits.stall_seconds
        for key, active in self._active.items():
            if active.deadline <= now:
                self._shared.effects.add(CancelTranscription(key))
                reason = f"Nothing came from speech recognition for {seconds:g} seconds; "
                active.failure = ("stt_stalled", f"{reason}it was given up.")

    def take(self, fact: TranscriptUpdated, now: float) -> bool:
        """Send new words to the client; return whether they are the final ones of that
        recording."""
        active = self._active.get(fact.key)
        if active is None:  # it was cancelled in the meantime
            return False
        active.text, active.certainty = fact.text, fact.certainty
        if active.deadline != INFINITY:
            active.deadline = now + self._shared.limits.stall_seconds
        stable = len(fact.text) if fact.final else fact.stable
        # after a change of brain the new words may begin differently: then only the final text is
        # sent
        if active.reported and fact.text[:stable].startswith(active.sent_text):
            self._send_delta(fact, stable, active)
        if not fact.final:
            return False
        del self._active[fact.key]
        self._complete(fact, active)
        return True

    def fail(self, key: TranscriptionKey, code: str, reason: str) -> None:
        """The transcription has failed. failures() reports it once its audio is complete."""
        if active := self._active.get(key):
            active.failure = (code, reason)

    def failures(self) -> list[Failure]:
        """Report the failures of transcriptions whose audio is complete; return them."""
        failed = []
        for key, active in tuple(self._active.items()):
            if active.failure and active.deadline != INFINITY:
                del self._active[key]
                failure = Failure(key, *active.failure)
                failed.append(failure)
                if active.reported:
                    self._send_failure(failure)
        return failed

    def _complete(self, fact: TranscriptUpdated, active: ItemTranscription) -> None:
        effects, usage = self._shared.effects, transcription_usage(active.samples)
        record_id = f"{fact.key.item_id}:{fact.key.content_index}"
        self._shared.usage.add(RecordUsage(record_id, active.order.model, usage, "transcription"))
        if active.reported:
            self._send_segments(fact)
            effects.send(
                TranscriptionCompleted(
                    event_id=effects.event_id(),
                    item_id=fact.key.item_id,
                    content_index=fact.key.content_index,
                    transcript=fact.text,
                    usage=usage,
                    logprobs=_logprobs(fact, 0, len(fact.text), active),
                )
            )

    def _send_segments(self, fact: TranscriptUpdated) -> None:
        effects = self._shared.effects
        for number, segment in enumerate(fact.segments):
            effects.send(
                InputTranscriptionSegment(
                    event_id=effects.event_id(),
                    item_id=fact.key.item_id,
                    content_index=fact.key.content_index,
                    id=f"seg_{fact.key.content_index}_{number:03}",
                    text=segment.text,
                    speaker=segment.speaker,
                    start=segment.start_ms / 1000,
                    end=segment.end_ms / 1000,
                )
            )

    def _send_failure(self, failure: Failure) -> None:
        effects = self._shared.effects
        effects.send(
            TranscriptionFailed(
                event_id=effects.event_id(),
                item_id=failure.key.item_id,
                content_index=failure.key.content_index,
                error=TranscriptionError(
                    type="transcription_error", code=failure.code, message=failure.reason
                ),
            )
        )

    def _send_delta(self, fact: TranscriptUpdated, stable: int, active: ItemTranscription) -> None:
        start, active.sent_text = len(active.sent_text), fact.text[:stable]
        if start == stable:
            return
        effects = self._shared.effects
        effects.send(
            TranscriptionDelta(
                event_id=effects.event_id(),
                item_id=fact.key.item_id,
                content_index=fact.key.content_index,
                delta=fact.text[start:stable],
                logprobs=_logprobs(fact, start, stable, active),
            )
        )


def _logprobs(
    fact: TranscriptUpdated, start: int, end: int, active: ItemTranscription
) -> tuple[TokenLogprob, ...] | UnsetType:
    """The probabilities of the tokens that end in that part of the text."""
    if not active.scored:
        return UNSET
    return token_logprobs(fact.text, fact.words, start, end) or UNSET
