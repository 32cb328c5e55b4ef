"""The playout where it is ours: which answer is heard, how far, and what is dropped of it.

Rules:
1. Answers are played one after the other. What a later one says is held until all of the earlier
   one is on its way.
2. Of each answer that is heard `started` is told first and `stopped` or `cleared` last, one of
   them. `stopped` waits until the response is done and all its sound has left.
3. An answer that is cleared while it is still being made is heard no further.
"""

from collections import deque
from dataclasses import dataclass, field

from vivavoce.protocol.server import OutputAudioCleared, OutputAudioStarted, OutputAudioStopped
from vivavoce.session.cascade.input_buffer import BYTES_PER_SAMPLE
from vivavoce.session.cascade.outputs import OutputPlace
from vivavoce.session.effect_buffer import EffectBuffer
from vivavoce.session.effects import ClearPlayback, PlayAudio


@dataclass(slots=True)
class Sounding:
    """One answer on its way to the ear; counts samples."""

    response_id: str
    item_id: str
    held: list[bytes] = field(default_factory=list)
    """Sound that waits for an earlier answer."""
    came: int = 0
    played: int = 0
    started: bool = False
    ended: bool = False
    """Whether the response is done: no more sound comes."""


class OutputBuffer:
    """Knows to the sample what was played, because it is told. The time is an argument."""

    def __init__(self, outbox: EffectBuffer) -> None:
        self._outbox = outbox
        self._queue: deque[Sounding] = deque()
        self._muted: set[str] = set()  # responses that were cleared and are still being made
        self._silent_since = float("-inf")

    @property
    def until(self) -> float:
        """When all sound had been played; infinite while there is any."""
        return float("inf") if self._queue else self._silent_since

    def add(self, place: OutputPlace, audio: bytes, now: float) -> None:
        """More sound of that answer."""
        if place.response_id in self._muted:
            return
        sounding = next((s for s in self._queue if s.item_id == place.item_id), None)
        if sounding is None:
            sounding = Sounding(place.response_id, place.item_id)
            self._queue.append(sounding)
        sounding.held.append(audio)
        sounding.came += len(audio) // BYTES_PER_SAMPLE
        self._advance(now)

    def played(self, item_id: str, samples: int, now: float) -> None:
        """So much of that answer has left. What has been dropped meanwhile does not count."""
        for sounding in self._queue:
            if sounding.item_id == item_id:
                sounding.played = min(sounding.came, sounding.played + samples)
        self._advance(now)

    def ended(self, response_id: str, now: float) -> None:
        """No more sound of it comes."""
        self._muted.discard(response_id)
        for sounding in self._queue:
            if sounding.response_id == response_id:
                sounding.ended = True
        self._advance(now)

    def drop(self, item_id: str, now: float) -> int:
        """An answer that is not made any further is heard to the end of what there is of it."""
        return 0

    def stop(self, now: float) -> dict[str, int]:
        """Nothing is played any further; return the samples of each item that were not."""
        if not self._queue:
            return {}
        self._outbox.add(ClearPlayback())
        for sounding in self._queue:
            if sounding.started:
                event_id = self._outbox.event_id()
                self._outbox.send(
                    OutputAudioCleared(event_id=event_id, response_id=sounding.response_id)
                )
            if not sounding.ended:
                self._muted.add(sounding.response_id)
        unplayed = {sounding.item_id: sounding.came - sounding.played for sounding in self._queue}
        self._queue.clear()
        self._silent_since = now
        return unplayed

    def _advance(self, now: float) -> None:
        """Have played what may be, and tell what has been."""
        self._play()
        while self._queue and self._queue[0].ended and self._queue[0].played == self._queue[0].came:
            done = self._queue.popleft()
            event_id = self._outbox.event_id()
            self._outbox.send(OutputAudioStopped(event_id=event_id, response_id=done.response_id))
            self._silent_since = now
            self._play()

    def _play(self) -> None:
        for n, sounding in enumerate(self._queue):
            if n == 0 and not sounding.started:
                sounding.started = True
                event_id = self._outbox.event_id()
                self._outbox.send(
                    OutputAudioStarted(event_id=event_id, response_id=sounding.response_id)
                )
            for audio in sounding.held:
                self._outbox.add(PlayAudio(sounding.item_id, audio))
            sounding.held.clear()
            if not sounding.ended:
                break
