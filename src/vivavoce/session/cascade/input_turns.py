"""The user's side of a session: sound comes in, turns come out.

Rules:
1. Sound is judged only under turn detection, in whole windows, and written down as it is judged,
   so that a recording sent at once gives the same items as one spoken live.
2. Without turn detection every sound is written down as it comes; the client says what is a turn.
3. An item's id is the same from the first event about it to the last.
4. Outside a turn only the prefix is kept: silence does not grow.
5. Sound that stops coming in mid-turn counts as silence after a while, by the clock, and is not
   made up: positions stay those of the client.
"""

from vivavoce.audio.formats import RATE
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.protocol.server import (
    InputAudioCleared,
    InputAudioCommitted,
    ItemAdded,
    ItemDone,
    SpeechStarted,
    SpeechStopped,
    TimeoutTriggered,
)
from vivavoce.session.cascade.input_buffer import (
    BYTES_PER_SAMPLE,
    HalfSample,
    Intake,
    to_ms,
    to_samples,
)
from vivavoce.session.cascade.transcriptions import Transcriptions, language_of
from vivavoce.session.cascade.turn_detection import ONSET_WINDOWS, WINDOW, Edge, TurnDetector
from vivavoce.session.conversation import Conversation, Entry
from vivavoce.session.effect_buffer import EffectBuffer
from vivavoce.session.effects import RunVad, ScoreTurn
from vivavoce.session.facts import VadScores
from vivavoce.session.options import Options

INFINITY = float("inf")
SHORTEST_COMMIT_MS = 100
MARGIN = (ONSET_WINDOWS + 1) * WINDOW  # what an onset reaches back over, beside the prefix


class InputTurns:
    """Owns the input buffer and the turn detector."""

    def __init__(
        self,
        options: Options,
        conversation: Conversation,
        hearing: Transcriptions,
        outbox: EffectBuffer,
        *,
        max_buffer_seconds: float,
        gap_seconds: float,
    ) -> None:
        self._options = options
        self._conversation = conversation
        self._hearing = hearing
        self._outbox = outbox
        self._intake = Intake(
            longest=to_samples(int(max_buffer_seconds * 1000)), gap_seconds=gap_seconds
        )
        self._buffer = self._intake.buffer
        self._detector: TurnDetector | None = None
        self._item_id = outbox.ids.next("item")
        self._asked = 0  # the position up to which sound was given to the judge
        self._judged = 0  # ... and up to which its verdict is in
        self._fed = 0  # ... and up to which it was written down
        self._assessed: str | None = None  # the words last asked about in this pause
        self.adopt()

    @property
    def position(self) -> int:
        """All sound that came in this session, in samples."""
        return self._buffer.end

    @property
    def speaking(self) -> bool:
        return self._detector is not None and self._detector.speaking

    @property
    def live(self) -> bool:
        """Whether somebody speaks just now, and it is not a recording that is being sent."""
        return self._intake.pace.live

    @property
    def deadline(self) -> float:
        """When half a sample, or a turn without any more sound, has waited for long enough."""
        half = self._intake.half
        return min(half.deadline if half else INFINITY, self._gap_ends)

    def adopt(self) -> None:
        """Take up changed settings. A turn under way goes on where that is possible."""
        self._report(self._intake.adopt(self._options.input_format))
        wanted = self._options.turn_detection
        if wanted is None:
            self._detector = None
        elif self._detector is None:
            self._detector = TurnDetector(wanted)
            self._judge_anew()
        elif wanted != self._detector.settings:
            self._detector.adopt(wanted)
            self._assessed = None

    def append(self, event: InputAudioAppend, now: float) -> None:
        """Take in sound. Raises InvalidRequest when there is no room for it."""
        # what was judged is bounded by judge(); here only what the judge has not come to counts
        self._intake.append(event, now, begin=self._judged if self._detector else 0)
        self._take()

    def hear(self, audio: bytes, now: float) -> None:
        """Take in sound of a track: it goes on by itself, so what nobody commits is let go."""
        if self._detector is None and len(self._buffer) > self._intake.longest:
            self._let_go()
        self._intake.hear(audio, now)
        self._take()

    def woken(self, now: float) -> Edge | None:
        """Report half a sample that nothing completed; end a turn whose sound has stopped."""
        if self._intake.half and self._intake.half.deadline <= now:
            self._report(self._intake.drop_half())
        if self._detector is None or self._gap_ends > now:
            return None
        self._detector.reset()
        return Edge.STOPPED

    def score(self, fact: VadScores, n: int) -> Edge | None:
        """Take the verdict on window `n` of a fact. After the last one call catch_up()."""
        at = fact.at + n * WINDOW
        if self._detector is None or at != self._judged:  # of a time before a clear or a commit
            return None
        self._judged = at + WINDOW
        edge = self._detector.feed(at, fact.speech[n])
        if not self._detector.silence:
            self._assessed = None  # the next pause is another, whatever its words
        if edge is Edge.STARTED:
            self._start(max(self._buffer.start, self._detector.onset - self._detector.prefix))
        heard = self._judged - self._buffer.start  # not all that came: that depends on the pace
        if edge is None and self._detector.speaking and heard > self._intake.longest:
            self._detector.reset()  # whoever speaks for that long is heard in pieces
            return Edge.STOPPED
        return edge

    def catch_up(self) -> None:
        """Write down what was judged, or let it go."""
        if self._detector is None:
            return
        if self._detector.speaking:
            self._feed(self._judged)
            self._assess()
        else:
            kept = max(self._detector.prefix + MARGIN, to_samples(SHORTEST_COMMIT_MS))
            self._buffer.forget(self._judged - kept)

    def heard_more(self, item_id: str) -> None:
        """More words of an item are known: they may sound finished now."""
        if item_id == self._item_id:
            self._assess()

    def assessed(self, item_id: str, likelihood: float) -> Edge | None:
        """Take a judgement on how finished the words sound."""
        if self._detector is None or item_id != self._item_id:
            return None
        self._detector.believe(likelihood)
        return self._detector.settle()

    def end_turn(self, now: float) -> None:
        """The user has stopped: after Edge.STOPPED, nothing else."""
        self._outbox.send(
            SpeechStopped(
                event_id=self._outbox.event_id(),
                item_id=self._item_id,
                audio_end_ms=to_ms(self._judged),
            )
        )
        self._commit(self._judged, now)

    def commit(self, now: float) -> None:
        """The client says that this was a turn. Raises InvalidRequest when it is too short."""
        self._report(self._intake.drop_half())
        if len(self._buffer) < to_samples(SHORTEST_COMMIT_MS):
            has = len(self._buffer) / to_samples(1)
            raise InvalidRequest(
                f"Error committing input audio buffer: buffer too small. Expected at least "
                f"{SHORTEST_COMMIT_MS}ms of audio, but buffer only has {has:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._begin_writing_down()
        self._commit(self._buffer.end, now)
        self._skip()

    def clear(self) -> None:
        """Forget what came and was not committed."""
        self._let_go()
        self._outbox.send(InputAudioCleared(event_id=self._outbox.event_id()))

    def time_out(self, silent_ms: int) -> None:
        """Nobody has spoken for so long: the silence becomes an item."""
        self._outbox.send(
            TimeoutTriggered(
                event_id=self._outbox.event_id(),
                item_id=self._item_id,
                audio_start_ms=max(0, to_ms(self._buffer.end) - silent_ms),
                audio_end_ms=to_ms(self._buffer.end),
            )
        )
        self._add(self._buffer.cut(self._buffer.end), words={0: ""})
        self._skip()

    @property
    def _gap_ends(self) -> float:
        """When sound that has stopped coming in mid-turn has been silence for long enough."""
        detector, intake = self._detector, self._intake
        if detector is None or not detector.speaking:
            return INFINITY
        if self._judged < self._asked or not intake.gap_seconds:
            return INFINITY
        return intake.pace.at + max(intake.gap_seconds, detector.lacking / RATE)

    def _take(self) -> None:
        """Sound has come: have it judged, or written down at once."""
        if self._detector is None:
            self._begin_writing_down()
            self._feed(self._buffer.end)
        else:
            self._ask()

    def _let_go(self) -> None:
        self._hearing.forget(self._item_id)
        self._intake.drop_half()
        self._buffer.forget(self._buffer.end)
        self._item_id = self._outbox.ids.next("item")
        self._skip()

    def _ask(self) -> None:
        """Have the sound judged that was not yet."""
        if windows := (self._buffer.end - self._asked) // WINDOW:
            upto = self._asked + windows * WINDOW
            self._outbox.add(RunVad(self._asked, self._buffer.read(self._asked, upto)))
            self._asked = upto

    def _judge_anew(self) -> None:
        """Under turn detection from now on: what was not committed may be a turn."""
        if self._hearing.pending(self._item_id):
            self._hearing.forget(self._item_id)
            self._item_id = self._outbox.ids.next("item")
        self._asked = self._judged = self._buffer.start
        self._ask()

    def _start(self, start: int) -> None:
        self._buffer.forget(start)
        self._outbox.send(
            SpeechStarted(
                event_id=self._outbox.event_id(), item_id=self._item_id, audio_start_ms=to_ms(start)
            )
        )
        self._begin_writing_down()

    def _begin_writing_down(self) -> None:
        if not self._hearing.pending(self._item_id):
            self._fed = self._buffer.start
            self._hearing.begin(self._item_id, self._options)

    def _feed(self, upto: int) -> None:
        self._hearing.feed(self._item_id, self._buffer.read(self._fed, upto))
        self._fed = upto

    def _commit(self, upto: int, now: float) -> None:
        self._feed(upto)
        self._hearing.finish(self._item_id, now)
        self._add(self._buffer.cut(upto), words={})

    def _add(self, pcm: bytes, words: dict[int, str]) -> None:
        item_id, self._item_id = self._item_id, self._outbox.ids.next("item")
        self._assessed = None
        item = Message(id=item_id, role="user", content=(InputAudio(),))
        entry = Entry(item, {0: pcm}, words, len(pcm) // BYTES_PER_SAMPLE)
        previous = self._conversation.add(entry)
        new_id = self._outbox.event_id
        self._outbox.send(
            InputAudioCommitted(event_id=new_id(), previous_item_id=previous, item_id=item_id)
        )
        self._outbox.send(ItemAdded(event_id=new_id(), previous_item_id=previous, item=item))
        self._outbox.send(ItemDone(event_id=new_id(), previous_item_id=previous, item=item))

    def _assess(self) -> None:
        if self._detector is None or not self._detector.asks:
            self._assessed = None
            return
        text = self._hearing.text(self._item_id)
        if text != self._assessed:
            self._assessed = text
            self._outbox.add(ScoreTurn(self._item_id, text, language_of(self._options)))

    def _report(self, half: HalfSample | None) -> None:
        if half:
            problem = half.problem
            self._outbox.error(
                problem.message, code=problem.code, param=problem.param, cause=problem.event_id
            )

    def _skip(self) -> None:
        """Whatever came so far is no longer waited for."""
        self._asked = self._judged = self._buffer.end
        if self._detector:
            self._detector.reset()
