"""Runs a recorded call again where the session does other things than it did: mended code, or
changed settings.

What came from outside comes when it came. What was an answer of an engine comes as long after its
order as it did: the n-th generation gets the n-th recorded answer, a turn the words that were
spoken in its time. Timers fire when they are due. So a call that goes another way is a good guess,
not a measurement: the other side would have reacted.
"""

import heapq
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from vivavoce.errors import RecordingError
from vivavoce.protocol import codec
from vivavoce.protocol.client import InputAudioAppend, SessionUpdate
from vivavoce.protocol.session import (
    AudioInputPatch,
    AudioPatch,
    ServerVad,
    ServerVadPatch,
    TranscriptionAudioPatch,
)
from vivavoce.protocol.upstream import read_upstream
from vivavoce.replay.answers import IdMap, RecordedAnswers
from vivavoce.replay.session import (
    ReplayedCall,
    ReplayedMoment,
    ReplayedSession,
    kept_effects,
    performed,
)
from vivavoce.session.effects import (
    CancelGeneration,
    CancelTool,
    CancelTranscription,
    ClearPlayback,
    Close,
    DraftTranscript,
    Effect,
    EndAudio,
    Generate,
    PlayAudio,
    RequestFallback,
    RunTool,
    Say,
    ScoreTurn,
    Speculate,
    StartTranscription,
)
from vivavoce.session.endpointing import TurnSettings
from vivavoce.session.facts import (
    AnticipationEnded,
    AudioPlayed,
    DraftTranscribed,
    Fact,
    Received,
    TimerFired,
    ToolFinished,
    TranscriptionKey,
    TranscriptUpdated,
    TurnScored,
    UpstreamEventReceived,
)
from vivavoce.session.interruption import InterruptionSettings
from vivavoce.session.limits import SessionLimits
from vivavoce.telemetry.recording import CallHeader, CallRecording, RecordedEntry, text_frame

MAX_MOMENTS = 2_000_000
"""The most steps of one replay: a session that asks for timers endlessly ends it."""
SAMPLES_A_SECOND = 24_000
PLAYED_SAMPLES = 2_400
"""The samples of one AudioPlayed."""


@dataclass(frozen=True, slots=True)
class ReplayChanges:
    """Settings in place of those of the recording."""

    limits: dict[str, Any] = field(default_factory=dict)
    turns: dict[str, Any] = field(default_factory=dict)
    interruption: dict[str, Any] = field(default_factory=dict)
    detection: dict[str, Any] = field(default_factory=dict)
    """Settings of server_vad, by their names on the wire; they take precedence over the
    client's."""

    def header(self, header: CallHeader) -> CallHeader:
        """The beginning of the call with these settings."""
        session: Any = header.session
        detection = session.audio.input.turn_detection
        if self.detection and isinstance(detection, ServerVad):
            heard = replace(
                session.audio.input, turn_detection=replace(detection, **self.detection)
            )
            session = replace(session, audio=replace(session.audio, input=heard))
        return replace(
            header,
            session=session,
            limits=_changed(header.limits, self.limits, SessionLimits),
            turns=_changed(header.turns, self.turns, TurnSettings),
            interruption=_changed(header.interruption, self.interruption, InterruptionSettings),
        )

    def fact(self, fact: Fact) -> Fact:
        """A fact with these settings: what a client sets of turn detection is overruled."""
        match fact:
            case Received(event=SessionUpdate(session=patch) as event) if self.detection:
                audio: Any = patch.audio
                if not isinstance(audio, AudioPatch | TranscriptionAudioPatch):
                    return fact
                heard = audio.input
                if not isinstance(heard, AudioInputPatch):
                    return fact
                if not isinstance(heard.turn_detection, ServerVadPatch):
                    return fact
                detection = replace(heard.turn_detection, **self.detection)
                audio = replace(audio, input=replace(heard, turn_detection=detection))
                patch = replace(patch, audio=audio)
                return Received(replace(event, session=patch))
        return fact

    @property
    def any(self) -> bool:
        """Whether anything is changed."""
        return bool(self.limits or self.turns or self.interruption or self.detection)


def _changed(settings: Any, given: dict[str, Any], kind: Any) -> Any:
    return msgspec.convert({**msgspec.to_builtins(settings), **given}, kind) if given else settings


class UpcomingFacts:
    """What is to come, by its time in seconds, and in the order in which it was pushed."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Fact | RecordedEntry]] = []
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def due(self) -> float:
        """The time of the first. There must be one."""
        return self._queue[0][0]

    def push(self, at: float, what: Fact | RecordedEntry) -> int:
        """Returns its number."""
        self._count += 1
        heapq.heappush(self._queue, (at, self._count, what))
        return self._count

    def pop(self) -> tuple[float, int, Fact | RecordedEntry]:
        """The time, the number, and the fact or entry of the first."""
        return heapq.heappop(self._queue)


class SimulatedPlayer:
    """Plays the answers of a server that plays them itself: in real time, one after the other."""

    def __init__(self, upcoming: UpcomingFacts) -> None:
        self._upcoming = upcoming
        self._until = 0.0
        self._playing: list[int] = []  # numbers of what is, or was, to come of it
        self._dropped: set[int] = set()

    def play(self, item_id: str, samples: int, now: float) -> None:
        """Play that much of an item behind what waits."""
        self._until = max(self._until, now)
        while samples > 0:
            part = min(samples, PLAYED_SAMPLES)
            samples -= part
            self._until += part / SAMPLES_A_SECOND
            self._playing.append(self._upcoming.push(self._until, AudioPlayed(item_id, part)))

    def clear(self, now: float) -> None:
        """Drop what was not played yet."""
        self._dropped.update(self._playing)
        self._playing.clear()
        self._until = now

    def drops(self, number: int) -> bool:
        """Whether what has that number was dropped."""
        return number in self._dropped


class Simulation:
    """One call in virtual time, with engines that answer as they did."""

    def __init__(self, recording: CallRecording, changes: ReplayChanges) -> None:
        """Raises RecordingError."""
        header = changes.header(recording.header)
        self._recording = recording
        self._changes = changes
        self._replayed = ReplayedSession(header)
        self._answers = RecordedAnswers(recording)
        self._ids = IdMap(header.salt)
        self._upcoming = UpcomingFacts()
        self._player = SimulatedPlayer(self._upcoming)
        self._open: dict[TranscriptionKey, float] = {}  # recordings under way, from when
        self._heard_until = header.now  # words up to there are given
        self._cancelled: set[str] = set()
        self._closed = False
        self._moments: list[ReplayedMoment] = []
        self._now = header.now

    def run(self) -> list[ReplayedMoment]:
        """The whole call."""
        for entry in self._recording.entries:
            if entry.lookup is not None:
                self._replayed.note(entry)
            for effect in entry.effects:
                self._ids.note_recorded(str(effect))
        for at, what in self._answers.external:
            self._upcoming.push(at, what)
        for at in self._answers.updates:
            self._upcoming.push(at, RecordedEntry(at=at))  # more words may have been recognised
        self._upcoming.push(self._recording.entries[-1].at, RecordedEntry(at=0.0))
        session = self._replayed.session
        self._perform(performed(session.begin, None, self._now))
        while self._upcoming and not self._closed:
            if len(self._moments) > MAX_MOMENTS:
                raise RecordingError("the replay does not end: the session asks for endless timers")
            deadline = session.deadline
            if deadline <= self._upcoming.due:
                self._now = max(self._now, deadline)
                self._take(TimerFired())
                continue
            self._now, number, what = self._upcoming.pop()
            self._next(number, what)
        return self._moments

    def _next(self, number: int, what: Fact | RecordedEntry) -> None:
        if not isinstance(what, RecordedEntry):
            self._give(number, what)
        elif what.passed:
            self._pass(replace(what, at=self._now))
        elif what.brain:
            swap = replace(what, at=self._now)
            self._perform(performed(lambda: self._replayed.swap(swap), None, self._now))
        else:
            for key in tuple(self._open):
                text = self._answers.words.between(self._heard_until, self._now)
                self._take(TranscriptUpdated(key, text, len(text), False))

    def _give(self, number: int, fact: Fact) -> None:
        if self._player.drops(number):
            return
        name = getattr(fact, "response_id", None) or getattr(fact, "call_id", None)
        if name in self._cancelled:
            return
        if (
            isinstance(fact, TranscriptUpdated)
            and fact.final
            and fact.key.item_id in self._cancelled
        ):
            return
        if isinstance(fact, Received) and not isinstance(fact.event, InputAudioAppend):
            text = self._ids.translated(msgspec.json.encode(fact.event).decode())
            event = msgspec.convert({"event": msgspec.json.decode(text)}, Received).event
            raw = None if fact.raw is None else self._ids.translated(fact.raw.decode()).encode()
            fact = self._changes.fact(Received(event, raw))
        self._take(fact)

    def _pass(self, entry: RecordedEntry) -> None:
        """A frame that a relay let pass; where it does not pass now, it is decoded."""
        if self._replayed.pass_frame(entry):
            return
        frame = text_frame(entry.frame)
        if entry.passed == "input":
            self._take(Received(codec.decode(frame), frame))
        else:
            self._take(UpstreamEventReceived(read_upstream(frame), frame))

    def _take(self, fact: Fact) -> None:
        session = self._replayed.session
        self._perform(performed(lambda: session.handle(fact, self._now), fact, self._now))

    def _perform(self, moment: ReplayedMoment) -> None:
        self._moments.append(moment)
        if moment.raised:
            self._closed = True
        for effect in moment.effects:
            self._ids.note(str(kept_effects([effect], ())))
            self._order(effect)

    def _order(self, effect: Effect) -> None:
        now = self._now
        match effect:
            case StartTranscription(key=key):
                self._open[key] = now
            case EndAudio(key=key):
                self._end_recording(key)
            case CancelTranscription(key=key):
                self._open.pop(key, None)
                self._cancelled.add(key.item_id)
            case Generate(response_id=response_id):
                self._generate(response_id)
            case Say(order=order):
                self._generate(order.response_id)
            case CancelGeneration(response_id=response_id):
                self._cancelled.add(response_id)
            case RunTool(call_id=call_id):
                found = self._answers.next("tool")
                for delay, fact in found.answers if found else ((0.0, ToolFinished("", "")),):
                    self._upcoming.push(now + delay, replace(fact, call_id=call_id))
            case CancelTool(call_id=call_id):
                self._cancelled.add(call_id)
            case PlayAudio(item_id=item_id, audio=audio):
                self._player.play(item_id, len(audio) // 2, now)
            case ClearPlayback():
                self._player.clear(now)
            case RequestFallback():
                model = self._answers.fallback
                self._upcoming.push(now, RecordedEntry(at=now, brain="cascade", model=model))
            case Close():
                self._closed = True
            case _:
                self._anticipate(effect)

    def _anticipate(self, effect: Effect) -> None:
        now = self._now
        match effect:
            case ScoreTurn(item_id=item_id, text=text):
                score = self._answers.turn_score(text)
                if score is not None:
                    self._upcoming.push(now, TurnScored(item_id, score))
            case DraftTranscript(draft_id=draft_id):
                found = self._answers.next("draft")
                delay = found.answers[0][0] if found and found.answers else 0.0
                text = self._answers.words.between(self._heard_until, now)
                self._upcoming.push(now + delay, DraftTranscribed(draft_id, text))
            case Speculate(speculation_id=name):
                found = self._answers.next("speculation")
                for delay, fact in found.answers if found else ():
                    if isinstance(fact, AnticipationEnded):
                        self._upcoming.push(now + delay, replace(fact, id=name))

    def _end_recording(self, key: TranscriptionKey) -> None:
        self._open.pop(key, None)
        text = self._answers.words.between(self._heard_until, self._now)
        self._heard_until = self._now
        delay = self._answers.final_delay()
        self._upcoming.push(self._now + delay, TranscriptUpdated(key, text, len(text), True))

    def _generate(self, response_id: str) -> None:
        for delay, fact in self._answers.generation(response_id):
            self._upcoming.push(self._now + delay, fact)


def simulated(recording: CallRecording, changes: ReplayChanges | None = None) -> ReplayedCall:
    """Run a call with other settings, or with a session that does other things than it did.

    Raises RecordingError.
    """
    if not recording.entries:
        raise RecordingError("the recording has no entries")
    call = ReplayedCall(recording, simulated=True)
    call.moments = Simulation(recording, changes or ReplayChanges()).run()
    return call
