"""What is to be played, and how much of it was: filled by the loop, emptied by the sound card."""

import threading
from collections import deque
from dataclasses import dataclass, field

from vivavoce.audio.formats import BYTES_PER_MS

_MOST_BYTES = 30 * 60 * 1000 * BYTES_PER_MS  # half an hour waits to be played; more is dropped
_MOST_STOPPED = 64  # items whose late sound is still recognised


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of an item of which only so much was played."""

    item_id: str
    content_index: int
    played_ms: int


@dataclass(slots=True)
class _Part:
    item_id: str
    content_index: int
    waiting: bytearray = field(default_factory=bytearray)
    played: int = 0
    ended: bool = False


class Speaker:
    """Sound in order of its coming. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: deque[_Part] = deque()
        self._stopped: deque[str] = deque(maxlen=_MOST_STOPPED)

    def feed(self, item_id: str, content_index: int, pcm24: bytes) -> None:
        """Play this after all else. Sound of an item that was stopped is dropped."""
        with self._lock:
            if item_id in self._stopped:
                return
            if sum(len(part.waiting) for part in self._parts) + len(pcm24) > _MOST_BYTES:
                return
            last = self._parts[-1] if self._parts else None
            if last is None or (last.item_id, last.content_index) != (item_id, content_index):
                last = _Part(item_id, content_index)
                self._parts.append(last)
            last.waiting += pcm24

    def end(self, item_id: str, content_index: int) -> None:
        """No more sound of this part will come."""
        with self._lock:
            for part in self._parts:
                if (part.item_id, part.content_index) == (item_id, content_index):
                    part.ended = True

    def take(self, count: int) -> bytes:
        """The next bytes to play: silence where there are none."""
        taken = bytearray()
        with self._lock:
            while self._parts and len(taken) < count:
                part = self._parts[0]
                piece = part.waiting[: count - len(taken)]
                del part.waiting[: len(piece)]
                part.played += len(piece)
                taken += piece
                if part.waiting or not (part.ended or len(self._parts) > 1):
                    break  # enough was taken, or more of this part is to come
                self._parts.popleft()
        return bytes(taken) + bytes(count - len(taken))

    def stop(self) -> list[Cut]:
        """Play no more; what was cut off, in order."""
        with self._lock:
            cuts = [
                Cut(part.item_id, part.content_index, part.played // BYTES_PER_MS)
                for part in self._parts
            ]
            self._stopped.extend(cut.item_id for cut in cuts)
            self._parts.clear()
        return cuts
