"""What is measured of one session: an observer."""

import msgspec
from msgspec import UNSET

from vivavoce.protocol.client import ResponseCreate
from vivavoce.protocol.server import ResponseDone, SpeechStarted, SpeechStopped
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.session.effects import (
    Close,
    ConnectUpstream,
    Effect,
    EndAudio,
    Generate,
    RecordDroppedAudio,
    RecordModel,
    RecordRefusal,
    RequestFallback,
    Say,
    Send,
)
from vivavoce.session.facts import (
    AccessEnded,
    AudioGenerated,
    ContentBlocked,
    Disconnected,
    Fact,
    FaultKind,
    Received,
    SpeechFailed,
    TextGenerated,
    TranscriptUpdated,
    UpstreamConnected,
    UpstreamEventReceived,
    UpstreamLost,
    VadScores,
)
from vivavoce.telemetry.families import SessionFamilies, UpstreamFamilies

MAX_LIMITS = 8
CLOSE_CODES = frozenset((*range(1000, 1016), 3000, 4000, 4002))
SLOW_CLIENT_CLOSE = 1008
HANDSHAKE_STATUSES = frozenset((400, 401, 403, 404, 408, 409, 426, 429, 500, 502, 503, 504))
NO_MODEL = "none"
"""In place of the model that continues, where none does: the session ends."""
_RARE = (
    Close,
    RequestFallback,
    ConnectUpstream,
    RecordModel,
    RecordRefusal,
    RecordDroppedAudio,
    Say,
)
_OUTCOMES = {
    1008: "refused",
    1011: "failed",
    1012: "shutdown",
    1013: "failed",
    3000: "unauthorized",
    4002: "budget",
}
"""Why a session ended, by its close code.

Other codes: the client has left, or the time was over.
"""
_LEAVINGS = {1006: "connection_lost", SLOW_CLIENT_CLOSE: "slow_client"}
_REASONS = {
    1000: "session_idle",
    1001: "session_expired",
    1012: "shutdown",
    3000: "invalid_api_key",
    4002: "insufficient_quota",
}
"""The code of the error before a close of this server, where the close has no other."""


class _RateLimit(msgspec.Struct):
    name: str
    remaining: float


class _RateLimits(msgspec.Struct):
    """The limits in a rate_limits.updated event."""

    rate_limits: list[_RateLimit]


def _code(code: int) -> str:
    return str(code) if code in CLOSE_CODES else "other"


def _status(status: int) -> str:
    if not status:
        return "none"
    return str(status) if status in HANDSHAKE_STATUSES else "other"


class SessionMetrics:
    """An observer: the latencies of one session, and how it ended."""

    skips_audio = True

    def __init__(
        self, sessions: SessionFamilies, upstream: UpstreamFamilies, settings: SessionObject
    ) -> None:
        self._sessions = sessions
        self._upstream = upstream
        served = settings.served_by if isinstance(settings, RealtimeSession) else UNSET
        self._model = "transcription" if served is UNSET else served.model
        self._begun_at: float | None = None
        self._asked_at: float | None = None  # since when the user has been waiting for audio
        self._generated_at: float | None = None
        self._written_at: float | None = None
        self._recorded_at: float | None = None
        self._connecting_at: float | None = None
        self._lost_at: float | None = None  # since when an answer has been due
        self._interrupted_at: float | None = None  # when the user began to speak
        self._given_up: FaultKind | None = None  # why the upstream server was, just now
        self._ending = ""  # why the session ends, where the code of its close says too little
        self._over = False

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        if self._begun_at is None:
            self._begun_at = now
        if isinstance(fact, Received):
            if isinstance(fact.event, ResponseCreate):
                self._asked_at = now
        elif not isinstance(fact, VadScores):
            self._on_fact(fact, now)
        for effect in effects:
            kind = type(effect)
            if kind is Send or kind is Generate or kind is EndAudio:
                self._on_effect(effect, now)
            elif kind in _RARE:
                self._on_rare_effect(effect, fact, now)

    def _on_fact(self, fact: Fact | None, now: float) -> None:
        match fact:
            case AudioGenerated():  # first, because it is the most frequent
                if self._written_at is not None:
                    self._stage("tts", now - self._written_at)
                    self._written_at = None
                self._heard(now)
            case UpstreamEventReceived():
                self._on_upstream_event(fact, now)
            case UpstreamConnected():
                if self._connecting_at is not None:
                    seconds = now - self._connecting_at
                    self._upstream.connect.labels(self._model).observe(seconds)
                    self._connecting_at = None
            case UpstreamLost() | SpeechFailed() | AccessEnded() | ContentBlocked():
                self._on_fault(fact)
            case TextGenerated():
                if self._generated_at is not None:
                    self._stage("llm", now - self._generated_at)
                    self._generated_at, self._written_at = None, now
            case TranscriptUpdated(final=True):
                if self._recorded_at is not None:
                    self._stage("stt", now - self._recorded_at)
                    self._recorded_at = None

    def _on_upstream_event(self, fact: UpstreamEventReceived, now: float) -> None:
        match fact.event.type:
            case "response.output_audio.delta":
                self._heard(now)
            case "input_audio_buffer.speech_started":
                self._interrupted_at = now
            case "input_audio_buffer.speech_stopped":
                self._asked_at = now
            case "response.done":
                details = fact.event.response.status_details if fact.event.response else None
                reason = details.get("reason") if isinstance(details, dict) else None
                self._end_response(reason == "turn_detected", now)
            case "rate_limits.updated":
                self._note_limits(fact.raw)

    def _on_fault(self, fact: UpstreamLost | SpeechFailed | AccessEnded | ContentBlocked) -> None:
        sessions = self._sessions
        match fact:
            case UpstreamLost(kind=kind, close_code=code, status=status):
                upstream = self._upstream
                if self._connecting_at is not None:
                    upstream.connect_failures.labels(self._model, kind, _status(status)).inc()
                    self._connecting_at = None
                if code:
                    upstream.closes.labels(self._model, _code(code)).inc()
            case SpeechFailed():
                sessions.speech_failures.labels(self._model).inc()
            case AccessEnded(code=code):
                self._ending = self._ending or code
                sessions.access_ended.labels(self._model, code).inc()
            case ContentBlocked(ends=ends):
                self._ending = self._ending or ("content_blocked" if ends else "")
                sessions.blocked.labels(self._model, "end" if ends else "block").inc()

    def _on_effect(self, effect: Effect, now: float) -> None:
        match effect:
            case Send(event=SpeechStarted()):
                self._interrupted_at = now
            case Send(event=SpeechStopped()):
                self._asked_at = now
            case Send(event=ResponseDone(response=response)):
                details = response.status_details
                self._end_response(bool(details and details.reason == "turn_detected"), now)
            case Generate():
                self._generated_at = now
            case EndAudio():
                self._recorded_at = now

    def _on_close(self, effect: Close, fact: Fact | None, now: float) -> None:
        """The code is that of a client that has left, or of this server."""
        if self._over:  # it failed while it closed
            return
        self._over = True
        self._count_failover(NO_MODEL)
        sessions = self._sessions
        code = fact.code if isinstance(fact, Disconnected) else effect.code
        sessions.closes.labels(self._model, _code(code), self._reason(effect, fact)).inc()
        left = isinstance(fact, Disconnected)
        if code == SLOW_CLIENT_CLOSE and left:
            sessions.slow.labels(self._model).inc()
        outcome = _OUTCOMES.get(code, "left" if left else "limit")
        sessions.ended.labels(self._model, outcome).inc()
        if isinstance(fact, AccessEnded) and fact.code == "insufficient_quota":
            sessions.landings.labels(self._model, "silent").inc()
        begun = now if self._begun_at is None else self._begun_at
        sessions.lasted.labels(self._model).observe(now - begun)

    def _reason(self, effect: Close, fact: Fact | None) -> str:
        if not isinstance(fact, Disconnected):
            return _REASONS.get(effect.code) or self._ending or "internal_error"
        if fact.cause != "client":
            return fact.cause
        return _LEAVINGS.get(fact.code, "client_left")

    def _count_failover(self, to: str) -> None:
        """Count the upstream server that was given up just now, if one was."""
        if self._given_up is not None:
            self._upstream.failovers.labels(self._model, to, self._given_up).inc()
            self._given_up = None

    def _end_response(self, interrupted: bool, now: float) -> None:
        if interrupted and self._interrupted_at is not None:
            self._sessions.barge_in.labels(self._model).observe(now - self._interrupted_at)
            self._interrupted_at = None

    def _on_rare_effect(self, effect: Effect, fact: Fact | None, now: float) -> None:
        sessions, upstream = self._sessions, self._upstream
        match effect:
            case Close():
                self._on_close(effect, fact, now)
            case RecordRefusal(event=event, rule=rule):
                sessions.refused.labels(event, rule).inc()
            case Say() if isinstance(fact, AccessEnded) and fact.code == "insufficient_quota":
                sessions.landings.labels(self._model, "spoken").inc()
            case RecordDroppedAudio(frames=frames):
                sessions.dropped.labels("audio").inc(frames)
            case RequestFallback(kind=kind):
                self._given_up = kind
                self._lost_at = now if self._asked_at is not None else None
            case RecordModel(model=model):
                self._count_failover(model)
            case ConnectUpstream():
                if fact is not None:  # in the middle of a session
                    upstream.rollovers.labels(self._model).inc()
                self._connecting_at = now

    def _note_limits(self, raw: bytes) -> None:
        try:
            limits = msgspec.json.decode(raw, type=_RateLimits).rate_limits
        except msgspec.MsgspecError:
            return
        for limit in limits[:MAX_LIMITS]:
            name = limit.name if limit.name in ("tokens", "requests") else "other"
            self._upstream.remaining.labels(self._model, name).set(limit.remaining)

    def _heard(self, now: float) -> None:
        if self._lost_at is not None:
            self._upstream.failover.labels(self._model).observe(now - self._lost_at)
            self._lost_at = None
        if self._asked_at is not None:
            self._sessions.first_audio.labels(self._model).observe(now - self._asked_at)
            self._asked_at = None

    def _stage(self, stage: str, seconds: float) -> None:
        self._sessions.stages.labels(self._model, stage).observe(seconds)
