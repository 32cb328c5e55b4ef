"""How much of each answer the user has heard.

On a WebSocket the client plays the audio, and the position is estimated by the clock. Where the
server plays the answers itself, it counts the samples. Positions are samples at 24 kHz.
"""

from collections import deque
from typing import Protocol

import msgspec

from vivavoce.audio.formats import BYTES_PER_SAMPLE, RATE
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.server import OutputAudioCleared, OutputAudioStarted, OutputAudioStopped
from vivavoce.session.effects import ClearPlayback, EffectBuffer, PlayAudio


class Playback(Protocol):
    """Records who plays the answers, and how much was played."""

    by_server: bool
    """Whether the server plays: then clients get no audio deltas."""
    samples: int
    """Samples of all answers so far."""

    @property
    def until(self) -> float:
        """When all audio will have been played; infinite while the server still has some to
        play."""
        ...

    def playing(self, now: float) -> tuple[str, int] | None:
        """The item that is being played, and how many of its samples are left."""
        ...

    @property
    def queued(self) -> dict[str, int]:
        """Samples that the server has not played yet, by item; empty where the client plays."""
        ...

    def add(self, response_id: str, item_id: str, audio: bytes, now: float) -> None:
        """More audio of an answer, PCM."""
        ...

    def played(self, item_id: str, samples: int, now: float) -> None:
        """That many more samples of the item were played."""
        ...

    def continue_playing(self, item_id: str, samples: int) -> bool:
        """As played(), while the item continues.

        False: nothing was done, because more follows from it.
        """
        ...

    def ended(self, response_id: str, now: float) -> None:
        """The response is done: no more audio of it comes."""
        ...

    def drop(self, item_id: str, now: float) -> int:
        """Stop the playback of that item; return how many of its samples were not played."""
        ...

    def stop(self, now: float) -> dict[str, int]:
        """Stop all playback; return the unplayed samples by item."""
        ...

    def clear(self, now: float) -> dict[str, int]:
        """`output_audio_buffer.clear`: as stop(). Raises InvalidRequest where the client plays."""
        ...


class ClientPlayback:
    """Estimates what the client has played: all audio in order and in real time, from the
    first on."""

    by_server = False

    def __init__(self) -> None:
        self.samples = 0
        self._until = float("-inf")
        # samples by item, since the client last had nothing to play
        self._sent: dict[str, int] = {}

    @property
    def until(self) -> float:
        return self._until

    @property
    def queued(self) -> dict[str, int]:
        return {}

    def playing(self, now: float) -> tuple[str, int] | None:
        unplayed = self._unplayed(now)  # the last item first
        found = [(item_id, left) for item_id, left in unplayed.items() if left]
        return found[-1] if found else None

    def add(self, response_id: str, item_id: str, audio: bytes, now: float) -> None:
        samples = len(audio) // BYTES_PER_SAMPLE
        self.samples += samples
        sent, until = self._sent, self._until
        if until <= now:
            sent.clear()
            until = now
        sent[item_id] = sent.get(item_id, 0) + samples
        self._until = until + samples / RATE

    def played(self, item_id: str, samples: int, now: float) -> None:
        """Never called: only a server's own playback reports this."""

    def continue_playing(self, item_id: str, samples: int) -> bool:
        return False

    def ended(self, response_id: str, now: float) -> None:
        """Nothing changes: the client plays what it has to the end."""

    def drop(self, item_id: str, now: float) -> int:
        unplayed = self._unplayed(now).get(item_id, 0)
        self._sent.pop(item_id, None)
        self._until -= unplayed / RATE
        return unplayed

    def stop(self, now: float) -> dict[str, int]:
        unplayed = self._unplayed(now)
        self._sent.clear()
        self._until = min(self._until, now)
        return {item_id: samples for item_id, samples in unplayed.items() if samples}

    def clear(self, now: float) -> dict[str, int]:
        raise InvalidRequest(
            "There is no output audio buffer: on a WebSocket the client owns the playout.",
            param="type",
        )

    def _unplayed(self, now: float) -> dict[str, int]:
        """The audio sent last is played last."""
        left = max(0, round((self._until - now) * RATE)) if self._sent else 0
        unplayed = {}
        for item_id, samples in reversed(self._sent.items()):
            unplayed[item_id] = min(samples, left)
            left -= unplayed[item_id]
        return unplayed


class _Answer(msgspec.Struct):
    """One answer in the server's playback queue; counts samples."""

    response_id: str
    item_id: str
    held: list[bytes] = msgspec.field(default_factory=list)
    """Audio that waits for an earlier answer."""
    came: int = 0
    played: int = 0
    started: bool = False
    ended: bool = False
    """Whether the response is done: no more audio comes."""


class ServerPlayback:
    """The output audio buffer of GA Realtime: the server knows what was played to the sample.

    Rules:
    1. Answers are played one after the other. Audio of a later one is held until all of the
       earlier one was given to the player.
    2. For each answer that is heard `output_audio_buffer.started` is sent first, and one of
       `stopped` or `cleared` last. `stopped` waits until the response is done and all its audio
       was played.
    3. An answer that is cleared while it is still being generated is not played any further.
    """

    by_server = True

    def __init__(self, effects: EffectBuffer) -> None:
        self.samples = 0
        self._effects = effects
        self._queue: deque[_Answer] = deque()
        self._muted: set[str] = set()  # responses that were cleared and are still generated
        self._silent_since = float("-inf")

    @property
    def until(self) -> float:
        return float("inf") if self._queue else self._silent_since

    @property
    def queued(self) -> dict[str, int]:
        return {answer.item_id: answer.came - answer.played for answer in self._queue}

    def playing(self, now: float) -> tuple[str, int] | None:
        if not self._queue:
            return None
        answer = self._queue[0]
        return answer.item_id, answer.came - answer.played

    def add(self, response_id: str, item_id: str, audio: bytes, now: float) -> None:
        samples = len(audio) // BYTES_PER_SAMPLE
        self.samples += samples
        if response_id in self._muted:
            return
        answer = next((a for a in self._queue if a.item_id == item_id), None)
        if answer is None:
            answer = _Answer(response_id, item_id)
            self._queue.append(answer)
        answer.held.append(audio)
        answer.came += samples
        self._advance(now)

    def played(self, item_id: str, samples: int, now: float) -> None:
        for answer in self._queue:
            if answer.item_id == item_id:
                answer.played = min(answer.came, answer.played + samples)
        self._advance(now)

    def continue_playing(self, item_id: str, samples: int) -> bool:
        answer = self._queue[0] if self._queue else None
        if answer is None or answer.item_id != item_id or answer.played + samples >= answer.came:
            return False
        answer.played += samples
        return True

    def ended(self, response_id: str, now: float) -> None:
        self._muted.discard(response_id)
        for answer in self._queue:
            if answer.response_id == response_id:
                answer.ended = True
        self._advance(now)

    def drop(self, item_id: str, now: float) -> int:
        """A cancelled answer is played to the end of the audio that was generated."""
        return 0

    def stop(self, now: float) -> dict[str, int]:
        if not self._queue:
            return {}
        self._effects.add(ClearPlayback())
        for answer in self._queue:
            if answer.started:
                event_id = self._effects.event_id()
                self._effects.send(
                    OutputAudioCleared(event_id=event_id, response_id=answer.response_id)
                )
            if not answer.ended:
                self._muted.add(answer.response_id)
        unplayed = self.queued
        self._queue.clear()
        self._silent_since = now
        return unplayed

    def clear(self, now: float) -> dict[str, int]:
        return self.stop(now)

    def _advance(self, now: float) -> None:
        """Give the player the next audio, and report answers that were played whole."""
        self._play()
        while self._queue and self._queue[0].ended and self._queue[0].played == self._queue[0].came:
            done = self._queue.popleft()
            event_id = self._effects.event_id()
            self._effects.send(OutputAudioStopped(event_id=event_id, response_id=done.response_id))
            self._silent_since = now
            self._play()

    def _play(self) -> None:
        for n, answer in enumerate(self._queue):
            if n == 0 and not answer.started:
                answer.started = True
                event_id = self._effects.event_id()
                self._effects.send(
                    OutputAudioStarted(event_id=event_id, response_id=answer.response_id)
                )
            for audio in answer.held:
                self._effects.add(PlayAudio(answer.item_id, audio))
            answer.held.clear()
            if not answer.ended:
                break
