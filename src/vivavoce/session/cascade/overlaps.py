"""Handles speech over an answer until it is decided whether it is meant to interrupt the answer.

Rules:
1. `speech_started` is sent once the speech is known to be an interruption, because clients stop an
   answer at that event. Until then the speech is transcribed, and the answer continues.
2. An interruption is announced, ends the answer, and is answered, like any other turn.
3. A backchannel becomes an item of the conversation, without a response. A backchannel that begins
   shortly before the end of an answer is a reply to it, so it is a turn.
4. Noise, and the echo of the answer, are dropped. Other speech with words becomes an item.
5. The final transcript decides at the latest. Without a transcript the speech is an interruption.
6. Where only certain speakers are accepted, every turn is held back until its voice was compared. A
   turn of another speaker is dropped.
"""

import math

import msgspec
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

MAX_SOUND = 2 * RATE  # the level of speech over an answer is measured over its last samples
LEVEL_SHARE = 0.3  # by which a turn changes the user's usual level


class _Waiting(msgspec.Struct):
    """A turn that was held back and has ended, and whose final words have not come."""

    turn: EndedTurn
    began: float
    overlap: Overlap
    judged: bool
    """Whether it began over an answer."""


class Overlaps:
    """Holds back turns over an answer until it is decided what they are."""

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
        # whether the open turn began over an answer and interruptions are judged
        self._judged = False
        self._speakers = SpeakerChecks(shared)
        self._usual_db: float | None = None
        self._ducked = False

    @property
    def busy(self) -> bool:
        """Whether a turn that has ended is waiting for its final words."""
        return bool(self._waiting)

    @property
    def held(self) -> bool:
        """Whether there is an open turn that the client does not know about."""
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
        """Decide with what is known now about the open turn. Call while it is held back."""
        if self._speakers.on and not self._speakers.admits(self._turns.key, self._turns.sound()):
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
        """The open turn has ended while it is held back: its words will decide."""
        overlap, sound = self._overlap(now), self._turns.sound()
        turn = self._turns.withhold(now)
        if self._speakers.on:
            self._speakers.check_all(turn.key, sound)
        self._waiting[turn.key] = _Waiting(turn, self._began, overlap, self._judged)

    def keep(self, fact: TranscriptUpdated) -> bool:
        """Whether final words have to wait for the result of the speaker check: see
        speaker_checked()."""
        return fact.key in self._waiting and self._speakers.keep(fact)

    def speaker_checked(self, fact: SpeakerChecked) -> TranscriptUpdated | None:
        """Take the result of a speaker check; return the final words that waited for it."""
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
        """Make items of the turns that wait for their words, because another turn follows."""
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
        """Do what is due after any fact: the answer is played softly while speech over it is
        undecided."""
        settle_ms = self._shared.options.interruption.settle_ms
        speaking = self._judged and self.held and to_ms(self._turns.silence) < settle_ms
        self._duck(ducked=speaking and self._shared.playback.by_server)

    def note_level(self) -> None:
        """Learn the user's usual level from the turn that has just ended."""
        level = level_db(self._turns.sound(MAX_SOUND))
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
        sound = self._turns.sound()
        pcm = sound[-2 * MAX_SOUND :]
        usual = self._usual_db
        words, played = self._responses.answer_playback.playing(now)
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
