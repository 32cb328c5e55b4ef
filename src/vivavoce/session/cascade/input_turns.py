"""The user's side of a session: audio comes in, turns come out.

Rules:
1. Under turn detection audio is scored in whole windows and transcribed as it is scored, so that
   a recording sent at once gives the same items as one spoken live.
2. Without turn detection all audio is transcribed as it comes; the client says what is a turn.
3. An item's id is the same from the first event about it to the last.
4. Outside a turn only the prefix is kept: silence does not use memory.
5. Audio that stops arriving in the middle of a turn counts as silence after a while, by the
   clock. No samples are made up: positions stay those of the client.
"""

from vivavoce.audio.formats import RATE, to_samples
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.server import TurnDecision
from vivavoce.session.brain import Shared
from vivavoce.session.cascade.input_buffer import EndedTurn, HalfSample, Intake
from vivavoce.session.cascade.input_events import (
    put_item,
    send_cleared,
    send_started,
    send_stopped,
    send_timeout,
)
from vivavoce.session.cascade.transcriptions import Transcriptions, language_of
from vivavoce.session.cascade.turn_detection import (
    MIN_RISING,
    ONSET_WINDOWS,
    RISE_WINDOWS,
    RISING,
    WINDOW,
    Edge,
    TurnDetector,
    hisses,
    rise_db,
)
from vivavoce.session.cascade.turn_scoring import TurnScoring
from vivavoce.session.effects import CleanAudio, ConfigureCleaning, RunVad, ScoreTurn
from vivavoce.session.facts import TranscriptionKey, TurnScored, VadScores

INFINITY = float("inf")
MIN_COMMIT_MS = 100
MARGIN = (ONSET_WINDOWS + 1) * WINDOW  # audio before the prefix that detecting an onset needs
MIN_KEPT = max(to_samples(MIN_COMMIT_MS), (RISE_WINDOWS + 1) * WINDOW)  # of silence
MAX_UNFED = 3 * WINDOW  # with each window the transcription would be woken 31 times a second
MAX_CLEANED_BYTES = RATE  # 0.5 s: longer appends are recordings, and are not cleaned


class InputTurns:
    """Owns the input buffer and the turn detector."""

    def __init__(self, shared: Shared, transcriptions: Transcriptions, *, position: int) -> None:
        self._shared = shared
        self._transcriptions = transcriptions
        max_samples = to_samples(int(shared.limits.max_buffer_seconds * 1000))
        self._intake = Intake(max_samples=max_samples, position=position)
        self._buffer = self._intake.buffer
        self._detector: TurnDetector | None = None
        self._key = TranscriptionKey(self._new_id())  # of the item that the next turn will be
        self._sent = position  # the position up to which audio was sent to the VAD
        self._scored = position  # ... up to which its scores have come
        self._fed = position  # ... and up to which it was fed to the transcription
        # from this time on, at the earliest, missing audio counts as a gap
        self._gap_from = -INFINITY
        self.scoring = TurnScoring(shared)
        self._speech_end = 0  # end of the last window with speech in a turn
        self.announced = True
        """Whether the client was told of the open turn."""
        self._cleaning: str | None = None
        self.apply_settings()

    @property
    def position(self) -> int:
        """All audio that came in this session, in samples."""
        return self._buffer.end

    @property
    def item_id(self) -> str:
        """The id of the item that the next turn will be."""
        return self._key.item_id

    @property
    def speaking(self) -> bool:
        return self._detector is not None and self._detector.speaking

    def may_speak(self, *, unbounded: bool) -> bool:
        """Whether a turn is open, or received audio may begin one.

        unbounded: the answer without turn detection, where audio does not show it.
        """
        if self._detector is None:
            return not unbounded and len(self._buffer) >= to_samples(MIN_COMMIT_MS)
        return self._detector.may_speak or self._scored < self._sent

    @property
    def key(self) -> TranscriptionKey:
        """The transcription of the open turn, or of the next one."""
        return self._key

    @property
    def silence(self) -> int:
        """Samples since the last speech of the user in this turn."""
        return self._detector.silence if self._detector else 0

    def sound(self, most: int | None = None) -> bytes:
        """The audio of the open turn, or of one that has just ended, from its first to its last
        window with speech; of it the last `most` samples."""
        begin = self._detector.onset if self._detector else self._speech_end
        if most is not None:
            begin = max(begin, self._speech_end - most)
        return self._buffer.read(begin, self._speech_end)

    @property
    def live(self) -> bool:
        """Whether the audio comes in real time, and is not a recording."""
        return self._intake.pace.live

    @property
    def deadline(self) -> float:
        """When a half sample, or a turn without further audio, is no longer waited for."""
        half = self._intake.half
        return min(half.deadline if half else INFINITY, self._gap_ends)

    def apply_settings(self) -> None:
        """Apply changed settings. An open turn continues where that is possible."""
        options = self._shared.options
        self._report(self._intake.set_format(options.input_format))
        self._configure_cleaning()
        wanted = options.turn_detection
        if wanted is None:
            self._detector = None
        elif self._detector is None:
            self._detector = TurnDetector(wanted)
            self._score_anew()
        elif wanted != self._detector.settings:
            self._detector.apply_settings(wanted)
            self.scoring.repeat()

    def append(self, event: InputAudioAppend, now: float) -> None:
        """Take audio. Raises InvalidRequest when the buffer is full."""
        # scored audio is bounded by score(); here only what the VAD has not scored yet counts
        begin = self._scored if self._detector else 0
        self._clean_or_take(self._intake.decode(event, now, begin=begin), now)

    def continue_append(self, event: InputAudioAppend, now: float) -> bool:
        """Take audio of whole samples.

        False: the buffer has no room, or more follows from the audio; nothing was done.
        """
        begin = self._scored if self._detector else 0
        pcm = self._intake.decode_whole(event, begin=begin)
        if pcm is None:
            return False
        self._clean_or_take(pcm, now)
        return True

    def take_track(self, audio: bytes, now: float) -> None:
        """Take audio of a media track.

        A track has no pauses, so audio that is not committed is dropped.
        """
        if not self.continue_track(audio, now):
            self._drop()
            self._clean_or_take(audio, now)

    def continue_track(self, audio: bytes, now: float) -> bool:
        """The same while the buffer has room. False: nothing was done."""
        if self._detector is None and len(self._buffer) > self._intake.max_samples:
            return False
        self._clean_or_take(audio, now)
        return True

    def take(self, pcm: bytes, now: float) -> None:
        """Take PCM, after echo cancellation where the client wants that: have it scored, or
        transcribe it."""
        self._intake.add(pcm, now)
        if self._detector is None:
            self._start_transcription()
            self._feed(self._buffer.end)
        else:
            self._send_to_vad()

    def resume(self, pcm: bytes, item_id: str | None, now: float) -> None:
        """Take over audio that the other brain had not made an item of, and its open turn."""
        if item_id is not None:
            self._key = TranscriptionKey(item_id)
            if self._detector is not None:
                self._detector.resume(self._buffer.end)
                self.announced = True
                self._start_transcription()
        self.take(pcm, now)

    def pending_audio(self) -> bytes:
        """The audio that is in no item yet."""
        return self._buffer.read(self._buffer.start, self._buffer.end)

    def on_timer(self, now: float) -> Edge | None:
        """Report a half sample that nothing completed; end a turn whose audio has stopped."""
        if self._intake.half and self._intake.half.deadline <= now:
            self._report(self._intake.drop_half())
        if self._detector is None or self._gap_ends > now:
            return None
        if self._scored < self._sent:  # the VAD is late: audio that is not scored may be speech
            self._gap_from = now
            return None
        self._detector.reset()
        self.scoring.ended_by = "gap"
        return Edge.STOPPED

    def score(self, fact: VadScores, n: int) -> Edge | None:
        """Take the score of window `n` of a fact. After the last one call catch_up().

        After Edge.STARTED call start_turn(), after Edge.STOPPED end_turn() or withhold().
        """
        at = fact.at + n * WINDOW
        if self._detector is None or at != self._scored:  # from before a clear or a commit
            return None
        self._scored = at + WINDOW
        silence = self._detector.silence
        speech = fact.speech[n]
        hissed = self._hissed(at, speech)
        edge = self._detector.feed(at, speech, self._rise(at, speech), hissed=hissed)
        if silence and not self._detector.silence and edge is None:
            self.scoring.resume(silence)
        if self._detector.speaking and not self._detector.silence:
            self._speech_end = self._scored
        held = self._scored - self._buffer.start  # not all that came: that depends on the pace
        if edge is None and self._detector.speaking and held > self._intake.max_samples:
            self._detector.reset()  # a turn that fills the buffer is cut into several
            self.scoring.ended_by = "full"
            return Edge.STOPPED
        return edge

    def continue_scores(self, fact: VadScores) -> bool:
        """Take the score of a window that changes nothing: silence goes on, or the user goes on
        speaking. False: nothing was done."""
        detector, at = self._detector, self._scored
        if detector is None or fact.at != at or len(fact.speech) > 1:
            return False
        if detector.speaking and self.scoring.scores_words:
            return False
        if not detector.goes_on(fact.speech[0]):
            return False
        if not detector.speaking:
            self._scored = at + WINDOW
            self._drop_quiet(detector)
            return True
        if at + WINDOW - self._buffer.start > self._intake.max_samples:
            return False
        self._scored = self._speech_end = at + WINDOW
        self._feed_scored(detector)
        return True

    def catch_up(self) -> None:
        """Feed the audio that was scored to the transcription, or drop it."""
        if self._detector is None:
            return
        if self._detector.speaking:
            self._feed_scored(self._detector)
            self.score_turn()
        else:
            self._drop_quiet(self._detector)

    def score_turn(self) -> None:
        """Request scores: of the words when they have changed, of the sound once in each pause."""
        detector = self._detector
        if detector is None or not self.scoring.is_due(detector):
            return
        text = self._transcriptions.text(self._key)
        certainty = self._transcriptions.certainty(self._key)
        if (asked := self.scoring.asks(detector, text, certainty)) is None:
            return
        length = self._shared.options.turn_samples if asked == "sound" else 0
        audio = self._buffer.read(self._scored - length, self._scored)
        language = language_of(self._shared.options)
        llm = self.scoring.llm_request(detector)
        self._shared.effects.add(ScoreTurn(self._key.item_id, text, language, audio, *llm))

    def _feed_scored(self, detector: TurnDetector) -> None:
        """Feed the audio that was scored to the transcription: several windows at once while the
        user goes on speaking in a turn that is announced. This must not depend on early work, which
        would change how much a transcript delta holds."""
        waits = detector.silence or not self.announced
        if waits or self._scored - self._fed >= MAX_UNFED:
            self._feed(self._scored)

    def _drop_quiet(self, detector: TurnDetector) -> None:
        self._buffer.drop(self._scored - max(detector.prefix + MARGIN, MIN_KEPT))

    def _rise(self, at: int, speech: float) -> float:
        """By how many dB the level of a window rises, where the rise is used."""
        assert self._detector
        if self._detector.speaking or speech < MIN_RISING:
            return 0.0
        return rise_db(self._buffer.read(at - RISE_WINDOWS * WINDOW, at + WINDOW))

    def _hissed(self, at: int, speech: float) -> bool:
        """Whether there was an "s" before a window, where that is used."""
        assert self._detector
        if self._detector.speaking or speech <= RISING:
            return False
        return hisses(self._buffer.read(at - RISE_WINDOWS * WINDOW, at))

    def turn_scored(self, fact: TurnScored) -> Edge | None:
        """Take the likelihood that the turn is finished."""
        detector = self._detector
        if fact.source == "llm":
            self.scoring.book(fact, self._transcriptions.text(self._key))
        if detector is None or fact.item_id != self._key.item_id:
            return None
        self.scoring.take(fact, detector)
        return detector.end_if_silent()

    def start_turn(self, *, announced: bool) -> None:
        """The user has begun to speak. announced: whether `speech_started` is sent now."""
        assert self._detector
        self.announced = announced
        self.scoring.begin(self._detector.onset)
        self._buffer.drop(max(self._buffer.start, self._detector.onset - self._detector.prefix))
        if announced:
            send_started(self._shared, self._key.item_id, self._buffer.start)
        self._start_transcription(reported=announced)

    def end_soon(self) -> None:
        """Limit the silence that ends the open turn, whatever its words are."""
        assert self._detector
        self._detector.end_soon()

    def announce(self) -> None:
        """Send `speech_started` for the open turn, which was held back until now."""
        self.announced = True
        send_started(self._shared, self._key.item_id, self._buffer.start)
        self._transcriptions.report(self._key)

    def end_turn(self, now: float, draft_id: str) -> None:
        """The user has stopped, in a turn that the client knows about. draft_id: see EndAudio."""
        send_stopped(self._shared, self._key.item_id, self._scored, self._decide())
        self._commit(self._scored, now, draft_id)

    def withhold(self, now: float) -> EndedTurn:
        """The user has stopped, in a turn that is held back: wait for its words before it becomes
        an item. See put()."""
        key, start, end, decision = self._key, self._buffer.start, self._scored, self._decide()
        self._feed(end)
        self._transcriptions.finish(key, now)
        self._key = TranscriptionKey(self._new_id())
        self.scoring.forget()
        return EndedTurn(key, start, end, self._buffer.cut(end), decision)

    def put(self, turn: EndedTurn, *, announced: bool) -> None:
        """Make an item of a turn that was held back.

        announced: as one that was announced from the start.
        """
        if announced:
            send_started(self._shared, turn.key.item_id, turn.start)
            send_stopped(self._shared, turn.key.item_id, turn.end, turn.decision)
        put_item(self._shared, turn.key.item_id, turn.pcm, words={})
        self._transcriptions.report(turn.key)

    def commit(self, now: float) -> None:
        """The client commits the turn. Raises InvalidRequest when it is too short."""
        self._report(self._intake.drop_half())
        if len(self._buffer) < to_samples(MIN_COMMIT_MS):
            has = len(self._buffer) / to_samples(1)
            raise InvalidRequest(
                f"Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {has:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._start_transcription()
        self._commit(self._buffer.end, now)
        self._skip()

    def clear(self) -> None:
        """Drop the audio that was not committed."""
        self._drop()
        send_cleared(self._shared)

    def time_out(self, silent_ms: int) -> None:
        """Make an item of the silence, because nobody has spoken for idle_timeout_ms."""
        send_timeout(self._shared, self._key.item_id, self._buffer.end, silent_ms)
        self._add_item(self._buffer.cut(self._buffer.end), words={0: ""})
        self._skip()

    @property
    def _gap_ends(self) -> float:
        """When missing audio in mid-turn counts as enough silence to end the turn."""
        detector, seconds = self._detector, self._shared.limits.gap_seconds
        if detector is None or not detector.speaking or not seconds:
            return INFINITY
        return max(self._intake.pace.at, self._gap_from) + max(seconds, detector.lacking / RATE)

    def _new_id(self) -> str:
        return self._shared.conversation.new_id(self._shared.effects.ids)

    def _configure_cleaning(self) -> None:
        wanted = self._shared.options.noise_reduction
        if wanted != self._cleaning:
            self._cleaning = wanted
            self._shared.effects.add(ConfigureCleaning(wanted))

    def _clean_or_take(self, pcm: bytes, now: float) -> None:
        if self._cleaning and 0 < len(pcm) <= MAX_CLEANED_BYTES:
            self._shared.effects.add(CleanAudio(pcm))
        else:
            self.take(pcm, now)

    def _drop(self) -> None:
        self._transcriptions.cancel(self._key.item_id)
        self._intake.drop_half()
        self._buffer.drop(self._buffer.end)
        self._key = TranscriptionKey(self._new_id())
        self.scoring.forget()
        self._skip()

    def _send_to_vad(self) -> None:
        if windows := (self._buffer.end - self._sent) // WINDOW:
            upto = self._sent + windows * WINDOW
            self._shared.effects.add(RunVad(self._sent, self._buffer.read(self._sent, upto)))
            self._sent = upto

    def _score_anew(self) -> None:
        """Turn detection was switched on: audio that was not committed may contain a turn."""
        if self._transcriptions.pending(self._key):
            self._transcriptions.cancel(self._key.item_id)
            self._key = TranscriptionKey(self._new_id())
        self._sent = self._scored = self._buffer.start
        self._send_to_vad()

    def _decide(self) -> TurnDecision:
        """The decision that has just ended the turn."""
        assert self._detector
        return self.scoring.decide(self._detector, self._scored)

    def _start_transcription(self, *, reported: bool = True) -> None:
        if not self._transcriptions.pending(self._key):
            self._fed = self._buffer.start
            self._transcriptions.start(self._key, reported=reported)

    def _feed(self, upto: int) -> None:
        self._transcriptions.feed(self._key, self._buffer.read(self._fed, upto))
        self._fed = upto

    def _commit(self, upto: int, now: float, draft_id: str = "") -> None:
        self._feed(upto)
        self._transcriptions.finish(self._key, now, draft_id=draft_id)
        self._add_item(self._buffer.cut(upto), words={})

    def _add_item(self, pcm: bytes, words: dict[int, str]) -> None:
        item_id, self._key = self._key.item_id, TranscriptionKey(self._new_id())
        self.scoring.forget()
        put_item(self._shared, item_id, pcm, words)

    def _report(self, half: HalfSample | None) -> None:
        if half:
            problem = half.problem
            self._shared.effects.error(
                problem.message, code=problem.code, param=problem.param, cause=problem.event_id
            )

    def _skip(self) -> None:
        """Do not wait for scores of the audio so far."""
        self._sent = self._scored = self._buffer.end
        if self._detector:
            self._detector.reset()
