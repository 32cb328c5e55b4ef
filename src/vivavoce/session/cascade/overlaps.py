"""Speech over an answer, while it is not known whether it is meant to interrupt it.

Rules:
1. The client is told of such a turn when it is known to be one: clients stop an answer at
   `speech_started`. Until then its audio is transcribed, and the answer goes on.
2. An interruption is announced, ends the answer, and is answered, as any turn.
3. A backchannel becomes an item of the conversation, without a response. One that begins in the
   last moments of an answer replies to it: that is a turn.
4. Noise, and the echo of the answer, become nothing. What has words becomes an item.
5. The end of its transcript decides at the latest; where there is none, it is an interruption.
6. Where only certain speakers are let in, every turn is held until its voice was looked at. That of
   another becomes nothing.
"""

import math
from dataclasses import dataclass

from msgspec.structs import replace

from vivavoce.audio.formats import RATE, to_ms
from vivavoce.session.brain import Shared
from vivavoce.session.cascade.input_buffer import EndedTurn
from vivavoce.session.cascade.input_turns import InputTurns
from vivavoce.session.cascade.responses import Responses
from vivavoce.session.cascade.speakers import SpeakerChecks
from vivavoce.session.cascade.transcriptions import Transcriptions, language_of
from vivavoce.session.effects import DuckPlayback
from vivavoce.session.facts import SpeakerChecked, TranscriptionKey, TranscriptUpdated
from vivavoce.session.interruption import (
    MAX_ECHO_LAG,
    Overlap,
    Verdict,
    brightness,
    correlation,
    envelope,
    judge,
    level_db,
)

MAX_SOUND = 2 * RATE  # of speech over an answer, the last samples are measured
LEVEL_SHARE = 0.3  # by which a turn changes the user's usual level


@dataclass(slots=True)
class _Waiting:
    """A turn that was held and has ended, and whose words are not complete."""

    turn: EndedTurn
    began: float
    overlap: Overlap
    judged: bool
    """Whether it began over an answer."""


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
        self._judged = False  # whether the open turn began over an answer, and that is judged
        self._speakers = SpeakerChecks(shared)
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
        if not self._turns.live:
            return False
        options = self._shared.options
        self._judged = options.judges_interruptions and self._responses.audible(now)
        if not (self._judged or self._speakers.on):
            return False
        self._began = now
        return True

    def judge(self, now: float) -> None:
        """More is known of the open turn. Call while it is held."""
        if self._speakers.on and not self._speakers.admits(self._turns.key, self._turns.sound):
            return
        if not self._judged:
            self.interrupt(now)
            return
        if judge(self._overlap(now), self._shared.options.interruption) == "interruption":
            self.interrupt(now)
        else:
            self._turns.end_soon()

    def interrupt(self, now: float) -> None:
        """The open turn interrupts the answer."""
        self.release()
        self._turns.announce()
        key = self._turns.key
        doubtful = "" if self._transcriptions.text(key) else key.item_id
        vad = self._shared.options.turn_detection
        if vad and vad.interrupt_response is True:
            self._responses.interrupt(now, live=self._turns.live, doubtful=doubtful)

    def end(self, now: float) -> None:
        """The open turn has ended, and it is held: its words decide."""
        overlap, sound = self._overlap(now), self._turns.sound
        turn = self._turns.withhold(now)
        if self._speakers.on:
            self._speakers.check_all(turn.key, sound)
        self._waiting[turn.key] = _Waiting(turn, self._began, overlap, self._judged)

    def keep(self, fact: TranscriptUpdated) -> bool:
        """Whether final words wait until it is known who speaks: see speaker_checked()."""
        return fact.key in self._waiting and self._speakers.keep(fact)

    def speaker_checked(self, fact: SpeakerChecked) -> TranscriptUpdated | None:
        """Take what is known of a voice; return the final words that waited for that."""
        return self._speakers.take(fact)

    def words_complete(self, key: TranscriptionKey, text: str, now: float) -> bool:
        """Take the final words of a turn; return whether it was held and is to be answered."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return False
        if self._speakers.rejects(key):
            self._transcriptions.cancel(key.item_id)
            return False
        if not waiting.judged:
            return self._put(waiting, "interruption", now)
        overlap = replace(waiting.overlap, words=text, complete=True)
        verdict = judge(overlap, self._shared.options.interruption)
        if verdict == "noise":
            self._transcriptions.cancel(key.item_id)
            return False
        return self._put(waiting, verdict, now)

    def fail(self, now: float) -> bool:
        """Take turns whose transcription has failed; return whether there are any."""
        failed = [key for key in self._waiting if self._transcriptions.failed(key)]
        answered = False
        for key in failed:
            waiting = self._waiting.pop(key)
            if not self._speakers.rejects(key):
                answered |= self._put(waiting, "interruption", now)
        return answered

    def release(self) -> None:
        """Make items of what waits for its words: another turn follows."""
        for key, waiting in self._waiting.items():
            if self._speakers.rejects(key):
                self._transcriptions.cancel(key.item_id)
            else:
                self._turns.put(waiting.turn, announced=False)
        self._waiting.clear()

    def stop(self) -> None:
        """The session ends, or another brain takes over."""
        self.release()
        if self.held and not self._speakers.rejects(self._turns.key):
            self._turns.announce()
        self._duck(ducked=False)

    def settle(self) -> None:
        """What is due after any fact: the answer is soft while somebody may interrupt it."""
        settle_ms = self._shared.options.interruption.settle_ms
        speaking = self._judged and self.held and to_ms(self._turns.silence) < settle_ms
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
        vad = self._shared.options.turn_detection
        if answered and vad and vad.interrupt_response is True:
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
            brightness=brightness(pcm),
            early=usual is not None and not self._shared.options.transcribes_at_end,
            words=self._transcriptions.text(self._turns.key),
            language=language_of(self._shared.options),
            answer=words,
            echo=correlation(heard, envelope(played, len(heard) + MAX_ECHO_LAG)),
        )

    def _duck(self, *, ducked: bool) -> None:
        if ducked != self._ducked:
            self._ducked = ducked
            self._shared.effects.add(DuckPlayback(ducked))
