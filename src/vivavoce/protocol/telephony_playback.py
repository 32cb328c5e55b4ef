"""The audio that a telephone provider was given to play, and how much of it the caller has heard.

A mark after every 200 ms of audio is returned once that audio was played (Twilio, Telnyx and Exotel
call it mark, Plivo checkpoint). The marks of cleared audio are returned as well, and ignored.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from vivavoce.audio.formats import to_ms
from vivavoce.audio.samples import SampleEncoder
from vivavoce.protocol.client import ItemTruncate
from vivavoce.protocol.telephony_messages import StreamedCall

MAX_MARKS = 10_000
"""Marks that were not returned yet: if a provider returns none, the oldest are forgotten."""
_MARK = "vv-"


class PlayedMark(NamedTuple):
    """A mark that was sent after some audio of an answer."""

    number: int
    item_id: str
    end_ms: int
    """Its position in the answer."""
    sent_at: float


class SentItem(msgspec.Struct):
    """An answer, and how much of it was sent to the provider."""

    samples: int = 0
    """Samples that were given to the encoder, at 24 kHz."""
    sent_bytes: int = 0
    marked_bytes: int = 0
    """Samples before the last mark."""
    heard_ms: int = 0
    """Samples before the last mark that was returned."""


class CallPlayback:
    """One call. `clock` gives seconds. Messages are made as JSON."""

    def __init__(self, call: StreamedCall, clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self._encoder = SampleEncoder(call.output_format)
        self._held = bytearray()  # audio that is too short for a message
        self._items: dict[str, SentItem] = {}
        self._marks: deque[PlayedMark] = deque(maxlen=MAX_MARKS)
        self._marked = 0  # marks that were sent
        self._returned_at: float | None = None  # when a mark came back; None: none ever did
        self._cuts: list[ItemTruncate] = []

    def add(self, item_id: str, pcm24: bytes) -> Iterator[bytes]:
        """Messages with more audio of an answer."""
        self._item(item_id).samples += len(pcm24) // 2
        self._held += self._encoder.feed(pcm24)
        return self._pieces(item_id)

    def end(self, item_id: str) -> Iterator[bytes]:
        """Messages with the rest of an answer, padded with silence to an accepted size."""
        self._held += self._encoder.flush()
        if self._held:
            call = self._call
            short = max(call.min_bytes - len(self._held), -len(self._held) % call.step_bytes)
            self._held += call.silence * short
        yield from self._pieces(item_id)
        item = self._item(item_id)
        if item.marked_bytes < item.sent_bytes:
            yield self._mark(item_id, item)

    def clear(self) -> Iterator[bytes]:
        """The message that drops what was not played, if there is any; see take_cuts()."""
        self._held.clear()
        self._encoder = SampleEncoder(self._call.output_format)
        if self._marks:
            if self._returned_at is not None:  # the session's estimate is the best there is
                for item_id in dict.fromkeys(mark.item_id for mark in self._marks):
                    heard_ms = self._heard_ms(item_id)
                    cut = ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=heard_ms)
                    self._cuts.append(cut)
            self._marks.clear()
            self._items.clear()
            yield self._call.clear()

    def take_cuts(self) -> list[ItemTruncate]:
        """The positions up to which cleared answers were heard."""
        cuts, self._cuts = self._cuts, []
        return cuts

    def mark_returned(self, name: str) -> None:
        """The audio before that mark was played, unless it was cleared."""
        number = name.removeprefix(_MARK)
        if name == number or not (number.isascii() and number.isdigit() and len(number) < 10):
            return
        while self._marks and self._marks[0].number <= int(number):
            mark = self._marks.popleft()
            self._items[mark.item_id].heard_ms = mark.end_ms
            self._returned_at = self._clock()

    def _item(self, item_id: str) -> SentItem:
        if item_id not in self._items:
            playing = {mark.item_id for mark in self._marks}
            self._items = {name: item for name, item in self._items.items() if name in playing}
            self._items[item_id] = SentItem()
        return self._items[item_id]

    def _pieces(self, item_id: str) -> Iterator[bytes]:
        """Messages with the audio that is held, and marks."""
        call, item = self._call, self._item(item_id)
        while len(self._held) >= call.min_bytes:
            size = min(call.piece_bytes, len(self._held) // call.step_bytes * call.step_bytes)
            yield call.media(bytes(self._held[:size]))
            del self._held[:size]
            item.sent_bytes += size
            if item.sent_bytes - item.marked_bytes >= call.piece_bytes:
                yield self._mark(item_id, item)

    def _mark(self, item_id: str, item: SentItem) -> bytes:
        """A mark after all audio that was sent."""
        item.marked_bytes = item.sent_bytes
        sent_ms = item.sent_bytes * 1000 // self._call.output_format.bytes_per_second
        self._marked += 1
        end_ms = min(sent_ms, to_ms(item.samples))
        self._marks.append(PlayedMark(self._marked, item_id, end_ms, self._clock()))
        return self._call.mark(f"{_MARK}{self._marked}")

    def _heard_ms(self, item_id: str) -> int:
        """By the last mark that was returned, and from there by the clock up to the next mark."""
        heard, playing = self._items[item_id].heard_ms, self._marks[0]
        if playing.item_id != item_id:
            return heard
        since = max(playing.sent_at, self._returned_at or 0.0)
        return min(playing.end_ms, heard + round((self._clock() - since) * 1000))
