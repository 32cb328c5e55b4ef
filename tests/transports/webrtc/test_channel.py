"""Events on a data channel that opens late, or takes no large messages."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from vivavoce.protocol.beta import Beta
from vivavoce.protocol.client import InputAudioClear
from vivavoce.protocol.codec import GA, encode
from vivavoce.protocol.items import InputAudio, InputText, Message, OutputAudio
from vivavoce.protocol.server import InputAudioCleared, ItemAdded, ItemRetrieved
from vivavoce.protocol.wire import CloseRequest, Frame, Opening, Reply, WireProtocol
from vivavoce.session.facts import Disconnected, InvalidFrame, Received
from vivavoce.testing.virtual_time import run
from vivavoce.transports.webrtc.channel import (
    MAX_WAITING_BYTES,
    MAX_WAITING_EVENTS,
    EventChannel,
)


class Channel:
    """A data channel, as far as it is used. It takes messages up to a size."""

    bufferedAmount = 0
    readyState = "open"

    def __init__(self, max_size: int = 1000, *, answers: bool = True) -> None:
        self.texts: list[str] = []
        self.handlers: dict[str, Callable[[], None]] = {}
        self._max_size = max_size
        self._answers = answers

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(text) for text in self.texts]

    def on(self, event: str, handler: Callable[[], None]) -> None:
        self.handlers[event] = handler

    def close(self) -> None:
        self.readyState = "closing"
        if self._answers:
            asyncio.get_running_loop().call_soon(self.handlers["close"])

    def send(self, text: str) -> None:
        if len(text) > self._max_size:
            raise ValueError(text)
        self.texts.append(text)


def opened(channel: Channel, protocol: WireProtocol | None = None) -> EventChannel:
    events = EventChannel(protocol or GA())
    assert events.open(channel)  # type: ignore[arg-type]
    return events


def test_events_before_the_channel_opens_are_sent_in_order() -> None:
    events, channel = EventChannel(GA()), Channel()
    events.send(InputAudioCleared(event_id="1"))
    events.send(InputAudioCleared(event_id="2"))
    assert events.backlog == 0
    events.open(channel)  # type: ignore[arg-type]
    events.send(InputAudioCleared(event_id="3"))
    assert [event["event_id"] for event in channel.sent] == ["1", "2", "3"]


def test_second_channel_is_used_once_the_first_is_closed() -> None:
    first, second = Channel(), Channel()
    events = opened(first)
    assert not events.open(second)  # type: ignore[arg-type]
    first.readyState = "closed"
    events.send(InputAudioCleared(event_id="1"))
    assert events.open(second)  # type: ignore[arg-type]
    events.send(InputAudioCleared(event_id="2"))
    assert [len(first.sent), len(second.sent)] == [0, 1]


def test_item_too_large_is_sent_without_audio() -> None:
    channel = Channel()
    content = (InputText(text="So."), InputAudio(audio=bytes(2000), transcript="Hm."))
    item = Message(id="a", role="user", content=content)
    opened(channel).send(ItemRetrieved(event_id="1", item=item))
    (event,) = channel.sent
    assert event["item"]["content"] == [
        {"type": "input_text", "text": "So."},
        {"type": "input_audio", "transcript": "Hm."},
    ]
    said = OutputAudio(audio=bytes(2000), transcript="Yes.")
    answer = Message(id="b", role="assistant", content=(said,))
    opened(channel).send(ItemRetrieved(event_id="2", item=answer))
    assert channel.sent[-1]["item"]["content"] == [{"type": "output_audio", "transcript": "Yes."}]


def test_event_too_large_without_audio_is_replaced_by_an_error() -> None:
    channel = Channel()
    item = Message(id="a", role="user", content=(InputText(text="x" * 2000),))
    opened(channel).send(ItemAdded(event_id="1", previous_item_id=None, item=item))
    (event,) = channel.sent
    assert (event["type"], event["error"]["code"]) == ("error", "event_too_large")
    assert "conversation.item.added" in event["error"]["message"]


RAW = encode(InputAudioCleared(event_id="raw")).replace(b",", b" , ")


def test_raw_event_is_sent_byte_for_byte_in_ga_and_translated_in_beta() -> None:
    ga, beta = Channel(), Channel()
    opened(ga).send_raw(RAW)
    assert ga.texts == [RAW.decode()]
    events = opened(beta, Beta())
    events.send_raw(RAW)
    events.send_raw(b'{"type":"something.new"}')
    assert [event["event_id"] for event in beta.sent] == ["raw"]


def test_raw_event_waits_for_the_channel_in_its_turn() -> None:
    events, channel = EventChannel(GA()), Channel()
    events.send(InputAudioCleared(event_id="1"))
    events.send_raw(RAW)
    events.send(InputAudioCleared(event_id="2"))
    events.open(channel)  # type: ignore[arg-type]
    assert [event["event_id"] for event in channel.sent] == ["1", "raw", "2"]


def test_raw_event_after_the_channel_has_closed_is_dropped() -> None:
    channel = Channel()
    events = opened(channel)
    channel.readyState = "closed"
    events.send_raw(RAW)
    assert channel.texts == []


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b'{"type":"something.new","x":"' + b"x" * 2000 + b'"}', "server event"),
        (encode(InputAudioCleared(event_id="x" * 2000)), "input_audio_buffer.cleared"),
    ],
)
def test_raw_event_too_large_is_replaced_by_an_error(raw: bytes, name: str) -> None:
    channel = Channel()
    opened(channel).send_raw(raw)
    (event,) = channel.sent
    assert event["error"]["code"] == "event_too_large"
    assert f"'{name}' of {len(raw)} bytes" in event["error"]["message"]


def test_events_that_wait_are_bounded_in_number_and_bytes() -> None:
    events, channel = EventChannel(GA()), Channel(2 * MAX_WAITING_BYTES)
    for n in range(MAX_WAITING_EVENTS + 5):
        events.send(InputAudioCleared(event_id=str(n)))
    events.open(channel)  # type: ignore[arg-type]
    assert [event["event_id"] for event in channel.sent] == [
        str(n) for n in range(5, MAX_WAITING_EVENTS + 5)
    ]
    events, channel = EventChannel(GA()), Channel(2 * MAX_WAITING_BYTES)
    events.send(InputAudioCleared(event_id="small"))
    events.send(InputAudioCleared(event_id="x" * MAX_WAITING_BYTES))
    events.open(channel)  # type: ignore[arg-type]
    assert [len(event["event_id"]) for event in channel.sent] == [MAX_WAITING_BYTES]


CLEAR = '{"type": "input_audio_buffer.clear"}'


@pytest.mark.parametrize(
    ("protocol", "raw"), [(GA(), CLEAR.encode()), (Beta(), None)], ids=["ga", "beta"]
)
def test_message_is_read_as_an_event_or_refused(protocol: WireProtocol, raw: bytes | None) -> None:
    events = EventChannel(protocol)
    for message in (CLEAR, CLEAR.encode()):
        assert list(events.read(message)) == [Received(InputAudioClear(), raw)]
    (invalid,) = events.read("{")
    assert isinstance(invalid, InvalidFrame)
    assert invalid.problem.code == "invalid_json"


class Chatty(GA):
    """A protocol whose messages are answered without the session, or end it."""

    def decode(self, frame: Frame) -> Any:
        return (Opening(), Reply((Frame("text", b"pong"),)), CloseRequest())


def test_reply_is_sent_at_once_and_close_request_disconnects() -> None:
    channel = Channel()
    events = opened(channel, Chatty())
    assert list(events.read("ping")) == [Disconnected()]
    assert channel.texts == ["pong"]


def test_close_waits_for_the_client_within_its_timeouts() -> None:
    async def seconds(channel: Channel) -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        await opened(channel).close()
        return clock() - began

    for channel, took in ((Channel(), 0.0), (Channel(answers=False), 1.0)):
        assert run(seconds(channel)) == pytest.approx(took)
        assert channel.readyState == "closing"
    stuck = Channel(answers=False)
    stuck.bufferedAmount = 7
    assert run(seconds(stuck)) == pytest.approx(2.0)
    draining = Channel()
    draining.bufferedAmount = 7

    async def drain() -> float:
        closing = asyncio.create_task(seconds(draining))
        await asyncio.sleep(0)
        draining.handlers["bufferedamountlow"]()
        return await closing

    assert run(drain()) == 0.0
    gone = Channel()
    gone.readyState = "closed"
    assert run(seconds(gone)) == 0.0
    assert run(EventChannel(GA()).close()) is None
