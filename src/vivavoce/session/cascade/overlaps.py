"""Speech over an answer, while it is not known whether it is meant to interrupt it.

Rules:
1. The client is told of such a turn when it is known to be one: clients stop an answer at
   `speech_started`. Until then its audio is transcribed, and the answer goes on.
2. An interruption is announced, ends the answer, and is answered, as any turn.
3. A backchannel becomes an item of the conversation, without a response. One that begins in the
   last moments of an answer replies to it: that is a turn.
4. Noise, and the echo of the answer, become nothing. What has words becomes an item.
5. The end of its transcript decides at the latest; where there is none, it is an interruption.
"""

import math
from dataclasses import dataclass

from msgspec.structs import replace

from vivavoce.audio.formats import RATE, to_ms
from vivavoce.session.brain import Shared
from vivavoce.session.cascade.input_buffer import EndedTurn
from vivavoce.session.cascade.input_turns import InputTurns
from vivavoce.session.cascade.responses import Responses
from vivavoce.session.cascade.transcriptions import Transcriptions, language_of
from vivavoce.session.effects import DuckPlayback
from vivavoce.session.facts import TranscriptionKey
from vivavoce.session.interruption import (
    MAX_ECHO_LAG,
    Overlap,
    Verdict,
    correlation,
    envelope,
    judge,
    level_db,
)

MAX_SOUND = 2 * RATE  # of speech over an answer, the last samples are measured
LEVEL_SHARE = 0.3  # by which a turn changes the user's usual level


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A turn over an answer that has ended, and whose words are not complete."""

    turn: EndedTurn
    began: float
    overlap: Overlap


class Overlaps:
    """Holds turns over an answer back until it is known what they are."""

    def __init__(
        self,
        shared: Shared,
        transcriptions: Transcriptions,
        turns: InputTurns,
        responses: Responses,
    ) -> None:
        self._shared = shared
        self._transcriptions = transcriptions
        self._turns = turns
        self._responses = responses
        self._waiting: dict[TranscriptionKey, _Waiting] = {}
        self._began = 0.0
        self._usual_db: float | None = None
        self._ducked = False

    @property
    def busy(self) -> bool:
        """Whether what has ended waits for its words."""
        return bool(self._waiting)

    @property
    def held(self) -> bool:
        """Whether the open turn is one that the client does not know of."""
        return self._turns.speaking and not self._turns.announced

    def begin(self, now: float) -> bool:
        """The user begins to speak; return whether the turn is held back."""
        judged = self._shared.options.judges_interruptions and self._turns.live
        if not (judged and self._responses.audible(now)):
            return False
        self._began = now
        return True

    def judge(self, now: float) -> None:
        """More is known of the open turn. Call while it is held."""
        if judge(self._overlap(now), self._shared.options.interruption) == "interruption":
            self.interrupt(now)

    def interrupt(self, now: float) -> None:
        """The open turn interrupts the answer."""
        self.release()
        self._turns.announce()
        key = self._turns.key
        doubtful = "" if self._transcriptions.text(key) else key.item_id
        self._responses.interrupt(now, live=self._turns.live, doubtful=doubtful)

    def end(self, now: float) -> None:
        """The open turn has ended, and it is held: its words decide."""
        overlap = self._overlap(now)
        turn = self._turns.withhold(now)
        self._waiting[turn.key] = _Waiting(turn, self._began, overlap)

    def words_complete(self, key: TranscriptionKey, text: str, now: float) -> bool:
        """Take the final words of a turn; return whether it was held and is to be answered."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return False
        overlap = replace(waiting.overlap, words=text, complete=True)
        verdict = judge(overlap, self._shared.options.interruption)
        if verdict == "noise":
            self._transcriptions.cancel(key.item_id)
            return False
        return self._put(waiting, verdict, now)

    def fail(self, now: float) -> bool:
        """Take turns whose transcription has failed; return whether there are any."""
        failed = [key for key in self._waiting if self._transcriptions.failed(key)]
        for key in failed:
            self._put(self._waiting.pop(key), "interruption", now)
        return bool(failed)

    def release(self) -> None:
        """Make items of what waits for its words: another turn follows."""
        for waiting in self._waiting.values():
            self._turns.put(waiting.turn, announced=False)
        self._waiting.clear()

    def stop(self) -> None:
        """The session ends, or another brain takes over."""
        self.release()
        if self.held:
            self._turns.announce()
        self._duck(ducked=False)

    def settle(self) -> None:
        """What is due after any fact: the answer is soft while somebody may interrupt it."""
        settle_ms = self._shared.options.interruption.settle_ms
        speaking = self.held and to_ms(self._turns.silence) < settle_ms
        self._duck(ducked=speaking and self._shared.playback.by_server)

    def note_level(self, pcm: bytes) -> None:
        """Learn the user's usual level from a turn."""
        level = level_db(pcm[-2 * MAX_SOUND :])
        if not math.isfinite(level):
            return
        usual = level if self._usual_db is None else self._usual_db
        self._usual_db = usual + LEVEL_SHARE * (level - usual)

    def _put(self, waiting: _Waiting, verdict: Verdict, now: float) -> bool:
        """Make an item of a turn; return whether it is to be answered."""
        over = now if self._responses.audible(now) else self._shared.playback.until
        answer_s = self._shared.options.interruption.answer_ms / 1000
        replies = not self._responses.audible(now) and over - waiting.began < answer_s
        answered = verdict == "interruption" or replies
        self._turns.put(waiting.turn, announced=answered)
        if answered:
            self._responses.interrupt(now, live=True)
        return answered

    def _overlap(self, now: float) -> Overlap:
        sound = self._turns.sound
        pcm = sound[-2 * MAX_SOUND :]
        usual = self._usual_db
        words, played = self._responses.played(now)
        heard = envelope(pcm)
        return Overlap(
            sound_ms=to_ms(len(sound) // 2),
            silence_ms=to_ms(self._turns.silence),
            level_db=level_db(pcm) - usual if usual is not None and pcm else 0.0,
            words=self._transcriptions.text(self._turns.key),
            language=language_of(self._shared.options),
            answer=words,
            echo=correlation(heard, envelope(played, len(heard) + MAX_ECHO_LAG)),
        )

    def _duck(self, *, ducked: bool) -> None:
        if ducked != self._ducked:
            self._ducked = ducked
            self._shared.effects.add(DuckPlayback(ducked))
