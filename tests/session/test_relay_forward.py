"""Audio that a relay passes on in one step: the same effects and the same state as by handle()."""

import base64
from typing import Any

import msgspec
import pytest

from tests.session.relay_stage import Relay, frame
from tests.session.stage import a_session
from tests.session.test_policy import governed
from vivavoce.protocol import client as asks
from vivavoce.session.effects import Effect, SendRaw, SendUpstream
from vivavoce.session.facts import Disconnected, Fact, Received, TimerFired

AUDIO = b"\1\0" * 960
APPEND = Received(
    asks.InputAudioAppend(audio=AUDIO), b'{"type":"input_audio_buffer.append","audio":"AA=="}'
)
PLACE = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}


def delta(**fields: Any) -> Fact:
    audio = base64.b64encode(AUDIO).decode()
    return frame("response.output_audio.delta", delta=audio, **{**PLACE, **fields})


def forwarded(relay: Relay, fact: Fact) -> Effect | None:
    return relay.session.forward(fact, relay.now)


def speaking(**fields: Any) -> Relay:
    """A relay whose answer has been heard for 40 ms."""
    relay = Relay(**fields)
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a")
    relay.take(delta())
    return relay


def saved(relay: Relay) -> bytes:
    return msgspec.json.encode(relay.session.checkpoint(relay.now))


def test_audio_forwarded_leaves_the_session_as_if_it_were_handled() -> None:
    one, other = speaking(), speaking()
    for fact, kind in ((APPEND, SendUpstream), (delta(), SendRaw)) * 3:
        one.now = other.now = one.now + 0.04
        effect = forwarded(one, fact)
        assert isinstance(effect, kind)
        assert [effect] == other.take(fact)
    for relay in (one, other):
        relay.say("response.output_audio_transcript.delta", delta="hi", **PLACE)
    assert isinstance(forwarded(one, delta()), SendRaw)
    other.take(delta())
    for relay in (one, other):
        relay.say("response.done", response={"id": "r", "status": "completed"})
    assert saved(one) == saved(other)
    assert one.session.deadline == other.session.deadline
    assert one.session.checkpoint_due == other.session.checkpoint_due


@pytest.mark.parametrize(
    "fact",
    [
        TimerFired(),
        Received(asks.InputAudioCommit(), b"{}"),
        Received(asks.InputAudioAppend(audio=AUDIO)),  # in no frame of this protocol
        delta(item_id="b"),
        frame("response.output_text.delta", delta="x", **PLACE),
    ],
)
def test_fact_that_brings_no_audio_of_the_answer_is_not_forwarded(fact: Fact) -> None:
    assert forwarded(speaking(), fact) is None


def test_first_audio_of_an_answer_and_that_behind_another_event_are_not_forwarded() -> None:
    relay = Relay()
    relay.open_response()
    assert forwarded(relay, delta()) is None
    relay = speaking()
    relay.say("response.output_item.done", response_id="r", item={"id": "a"})
    assert forwarded(relay, delta()) is None


def test_audio_that_the_server_plays_itself_is_not_forwarded() -> None:
    assert forwarded(speaking(server_plays=True), delta()) is None


def test_audio_is_not_forwarded_before_the_upstream_server_is_connected_nor_after_it_is_lost() -> (
    None
):
    assert forwarded(Relay(connected=False), APPEND) is None
    relay = speaking()
    relay.say("error", error={"code": "insufficient_quota"})
    assert forwarded(relay, APPEND) is None
    assert forwarded(relay, delta()) is None


def test_audio_of_a_session_that_has_ended_is_not_forwarded() -> None:
    relay = speaking()
    relay.take(Disconnected())
    assert forwarded(relay, APPEND) is None


def test_audio_that_the_policy_refuses_is_not_forwarded() -> None:
    relay = governed(blocked_events=["input_audio_buffer.append"])
    assert forwarded(relay, APPEND) is None


def test_audio_that_arrives_after_the_cascade_took_over_is_not_forwarded() -> None:
    session = a_session()
    assert session.forward(delta(), 0.0) is None
    assert session.handle(delta(), 0.0) == []
