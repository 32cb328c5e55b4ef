"""The relay brain when its upstream server fails, falls silent, or ends its session."""

from typing import Any

import msgspec
import pytest

from tests.session.relay_stage import HELLO, Relay, raw_types, sent_upstream
from tests.session.stage import of, the, types
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.session.effects import (
    ConnectUpstream,
    DisconnectUpstream,
    HoldUpstream,
    RequestFallback,
    SendRaw,
    SendUpstream,
)
from vivavoce.session.facts import AudioArrived, TimerFired, UpstreamConnected, UpstreamLost
from vivavoce.session.limits import SessionLimits
from vivavoce.session.relay.faults import fault_of, fault_of_status, masked, wait_in

SERVER_ERROR = {"type": "server_error"}


def failed(relay: Relay, error: Any) -> list[Any]:
    details = {"type": "failed", "error": error}
    response = {"id": "r", "status": "failed", "status_details": details}
    return relay.say("response.done", response=response)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 6.1s.", 6.1),
        ("Please try again in 1m2s", 62.0),
        ("try again in 250ms", 0.25),
        ("Try again in 2h", 7200.0),
        ("try again in a while", None),
        ("try again in 1.2.3s", None),
        ("", None),
    ],
)
def test_wait_is_read_from_the_text(text: str, seconds: float | None) -> None:
    assert wait_in(text) == seconds


@pytest.mark.parametrize(
    ("error", "hold"),
    [
        ({"type": "insufficient_quota"}, 600.0),
        ({"code": "insufficient_quota"}, 600.0),
        ({"code": "rate_limit_exceeded"}, 5.0),
        ({"code": "rate_limit_exceeded", "message": "try again in 9s"}, 9.0),
        ({"code": "session_expired"}, 0.0),
        ({"code": "slow_down"}, 5.0),
        ({"code": "invalid_api_key"}, 60.0),
        ({"code": "invalid_model"}, 60.0),
        (SERVER_ERROR, 0.0),
    ],
)
def test_fault_says_how_long_the_server_is_left_alone(error: Any, hold: float) -> None:
    fault = fault_of(error)
    assert fault is not None
    assert fault.hold_s == hold


@pytest.mark.parametrize("error", [None, "odd", {}, {"code": "invalid_value"}])
def test_error_of_a_client_event_is_no_fault(error: Any) -> None:
    assert fault_of(error) is None


@pytest.mark.parametrize(
    ("status", "after", "hold"),
    [(401, "", 60), (404, "", 60), (429, "2", 2), (429, "soon", 5), (503, "", 5)],
)
def test_refused_handshake_holds_by_its_status(status: int, after: str, hold: float) -> None:
    assert fault_of_status(status, after).hold_s == hold


def test_masked_frame_names_no_account_key_or_host() -> None:
    secret = b"org-Abc12345 proj_Abc12345 sk-live_12345678 10.1.2.3 eu.openai.azure.com"
    shown = masked(b'{"message":"' + secret + b' stays"}')
    assert shown == b'{"message":"*** *** *** *** *** stays"}'


def test_error_of_the_client_passes_masked_and_one_of_ours_does_not() -> None:
    relay = Relay()
    relay.send(asks.ResponseCreate())
    shown = relay.say("error", error={"code": "invalid_value", "message": "org-Abc12345"})
    assert b"***" in the(SendRaw, shown).data
    assert relay.session.at_rest  # the request was refused
    ours = next(e.data for e in relay.first if isinstance(e, SendUpstream))
    prefix = msgspec.json.decode(ours)["event_id"]
    assert prefix.startswith("relay_")
    assert relay.say("error", error={"code": "invalid_value", "event_id": prefix}) == []
    assert raw_types(relay.say("error", error="odd")) == ["error"]


def test_fatal_error_asks_for_the_fallback_once() -> None:
    relay = Relay()
    quota = {"code": "insufficient_quota"}
    effects = relay.say("error", error=quota)
    fault = fault_of(quota)
    assert fault
    assert effects == [
        HoldUpstream(600.0, "quota"),
        RequestFallback(fault.reason, kind="quota"),
    ]
    assert relay.say("error", error=quota) == []
    assert relay.take(UpstreamLost("gone"), TimerFired()) == []
    assert relay.session.deadline == SessionLimits().max_seconds


def test_failed_response_is_asked_for_again_once_then_the_fallback_answers() -> None:
    relay = Relay()
    relay.send(asks.ResponseCreate(), b"asked so")
    relay.open_response()
    effects = failed(relay, SERVER_ERROR)
    assert the(says.ResponseDone, effects).response.status == "failed"
    assert of(SendRaw, effects) == []
    assert relay.session.deadline == 0.0
    again = relay.take(TimerFired())
    assert the(SendUpstream, again).data == b"asked so"
    relay.open_response()
    assert the(RequestFallback, failed(relay, SERVER_ERROR))


def test_failed_answer_to_a_turn_is_asked_for_without_parameters() -> None:
    relay = Relay()
    relay.open_response()
    limited = {"code": "rate_limit_exceeded", "message": "try again in 1s"}
    failed(relay, limited)
    assert relay.session.deadline == 1.0
    assert relay.take(TimerFired()) == []  # too early
    relay.now = 1.0
    (create,) = sent_upstream(relay.take(TimerFired()))
    assert create["type"] == "response.create"


@pytest.mark.parametrize("details", [None, {"error": {"code": "content_filter"}}])
def test_failed_response_that_is_no_fault_passes(details: Any) -> None:
    relay = Relay()
    relay.open_response()
    response = {"id": "r", "status": "failed", "status_details": details}
    assert raw_types(relay.say("response.done", response=response)) == ["response.done"]


def test_silent_upstream_server_is_given_up_after_stall_seconds() -> None:
    relay = Relay()
    relay.send(asks.ResponseCreate())
    relay.send(asks.ResponseCreate())
    assert relay.session.deadline == 10.0
    relay.now = 4.0
    relay.open_response()
    assert relay.session.deadline == 14.0
    relay.now = 14.0
    assert the(RequestFallback, relay.take(TimerFired())).reason.endswith("silent for 10 s")


def test_session_that_expires_is_replaced_at_the_end_of_a_turn() -> None:
    limits = SessionLimits(max_seconds=20_000)
    relay = Relay(connected=False, limits=limits)
    relay.take(UpstreamConnected(3600.0))
    relay.send(asks.ItemCreate(item=HELLO))
    relay.take(AudioArrived(b"\1\0" * 240))
    assert relay.session.deadline == 3300.0
    relay.open_response()
    relay.now = 3305.0
    assert of(ConnectUpstream, relay.say("response.noise")) == []
    effects = relay.say("response.done", response={"id": "r", "status": "completed"})
    assert of(DisconnectUpstream, effects)
    assert of(ConnectUpstream, effects)
    assert types(effects) == []
    update, item, audio = sent_upstream(relay.take(UpstreamConnected()))
    assert update["type"] == "session.update"
    assert item["item"]["id"] == "hi"
    assert audio["type"] == "input_audio_buffer.append"
    assert relay.session.deadline == limits.max_seconds


def test_session_that_ends_in_a_turn_is_not_replaced_before_its_end() -> None:
    relay = Relay(connected=False)
    relay.take(UpstreamConnected(400.0))
    relay.say("input_audio_buffer.speech_started", item_id="a")
    assert relay.session.deadline == SessionLimits().max_seconds
    relay.now = 300.0
    assert of(ConnectUpstream, relay.take(TimerFired())) == []
