"""Metrics of sessions and of usage."""

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from tests.session.stage import settings
from vivavoce.protocol.client import ResponseCreate
from vivavoce.protocol.server import SpeechStopped
from vivavoce.protocol.session import ServedBy
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.effects import (
    Close,
    ConnectUpstream,
    EndAudio,
    Generate,
    Prompt,
    RequestFallback,
    Send,
)
from vivavoce.session.facts import (
    AccessEnded,
    AudioGenerated,
    ContentBlocked,
    Received,
    SpeechFailed,
    TextGenerated,
    TimerFired,
    TranscriptionKey,
    TranscriptUpdated,
    UpstreamConnected,
    UpstreamEventReceived,
    UpstreamLost,
)
from vivavoce.store.base import UsageRow
from vivavoce.telemetry.metrics import LAG_INTERVAL_S, Metrics, SessionMetrics
from vivavoce.testing.virtual_time import run

DEPLOY = Path(__file__).parents[2] / "deploy"

KEY = TranscriptionKey("a")
STOPPED = SpeechStopped(event_id="e", audio_end_ms=0, item_id="a")
PROMPT = Prompt("m", "", (), (), "auto", True, None, None, True, "marin", 1.0)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"vivavoce_{name}", labels)


def observer(metrics: Metrics) -> SessionMetrics:
    return metrics.session(settings(served_by=ServedBy("m", "marin")), "ada")


def test_latencies_of_a_cascade_are_measured_by_stage() -> None:
    metrics = Metrics()
    session = observer(metrics)
    session.on(None, [], 0.0)
    session.on(None, [Send(STOPPED), EndAudio(KEY)], 10.0)
    session.on(TranscriptUpdated(KEY, "hi", 2, True), [Generate("r", PROMPT)], 10.25)
    session.on(TextGenerated("r", "hello"), [], 10.75)
    session.on(TextGenerated("r", "you"), [], 10.8)
    session.on(AudioGenerated("r", b""), [], 11.0)
    session.on(AudioGenerated("r", b""), [], 12.0)
    for stage, seconds in (("stt", 0.25), ("llm", 0.5), ("tts", 0.25)):
        assert value(metrics, "stage_seconds_sum", model="m", stage=stage) == seconds
        assert value(metrics, "stage_seconds_count", model="m", stage=stage) == 1
    assert value(metrics, "first_audio_seconds_sum", model="m") == 1.0
    assert value(metrics, "first_audio_seconds_count", model="m") == 1


def test_first_audio_of_a_relay_is_measured() -> None:
    metrics = Metrics()
    session = observer(metrics)
    delta = UpstreamEventReceived(UpstreamEvent("response.output_audio.delta"), b"")
    session.on(
        UpstreamEventReceived(UpstreamEvent("input_audio_buffer.speech_stopped"), b""), [], 1
    )
    session.on(delta, [], 1.5)
    session.on(Received(ResponseCreate()), [], 3.0)
    session.on(delta, [], 3.25)
    assert value(metrics, "first_audio_seconds_sum", model="m") == 0.75


def test_end_of_a_session_is_counted_with_its_code_and_length() -> None:
    metrics = Metrics()
    metrics.count_sessions(lambda: 3)
    session = observer(metrics)
    session.on(None, [], 5.0)
    session.on(None, [RequestFallback("gone"), Close(4002, "insufficient_quota")], 65.0)
    assert value(metrics, "client_closes_total", model="m", code="4002") == 1
    assert value(metrics, "session_seconds_sum", model="m") == 60.0
    assert value(metrics, "failovers_total", model="m", reason="gone") == 1
    assert value(metrics, "sessions_active") == 3


def test_upstream_server_is_measured_while_it_answers_and_when_it_is_lost() -> None:
    metrics = Metrics()
    session = observer(metrics)
    session.on(None, [ConnectUpstream("m")], 0.0)
    session.on(UpstreamConnected(), [], 0.25)
    assert value(metrics, "upstream_connect_seconds_sum", model="m") == 0.25
    limits = b'{"rate_limits":[{"name":"tokens","remaining":5},{"name":"x","remaining":7}]}'
    for raw in (limits, b'{"rate_limits":5}'):
        session.on(UpstreamEventReceived(UpstreamEvent("rate_limits.updated"), raw), [], 1.0)
    assert value(metrics, "upstream_remaining", model="m", limit="tokens") == 5
    assert value(metrics, "upstream_remaining", model="m", limit="other") == 7
    session.on(TimerFired(), [ConnectUpstream("m")], 2.0)
    assert value(metrics, "rollovers_total", model="m") == 1
    session.on(Received(ResponseCreate()), [], 3.0)
    session.on(None, [RequestFallback("gone")], 4.0)
    session.on(AudioGenerated("r", b""), [], 4.5)
    assert value(metrics, "failover_seconds_sum", model="m") == 0.5
    session.on(None, [RequestFallback("gone")], 5.0)  # at rest: nobody waits for sound
    session.on(AudioGenerated("r", b""), [], 9.0)
    assert value(metrics, "failover_seconds_count", model="m") == 1
    held = [0.0, 5.0]
    metrics.watch_upstreams({"m": lambda: held[-1]})
    metrics.count_reservations(lambda: 3)
    assert value(metrics, "upstream_available", model="m") == 0
    held.pop()
    assert value(metrics, "upstream_available", model="m") == 1
    assert value(metrics, "reservations_open") == 3


def test_row_of_usage_is_counted_without_who_it_was() -> None:
    metrics = Metrics()
    used = {"audio_input": 100, "audio_cached": 60, "text_output": 7, "audio_ms": 2500}
    row = UsageRow(
        id="s:r",
        at=1.0,
        kind="response",
        model="m",
        key="ada-laptop",
        used=used,
        nano_usd=250_000_000,
        confirmed=False,
        estimated=True,
    )
    metrics.on_row(row)
    tokens = {"model": "m", "modality": "audio", "direction": "input"}
    assert value(metrics, "tokens_total", cached="no", **tokens) == 40
    assert value(metrics, "tokens_total", cached="yes", **tokens) == 60
    assert value(metrics, "transcription_seconds_total", model="m") == 2.5
    assert value(metrics, "cost_usd_total", model="m", kind="response") == 0.25
    assert value(metrics, "cost_unconfirmed_usd_total", model="m") == 0.25
    assert value(metrics, "rating_errors_total", model="m") == 1
    assert b"ada-laptop" not in metrics.text()


@pytest.mark.parametrize(
    ("budget", "scope", "unit"),
    [
        ("key:ada:usd:day", "key", "usd"),
        ("all:tokens:total", "all", "tokens"),
        ("sessions:ada", "sessions", "sessions"),
    ],
)
def test_refusal_is_counted_without_its_owner(budget: str, scope: str, unit: str) -> None:
    metrics = Metrics()
    metrics.on_refusal(budget)
    assert value(metrics, "budget_refusals_total", scope=scope, unit=unit) == 1
    assert b"ada" not in metrics.text()


def test_lag_of_the_event_loop_is_measured_while_it_is_entered() -> None:
    metrics = Metrics()

    async def main() -> None:
        async with metrics:
            await asyncio.sleep(3.1 * LAG_INTERVAL_S)

    run(main())
    assert value(metrics, "event_loop_lag_seconds_count") == 3
    assert value(metrics, "event_loop_lag_seconds_sum") == pytest.approx(0.0, abs=1e-9)


def test_faults_and_refusals_of_a_session_are_counted() -> None:
    metrics = Metrics()
    session = observer(metrics)
    session.on(None, [ConnectUpstream("m")], 0.0)
    for fact in (
        UpstreamLost("refused"),
        UpstreamLost("late"),  # of a connection that had been made
        SpeechFailed("r", "no voice"),
        AccessEnded("insufficient_quota", "Spent.", 4002),
        ContentBlocked("", "No."),
        ContentBlocked("", "No.", ends=True),
    ):
        session.on(fact, [], 1.0)
    assert value(metrics, "upstream_connect_failures_total", model="m") == 1
    assert value(metrics, "speech_failures_total", model="m") == 1
    assert value(metrics, "access_ended_total", model="m", reason="insufficient_quota") == 1
    for action in ("block", "end"):
        assert value(metrics, "content_blocked_total", model="m", action=action) == 1


def test_dashboard_and_alerts_name_only_metrics_that_exist() -> None:
    known = {family.name for family in Metrics().registry.collect()}
    for file in sorted(DEPLOY.iterdir()):
        named = set(re.findall(r"\bvivavoce_\w+", file.read_text("utf-8")))
        plain = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in named}
        assert plain, file
        assert plain <= known, file
    dashboard = msgspec.json.decode((DEPLOY / "grafana.json").read_bytes())
    assert dashboard["panels"][0]["title"] == "Sessions now"
