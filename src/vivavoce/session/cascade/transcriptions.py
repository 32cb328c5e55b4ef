"""The words of each user item, from the first sound of it to the last word.

A dictation is known by a key: the id of its item, and for a second recording in one item that id
with something behind it.
"""

from dataclasses import dataclass

from vivavoce.protocol.server import (
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
)
from vivavoce.session.cascade.input_buffer import BYTES_PER_SAMPLE
from vivavoce.session.conversation import Entry
from vivavoce.session.effect_buffer import EffectBuffer
from vivavoce.session.effects import CancelTranscription, EndAudio, FeedAudio, StartTranscription
from vivavoce.session.facts import TranscriptUpdated
from vivavoce.session.options import Options
from vivavoce.session.usage import Tally, transcription_usage


def language_of(options: Options) -> str | None:
    """The language that the client says is spoken."""
    return options.transcription.language if options.transcription else None


@dataclass(slots=True)
class ItemTranscription:
    """One recording that is being written down."""

    item_id: str
    index: int
    reported: bool
    """Whether the client asked to be told."""
    samples: int = 0
    told: int = 0
    text: str = ""
    deadline: float = float("inf")
    """When the words are overdue; infinite while sound still comes."""
    failure: tuple[str, str] | None = None
    """Code and reason, once it is known that the words will not come."""


class Transcriptions:
    """What is being written down just now."""

    def __init__(self, outbox: EffectBuffer, tally: Tally, *, stall_seconds: float) -> None:
        self._outbox = outbox
        self._tally = tally
        self._stall_seconds = stall_seconds
        self._dictations: dict[str, ItemTranscription] = {}

    @property
    def deadline(self) -> float:
        """When the first of them is overdue."""
        if not self._dictations:  # as most of the time, and it is asked after every fact
            return float("inf")
        return min(d.deadline for d in self._dictations.values())

    def pending(self, key: str) -> bool:
        return key in self._dictations

    def keys_of(self, item_ids: set[str]) -> set[str]:
        """The dictations under way that belong to these items."""
        return {key for key, d in self._dictations.items() if d.item_id in item_ids}

    def text(self, key: str) -> str:
        """The words so far."""
        dictation = self._dictations.get(key)
        return dictation.text if dictation else ""

    def begin(self, item_id: str, options: Options, *, index: int = 0) -> str:
        """Begin a dictation as the settings are now; return its key."""
        key = f"{item_id}#{index}" if index else item_id
        while key in self._dictations:  # the client names items as it likes, "a#1" too
            key += "#"
        transcription = options.transcription
        self._dictations[key] = ItemTranscription(
            item_id, index, reported=transcription is not None
        )
        self._outbox.add(
            StartTranscription(
                key,
                model=options.served_by.model,
                language=language_of(options),
                prompt=(transcription.prompt if transcription else None) or "",
            )
        )
        return key

    def dictate(self, entry: Entry, options: Options, *, now: float) -> None:
        """Have all recordings of an item written down whose words are not known."""
        for index, recording in entry.recordings.items():
            if index not in entry.words:
                key = self.begin(entry.item.id, options, index=index)
                self.feed(key, recording)
                self.finish(key, now)

    def keep_quiet(self, item_id: str) -> None:
        """The client knows of no such item: tell nothing of it."""
        for key in self.keys_of({item_id}):
            self._dictations[key].reported = False

    def feed(self, key: str, audio: bytes) -> None:
        dictation = self._dictations.get(key)
        if audio and dictation and not dictation.failure:
            dictation.samples += len(audio) // BYTES_PER_SAMPLE
            self._outbox.add(FeedAudio(key, audio))

    def finish(self, key: str, now: float) -> None:
        """Its sound is complete: the words are due."""
        if dictation := self._dictations.get(key):
            dictation.deadline = now + self._stall_seconds
            if not dictation.failure:
                self._outbox.add(EndAudio(key))

    def forget(self, item_id: str) -> None:
        for key in self.keys_of({item_id}):
            del self._dictations[key]
            self._outbox.add(CancelTranscription(key))

    def forget_all(self) -> None:
        for dictation in tuple(self._dictations.values()):
            self.forget(dictation.item_id)

    def overdue(self, now: float) -> list[str]:
        """The dictations whose words should have come by now."""
        return [key for key, d in self._dictations.items() if d.deadline <= now]

    def take(self, fact: TranscriptUpdated, now: float) -> ItemTranscription | None:
        """Tell the new words; return the dictation when they were the last."""
        dictation = self._dictations.get(fact.item_id)
        if dictation is None:  # it was forgotten meanwhile
            return None
        dictation.text = fact.text
        if dictation.deadline != float("inf"):  # it lives
            dictation.deadline = now + self._stall_seconds
        stable = len(fact.text) if fact.final else fact.stable
        if dictation.reported and stable > dictation.told:
            self._tell_more(dictation, fact.text[dictation.told : stable])
            dictation.told = stable
        if not fact.final:
            return None
        del self._dictations[fact.item_id]
        usage = transcription_usage(dictation.samples)
        self._tally.add_transcription(usage)
        if dictation.reported:
            self._outbox.send(
                TranscriptionCompleted(
                    event_id=self._outbox.event_id(),
                    item_id=dictation.item_id,
                    content_index=dictation.index,
                    transcript=fact.text,
                    usage=usage,
                )
            )
        return dictation

    def fail(self, key: str, code: str, reason: str) -> None:
        """The words will not come. It is told when the item is there: see failures()."""
        if dictation := self._dictations.get(key):
            dictation.failure = (code, reason)

    def failures(self) -> list[tuple[str, str, str]]:
        """Tell and return (key, code, reason) of what failed and whose sound is complete."""
        failed = []
        for key, dictation in tuple(self._dictations.items()):
            if dictation.failure and dictation.deadline != float("inf"):
                del self._dictations[key]
                failed.append((key, *dictation.failure))
                if dictation.reported:
                    self._tell_failure(dictation, *dictation.failure)
        return failed

    def _tell_failure(self, dictation: ItemTranscription, code: str, reason: str) -> None:
        self._outbox.send(
            TranscriptionFailed(
                event_id=self._outbox.event_id(),
                item_id=dictation.item_id,
                content_index=dictation.index,
                error=TranscriptionError(type="transcription_error", code=code, message=reason),
            )
        )

    def _tell_more(self, dictation: ItemTranscription, delta: str) -> None:
        self._outbox.send(
            TranscriptionDelta(
                event_id=self._outbox.event_id(),
                item_id=dictation.item_id,
                content_index=dictation.index,
                delta=delta,
            )
        )
