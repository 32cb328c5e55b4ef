"""Audio that passes as it is: the same state of the session as if it had been handled."""

import base64
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.session.relay_stage import Relay, frame
from tests.session.stage import a_session
from tests.session.test_policy import governed, update
from vivavoce.protocol import client as asks
from vivavoce.session.effects import SendRaw, SendUpstream
from vivavoce.session.facts import Disconnected, Received
from vivavoce.session.relay.audio import RecentAudio

AUDIO = b"\1\0" * 960
APPEND = asks.InputAudioAppend(audio=AUDIO)
PLACE = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}


def appended(audio: bytes = AUDIO) -> bytes:
    return msgspec.json.encode({"type": "input_audio_buffer.append", "audio": audio})


def delta(**fields: Any) -> bytes:
    audio = base64.b64encode(AUDIO).decode()
    return frame("response.output_audio.delta", **{**PLACE, **fields}, delta=audio).raw


def say_audio(relay: Relay) -> None:
    relay.say("response.output_audio.delta", **PLACE, delta=base64.b64encode(AUDIO).decode())


def speaking(**fields: Any) -> Relay:
    """A relay that was given an append, and whose answer has been heard for 40 ms."""
    relay = Relay(**fields)
    return speak(relay)


def speak(relay: Relay) -> Relay:
    relay.take(Received(APPEND, appended()))
    relay.open_response()
    relay.open_item("a")
    relay.open_part("a")
    say_audio(relay)
    return relay


def saved(relay: Relay) -> bytes:
    return msgspec.json.encode(relay.session.checkpoint(relay.now))


def input_passes(relay: Relay, raw: bytes | None = None) -> bool:
    return relay.session.pass_input(raw or appended(), relay.now) is not None


def output_passes(relay: Relay, raw: bytes | None = None) -> bool:
    return relay.session.pass_output(raw or delta(), relay.now) is not None


@pytest.mark.parametrize("format_", ["audio/pcm", "audio/pcmu"])
def test_audio_that_passed_leaves_the_session_as_if_it_were_handled(format_: str) -> None:
    sound = {"format": {"type": format_}}
    one, other = Relay(), Relay()
    for relay in (one, other):
        update(relay, audio={"input": sound, "output": sound})
        speak(relay)
    for _ in range(3):
        one.now = other.now = one.now + 0.04
        assert input_passes(one)
        assert other.take(Received(APPEND, appended())) == [SendUpstream(appended())]
        assert output_passes(one)
        raw = delta()
        assert [e for e in other.take(frame_of(raw)) if isinstance(e, SendRaw)] == [SendRaw(raw)]
    for relay in (one, other):
        relay.say("response.output_audio_transcript.delta", delta="hi", **PLACE)
    assert output_passes(one)
    say_audio(other)
    for relay in (one, other):
        relay.say("response.done", response={"id": "r", "status": "completed"})
    assert saved(one) == saved(other)
    assert one.session.deadline == other.session.deadline
    assert one.session.checkpoint_due == other.session.checkpoint_due


def frame_of(raw: bytes) -> Any:
    fields = msgspec.json.decode(raw)
    return frame(fields.pop("type"), **{k: v for k, v in fields.items() if k != "event_id"})


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 9_000)), max_size=40))
def test_recent_audio_is_the_end_of_all_that_was_added(steps: list[tuple[int, int]]) -> None:
    recent, expected, some = RecentAudio(), b"", random.Random(1)
    for size, bound in steps:
        recent.keep_last(bound)
        for pcm in (some.randbytes(size), some.randbytes(size // 9)):
            recent.add(pcm)
            expected += pcm
            expected = expected[max(0, len(expected) - bound) :]
            assert recent.size == len(expected)
        if size % 2:
            assert bytes(recent) == expected
    assert bytes(recent) == expected
    recent.clear()
    assert (bytes(recent), recent.size) == (b"", 0)


def test_first_append_is_decoded_and_those_like_it_pass() -> None:
    relay = Relay()
    assert not input_passes(relay)
    relay.take(Received(APPEND, appended()))
    assert input_passes(relay)
    assert not input_passes(relay, appended(b""))
    assert not input_passes(relay, msgspec.json.encode({"type": "input_audio_buffer.commit"}))


def test_append_in_no_frame_of_ga_lets_none_pass() -> None:
    relay = Relay()
    relay.take(Received(APPEND))
    assert not input_passes(relay)


@pytest.mark.parametrize("fields", [{"item_id": "b"}, {"response_id": "s"}])
def test_audio_of_another_answer_does_not_pass(fields: dict[str, Any]) -> None:
    assert not output_passes(speaking(), delta(**fields))


def test_first_audio_of_an_answer_and_that_behind_another_event_do_not_pass() -> None:
    relay = Relay()
    relay.open_response()
    assert not output_passes(relay)
    relay = speaking()
    relay.say("response.output_item.done", response_id="r", item={"id": "a"})
    assert not output_passes(relay)


def test_audio_that_the_server_plays_itself_does_not_pass() -> None:
    assert not output_passes(speaking(server_plays=True))


def test_audio_passes_neither_before_the_upstream_server_is_connected_nor_after_it_is_lost() -> (
    None
):
    relay = Relay(connected=False)
    relay.take(Received(APPEND, appended()))
    assert not input_passes(relay)
    relay = speaking()
    relay.say("error", error={"code": "insufficient_quota"})
    assert not input_passes(relay)
    assert not output_passes(relay)


def test_audio_of_a_session_that_has_ended_does_not_pass() -> None:
    relay = speaking()
    relay.take(Disconnected())
    assert not input_passes(relay)
    assert not output_passes(relay)


def test_audio_that_the_policy_blocks_does_not_pass() -> None:
    relay = speak(governed(blocked_events=["input_audio_buffer.append"]))
    assert not input_passes(relay)


def test_audio_that_is_to_be_read_later_does_not_pass() -> None:
    relay = speak(governed(audio_speed=1.0, audio_burst_seconds=0.0))
    assert not input_passes(relay)
    relay.now += 10.0
    assert input_passes(relay)
    assert not input_passes(relay)
    assert relay.session.throttle_s(relay.now) == pytest.approx(0.04)


def test_nothing_passes_through_a_cascade() -> None:
    session = a_session()
    session.handle(Received(APPEND, appended()), 0.0)
    assert session.pass_input(appended(), 0.0) is None
    assert session.pass_output(delta(), 0.0) is None


def test_append_to_a_cascade_like_the_one_before_is_recognised_and_to_a_relay_none_is() -> None:
    session = a_session()
    session.handle(Received(APPEND), 0.0)
    assert session.append_of(appended()) is None
    session.handle(Received(APPEND, appended()), 0.0)
    assert session.append_of(appended(b"\2\0")) == asks.InputAudioAppend(audio=b"\2\0")
    assert speaking().session.append_of(appended()) is None


def test_append_is_not_recognised_by_a_session_that_counts_audio_or_has_ended() -> None:
    assert speak(governed(audio_speed=2.0)).session.append_of(appended()) is None
    session = a_session()
    session.handle(Received(APPEND, appended()), 0.0)
    session.handle(Disconnected(), 0.0)
    assert session.append_of(appended()) is None
