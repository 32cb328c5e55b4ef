"""A call whose media goes past this server, in virtual facts: what its sideband shows."""

from typing import Any

import msgspec

from tests.session.relay_stage import Relay, raw_types, sent_upstream
from tests.session.stage import of, the
from vivavoce.protocol.client import OutputAudioClear, ResponseCreate
from vivavoce.protocol.items import FunctionTool
from vivavoce.protocol.session import AudioOutputPatch, AudioPatch, RealtimePatch
from vivavoce.session.effects import (
    Close,
    ConnectUpstream,
    Effect,
    RecordRefusal,
    RecordUsage,
    RequestEnd,
    RequestFallback,
    RunTool,
)
from vivavoce.session.facts import ToolFinished, UpstreamConnected, UpstreamLost
from vivavoce.session.limits import SessionLimits
from vivavoce.session.policy import Policy, Rules
from vivavoce.session.relay.direct import DirectBrain

PINNED = RealtimePatch(
    instructions="Sell ice.", audio=AudioPatch(output=AudioOutputPatch(voice="cedar"))
)
STOCK = FunctionTool(name="stock")


def direct(policy: Policy | None = None, **options: Any) -> Relay:
    rules = Rules(policy, tools=(STOCK,) if policy and policy.tools else ())
    return Relay(brain=DirectBrain, rules=rules, **options)


def update(relay: Relay, **session: Any) -> list[Effect]:
    """The client has changed settings over its own data channel."""
    return relay.say("session.updated", session={"type": "realtime", **session})


def add(relay: Relay, item_id: str, **item: Any) -> list[Effect]:
    item = {"id": item_id, "type": "message", "status": "completed", **item}
    return relay.say("conversation.item.added", item=item)


def test_call_begins_with_the_settings_in_force_and_no_model() -> None:
    relay = direct(Policy(pinned=PINNED))
    connect = the(ConnectUpstream, relay.first)
    settings = msgspec.json.decode(connect.settings)
    assert (settings["type"], settings["instructions"]) == ("realtime", "Sell ice.")
    assert settings["audio"]["output"]["voice"] == "cedar"
    assert "model" not in settings
    (sent,) = sent_upstream(relay.first)
    assert sent["session"] == settings


def test_settings_changed_against_the_policy_are_put_back_once_then_the_call_ends() -> None:
    relay = direct(Policy(pinned=PINNED))
    cedar = {"output": {"voice": "cedar"}}
    assert update(relay, instructions="Sell ice.", audio=cedar, tool_choice="none") == []
    assert relay.say("session.updated", session=None) == []
    effects = update(relay, instructions="Give it away.")
    assert the(RecordRefusal, effects) == RecordRefusal("session.update", "pinned")
    (restored,) = sent_upstream(effects)
    assert restored["session"]["instructions"] == "Sell ice."
    assert of(RequestEnd, effects) == []
    assert update(relay, instructions="Sell ice.") == []
    ended = the(RequestEnd, update(relay, audio={"output": {"voice": "marin"}})).reason
    assert (ended.code, ended.close_code) == ("policy_violation", 1008)
    assert "'session.audio.output.voice'" in ended.message
    assert the(Close, relay.take(ended)) == Close(1008, "policy_violation")


def test_each_rule_of_a_policy_finds_its_breach() -> None:
    policy = Policy(
        voices=("marin",),
        transcription_models=("small",),
        client_tools=("own",),
        tools=("stock",),
        max_output_tokens=100,
    )
    rules = Rules(policy, tools=(STOCK,))
    allowed = {
        "tools": [{"type": "function", "name": "own"}, {"type": "function", "name": "stock"}],
        "max_output_tokens": 100,
        "prompt": None,
        "audio": {"output": {"voice": "marin"}, "input": {"transcription": {"model": "small"}}},
    }
    assert rules.breach(allowed, {}) == ""
    assert rules.breach({"audio": {"input": {"transcription": None}}}, {}) == ""
    for changed, place in (
        ({"tools": [{"type": "mcp", "name": "own"}]}, "tools"),
        ({"tools": [{"name": "stock"}, {"name": "other"}]}, "tools"),
        ({"tools": [{"name": "own"}]}, "tools"),
        ({"max_output_tokens": "inf"}, "max_output_tokens"),
        ({"max_output_tokens": 101}, "max_output_tokens"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"audio": {"output": {"voice": {"id": "v_1"}}}}, "audio.output.voice"),
        (
            {"audio": {"input": {"transcription": {"model": "big"}}}},
            "audio.input.transcription.model",
        ),
    ):
        assert rules.breach({**allowed, **changed}, {}) == place, changed


def test_without_a_policy_only_mcp_tools_are_a_breach() -> None:
    rules = Rules()
    assert rules.breach({"instructions": "Mine.", "tools": [{"type": "function"}]}, {}) == ""
    assert rules.breach({"tools": [{"type": "mcp"}]}, {}) == "tools"


def test_message_that_a_client_may_not_add_is_deleted() -> None:
    relay = direct(Policy())
    assert raw_types(add(relay, "u", role="user", content=[])) == ["conversation.item.added"]
    effects = add(relay, "s", role="system", content=[])
    assert raw_types(effects) == []
    assert sent_upstream(effects) == [{"type": "conversation.item.delete", "item_id": "s"}]
    assert of(RequestEnd, effects) == []
    assert of(RequestEnd, add(relay, "p", role="user", content=[{"type": "input_image"}]))


def test_client_without_a_policy_may_add_any_message() -> None:
    assert raw_types(add(direct(), "s", role="system", content=[])) == ["conversation.item.added"]


def test_answer_of_the_upstream_server_is_no_message_of_a_client() -> None:
    relay = direct(Policy())
    relay.open_response()
    assert of(RequestEnd, relay.open_item("a", status="in_progress")) == []
    assert sent_upstream(add(relay, "b", role="assistant", content=[]))


def test_item_that_the_client_deletes_is_gone_here_too() -> None:
    relay = direct()
    add(relay, "u", role="user", content=[])
    relay.say("conversation.item.deleted", item_id="u")
    relay.say("conversation.item.deleted", item_id="u")
    assert raw_types(add(relay, "u", role="user", content=[])) == ["conversation.item.added"]


def test_response_that_was_open_while_the_sideband_was_lost_is_booked_without_usage() -> None:
    relay = direct()
    relay.open_response()
    effects = relay.take(UpstreamConnected())
    assert the(RecordUsage, effects).confirmed is False
    assert [event["type"] for event in sent_upstream(effects)] == ["session.update"]
    assert of(RequestFallback, relay.take(UpstreamLost("gone")))


def test_sideband_of_this_server_plays_and_requests_like_the_client() -> None:
    relay = direct()
    assert sent_upstream(relay.send(OutputAudioClear())) == [{"type": "output_audio_buffer.clear"}]
    assert sent_upstream(relay.send(ResponseCreate())) == [{"type": "response.create"}]


def test_function_of_this_server_is_answered_over_the_sideband() -> None:
    relay = direct(Policy(tools=("stock",)))
    relay.open_response()
    call = {"id": "f", "type": "function_call", "call_id": "c", "name": "stock"}
    place = {"response_id": "r", "output_index": 0}
    done = {**call, "arguments": "{}", "status": "completed"}
    effects = relay.say("response.output_item.added", item=call, **place)
    effects += relay.say("response.output_item.done", item=done, **place)
    assert the(RunTool, effects) == RunTool("c", "stock", "{}")
    response = {"id": "r", "status": "completed"}
    effects = relay.say("response.done", response=response)
    effects += relay.take(ToolFinished("c", "3"))
    sent = sent_upstream(effects)
    assert [event["type"] for event in sent] == ["conversation.item.create", "response.create"]


def test_call_that_is_heard_over_its_sideband_is_not_idle() -> None:
    relay = direct(limits=SessionLimits(idle_seconds=60.0))
    relay.now = 50.0
    relay.say("input_audio_buffer.speech_started", item_id="a")
    assert relay.session.deadline >= 110.0
