"""Functions of this server that run in the background: when their results are told."""

from dataclasses import replace

from tests.session.relay_stage import Relay, sent_upstream
from tests.session.stage import (
    MODELS,
    a_session,
    ask,
    hear,
    of,
    receive,
    spoke,
    tell,
    the,
    transcribe,
    wake,
)
from tests.session.test_relay_tools import (
    STOCK,
    begin,
    call,
    end,
    finish,
    kinds,
    relay_with,
    shown,
)
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.session import ServerVad
from vivavoce.session.effects import (
    CALL_RUNS,
    TOO_MANY_CALLS,
    CancelTool,
    Effect,
    Generate,
    RunTool,
)
from vivavoce.session.facts import (
    BackgroundToolFinished,
    DrainStarted,
    OutputFinished,
    ToolFinished,
)
from vivavoce.session.limits import MAX_BACKGROUND_CALLS
from vivavoce.session.policy import Policy, Rules
from vivavoce.session.shell import Session

RULES = Rules(Policy(), None, (STOCK,), frozenset({"stock"}))
OFFER = replace(MODELS, rules=RULES)
DONE = BackgroundToolFinished("c1")


def told(effects: list[Effect]) -> dict[str, str] | None:
    """The metadata of the response that is created."""
    return the(says.ResponseCreated, effects).response.metadata


def answering(session: Session, now: float = 0.0) -> str:
    """An answer of one second begins."""
    response_id = the(Generate, ask(session, now=now)).response_id
    tell(session, spoke(response_id, " ".join(["word"] * 10)), now=now)
    return response_id


def test_result_is_told_when_the_answer_before_it_was_played() -> None:
    session = a_session(offer=OFFER)
    response_id = answering(session)
    assert tell(session, DONE, now=0.2) == []
    assert not of(Generate, tell(session, OutputFinished(response_id), now=0.3))
    assert not session.at_rest
    assert session.deadline == 1.0
    effects = wake(session)
    assert told(effects) == {"vivavoce": "background_result"}
    assert the(Generate, effects).prompt.background_tools == {"stock"}
    assert session.deadline > 1.0
    assert not of(Generate, tell(session, OutputFinished(the(Generate, effects).response_id)))


def test_result_without_an_answer_before_it_is_told_at_once() -> None:
    for choice in ("none", "required"):
        session = a_session(offer=OFFER, tool_choice=choice)
        order = the(Generate, tell(session, DONE))
        assert order.prompt.tool_choice == ("none" if choice == "none" else "auto")


def test_result_that_comes_while_the_user_speaks_is_told_in_the_answer_to_the_turn() -> None:
    session = a_session(offer=OFFER, turn_detection=ServerVad(silence_duration_ms=200))
    hear(session, "####")
    assert not of(Generate, tell(session, DONE))
    assert session.deadline > 0.0
    effects = hear(session, 10 * ".")
    effects += transcribe(session, effects, "and now?")
    assert told(effects) is None
    assert not of(Generate, tell(session, OutputFinished(the(Generate, effects).response_id)))


def test_response_with_a_context_of_its_own_leaves_the_result_to_the_next() -> None:
    session = a_session(offer=OFFER)
    own = (Message(role="user", content=(InputText("hm"),)),)
    first = the(Generate, ask(session, input=own))
    assert not first.prompt.background_tools
    tell(session, DONE)
    effects = tell(session, OutputFinished(first.response_id))
    assert told(effects) == {"vivavoce": "background_result"}


def test_result_is_not_told_any_more_while_the_server_shuts_down() -> None:
    session = a_session(offer=OFFER)
    tell(session, DrainStarted())
    assert not of(Generate, tell(session, DONE))
    assert session.deadline > 1.0


def relay() -> Relay:
    return relay_with(STOCK, background=frozenset({"stock"}))


def test_relay_answers_a_call_in_the_background_at_once_and_tells_its_result_later() -> None:
    one = relay()
    begin(one)
    effects = call(one, "stock")
    assert the(RunTool, effects) == RunTool("cx", "stock", '{"n": 1}')
    assert not shown(effects)
    output, request = sent_upstream(end(one, "x"))
    assert (output["item"]["call_id"], output["item"]["output"]) == ("cx", CALL_RUNS)
    assert request["type"] == "response.create"
    begin(one, "r2")
    (item,) = finish(one)
    assert item["item"]["role"] == "system"
    assert item["item"]["content"][0]["text"] == 'stock({"n": 1}) has returned: 3'
    (asked,) = sent_upstream(end(one, id_="r2"))
    assert asked["type"] == "response.create"
    begin(one, "r3")
    assert not sent_upstream(end(one, id_="r3"))


def test_relay_tells_no_result_twice_that_an_answer_to_the_user_has_had() -> None:
    one = relay()
    begin(one)
    call(one, "stock")
    end(one, "x")
    begin(one, "r2")
    (item,) = finish(one)
    shown_item = {"id": item["item"]["id"], "type": "message", "role": "system"}
    assert not shown(one.say("conversation.item.added", item=shown_item))
    end_ = one.say("response.created", response={"id": "r3", "conversation_id": "c"})
    assert not sent_upstream(end_)
    end(one, id_="r2")
    assert not sent_upstream(end(one, id_="r3"))


def test_relay_waits_with_a_result_until_the_user_and_the_answer_are_silent() -> None:
    one = relay()
    begin(one)
    call(one, "stock")
    end(one, "x")
    one.say("response.created", response={"id": "r2", "conversation_id": None})
    end(one, id_="r2")
    one.say("input_audio_buffer.speech_started", item_id="i")
    assert kinds(finish(one)) == ["conversation.item.create"]
    assert kinds(sent_upstream(one.say("input_audio_buffer.committed", item_id="i"))) == [
        "response.create"
    ]


def test_relay_runs_no_more_than_so_many_in_the_background_and_cancels_them_in_the_end() -> None:
    one = relay()
    begin(one)
    orders = [the(RunTool, call(one, "stock", f"x{n}")) for n in range(MAX_BACKGROUND_CALLS)]
    assert not of(RunTool, call(one, "stock", "y"))
    sent = sent_upstream(end(one))
    outputs = {e["item"]["call_id"]: e["item"]["output"] for e in sent if "item" in e}
    assert outputs["cy"] == TOO_MANY_CALLS
    left = one.session.swap(type(one.session._brain), one.now)[0]
    assert {effect.call_id for effect in of(CancelTool, left)} == {o.call_id for o in orders}
    assert not of(RunTool, one.take(ToolFinished("cx0", "late")))


def test_relay_drops_a_call_in_the_background_of_a_response_that_was_cancelled() -> None:
    one = relay()
    begin(one)
    call(one, "stock")
    assert the(CancelTool, end(one, "x", status="cancelled")).call_id == "cx"
    assert not finish(one)


def test_client_interrupts_an_answer_and_the_result_is_still_told() -> None:
    session = a_session(offer=OFFER)
    answering(session)
    tell(session, DONE, now=0.2)
    effects = receive(session, asks.ResponseCancel(), now=0.3)
    assert told(effects + wake(session)) == {"vivavoce": "background_result"}
