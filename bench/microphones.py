"""People who speak live: one append after the other, each when its last sample has been heard."""

import asyncio
import time
from collections.abc import Sequence

from bench.wire import Line

_SLOTS = 40  # of one period, so that not all people speak at the same instant


class Microphone:
    """Sends frames of equal length over a line, from the one at `next` on, round and round."""

    def __init__(self, line: Line, frames: Sequence[bytes], *, first: int = 0) -> None:
        self.line = line
        self.sent: list[float] = []
        """When each frame was sent."""
        self._frames = frames
        self._next = first

    def send(self) -> None:
        self.line.write(self._frames[self._next % len(self._frames)])
        self.sent.append(time.perf_counter())
        self._next += 1

    def heard_at(self, ms: float, frame_ms: int) -> float:
        """When the frame was sent that holds the last sample before so many milliseconds."""
        return self.sent[min(len(self.sent) - 1, max(0, -(-int(ms) // frame_ms) - 1))]


async def speak(
    people: Sequence[Microphone], seconds: float, frame_ms: int, *, hurry: float = 1.0
) -> list[float]:
    """Let them all speak for so long; return by how many seconds each round was late.

    hurry: how much faster than real time.
    """
    slots = min(_SLOTS, max(1, len(people)))
    step = frame_ms / 1000 / hurry / slots
    rounds = [people[n::slots] for n in range(slots)]
    began, late = time.perf_counter(), []
    for n in range(int(seconds / hurry / step)):
        due = began + (n + 1) * step
        now = time.perf_counter()
        if due > now:
            await asyncio.sleep(due - now)
            now = time.perf_counter()
        late.append(now - due)
        for person in rounds[n % slots]:
            person.send()
    return late
