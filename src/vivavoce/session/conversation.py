"""The conversation: items in order, what was heard of each, and what a model is shown."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    Item,
    Message,
    OutputAudio,
    Part,
)
from vivavoce.session.cascade.input_buffer import to_ms, to_samples
from vivavoce.session.ledger import Ledger, SavedLedger

ROOT = "root"
RETRIEVED_BYTES = 5 * 1024 * 1024  # of sound in one event; a strict client's frame limit is 8 MiB


@dataclass(slots=True)
class Entry:
    """An item and what is known of its sound."""

    item: Item
    recordings: dict[int, bytes] = field(default_factory=dict)
    """A user's sound, PCM at 24 kHz, by content index."""
    words: dict[int, str] = field(default_factory=dict)
    """What was made out of it, by content index; told to the client only where it asked."""
    samples: int = 0
    """Length of a user's sound. It stays when the recordings go."""
    ledger: Ledger | None = None
    """An answer's words and sound."""

    def tell_words(self, index: int) -> None:
        """From now on the item shows the words that were made out."""
        assert isinstance(self.item, Message)
        content = list(self.item.content)
        content[index] = InputAudio(transcript=self.words[index])
        self.item = msgspec.structs.replace(self.item, content=tuple(content))

    def tell_heard(self) -> None:
        """Where not all of an answer was heard, the item shows only the words that were."""
        if self.ledger and self.ledger.heard is not None and isinstance(self.item, Message):
            part = OutputAudio(transcript=self.ledger.heard_text)
            self.item = msgspec.structs.replace(self.item, content=(part,))


class SavedEntry(msgspec.Struct, frozen=True):
    """An entry as it is written down."""

    item: Item
    recordings: dict[int, bytes] = {}
    words: dict[int, str] = {}
    samples: int = 0
    ledger: SavedLedger | None = None


class Conversation:
    """Items by id, in order."""

    def __init__(self, *, kept_bytes: int) -> None:
        self._order: list[str] = []
        self._entries: dict[str, Entry] = {}
        self._kept_bytes = kept_bytes

    def __iter__(self) -> Iterator[Entry]:
        return (self._entries[item_id] for item_id in self._order)

    def __len__(self) -> int:
        return len(self._order)

    def find(self, item_id: str) -> Entry | None:
        return self._entries.get(item_id)

    def replace(self, item: Item) -> None:
        """The item has become this. One that was deleted stays deleted, one truncated so short."""
        if entry := self._entries.get(item.id):
            entry.item = item
            entry.tell_heard()

    def add(self, entry: Entry, after: str | None = None) -> str | None:
        """Put an item in; return the id of the one before it.

        after: "root" for the beginning, an id, or None or "" for the end.
        """
        item_id = entry.item.id
        if item_id in self._entries:
            raise InvalidRequest(
                f"Error adding item: an item with id '{item_id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        place = self._place(after)
        self._order.insert(place, item_id)
        self._entries[item_id] = entry
        self._give_up_old_sound(item_id)
        return self.previous(item_id)

    def previous(self, item_id: str) -> str | None:
        """The id before that item; None if it is the first or is gone."""
        place = self._order.index(item_id) if item_id in self._entries else 0
        return self._order[place - 1] if place else None

    @property
    def last(self) -> str | None:
        return self._order[-1] if self._order else None

    def delete(self, item_id: str) -> None:
        if item_id not in self._entries:
            raise _unknown("delete", "deleting", item_id)
        self._order.remove(item_id)
        del self._entries[item_id]

    def retrieve(self, item_id: str) -> Item:
        """The item with its sound, PCM at 24 kHz, unless there is too much of it."""
        if (entry := self._entries.get(item_id)) is None:
            raise _unknown("retrieve", "retrieving", item_id)
        if not isinstance(entry.item, Message):
            return entry.item
        content = tuple(_with_sound(entry, n, part) for n, part in enumerate(entry.item.content))
        return msgspec.structs.replace(entry.item, content=content)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Only that much of an answer's sound was heard: its words after that were not."""
        if (entry := self._entries.get(item_id)) is None:
            raise InvalidRequest(
                f"Error truncating item: the item with id '{item_id}' does not exist.",
                code="item_truncate_invalid_item_id",
            )
        item, ledger = entry.item, entry.ledger
        if ledger is None or not ledger.samples or not isinstance(item, Message):
            raise InvalidRequest(
                "Only model output audio messages can be truncated",
                code="unsupported_content_type",
            )
        if content_index != 0:
            raise InvalidRequest(
                f"Invalid 'content_index': the item has no content at {content_index}.",
                param="content_index",
            )
        length_ms = -(-ledger.samples * 1000 // (to_samples(1000)))
        if not 0 <= audio_end_ms <= length_ms:
            raise InvalidRequest(
                f"Audio content of {to_ms(ledger.samples)}ms is already shorter than "
                f"{audio_end_ms}ms",
                param="audio_end_ms",
            )
        ledger.cut(to_samples(audio_end_ms))
        entry.tell_heard()

    def cut(self, item_id: str, heard: int) -> None:
        """By our reckoning the ear got only that many samples of an answer.

        The client's player knows better: where it truncated the answer, that stands.
        """
        entry = self._entries.get(item_id)
        if entry and entry.ledger and entry.ledger.heard is None:
            entry.ledger.cut(heard)
            entry.tell_heard()

    def has_call(self, call_id: str) -> bool:
        return any(isinstance(e.item, FunctionCall) and e.item.call_id == call_id for e in self)

    def save(self) -> tuple[SavedEntry, ...]:
        return tuple(
            SavedEntry(
                e.item,
                dict(e.recordings),
                dict(e.words),
                e.samples,
                e.ledger.save() if e.ledger else None,
            )
            for e in self
        )

    def load(self, saved: tuple[SavedEntry, ...]) -> None:
        for s in saved:
            ledger = Ledger.load(s.ledger) if s.ledger else None
            self.add(Entry(s.item, dict(s.recordings), dict(s.words), s.samples, ledger))

    def _place(self, after: str | None) -> int:
        if not after:
            return len(self._order)
        if after == ROOT:
            return 0
        if after not in self._entries:
            raise InvalidRequest(
                f"Error adding item: the previous item with id '{after}' does not exist.",
                code="item_create_invalid_previous_item_id",
                param="previous_item_id",
            )
        return self._order.index(after) + 1

    def _give_up_old_sound(self, newest: str) -> None:
        """Keep memory bounded: the oldest recordings go first, their words stay.

        That of the newest item stays until the next comes: its words are still to be made out.
        """
        kept = 0
        for item_id in reversed(self._order):
            entry = self._entries[item_id]
            kept += sum(map(len, entry.recordings.values()))
            kept += len(entry.ledger.audio) if entry.ledger else 0
            if kept > self._kept_bytes and item_id != newest:
                entry.recordings.clear()
                if entry.ledger:
                    entry.ledger.audio.clear()


def _unknown(verb: str, doing: str, item_id: str) -> InvalidRequest:
    return InvalidRequest(
        f"Error {doing} item: the item with id '{item_id}' does not exist.",
        code=f"item_{verb}_invalid_item_id",
    )


def _with_sound(entry: Entry, index: int, part: Part) -> Part:
    match part:
        case InputAudio(transcript=transcript):
            sound = entry.recordings.get(index, b"")
            if sound and len(sound) <= RETRIEVED_BYTES:
                return InputAudio(audio=sound, transcript=transcript)
        case OutputAudio(transcript=transcript) if entry.ledger:
            sound = entry.ledger.heard_audio
            if sound and len(sound) <= RETRIEVED_BYTES:
                return OutputAudio(transcript=transcript, audio=sound)
        case _:
            pass
    return part


def shown(entries: Iterable[Entry]) -> tuple[Item, ...]:
    """Entries as a model is shown them: the words that were heard, and no others."""
    return tuple(item for entry in entries for item in _shown(entry))


def _shown(entry: Entry) -> Iterator[Item]:
    """An entry as a model is shown it: nothing of a call that broke off, or that nobody heard."""
    match entry.item:
        case Message(content=content) as item:
            parts = tuple(
                InputAudio(transcript=entry.words.get(n)) if isinstance(part, InputAudio) else part
                for n, part in enumerate(content)
            )
            if entry.ledger:
                heard = entry.ledger.heard_text
                parts = (OutputAudio(transcript=heard),) if heard else ()
            if parts:
                yield msgspec.structs.replace(item, content=parts)
        case FunctionCall(status=status) as call:
            if status == "completed":
                yield call
        case FunctionCallOutput() as output:
            yield output
        case _:
            assert_never(entry.item)
