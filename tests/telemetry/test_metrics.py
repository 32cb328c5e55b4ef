"""Metrics of sessions and of usage."""

import asyncio
import re
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from tests.runtime.cluster_stage import MemoryCluster, a_node
from tests.runtime.stage import RecordingPeer, ScriptedEngines, make_context
from tests.session.stage import settings
from vivavoce.limits.prices import PriceTable
from vivavoce.protocol.client import InputAudioAppend, ResponseCreate
from vivavoce.protocol.responses import (
    Response,
    ResponseAudio,
    ResponseAudioOutput,
    StatusDetails,
)
from vivavoce.protocol.server import ResponseDone, SpeechStarted, SpeechStopped
from vivavoce.protocol.session import PCM, ServedBy
from vivavoce.protocol.upstream import UpstreamEvent, UpstreamResponse
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.load import SAMPLE_S, LoadProbe
from vivavoce.runtime.sessions import Sessions
from vivavoce.runtime.upstream import Relay
from vivavoce.session.effects import (
    Close,
    ConnectUpstream,
    EndAudio,
    Generate,
    Prompt,
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
from vivavoce.store.base import StoreSettings, UsageRow
from vivavoce.store.buffered import BufferedAccounts
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.telemetry.metering import Metering
from vivavoce.telemetry.metrics import MAX_MODELS, Metrics
from vivavoce.telemetry.session_metrics import SessionMetrics
from vivavoce.testing.virtual_time import run

DEPLOY = Path(__file__).parents[2] / "deploy"

KEY = TranscriptionKey("a")
STOPPED = SpeechStopped(event_id="e", audio_end_ms=0, item_id="a")
PROMPT = Prompt("m", "", (), (), "auto", True, None, None, True, "marin", 1.0)


def value(metrics: Metrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"vivavoce_{metric}", labels)


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
    session = observer(metrics)
    session.on(None, [], 5.0)
    session.on(None, [Close(4002, "insufficient_quota")], 65.0)
    session.on(None, [Close(1011, "the server had an error")], 66.0)  # it failed while it closed
    ended = {"model": "m", "code": "4002", "reason": "insufficient_quota"}
    assert value(metrics, "client_closes_total", **ended) == 1
    assert value(metrics, "session_seconds_count", model="m") == 1
    assert value(metrics, "session_seconds_sum", model="m") == 60.0


@pytest.mark.parametrize(
    ("code", "label", "reason", "slow"),
    [
        (1000, "1000", "client_left", None),
        (1006, "1006", "connection_lost", None),
        (1008, "1008", "slow_client", 1),
        (1012, "1012", "client_left", None),
        (4999, "other", "client_left", None),
    ],
)
def test_end_by_the_client_is_counted_with_the_code_of_its_connection(
    code: int, label: str, reason: str, slow: float | None
) -> None:
    metrics = Metrics()
    observer(metrics).on(Disconnected(code), [Close(1000, "the client left")], 0.0)
    ended = {"model": "m", "code": label, "reason": reason}
    assert value(metrics, "client_closes_total", **ended) == 1
    assert value(metrics, "slow_clients_total", model="m") == slow


@pytest.mark.parametrize(
    ("fact", "code", "outcome"),
    [
        (TimerFired(), 1001, "limit"),
        (Disconnected(1006), 1000, "left"),
        (Disconnected(1012), 1000, "shutdown"),
        (TimerFired(), 1011, "failed"),
        (TimerFired(), 1008, "refused"),
        (TimerFired(), 3000, "unauthorized"),
        (TimerFired(), 4002, "budget"),
    ],
)
def test_end_of_a_session_is_counted_by_its_cause(
    fact: TimerFired | Disconnected, code: int, outcome: str
) -> None:
    metrics = Metrics()
    observer(metrics).on(fact, [Close(code, "")], 0.0)
    assert value(metrics, "sessions_total", model="m", outcome=outcome) == 1


@pytest.mark.parametrize(
    ("facts", "code", "reason"),
    [
        ([TimerFired()], 1000, "session_idle"),
        ([TimerFired()], 1001, "session_expired"),
        ([TimerFired()], 1012, "shutdown"),
        ([AccessEnded("invalid_api_key", "Revoked.", 3000)], 3000, "invalid_api_key"),
        ([AccessEnded("store_unavailable", "Away.", 1011)], 1011, "store_unavailable"),
        ([AccessEnded("policy_violation", "No.", 1008)], 1008, "policy_violation"),
        ([ContentBlocked("", "No.", ends=True), TimerFired()], 1008, "content_blocked"),
        ([ContentBlocked("", "No."), None], 1011, "internal_error"),
        ([Disconnected(1000, "operator")], 1000, "operator"),
        ([Disconnected(4001, "taken_over")], 1000, "taken_over"),
        ([Disconnected(1011, "upstream")], 1000, "upstream"),
        ([Disconnected(1012, "shutdown")], 1000, "shutdown"),
    ],
)
def test_close_is_counted_with_its_reason(facts: list[Fact | None], code: int, reason: str) -> None:
    metrics = Metrics()
    session = observer(metrics)
    for fact in facts[:-1]:
        session.on(fact, [], 0.0)
    session.on(facts[-1], [Close(code, "words of this server, or of a client")], 1.0)
    (closes,) = metrics.sessions.closes.collect()
    counted = [each for each in closes.samples if each.name.endswith("_total")]
    assert [each.labels["reason"] for each in counted] == [reason]


def test_budget_that_ends_a_session_is_counted_with_and_without_a_last_sentence() -> None:
    metrics = Metrics()
    spent = AccessEnded("insufficient_quota", "Spent.", 4002)
    revoked = AccessEnded("invalid_api_key", "Revoked.", 3000)
    observer(metrics).on(spent, [Say(Generate("r", PROMPT), "Bye.")], 0.0)
    for fact in (spent, revoked):
        observer(metrics).on(fact, [Close(fact.close_code, fact.code)], 0.0)
    observer(metrics).on(revoked, [Say(Generate("r", PROMPT), "Bye.")], 0.0)
    for kind in ("spoken", "silent"):
        assert value(metrics, "budget_landings_total", model="m", kind=kind) == 1


def test_interruption_is_measured_until_its_answer_has_ended() -> None:
    metrics = Metrics()
    far, near = observer(metrics), observer(metrics)
    cut = {"type": "cancelled", "reason": "turn_detected"}
    for details, at in ((cut, 1.25), ({"reason": "client_cancelled"}, 3.0), ("?", 4.0)):
        started = UpstreamEvent("input_audio_buffer.speech_started")
        far.on(UpstreamEventReceived(started, b""), [], 1.0)
        response = UpstreamResponse(id="r", status="cancelled", status_details=details)
        ended = UpstreamEvent("response.done", response=response)
        far.on(UpstreamEventReceived(ended, b""), [], at)
    near.on(None, [Send(SpeechStarted(event_id="e", audio_start_ms=0, item_id="a"))], 5.0)
    near.on(None, [Send(cancelled("turn_detected"))], 5.5)
    near.on(None, [Send(cancelled("turn_detected"))], 9.0)  # nobody speaks since
    near.on(None, [Send(cancelled("client_cancelled"))], 9.0)
    assert value(metrics, "barge_in_seconds_count", model="m") == 2
    assert value(metrics, "barge_in_seconds_sum", model="m") == 0.75


def cancelled(reason: Literal["turn_detected", "client_cancelled"]) -> ResponseDone:
    audio = ResponseAudio(ResponseAudioOutput(PCM(), "marin"))
    response = Response(
        id="r",
        status="cancelled",
        status_details=StatusDetails(type="cancelled", reason=reason),
        conversation_id=None,
        output_modalities=("audio",),
        max_output_tokens="inf",
        audio=audio,
    )
    return ResponseDone(event_id="e", response=response)


def test_refused_events_and_dropped_audio_are_counted() -> None:
    metrics = Metrics()
    session = observer(metrics)
    session.on(None, [RecordRefusal("response.create", "voices"), RecordDroppedAudio(25)], 0.0)
    labels = {"event": "response.create", "rule": "voices"}
    assert value(metrics, "client_events_blocked_total", **labels) == 1
    assert value(metrics, "frames_dropped_total", kind="audio") == 25


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
    session.on(None, [RequestFallback("Gone at 10.0.0.1.", kind="closed")], 4.0)
    session.on(None, [RecordModel("near")], 4.0)
    session.on(AudioGenerated("r", b""), [], 4.5)
    assert value(metrics, "failover_seconds_sum", model="m") == 0.5
    failover = {"model": "m", "to": "near", "reason": "closed"}
    assert value(metrics, "failovers_total", **failover) == 1
    assert b"10.0.0.1" not in metrics.text()
    session.on(None, [RecordModel("m")], 4.8)  # it answers again
    session.on(None, [RequestFallback("gone", kind="silent")], 5.0)  # nobody waits for sound
    session.on(AudioGenerated("r", b""), [], 9.0)
    assert value(metrics, "failover_seconds_count", model="m") == 1
    session.on(Disconnected(1011, "upstream"), [Close(1000, "the client left")], 9.0)
    failover = {"model": "m", "to": "none", "reason": "silent"}
    assert value(metrics, "failovers_total", **failover) == 1
    (failovers,) = metrics.upstream.failovers.collect()
    assert sum(each.value for each in failovers.samples if each.name.endswith("_total")) == 2


def test_sessions_of_a_server_are_read_with_the_metrics() -> None:
    metrics = Metrics()
    relay = Relay("wss://far.test/v1/realtime", "far-model")

    async def main() -> None:
        sessions = Sessions(make_context(ScriptedEngines()))
        metrics.watch_sessions(sessions)
        peer = RecordingPeer()
        runner = sessions.open(peer, Opening())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sessions.serve(runner))
            await peer.until("session.created")
            append = InputAudioAppend(audio=bytes(4 * 24_000))
            runner.post(Received(append))
            assert value(metrics, "sessions_active") == 1
            assert value(metrics, "audio_seconds_total", direction="input") == 2.0
            assert value(metrics, "audio_seconds_total", direction="output") == 0.0
            for direction in ("input", "output"):
                assert value(metrics, "queue_bytes", direction=direction) is not None
            runner.post(Disconnected())
        assert value(metrics, "sessions_active") == 0
        assert value(metrics, "audio_seconds_total", direction="input") == 2.0
        metrics.watch_upstreams({"far": relay.hold})
        state = {"model": "far", "state": "rate_limited"}
        assert value(metrics, "upstream_available", model="far") == 1
        assert value(metrics, "upstream_key_state", **state) == 0
        relay.hold.set(5.0, "rate_limited")
        assert value(metrics, "upstream_available", model="far") == 0
        assert value(metrics, "upstream_key_state", **state) == 1
        assert value(metrics, "upstream_key_state", model="far", state="available") == 0

    run(main())


def test_frames_and_functions_are_measured() -> None:
    metrics = Metrics()
    metrics.on_forward("input", 0.0001)
    metrics.on_tool("stock", "timeout", 8.0)
    assert value(metrics, "forward_seconds_sum", direction="input") == 0.0001
    assert value(metrics, "tool_calls_total", name="stock", outcome="timeout") == 1
    assert value(metrics, "tool_seconds_sum", name="stock") == 8.0


def test_names_of_models_are_no_more_than_so_many() -> None:
    metrics = Metrics()
    for number in range(MAX_MODELS + 2):
        row = UsageRow(id=f"s:{number}", at=1.0, kind="transcription", model=f"m{number}")
        metrics.on_row(msgspec.structs.replace(row, used={"audio_ms": 1000}))
    assert value(metrics, "transcription_seconds_total", model="m1") == 1
    assert value(metrics, "transcription_seconds_total", model="other") == 2


def test_row_of_usage_is_counted_without_who_it_was() -> None:
    metrics = Metrics()
    used = {"audio_input": 100, "audio_cached": 60, "text_output": 7}
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
        problem="no_rate",
    )
    metrics.on_row(row)
    heard = msgspec.structs.replace(row, id="s:i", kind="transcription", used={"audio_ms": 2500})
    metrics.on_row(heard)
    metrics.on_row(msgspec.structs.replace(heard, nano_usd=0, used={}, problem=""))
    tokens = {"model": "m", "modality": "audio", "direction": "input"}
    assert value(metrics, "tokens_total", cached="no", **tokens) == 40
    assert value(metrics, "tokens_total", cached="yes", **tokens) == 60
    assert value(metrics, "cache_hit_ratio_sum", model="m") == 0.6
    assert value(metrics, "transcription_seconds_total", model="m") == 2.5
    assert value(metrics, "cost_usd_total", model="m", kind="response") == 0.25
    assert value(metrics, "cost_unconfirmed_usd_total", model="m") == 0.5
    assert value(metrics, "rating_errors_total", model="m", reason="no_rate") == 2
    assert value(metrics, "rating_errors_total", model="m", reason="other") == 1
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


def test_cluster_is_measured_where_there_is_one() -> None:
    metrics = Metrics()
    assert b"vivavoce_cluster" not in metrics.text()

    async def main() -> None:
        store = MemoryCluster()
        async with a_node(store, "one") as one, a_node(store, "two"):
            metrics.watch_cluster(one)
            await one.fresh_nodes()
            one.forwarded["gone"] += 2
            assert value(metrics, "cluster_nodes") == 2
            assert value(metrics, "cluster_redis_reached") == 1
            assert value(metrics, "cluster_forwarded_total", result="gone") == 2
            store.cut_off()
            await one.fresh_nodes()
            assert value(metrics, "cluster_redis_reached") == 0

    run(main())


def test_lag_of_the_event_loop_is_taken_from_the_probe_of_the_load() -> None:
    metrics = Metrics()

    async def main() -> None:
        async with LoadProbe(metrics.lag.observe):
            await asyncio.sleep(3.1 * SAMPLE_S)

    run(main())
    assert value(metrics, "event_loop_lag_seconds_count") == 3
    assert value(metrics, "event_loop_lag_seconds_sum") == pytest.approx(0.0, abs=1e-9)


def test_faults_and_refusals_of_a_session_are_counted() -> None:
    metrics = Metrics()
    session = observer(metrics)
    session.on(None, [ConnectUpstream("m")], 0.0)
    for fact in (
        UpstreamLost("refused", "refused", status=401),
        UpstreamLost("late", close_code=1012),  # of a connection that had been made
        SpeechFailed("r", "no voice"),
        AccessEnded("insufficient_quota", "Spent.", 4002),
        ContentBlocked("", "No."),
        ContentBlocked("", "No.", ends=True),
    ):
        session.on(fact, [], 1.0)
    refused = {"model": "m", "reason": "refused", "status": "401"}
    assert value(metrics, "upstream_connect_failures_total", **refused) == 1
    assert value(metrics, "upstream_closes_total", model="m", code="1012") == 1
    assert value(metrics, "speech_failures_total", model="m") == 1
    assert value(metrics, "access_ended_total", model="m", reason="insufficient_quota") == 1
    for action in ("block", "end"):
        assert value(metrics, "content_blocked_total", model="m", action=action) == 1


@pytest.mark.parametrize(("status", "label"), [(0, "none"), (503, "503"), (599, "other")])
def test_session_upstream_that_does_not_begin_is_counted_with_its_status(
    status: int, label: str
) -> None:
    metrics = Metrics()
    session = observer(metrics)
    session.on(None, [ConnectUpstream("m")], 0.0)
    session.on(UpstreamLost("away", "overloaded", status=status), [], 1.0)
    failure = {"model": "m", "reason": "overloaded", "status": label}
    assert value(metrics, "upstream_connect_failures_total", **failure) == 1


def test_dashboard_and_alerts_name_only_metrics_that_exist() -> None:
    metrics = Metrics()

    async def main() -> None:
        metrics.watch_sessions(Sessions(make_context(ScriptedEngines())))
        accounts = BufferedAccounts(SQLiteStore(":memory:"), StoreSettings())
        metrics.watch_accounts(Metering(accounts, PriceTable([]), {}))

    run(main())
    known = {family.name for family in metrics.registry.collect()}
    files = ("alerts.yml", "grafana.json", "kubernetes.yaml")
    for file in (DEPLOY / name for name in files):
        named = set(re.findall(r"\bvivavoce_\w+", file.read_text("utf-8")))
        plain = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in named}
        assert plain, file
        assert plain <= known, file
    dashboard = msgspec.json.decode((DEPLOY / "grafana.json").read_bytes())
    assert dashboard["panels"][0]["title"] == "Sessions now"
