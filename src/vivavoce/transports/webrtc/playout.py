"""What waits to be played, and when each frame of it is due. No clock: the time is an argument."""

from collections import deque

from vivavoce.audio.formats import RATE

FRAME_SECONDS = 0.02
LATEST_SECONDS = 0.1  # a stream that is further behind skips: what is late is never made up for


class Waiting:
    """Sound by item, first in, first out: 16-bit mono PCM at 24 kHz."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[str, bytes]] = deque()
        self._taken = 0  # bytes of the first piece
        self._bytes = 0

    @property
    def seconds(self) -> float:
        return self._bytes / (2 * RATE)

    def put(self, item_id: str, pcm: bytes) -> None:
        if pcm:
            self._pieces.append((item_id, pcm))
            self._bytes += len(pcm)

    def take(self, size: int) -> tuple[bytes, dict[str, int]]:
        """At most so many bytes, and how many samples of which items they are."""
        parts: list[bytes] = []
        samples: dict[str, int] = {}
        while size and self._pieces:
            item_id, piece = self._pieces[0]
            part = piece[self._taken : self._taken + size]
            self._taken += len(part)
            size -= len(part)
            parts.append(part)
            samples[item_id] = samples.get(item_id, 0) + len(part) // 2
            if self._taken == len(piece):
                self._pieces.popleft()
                self._taken = 0
        sound = b"".join(parts)
        self._bytes -= len(sound)
        return sound, samples

    def clear(self) -> None:
        self._pieces.clear()
        self._taken = self._bytes = 0


class PlayoutPace:
    """When the frames of a stream are due. They are counted, so that no error adds up."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._frame = -1

    def next(self, now: float) -> tuple[int, float]:
        """The number of the next frame and the seconds until it is due; 0 if it is now."""
        if self._began is None:
            self._began = now
        self._frame += 1
        late = now - self._began - self._frame * FRAME_SECONDS
        if late > LATEST_SECONDS:
            skipped = int(late / FRAME_SECONDS)
            self._frame += skipped
            late -= skipped * FRAME_SECONDS
        return self._frame, max(0.0, -late)
