"""The sessions of a server as operators see them: the state of each, and since when."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET

from vivavoce.protocol.server import (
    AnyServerEvent,
    ErrorEvent,
    OutputAudioCleared,
    OutputAudioDelta,
    OutputAudioStopped,
    OutputTextDelta,
    OutputTranscriptDelta,
    ResponseCreated,
    ResponseDone,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
)
from vivavoce.protocol.session import RealtimeSession
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.tasks import Timer
from vivavoce.session.effects import ClearPlayback, Effect, PlayAudio, Send
from vivavoce.session.facts import AudioGenerated, Fact, UpstreamEventReceived, VadScores

MAX_WAITS = 100  # the last latencies of a session, from which the median is computed
MAX_FAILURES = 10_000
MAX_UNREAD = 200  # events queued for one watcher; older ones are dropped
FAILURE_AGE_S = 3600.0

State: TypeAlias = Literal["listening", "hearing", "thinking", "speaking"]
Watched: TypeAlias = dict[str, str | float]
"""An event for a watcher."""
_UPSTREAM: dict[str, State] = {
    "input_audio_buffer.speech_started": "hearing",
    "input_audio_buffer.speech_stopped": "thinking",
    "response.created": "thinking",
    "response.output_audio.delta": "speaking",
    "output_audio_buffer.started": "speaking",
    "response.done": "listening",
}
_UPSTREAM_PLAYS = {
    "output_audio_buffer.started": True,
    "output_audio_buffer.stopped": False,
    "output_audio_buffer.cleared": False,
}
"""Whether an upstream server plays an answer in a call whose media does not pass through here."""

_CAPTIONS = {
    "conversation.item.input_audio_transcription.completed": "user",
    "response.output_audio_transcript.delta": "assistant",
    "response.output_text.delta": "assistant",
}
"""Who said the words in an event of an upstream server."""


class LastError(msgspec.Struct, frozen=True, kw_only=True):
    """The last failure of a session."""

    at: float
    """Seconds since 1970."""
    message: str


class LiveSessionObject(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is open now."""

    id: str
    object: Literal["realtime.live_session"] = "realtime.live_session"
    opened_at: float
    """Seconds since 1970."""
    model: str
    voice: str
    transport: str
    client: str
    """The address of the client."""
    key: str
    """The name of the key that opened it; "" without keys."""
    state: State
    turns: int
    first_sound_ms: int | None
    """The median from the end of speech to the first audio; None: there was no answer yet."""
    last_error: LastError | None


class LiveSession:
    """An observer that tracks what operators see of one session."""

    skips_audio = True

    def __init__(self, opening: Opening, table: "LiveSessions") -> None:
        self._opening = opening
        self._table = table
        self.runner: Runner | None = None
        self._opened_at = table.wall_clock()
        self._state: State = "listening"  # by the last event
        self._speaks = False  # an answer has audio, and is not complete
        self._upstream_plays = False
        self._told: State = "listening"  # what watchers know
        self._played = Timer(self._tell_state)  # at the end of an answer that is played
        self._turns = 0
        self._asked_at: float | None = None  # since when the user has been waiting for audio
        self._waits: list[float] = []
        self._last_error: LastError | None = None
        self._watchers: set[asyncio.Queue[Watched]] = set()

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        if isinstance(fact, AudioGenerated):
            self._sounded(now)
        elif isinstance(fact, UpstreamEventReceived):
            self._on_upstream(fact, now)
        elif isinstance(fact, VadScores) and self._watchers:
            self._tell({"type": "speech", "probability": max(fact.speech, default=0.0)})
        for effect in effects:
            if isinstance(effect, Send):
                self._on_event(effect.event, now)
            elif isinstance(effect, PlayAudio):
                self._speaks = True
                self._set("speaking")
            elif isinstance(effect, ClearPlayback):
                self._speaks = False
                self._set("hearing")

    def watch(self) -> asyncio.Queue[Watched]:
        """The events from now on, until unwatch()."""
        events: asyncio.Queue[Watched] = asyncio.Queue(MAX_UNREAD)
        self._watchers.add(events)
        if self.runner:
            self.runner.show_audio(self, shown=True)
        events.put_nowait(self.state_event)
        self._told = self.state
        self._tell_state()
        return events

    @property
    def state(self) -> State:
        """What the session is doing. After the end of a response its audio is still played."""
        return "speaking" if self._state == "listening" and self._is_played else self._state

    @property
    def state_event(self) -> Watched:
        return {"type": "state", "state": self.state}

    def unwatch(self, events: asyncio.Queue[Watched]) -> None:
        self._watchers.discard(events)
        if self.runner and not self._watchers:
            self.runner.show_audio(self, shown=False)

    def close(self) -> None:
        self._played.cancel()
        self._tell({"type": "ended"})

    def shown(self, session_id: str) -> LiveSessionObject:
        """The session as it appears in the list."""
        settings = self.runner.settings if self.runner else None
        served = settings.served_by if isinstance(settings, RealtimeSession) else UNSET
        waits = sorted(self._waits)
        return LiveSessionObject(
            id=session_id,
            opened_at=self._opened_at,
            model="transcription" if served is UNSET else served.model,
            voice="" if served is UNSET else served.voice,
            transport=self._opening.transport,
            client=self._opening.client,
            key=self._opening.who,
            state=self.state,
            turns=self._turns,
            first_sound_ms=round(waits[len(waits) // 2] * 1000) if waits else None,
            last_error=self._last_error,
        )

    def _on_event(self, event: AnyServerEvent, now: float) -> None:
        match event:
            case OutputAudioDelta():
                self._speaks = True
                self._set("speaking")
            case SpeechStarted():
                self._set("hearing")
            case SpeechStopped():
                self._asked_at = now
                self._turns += 1
                if self._speaks:
                    self._set("speaking")
                else:
                    self._set("listening" if self._is_played else "thinking")
            case OutputAudioStopped() | OutputAudioCleared():
                self._tell_state()
            case ResponseCreated():
                self._speaks = False
                self._set("thinking")
            case ResponseDone(response=response):
                self._speaks = False
                self._set("listening")
                details = response.status_details
                if response.status == "failed" and details and details.error:
                    self._failed(details.error.message or details.error.code or "")
            case ErrorEvent(error=error) if error.type == "server_error":
                self._failed(error.message)
            case TranscriptionCompleted(transcript=text):
                self._caption("user", text)
            case OutputTranscriptDelta(delta=text) | OutputTextDelta(delta=text):
                self._caption("assistant", text)

    def _on_upstream(self, fact: UpstreamEventReceived, now: float) -> None:
        kind = fact.event.type
        if (role := _CAPTIONS.get(kind)) is not None:
            self._caption(role, fact.event.transcript or fact.event.delta)
            return
        if kind in _UPSTREAM_PLAYS:
            self._upstream_plays = _UPSTREAM_PLAYS[kind]
            self._tell_state()
        if (state := _UPSTREAM.get(kind)) is None:
            return
        if kind == "input_audio_buffer.speech_stopped":
            self._asked_at = now
            self._turns += 1
        elif state == "speaking":
            self._sounded(now)
        self._set(state)

    def _sounded(self, now: float) -> None:
        if self._asked_at is not None:
            del self._waits[: 1 - MAX_WAITS]
            self._waits.append(now - self._asked_at)
            self._asked_at = None

    def _failed(self, message: str) -> None:
        self._last_error = LastError(at=self._table.wall_clock(), message=message)
        self._table.count_failure()

    @property
    def _is_played(self) -> bool:
        """Whether an answer is still played; where the client plays it, by its length."""
        if self._upstream_plays or self.runner is None:
            return self._upstream_plays
        return self.runner.plays_until > asyncio.get_running_loop().time()

    def _set(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._tell_state()

    def _tell_state(self) -> None:
        """Tell watchers the state if it has changed, and again when the answer was played."""
        if not self._watchers:
            return
        if (state := self.state) != self._told:
            self._told = state
            self._tell(self.state_event)
        if state != self._state and self.runner and self.runner.plays_until < math.inf:
            self._played.set(self.runner.plays_until)

    def _caption(self, role: str, text: str) -> None:
        if self._watchers and self._table.captions:
            self._tell({"type": "caption", "role": role, "text": text})

    def _tell(self, event: Watched) -> None:
        for events in self._watchers:
            if events.full():
                events.get_nowait()
            events.put_nowait(event)


class LiveSessions:
    """The open sessions of a server by their ids."""

    def __init__(
        self, captions: Callable[[], bool], wall_clock: Callable[[], float] = time.time
    ) -> None:
        """captions: whether watchers get the words that are said."""
        self._captions = captions
        self.wall_clock = wall_clock
        self._sessions: dict[str, LiveSession] = {}
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)

    def add(self, session_id: str, session: LiveSession) -> None:
        self._sessions[session_id] = session

    def remove(self, session_id: str) -> None:
        if session := self._sessions.pop(session_id, None):
            session.close()

    def find(self, session_id: str) -> LiveSession | None:
        return self._sessions.get(session_id)

    def end(self, session_id: str) -> bool:
        """End a session for an operator; return whether it is here."""
        session = self._sessions.get(session_id)
        if session is not None and session.runner is not None:
            session.runner.end(1000, "an operator ended the session", "operator")
        return session is not None

    def shown(self) -> list[LiveSessionObject]:
        """All of them, the oldest first."""
        return [session.shown(id_) for id_, session in self._sessions.items()]

    @property
    def captions(self) -> bool:
        return self._captions()

    def count_failure(self) -> None:
        self._failures.append(self.wall_clock())

    @property
    def recent_failures(self) -> int:
        """The number of failures in the last hour."""
        since = self.wall_clock() - FAILURE_AGE_S
        while self._failures and self._failures[0] < since:
            self._failures.popleft()
        return len(self._failures)
