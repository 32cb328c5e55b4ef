"""The conversation: items in order, how much of each was heard, and what a model is given of
them."""

import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import assert_never

import msgspec

from vivavoce.audio.formats import to_ms, to_samples
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
from vivavoce.session.effects import Ids
from vivavoce.session.ledger import Ledger, SavedLedger

ROOT = "root"
RETRIEVED_BYTES = 5 * 1024 * 1024  # of sound in one event; a strict client's frame limit is 8 MiB


class Entry(msgspec.Struct):
    """An item and what is known about its audio."""

    item: Item
    recordings: dict[int, bytes] = msgspec.field(default_factory=dict)
    """A user's audio, PCM at 24 kHz, by content index."""
    words: dict[int, str] = msgspec.field(default_factory=dict)
    """Its transcripts, by content index; sent to the client only if it requested them."""
    samples: int = 0
    """Length of a user's audio. It stays when the recordings are dropped."""
    ledger: Ledger | None = None
    """The words and the audio of an answer."""

    def show_words(self, index: int) -> None:
        """Show the transcript of that part in the item from now on."""
        assert isinstance(self.item, Message)
        content = list(self.item.content)
        content[index] = InputAudio(transcript=self.words[index])
        self.item = msgspec.structs.replace(self.item, content=tuple(content))

    def show_heard_only(self) -> None:
        """Show only the words that were heard, if the answer was not heard to its end."""
        if self.ledger and self.ledger.heard is not None and isinstance(self.item, Message):
            part = OutputAudio(transcript=self.ledger.heard_text)
            self.item = msgspec.structs.replace(self.item, content=(part,))

    @property
    def audio_bytes(self) -> int:
        """The audio that is kept, PCM."""
        answer = self.ledger.audio_bytes if self.ledger else 0
        return sum(map(len, self.recordings.values())) + answer

    def drop_audio(self) -> None:
        """Drop the audio; keep the words and the lengths."""
        self.recordings.clear()
        if self.ledger:
            self.ledger.drop_audio()


class SavedEntry(msgspec.Struct, frozen=True):
    """An entry in a checkpoint: without audio."""

    item: Item
    words: dict[int, str] = {}
    samples: int = 0
    ledger: SavedLedger | None = None


class Conversation:
    """Items by id, in order: a linked list, so that adding one costs the same at any length."""

    def __init__(self, *, kept_bytes: int, max_items: int = sys.maxsize) -> None:
        self._entries: dict[str, Entry] = {}
        self._previous: dict[
            str, str
        ] = {}  # by id; ROOT stands before the first and after the last
        self._next: dict[str, str] = {}
        self._previous[ROOT] = self._next[ROOT] = ROOT
        self._calls: Counter[str] = Counter()  # function calls, by call id
        self._kept_bytes = kept_bytes
        self._max_items = max_items
        self._kept = 0  # bytes of audio, the sum of these two:
        self._counted: OrderedDict[str, int] = OrderedDict()  # by item, oldest first
        self._growing: list[Entry] = []  # answers that still receive audio

    def __iter__(self) -> Iterator[Entry]:
        item_id = self._next[ROOT]
        while item_id != ROOT:
            yield self._entries[item_id]
            item_id = self._next[item_id]

    def __len__(self) -> int:
        return len(self._entries)

    def new_id(self, ids: Ids) -> str:
        """A new item id that is not in use: a client may have given an item the next one of
        ours."""
        while (item_id := ids.next("item")) in self._entries:
            pass
        return item_id

    @property
    def has_answer_audio(self) -> bool:
        """Whether the conversation has an answer of the assistant."""
        return any(entry.ledger and entry.ledger.samples for entry in self)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._entries

    def find(self, item_id: str) -> Entry | None:
        return self._entries.get(item_id)

    def replace(self, item: Item) -> None:
        """Replace the item, unless it was deleted. A truncated item stays truncated."""
        if entry := self._entries.get(item.id):
            entry.item = item
            entry.show_heard_only()

    def add(self, entry: Entry, after: str | None = None) -> str | None:
        """Add an item; return the id of the one before it.

        after: "root" for the beginning, an id, or None or "" for the end. Raises InvalidRequest.
        """
        item_id = entry.item.id
        if item_id in self._entries:
            raise InvalidRequest(
                f"Error adding item: an item with id '{item_id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        previous = self._place(after)
        following = self._next[previous]
        self._next[previous] = self._previous[following] = item_id
        self._previous[item_id], self._next[item_id] = previous, following
        self._entries[item_id] = entry
        if isinstance(entry.item, FunctionCall):
            self._calls[entry.item.call_id] += 1
        self._drop_old_audio(entry)
        return self.previous(item_id)

    def check_room(self) -> None:
        """Raise InvalidRequest if the client may add no further item."""
        if len(self._entries) >= self._max_items:
            raise InvalidRequest(
                f"Error adding item: the conversation holds {self._max_items} items, the most it "
                f"may. Delete items, or start a new session.",
                code="conversation_too_long",
            )

    def previous(self, item_id: str) -> str | None:
        """The id before that item; None if it is the first or does not exist."""
        previous = self._previous.get(item_id, ROOT)
        return None if previous == ROOT else previous

    def delete(self, item_id: str) -> None:
        if (entry := self._entries.pop(item_id, None)) is None:
            raise _unknown("delete", "deleting", item_id)
        previous, following = self._previous.pop(item_id), self._next.pop(item_id)
        self._next[previous], self._previous[following] = following, previous
        if isinstance(entry.item, FunctionCall):
            self._calls[entry.item.call_id] -= 1
        self._kept -= self._counted.pop(item_id, 0)
        self._growing = [each for each in self._growing if each is not entry]

    def retrieve(self, item_id: str) -> Item:
        """The item with its audio, PCM at 24 kHz, unless there is too much of it."""
        if (entry := self._entries.get(item_id)) is None:
            raise _unknown("retrieve", "retrieving", item_id)
        if not isinstance(entry.item, Message):
            return entry.item
        content = tuple(_with_sound(entry, n, part) for n, part in enumerate(entry.item.content))
        return msgspec.structs.replace(entry.item, content=content)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Only this much of the audio of an answer was heard: drop the words after that."""
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
        entry.show_heard_only()

    def cut(self, item_id: str, heard: int) -> None:
        """Set the number of samples heard of an answer, as this server estimates it.

        If the client has truncated the answer, that stays: its player knows better.
        """
        entry = self._entries.get(item_id)
        if entry and entry.ledger and entry.ledger.heard is None:
            entry.ledger.cut(heard)
            entry.show_heard_only()

    def has_call(self, call_id: str) -> bool:
        """Whether a function call with that id is in the conversation."""
        return self._calls[call_id] > 0

    def save(self, unplayed: Mapping[str, int] = MappingProxyType({})) -> tuple[SavedEntry, ...]:
        """All entries. unplayed: samples of answers that the server has not played yet."""
        return tuple(_saved(entry, unplayed.get(entry.item.id, 0)) for entry in self)

    def load(self, saved: tuple[SavedEntry, ...]) -> None:
        for s in saved:
            ledger = Ledger.load(s.ledger) if s.ledger else None
            self.add(Entry(s.item, {}, dict(s.words), s.samples, ledger))

    def _place(self, after: str | None) -> str:
        """The id of the item after which an item is added."""
        if not after:
            return self._previous[ROOT]
        if after != ROOT and after not in self._entries:
            raise InvalidRequest(
                f"Error adding item: the previous item with id '{after}' does not exist.",
                code="item_create_invalid_previous_item_id",
                param="previous_item_id",
            )
        return after

    def _drop_old_audio(self, newest: Entry) -> None:
        """Limit the memory: drop the recordings that were added first, but keep their words.

        The recording of the newest item stays until the next is added, because it may still have to
        be transcribed.
        """
        for entry in self._growing:
            self._count(entry)
        self._growing = [entry for entry in self._growing if _grows(entry)]
        if newest.audio_bytes or newest.ledger:
            self._count(newest)
            if _grows(newest):
                self._growing.append(newest)
        while self._kept > self._kept_bytes and next(iter(self._counted)) != newest.item.id:
            item_id, counted = self._counted.popitem(last=False)
            self._kept -= counted
            self._entries[item_id].drop_audio()

    def _count(self, entry: Entry) -> None:
        self._kept += entry.audio_bytes - self._counted.get(entry.item.id, 0)
        self._counted[entry.item.id] = entry.audio_bytes


def _saved(entry: Entry, unplayed: int) -> SavedEntry:
    ledger = entry.ledger.save(unplayed) if entry.ledger else None
    return SavedEntry(entry.item, dict(entry.words), entry.samples, ledger)


def _grows(entry: Entry) -> bool:
    """Whether more audio of an answer may come."""
    return entry.ledger is not None and entry.item.status == "in_progress"


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
    """Entries as a model is given them: with the words that were heard, and no others."""
    return tuple(item for entry in entries for item in _shown(entry))


def _shown(entry: Entry) -> Iterator[Item]:
    """An entry as a model is given it.

    Nothing for a call that was cut off, or an answer that nobody heard.
    """
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
