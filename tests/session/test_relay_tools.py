"""Functions that run on this server: what the client sees, and what the upstream server gets."""

import random
from typing import Any

import msgspec
import pytest

from tests.hypothesis_examples import examples
from tests.session.relay_stage import Relay, lost, raw_types, sent_upstream
from tests.session.stage import done, of, problem, the
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCallOutput, FunctionTool
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.session import RealtimePatch, RealtimeSession
from vivavoce.session.effects import CancelTool, Effect, Generate, RunTool, SendRaw
from vivavoce.session.facts import ToolFinished, UpstreamConnected
from vivavoce.session.policy import Policy, Rules
from vivavoce.session.relay.tools import MAX_ROUNDS

STOCK = FunctionTool("stock", "How many are left.")
OTHER = FunctionTool("order")
CLIENTS = FunctionTool("wave")


def relay_with(
    *tools: FunctionTool,
    connected: bool = True,
    background: frozenset[str] = frozenset(),
    **fields: Any,
) -> Relay:
    rules = Rules(Policy(), None, tools or (STOCK, OTHER), background)
    return Relay(rules=rules, connected=connected, **fields)


def shown(effects: list[Effect]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(e.data) for e in effects if isinstance(e, SendRaw)]


def begin(relay: Relay, id_: str = "r", **fields: Any) -> list[Effect]:
    response = {"id": id_, "status": "in_progress", "conversation_id": "c", **fields}
    return relay.say("response.created", response=response)


def call(
    relay: Relay, name: str, id_: str = "x", *, index: int = 0, previous: str | None = None
) -> list[Effect]:
    """The model calls a function in response r; call ids are those of items with a c before."""
    item = {"id": id_, "type": "function_call", "name": name, "call_id": f"c{id_}"}
    place = {"response_id": "r", "output_index": index}
    effects = relay.say("response.output_item.added", item=item, **place)
    effects += relay.say("conversation.item.added", item=item, previous_item_id=previous)
    for kind, fields in (("delta", {"delta": "{}"}), ("done", {"arguments": "{}"})):
        effects += relay.say(
            f"response.function_call_arguments.{kind}", item_id=id_, **place, **fields
        )
    item |= {"status": "completed", "arguments": '{"n": 1}'}
    effects += relay.say("response.output_item.done", item=item, **place)
    effects += relay.say("conversation.item.done", item=item, previous_item_id=previous)
    return effects


def message(relay: Relay, id_: str, *, index: int, previous: str) -> list[Effect]:
    item = {"id": id_, "type": "message", "role": "assistant", "content": []}
    place = {"response_id": "r", "output_index": index}
    effects = relay.say("response.output_item.added", item=item, **place)
    effects += relay.say("conversation.item.added", item=item, previous_item_id=previous)
    effects += relay.say(
        "response.content_part.added", item_id=id_, part={"type": "audio"}, **place
    )
    return effects


def end(relay: Relay, *ids: str, status: str = "completed", id_: str = "r") -> list[Effect]:
    output = [{"id": item} for item in ids]
    return relay.say("response.done", response={"id": id_, "status": status, "output": output})


def finish(relay: Relay, call_id: str = "cx", output: str = "3") -> list[dict[str, Any]]:
    return sent_upstream(relay.take(ToolFinished(call_id, output)))


def kinds(sent: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in sent]


ANSWERED = ["conversation.item.create", "response.create"]


def test_functions_of_this_server_are_declared_upstream_and_not_to_the_client() -> None:
    relay = relay_with(connected=False)
    (update,) = sent_upstream(relay.take(UpstreamConnected()))
    names = [tool["name"] for tool in update["session"]["tools"]]
    assert names[-2:] == ["stock", "order"]
    created = the(says.SessionCreated, relay.first).session
    assert isinstance(created, RealtimeSession)
    assert {tool.name for tool in created.tools}.isdisjoint({"stock", "order"})
    event = asks.ResponseCreate(response=ResponseParams(tools=(CLIENTS,)))
    (sent,) = sent_upstream(relay.send(event, b"raw"))
    assert [tool["name"] for tool in sent["response"]["tools"]] == ["wave", "stock", "order"]
    assert sent_upstream(relay_with().send(asks.ResponseCreate(), b'{"a": 1}')) == [{"a": 1}]


def test_client_cannot_declare_a_function_of_this_server() -> None:
    relay = relay_with()
    effects = relay.send(asks.SessionUpdate(session=RealtimePatch(tools=(STOCK, CLIENTS))))
    session = the(says.SessionUpdated, effects).session
    assert isinstance(session, RealtimeSession)
    assert session.tools == (CLIENTS,)


def test_call_runs_and_the_client_sees_nothing_of_it() -> None:
    relay = relay_with()
    effects = begin(relay) + call(relay, "stock")
    assert the(RunTool, effects) == RunTool("cx", "stock", '{"n": 1}')
    effects += end(relay, "x")
    assert raw_types(effects) == []
    create, more = finish(relay)
    assert (create["type"], more) == ("conversation.item.create", {"type": "response.create"})
    assert (create["item"]["call_id"], create["item"]["output"]) == ("cx", "3")
    output = create["item"]
    for kind in ("added", "done"):
        said = relay.say(f"conversation.item.{kind}", item=output, previous_item_id="x")
        assert raw_types(said) == []
    assert raw_types(begin(relay)) == []
    said = message(relay, "a", index=0, previous=output["id"])
    assert raw_types(said)[:3] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
    ]


def test_output_indexes_are_dense_and_links_skip_the_hidden_call() -> None:
    relay = relay_with()
    relay.turn("u", "Hello.")
    begin(relay)
    call(relay, "stock", "x", index=0, previous="u")
    call(relay, "order", "y", index=1, previous="x")
    events = shown(message(relay, "a", index=2, previous="y"))
    assert [event.get("output_index") for event in events] == [None, 0, None, 0]
    assert events[2]["previous_item_id"] == "u"
    ended = shown(end(relay, "x", "y", "a"))[-1]
    assert [item["id"] for item in ended["response"]["output"]] == ["a"]
    committed = relay.say("input_audio_buffer.committed", item_id="v", previous_item_id="y")
    assert shown(committed)[0]["previous_item_id"] == "u"
    assert shown(relay.say("input_audio_buffer.committed", item_id="v"))[0]["item_id"] == "v"


def test_hidden_item_behind_a_message_ends_a_chain_at_its_beginning() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")  # with no item before it
    (_, _, added, _) = shown(message(relay, "a", index=1, previous="x"))
    assert added["previous_item_id"] is None


def test_client_cannot_reach_a_hidden_call() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")
    assert problem(relay.send(asks.ItemRetrieve(item_id="x")))[0] == "item_retrieve_invalid_item_id"
    output = FunctionCallOutput(call_id="cx", output="999")
    assert problem(relay.send(asks.ItemCreate(item=output)))[0] == "invalid_tool_call_id"


def test_several_calls_are_followed_by_one_response() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock", "x")
    call(relay, "order", "y", index=1)
    assert finish(relay, "cx") == []  # its response has not completed
    assert kinds(sent_upstream(end(relay, "x", "y"))) == ["conversation.item.create"]
    assert kinds(finish(relay, "cy")) == ANSWERED
    assert finish(relay, "cy") == []  # twice


def test_call_that_is_answered_before_its_response_has_completed_is_followed_then() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")
    assert finish(relay) == []
    assert kinds(sent_upstream(end(relay, "x"))) == ANSWERED


def test_hidden_and_client_call_in_one_response_are_followed_by_the_clients_request() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock", "x")
    seen = call(relay, "wave", "y", index=1)
    assert "response.function_call_arguments.done" in raw_types(seen)
    end(relay, "x", "y")
    relay.send(asks.ItemCreate(item=FunctionCallOutput(call_id="cy", output="waved")))
    assert sent_upstream(relay.send(asks.ResponseCreate(), b'{"type":"response.create"}')) == []
    assert kinds(finish(relay)) == ANSWERED


def test_hidden_call_that_ends_before_the_clients_is_followed_by_no_request_of_this_server() -> (
    None
):
    relay = relay_with()
    begin(relay)
    call(relay, "stock", "x")
    call(relay, "wave", "y", index=1)
    end(relay, "x", "y")
    assert kinds(finish(relay)) == ["conversation.item.create"]
    sent = sent_upstream(relay.send(asks.ResponseCreate(), b'{"type":"response.create"}'))
    assert kinds(sent) == ["response.create"]


@pytest.mark.parametrize("answered_first", [True, False])
def test_result_of_a_cancelled_response_is_discarded(answered_first: bool) -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")
    if answered_first:
        finish(relay)
    effects = end(relay, "x", status="cancelled")
    assert bool(of(CancelTool, effects)) is not answered_first
    assert raw_types(effects) == ["response.created", "response.done"]
    assert sent_upstream(effects) == []
    assert finish(relay) == []


def test_slow_call_stops_no_audio_and_is_no_silence_of_the_upstream_server() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")
    message(relay, "a", index=1, previous="x")
    relay.now = 5.0
    assert "response.output_audio.delta" in raw_types(relay.speak("a", "One moment"))
    end(relay, "x", "a")
    assert relay.session.deadline >= 3000.0  # nothing of the upstream server is waited for
    relay.now = 30.0
    assert kinds(finish(relay)) == ANSWERED
    assert relay.session.deadline == 40.0


def test_follow_up_is_left_out_where_the_upstream_server_responds_to_the_user_meanwhile() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")
    end(relay, "x")
    begin(relay, "r2")
    assert kinds(finish(relay)) == ["conversation.item.create"]


def test_two_responses_with_calls_are_followed_by_one_request() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock", "x")
    end(relay, "x")
    begin(relay)
    call(relay, "order", "y")
    end(relay, "y")
    assert kinds(finish(relay, "cx")) == ["conversation.item.create"]
    assert kinds(finish(relay, "cy")) == ANSWERED


def test_function_that_must_be_called_is_not_called_for_ever() -> None:
    relay = relay_with(tool_choice="required")
    for n in range(MAX_ROUNDS):
        begin(relay)
        call(relay, "stock", f"x{n}")
        end(relay, f"x{n}")
        request = finish(relay, f"cx{n}")[-1]
        choice = "none" if n == MAX_ROUNDS - 1 else "auto"
        assert request["response"] == {"tool_choice": choice}
    begin(relay)
    message(relay, "a", index=0, previous="u")
    end(relay, "a")
    begin(relay)
    call(relay, "stock", "z")
    end(relay, "z")
    assert finish(relay, "cz")[-1]["response"] == {"tool_choice": "auto"}


def test_upstream_refusal_of_a_follow_up_ends_the_wait_for_it() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")
    end(relay, "x")
    effects = relay.take(ToolFinished("cx", "3"))
    own = msgspec.json.decode(effects[-1].data)["event_id"]  # type: ignore[union-attr]
    assert relay.session.deadline == 10.0
    error = {"type": "invalid_request_error", "message": "active", "event_id": own}
    assert relay.say("error", error=error) == []
    assert relay.session.deadline > 10.0


def test_call_of_a_response_outside_the_conversation_is_hidden_and_not_run() -> None:
    relay = relay_with()
    begin(relay, conversation_id=None)
    assert of(RunTool, call(relay, "stock")) == []
    assert raw_types(end(relay, "x")) == []


def test_fallback_answers_where_the_upstream_server_is_lost_during_a_call() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")
    end(relay, "x")
    effects = lost(relay)
    assert the(CancelTool, effects).call_id == "cx"
    prompt = the(Generate, effects).prompt
    assert {tool.name for tool in prompt.tools}.isdisjoint({"stock"})
    assert relay.take(ToolFinished("cx", "3")) == []


def test_response_that_fails_in_a_hidden_call_is_begun_and_ended_for_the_client() -> None:
    relay = relay_with()
    begin(relay)
    call(relay, "stock")
    effects = lost(relay)
    assert raw_types(effects) == ["response.created"]
    assert done(effects).status == "failed"
    assert of(CancelTool, effects)


def test_response_of_an_unknown_beginning_ends_as_it_came() -> None:
    relay = relay_with()
    assert raw_types(end(relay, "x")) == ["response.done"]
    assert raw_types(relay.say("response.done", response={"id": "q", "output": None})) == [
        "response.done"
    ]
    begin(relay)
    call(relay, "stock")
    relay.say("response.output_text.delta", response_id="r", delta="a", output_index=1)
    fields = {"id": "r", "status": "completed", "output": "?"}
    assert raw_types(relay.say("response.done", response=fields)) == ["response.done"]


def test_calls_of_two_sessions_never_meet() -> None:
    """Interleavings of the same calls with the same ids in two sessions; there are 720."""
    random.seed(7)
    for n in range(examples(1_000)):
        relays = [relay_with(), relay_with()]
        results: list[list[str]] = [[], []]
        for each in relays:
            begin(each)
            call(each, "stock", "x")
            call(each, "order", "y", index=1)
        steps = [(side, step) for side in (0, 1) for step in ("cx", "cy", "done")]
        random.shuffle(steps)
        for side, step in steps:
            relay = relays[side]
            if step == "done":
                sent = sent_upstream(end(relay, "x", "y"))
            else:
                sent = finish(relay, step, f"{side}{step}{n}")
            results[side] += [
                event["item"]["output"] if "item" in event else event["type"] for event in sent
            ]
        for side in (0, 1):
            *outputs, last = results[side]
            assert sorted(outputs) == [f"{side}cx{n}", f"{side}cy{n}"]
            assert last == "response.create"


def test_rules_without_functions_leave_every_frame_alone() -> None:
    relay = Relay(rules=Rules(Policy()))
    effects = begin(relay) + call(relay, "stock")
    assert "response.function_call_arguments.done" in raw_types(effects)
