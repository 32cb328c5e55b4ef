"""OpenTelemetry traces: a span for each session, turn and stage. Needs the extra `otel`.

A turn begins when the user has stopped, or requests a response, and ends with the response. Its
stages are those of a cascade: stt, llm, tts. Names follow the GenAI conventions where they have
one; spans have models and ids of sessions, never keys or users.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from vivavoce.errors import SettingsError
from vivavoce.protocol.client import ResponseCreate
from vivavoce.protocol.server import ResponseDone, SpeechStopped
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.session.effects import (
    Close,
    Effect,
    EndAudio,
    Generate,
    RecordTurn,
    RequestFallback,
    Send,
)
from vivavoce.session.facts import (
    AudioGenerated,
    Fact,
    Received,
    TextGenerated,
    TranscriptUpdated,
    UpstreamEventReceived,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Environment variables of OpenTelemetry: where spans are sent."""


@contextmanager
def tracer(environment: Mapping[str, str]) -> Iterator["Tracer | None"]:
    """Sends spans to the address in the environment; None: there is none. Raises SettingsError."""
    if not any(environment.get(name) for name in ENDPOINTS):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as exc:
        raise SettingsError(
            f"{ENDPOINTS[0]} is set, and traces need an extra; install it with: pip install "
            f"'vivavoce[otel]'"
        ) from exc
    name = environment.get("OTEL_SERVICE_NAME", "vivavoce")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer("vivavoce")
    finally:
        provider.shutdown()


class SessionTrace:
    """An observer: the spans of one session."""

    skips_audio = True

    def __init__(
        self,
        tracer: "Tracer",
        settings: SessionObject,
        _who: str,
        *,
        wall_clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        served = settings.served_by if isinstance(settings, RealtimeSession) else UNSET
        self._tracer = tracer
        self._wall_clock_ns = wall_clock_ns
        self._id = settings.id
        self._model = "transcription" if served is UNSET else served.model
        self._offset_ns = 0  # offset from the loop's time to the wall clock
        self._session: Span | None = None
        self._turn: Span | None = None
        self._stages: dict[str, Span] = {}

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        if self._session is None:
            self._offset_ns = self._wall_clock_ns() - round(now * 1e9)
            self._session = self._start("realtime_session", now, None)
        match fact:
            case Received(event=ResponseCreate()):
                self._begin_turn(now)
            case UpstreamEventReceived(event=event):
                self._on_upstream(event.type, now)
            case TranscriptUpdated(final=True):
                self._end_stage("stt", now)
            case TextGenerated() if "llm" in self._stages:
                self._end_stage("llm", now)
                self._begin_stage("tts", now)
            case AudioGenerated():
                self._end_stage("tts", now)
        for effect in effects:
            self._on_effect(effect, now)

    def _on_upstream(self, kind: str, now: float) -> None:
        if kind == "input_audio_buffer.speech_stopped":
            self._begin_turn(now)
        elif kind == "response.output_audio.delta" and self._turn is not None:
            self._turn.add_event("first_audio", timestamp=self._ns(now))
        elif kind == "response.done":
            self._end_turn(now)

    def _on_effect(self, effect: Effect, now: float) -> None:
        match effect:
            case Send(event=SpeechStopped()):
                self._begin_turn(now)
            case RecordTurn(decision=decision) if self._turn is not None:
                for name, value in msgspec.to_builtins(decision).items():
                    self._turn.set_attribute(f"vivavoce.turn.{name}", value)
            case Send(event=ResponseDone()):
                self._end_turn(now)
            case EndAudio():
                self._begin_stage("stt", now)
            case Generate():
                self._begin_stage("llm", now)
            case RequestFallback(reason=reason) if self._session is not None:
                attributes = {"reason": reason}
                self._session.add_event("failover", attributes, self._ns(now))
            case Close(code=code):
                self._end(code, now)

    def _begin_turn(self, now: float) -> None:
        if self._turn is None:
            self._turn = self._start("user_turn", now, self._session)

    def _end_turn(self, now: float) -> None:
        for stage in tuple(self._stages):
            self._end_stage(stage, now)
        if self._turn is not None:
            self._turn.end(self._ns(now))
            self._turn = None

    def _begin_stage(self, stage: str, now: float) -> None:
        self._end_stage(stage, now)
        self._stages[stage] = self._start(stage, now, self._turn or self._session)

    def _end_stage(self, stage: str, now: float) -> None:
        if span := self._stages.pop(stage, None):
            span.end(self._ns(now))

    def _end(self, code: int, now: float) -> None:
        self._end_turn(now)
        if self._session is not None:
            self._session.set_attribute("close_code", code)
            self._session.end(self._ns(now))

    def _start(self, name: str, now: float, parent: "Span | None") -> "Span":
        from opentelemetry.trace import set_span_in_context

        attributes = {"gen_ai.request.model": self._model, "vivavoce.session.id": self._id}
        context = None if parent is None else set_span_in_context(parent)
        return self._tracer.start_span(
            name, context, attributes=attributes, start_time=self._ns(now)
        )

    def _ns(self, now: float) -> int:
        return round(now * 1e9) + self._offset_ns
