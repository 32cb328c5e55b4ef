"""Prometheus metrics: sessions, latency by stage, tokens, money, refusals, event-loop lag.

Labels have few values: models, modes, stages, codes. Never a user, a key or a session.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Self

import msgspec
from msgspec import UNSET
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vivavoce.limits.prices import NANO, Quantities
from vivavoce.protocol.client import ResponseCreate
from vivavoce.protocol.server import SpeechStopped
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.session.effects import (
    Close,
    ConnectUpstream,
    Effect,
    EndAudio,
    Generate,
    RequestFallback,
    Send,
)
from vivavoce.session.facts import (
    AccessEnded,
    AudioGenerated,
    ContentBlocked,
    Fact,
    Received,
    SpeechFailed,
    TextGenerated,
    TranscriptUpdated,
    UpstreamConnected,
    UpstreamEventReceived,
    UpstreamLost,
    VadScores,
)
from vivavoce.store.base import UsageRow

LAG_INTERVAL_S = 0.5
MAX_LIMITS = 8
_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_LASTED = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class _Families:
    """Makes metrics in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"vivavoce_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"vivavoce_{name}", text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"vivavoce_{name}", text, labels, buckets=buckets, registry=self._registry)


class SessionFamilies:
    """What is measured of sessions."""

    def __init__(self, make: _Families) -> None:
        self.active = make.gauge("sessions_active", "Sessions now")
        self.refusals = make.counter(
            "sessions_refused", "Sessions for which there was no room", "reason"
        )
        self.closes = make.counter("client_closes", "Sessions that ended", "model", "code")
        self.lasted = make.histogram("session_seconds", "Length of sessions", _LASTED, "model")
        self.first_audio = make.histogram(
            "first_audio_seconds", "End of speech to first audio", _SECONDS, "model"
        )
        self.stages = make.histogram(
            "stage_seconds", "Time of one stage", _SECONDS, "model", "stage"
        )
        self.access_ended = make.counter(
            "access_ended", "Sessions whose budget, key or store ended them", "model", "reason"
        )
        self.blocked = make.counter(
            "content_blocked", "Texts that moderation did not allow", "model", "action"
        )
        self.speech_failures = make.counter(
            "speech_failures", "Answers that went on without sound", "model"
        )


class UpstreamFamilies:
    """What is measured of upstream servers."""

    def __init__(self, make: _Families) -> None:
        self.failovers = make.counter(
            "failovers", "Upstream servers that were given up", "model", "reason"
        )
        self.failover = make.histogram(
            "failover_seconds", "Loss of the upstream server to the next audio", _SECONDS, "model"
        )
        self.connect = make.histogram(
            "upstream_connect_seconds", "Time to a session upstream", _SECONDS, "model"
        )
        self.connect_failures = make.counter(
            "upstream_connect_failures", "Sessions upstream that did not begin", "model"
        )
        self.rollovers = make.counter(
            "rollovers", "Upstream sessions replaced before they expired", "model"
        )
        self.remaining = make.gauge(
            "upstream_remaining", "Tokens or requests left by rate limits", "model", "limit"
        )
        self.available = make.gauge(
            "upstream_available", "0: the server is left alone for a while", "model"
        )


class UsageFamilies:
    """What is counted of usage and money."""

    def __init__(self, make: _Families) -> None:
        self.tokens = make.counter(
            "tokens", "Tokens that were booked", "model", "modality", "direction", "cached"
        )
        self.transcribed = make.counter("transcription_seconds", "Audio transcribed", "model")
        self.characters = make.counter("characters", "Characters spoken", "model")
        self.cost = make.counter("cost_usd", "Money that was booked", "model", "kind")
        self.unconfirmed = make.counter("cost_unconfirmed_usd", "Booked without usage", "model")
        self.rating_errors = make.counter("rating_errors", "Rows that are estimates", "model")
        self.refusals = make.counter("budget_refusals", "Budgets without room", "scope", "unit")
        self.reservations = make.gauge("reservations_open", "Reservations of this process")


class Metrics:
    """All metrics of a process: an async context manager, which measures the event loop's lag."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = _Families(self.registry)
        self.sessions = SessionFamilies(make)
        self.upstream = UpstreamFamilies(make)
        self.usage = UsageFamilies(make)
        self.lag = make.histogram("event_loop_lag_seconds", "How late timers fire", _LAG)
        self._measuring: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._measuring = asyncio.create_task(self._measure_lag())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait((self._measuring,))

    def count_sessions(self, count: Callable[[], int]) -> None:
        """Where the number of sessions comes from."""
        self.sessions.active.set_function(lambda: float(count()))

    def on_session_refused(self, reason: str) -> None:
        """Count a session that was refused: draining, full, overloaded."""
        self.sessions.refusals.labels(reason).inc()

    def count_reservations(self, count: Callable[[], int]) -> None:
        """Where the number of open reservations comes from."""
        self.usage.reservations.set_function(lambda: float(count()))

    def watch_upstreams(self, held_s: Mapping[str, Callable[[], float]]) -> None:
        """held_s: by model, for how many seconds its upstream server is not asked."""
        self.upstream.available.clear()
        for model, seconds in held_s.items():
            available = self.upstream.available.labels(model)
            available.set_function(partial(_available, seconds))

    def session(self, settings: SessionObject, _who: str) -> "SessionMetrics":
        """The observer of a session."""
        return SessionMetrics(self, settings)

    def on_row(self, row: UsageRow) -> None:
        """Count a row that was booked."""
        used = msgspec.convert(row.used, Quantities)
        for modality in ("text", "audio", "image"):
            cached: int = getattr(used, f"{modality}_cached")
            fresh: int = getattr(used, f"{modality}_input") - cached
            made: int = getattr(used, f"{modality}_output", 0)
            for direction, is_cached, count in (
                ("input", "no", fresh),
                ("input", "yes", cached),
                ("output", "no", made),
            ):
                if count > 0:
                    self.usage.tokens.labels(row.model, modality, direction, is_cached).inc(count)
        self.usage.transcribed.labels(row.model).inc(used.audio_ms / 1000)
        self.usage.characters.labels(row.model).inc(used.characters)
        self.usage.cost.labels(row.model, row.kind).inc(row.nano_usd / NANO)
        if not row.confirmed:
            self.usage.unconfirmed.labels(row.model).inc(row.nano_usd / NANO)
        if row.estimated:
            self.usage.rating_errors.labels(row.model).inc()

    def on_refusal(self, budget: str) -> None:
        """Count a budget that has refused: key:ada:usd:day, sessions:ada."""
        parts = budget.split(":")
        unit = parts[-2] if len(parts) > 2 else parts[0]
        self.usage.refusals.labels(parts[0], unit).inc()

    def text(self) -> bytes:
        """In the Prometheus text format."""
        return generate_latest(self.registry)

    async def _measure_lag(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self.lag.observe(max(0.0, clock() - due))


class _RateLimit(msgspec.Struct):
    name: str
    remaining: float


class _RateLimits(msgspec.Struct):
    """Of a rate_limits.updated event."""

    rate_limits: list[_RateLimit]


class SessionMetrics:
    """An observer: the latencies of one session, and how it ended."""

    def __init__(self, metrics: Metrics, settings: SessionObject) -> None:
        self._metrics = metrics
        served = settings.served_by if isinstance(settings, RealtimeSession) else UNSET
        self._model = "transcription" if served is UNSET else served.model
        self._begun_at: float | None = None
        self._asked_at: float | None = None  # the user waits for sound since then
        self._generated_at: float | None = None
        self._written_at: float | None = None
        self._recorded_at: float | None = None
        self._connecting_at: float | None = None
        self._lost_at: float | None = None  # an answer was owed then

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
            if kind is Send or kind is Close or kind is Generate or kind is EndAudio:
                self._on_effect(effect, now)
            elif kind is RequestFallback or kind is ConnectUpstream:
                self._on_upstream(effect, fact, now)

    def _on_fact(self, fact: Fact | None, now: float) -> None:
        match fact:
            case AudioGenerated():  # first: it comes most often
                if self._written_at is not None:
                    self._stage("tts", now - self._written_at)
                    self._written_at = None
                self._heard(now)
            case UpstreamEventReceived(event=event):
                if event.type == "response.output_audio.delta":
                    self._heard(now)
                elif event.type == "input_audio_buffer.speech_stopped":
                    self._asked_at = now
                elif event.type == "rate_limits.updated":
                    self._note_limits(fact.raw)
            case UpstreamConnected():
                if self._connecting_at is not None:
                    seconds = now - self._connecting_at
                    self._metrics.upstream.connect.labels(self._model).observe(seconds)
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

    def _on_fault(self, fact: UpstreamLost | SpeechFailed | AccessEnded | ContentBlocked) -> None:
        sessions = self._metrics.sessions
        match fact:
            case UpstreamLost():
                if self._connecting_at is not None:
                    self._metrics.upstream.connect_failures.labels(self._model).inc()
                    self._connecting_at = None
            case SpeechFailed():
                sessions.speech_failures.labels(self._model).inc()
            case AccessEnded(code=code):
                sessions.access_ended.labels(self._model, code).inc()
            case ContentBlocked(ends=ends):
                sessions.blocked.labels(self._model, "end" if ends else "block").inc()

    def _on_effect(self, effect: Effect, now: float) -> None:
        match effect:
            case Send(event=SpeechStopped()):
                self._asked_at = now
            case Generate():
                self._generated_at = now
            case EndAudio():
                self._recorded_at = now
            case Close(code=code):
                self._metrics.sessions.closes.labels(self._model, str(code)).inc()
                begun = now if self._begun_at is None else self._begun_at
                self._metrics.sessions.lasted.labels(self._model).observe(now - begun)

    def _on_upstream(self, effect: Effect, fact: Fact | None, now: float) -> None:
        upstream = self._metrics.upstream
        match effect:
            case RequestFallback(reason=reason):
                upstream.failovers.labels(self._model, reason).inc()
                self._lost_at = now if self._asked_at is not None else None
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
            self._metrics.upstream.remaining.labels(self._model, name).set(limit.remaining)

    def _heard(self, now: float) -> None:
        if self._lost_at is not None:
            self._metrics.upstream.failover.labels(self._model).observe(now - self._lost_at)
            self._lost_at = None
        if self._asked_at is not None:
            self._metrics.sessions.first_audio.labels(self._model).observe(now - self._asked_at)
            self._asked_at = None

    def _stage(self, stage: str, seconds: float) -> None:
        self._metrics.sessions.stages.labels(self._model, stage).observe(seconds)


def _available(held_s: Callable[[], float]) -> float:
    return float(not held_s())
