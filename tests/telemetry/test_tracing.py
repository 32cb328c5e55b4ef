"""Spans of sessions, turns and stages."""

from typing import Any

import pytest

from tests.session.stage import settings
from vivavoce.errors import SettingsError
from vivavoce.protocol.client import ResponseCreate
from vivavoce.protocol.responses import Response, ResponseAudio, ResponseAudioOutput
from vivavoce.protocol.server import ResponseDone, SpeechStopped, TurnDecision
from vivavoce.protocol.session import PCM, ServedBy
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.effects import (
    Close,
    EndAudio,
    Generate,
    Prompt,
    RecordTurn,
    RequestFallback,
    Send,
)
from vivavoce.session.facts import (
    AudioGenerated,
    Received,
    TextGenerated,
    TranscriptionKey,
    TranscriptUpdated,
    UpstreamEventReceived,
)
from vivavoce.telemetry import tracing
from vivavoce.telemetry.tracing import SessionTrace, tracer

sdk: Any = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is missing")
export: Any = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
KEY = TranscriptionKey("a")
PROMPT = Prompt("m", "", (), (), "auto", True, None, None, True, "marin", 1.0)
DONE = ResponseDone(
    event_id="e",
    response=Response(
        id="r",
        status="completed",
        conversation_id="c",
        output_modalities=("audio",),
        max_output_tokens="inf",
        audio=ResponseAudio(ResponseAudioOutput(PCM(), "marin")),
    ),
)


class Traced:
    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        self._kept = export.InMemorySpanExporter()
        provider = sdk.TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.session = SessionTrace(
            provider.get_tracer("t"),
            settings(served_by=ServedBy("m", "marin")),
            "laptop",
            wall_clock_ns=lambda: 1_000_000_000_000,
        )

    def spans(self) -> dict[str, tuple[float, float, str | None]]:
        """By name: when it began, how long it lasted, and in which span it is."""
        spans = self._kept.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans}
        assert "laptop" not in "".join(span.to_json() for span in spans)
        return {
            span.name: (
                span.start_time / 1e9 - 1000,
                (span.end_time - span.start_time) / 1e9,
                names.get(span.parent.span_id) if span.parent else None,
            )
            for span in spans
        }


def test_turn_says_why_it_was_ended() -> None:
    traced = Traced()
    session = traced.session
    session.on(None, [], 10.0)
    stopped = SpeechStopped(event_id="e", audio_end_ms=0, item_id="a")
    decision = TurnDecision(waited_ms=620, reason="sentence incomplete", likelihood=0.3)
    session.on(None, [Send(stopped), RecordTurn("a", decision)], 11.0)
    session.on(None, [Send(DONE), Close(1000, "")], 13.0)
    (span,) = [s for s in traced._kept.get_finished_spans() if s.name == "user_turn"]
    assert span.attributes["vivavoce.turn.waited_ms"] == 620
    assert span.attributes["vivavoce.turn.reason"] == "sentence incomplete"
    assert span.attributes["vivavoce.turn.likelihood"] == 0.3


def test_turn_of_a_cascade_has_its_stages() -> None:
    traced = Traced()
    session = traced.session
    session.on(None, [], 10.0)
    stopped = SpeechStopped(event_id="e", audio_end_ms=0, item_id="a")
    session.on(None, [Send(stopped), EndAudio(KEY)], 11.0)
    session.on(TranscriptUpdated(KEY, "hi", 2, True), [Generate("r", PROMPT)], 11.25)
    session.on(TextGenerated("r", "hello"), [], 11.75)
    session.on(AudioGenerated("r", b""), [], 12.0)
    session.on(None, [Send(DONE)], 13.0)
    session.on(None, [Close(1000, "left")], 14.0)
    assert traced.spans() == {
        "realtime_session": (0.0, 4.0, None),
        "user_turn": (1.0, 2.0, "realtime_session"),
        "stt": (1.0, 0.25, "user_turn"),
        "llm": (1.25, 0.5, "user_turn"),
        "tts": (1.75, 0.25, "user_turn"),
    }


def test_turn_of_a_relay_ends_with_its_response_or_with_the_session() -> None:
    traced = Traced()
    session = traced.session

    def say(kind: str, now: float) -> None:
        session.on(UpstreamEventReceived(UpstreamEvent(kind), b""), [], now)

    say("session.created", 0.0)
    session.on(Received(ResponseCreate()), [], 1.0)
    say("response.output_audio.delta", 1.5)
    say("response.done", 2.0)
    say("input_audio_buffer.speech_stopped", 3.0)
    session.on(None, [RequestFallback("gone"), Close(1011, "gone")], 3.5)
    assert traced.spans()["realtime_session"] == (0.0, 3.5, None)
    assert traced.spans()["user_turn"] == (3.0, 0.5, "realtime_session")


def test_tracer_is_made_only_where_the_environment_names_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tracer({}) as made:
        assert made is None
    address = {tracing.ENDPOINTS[0]: "http://127.0.0.1:9"}
    with tracer(address) as made:
        assert made is not None
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"vivavoce\[otel\]"), tracer(address):
        pass
