"""RTP packets in the order in which they were sent, with as little waiting as that allows.

Rules:
1. A packet whose turn it is goes on at once: where none is lost nothing is held back.
2. One that comes too early waits until the gap before it is filled, or three wait; then what is
   missing counts as lost.
3. Where timestamps tell of sound that does not come, be it lost or not sent because there was
   silence, its length is told in its place.
"""

from vivavoce.transports.webrtc.opus import CLOCK, duration

MOST_WAITING = 3  # packets: 60 ms
_RESTART = 100  # packets: whatever is further off belongs to a stream that began anew
_LONGEST_GAP = CLOCK  # ticks that are made up for; after a longer one nobody wants the silence


class JitterBuffer:
    """One stream."""

    def __init__(self) -> None:
        self._next: int | None = None  # the sequence number whose turn it is
        self._clock: int | None = None  # the timestamp at which its sound should begin
        self._waiting: dict[int, tuple[int, bytes]] = {}

    def add(self, sequence: int, timestamp: int, packet: bytes) -> list[bytes | int]:
        """What can go on now: packets, and between them ticks of sound that does not come."""
        out: list[bytes | int] = []
        if self._next is None or abs(_apart(sequence, self._next, 16)) > _RESTART:
            self._waiting.clear()
            self._next, self._clock = sequence, None
        if _apart(sequence, self._next, 16) >= 0:
            self._waiting[sequence] = timestamp, packet
        while self._waiting:
            if self._next not in self._waiting:
                if len(self._waiting) < MOST_WAITING:
                    break
                first = self._next
                self._next = min(self._waiting, key=lambda n: _apart(n, first, 16))
            out += self._pieces(*self._waiting.pop(self._next))
            self._next = (self._next + 1) % 2**16
        return out

    def fill(self, ticks: int) -> None:
        """So much silence was put in already, since nothing came."""
        if self._clock is not None:
            self._clock = (self._clock + ticks) % 2**32

    def _pieces(self, timestamp: int, packet: bytes) -> list[bytes | int]:
        missing = 0 if self._clock is None else _apart(timestamp, self._clock, 32)
        self._clock = (timestamp + duration(packet)) % 2**32
        return [missing, packet] if 0 < missing <= _LONGEST_GAP else [packet]


def _apart(later: int, earlier: int, bits: int) -> int:
    """The difference of two numbers that begin anew after so many bits."""
    half: int = 1 << bits - 1
    return (later - earlier + half) % (2 * half) - half
