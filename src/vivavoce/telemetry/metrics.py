"""Prometheus metrics: sessions, latency by stage, tokens, money, refusals, event-loop lag.

Labels have few values: models, modes, stages, codes. Never a user, a key or a session.
"""

import asyncio
from collections.abc import Callable
from typing import Self

import msgspec
from msgspec import UNSET
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vivavoce.limits.prices import NANO, Quantities
from vivavoce.protocol.client import ResponseCreate
from vivavoce.protocol.server import SpeechStopped
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.session.effects import Close, Effect, EndAudio, Generate, RequestFallback, Send
from vivavoce.session.facts import (
    AudioGenerated,
    Fact,
    Received,
    TextGenerated,
    TranscriptUpdated,
    UpstreamEventReceived,
)
from vivavoce.store.base import UsageRow

LAG_INTERVAL_S = 0.5
_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_LASTED = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """All metrics of a process: an async context manager, which measures the event loop's lag."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"vivavoce_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"vivavoce_{name}", text, labels, buckets=buckets, registry=registry)

        self.active = Gauge("vivavoce_sessions_active", "Sessions now", registry=registry)
        self.closes = counter("client_closes", "Sessions that ended", "model", "code")
        self.lasted = histogram("session_seconds", "Length of sessions", _LASTED, "model")
        self.first_audio = histogram(
            "first_audio_seconds", "End of speech to first audio", _SECONDS, "model"
        )
        self.stages = histogram("stage_seconds", "Time of one stage", _SECONDS, "model", "stage")
        self.failovers = counter("failovers", "Upstream servers that were given up", "model")
        self.tokens = counter(
            "tokens", "Tokens that were booked", "model", "modality", "direction", "cached"
        )
        self.transcribed = counter("transcription_seconds", "Audio transcribed", "model")
        self.characters = counter("characters", "Characters spoken", "model")
        self.cost = counter("cost_usd", "Money that was booked", "model", "kind")
        self.unconfirmed = counter("cost_unconfirmed_usd", "Booked without usage", "model")
        self.rating_errors = counter("rating_errors", "Rows that are estimates", "model")
        self.refusals = counter("budget_refusals", "Budgets without room", "scope", "unit")
        self.lag = histogram("event_loop_lag_seconds", "How late timers fire", _LAG)
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
        self.active.set_function(lambda: float(count()))

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
                    self.tokens.labels(row.model, modality, direction, is_cached).inc(count)
        self.transcribed.labels(row.model).inc(used.audio_ms / 1000)
        self.characters.labels(row.model).inc(used.characters)
        self.cost.labels(row.model, row.kind).inc(row.nano_usd / NANO)
        if not row.confirmed:
            self.unconfirmed.labels(row.model).inc(row.nano_usd / NANO)
        if row.estimated:
            self.rating_errors.labels(row.model).inc()

    def on_refusal(self, budget: str) -> None:
        """Count a budget that has refused: key:ada:usd:day, sessions:ada."""
        parts = budget.split(":")
        unit = parts[-2] if len(parts) > 2 else parts[0]
        self.refusals.labels(parts[0], unit).inc()

    def text(self) -> bytes:
        """In the Prometheus text format."""
        return generate_latest(self.registry)

    async def _measure_lag(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self.lag.observe(max(0.0, clock() - due))


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

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        if self._begun_at is None:
            self._begun_at = now
        self._on_fact(fact, now)
        for effect in effects:
            kind = type(effect)
            if kind is Send or kind is Close or kind is Generate or kind is EndAudio:
                self._on_effect(effect, now)
            elif kind is RequestFallback:
                self._metrics.failovers.labels(self._model).inc()

    def _on_fact(self, fact: Fact | None, now: float) -> None:
        match fact:
            case UpstreamEventReceived(event=event):
                if event.type == "response.output_audio.delta":
                    self._heard(now)
                elif event.type == "input_audio_buffer.speech_stopped":
                    self._asked_at = now
            case AudioGenerated():
                if self._written_at is not None:
                    self._stage("tts", now - self._written_at)
                    self._written_at = None
                self._heard(now)
            case TextGenerated():
                if self._generated_at is not None:
                    self._stage("llm", now - self._generated_at)
                    self._generated_at, self._written_at = None, now
            case TranscriptUpdated(final=True):
                if self._recorded_at is not None:
                    self._stage("stt", now - self._recorded_at)
                    self._recorded_at = None
            case Received(event=ResponseCreate()):
                self._asked_at = now

    def _on_effect(self, effect: Effect, now: float) -> None:
        match effect:
            case Send(event=SpeechStopped()):
                self._asked_at = now
            case Generate():
                self._generated_at = now
            case EndAudio():
                self._recorded_at = now
            case Close(code=code):
                self._metrics.closes.labels(self._model, str(code)).inc()
                begun = now if self._begun_at is None else self._begun_at
                self._metrics.lasted.labels(self._model).observe(now - begun)

    def _heard(self, now: float) -> None:
        if self._asked_at is not None:
            self._metrics.first_audio.labels(self._model).observe(now - self._asked_at)
            self._asked_at = None

    def _stage(self, stage: str, seconds: float) -> None:
        self._metrics.stages.labels(self._model, stage).observe(seconds)
