"""Events on a data channel that opens late, or takes no large messages."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import InputAudio, InputText, Message, OutputAudio
from vivavoce.protocol.server import InputAudioCleared, ItemAdded, ItemRetrieved
from vivavoce.session.facts import InvalidFrame, Received
from vivavoce.testing.virtual_time import run
from vivavoce.transports.webrtc.channel import EventChannel


class Channel:
    """A data channel, as far as it is used."""

    bufferedAmount = 0
    readyState = "open"

    def __init__(self, most: int = 1000, *, answers: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self._most = most
        self._answers = answers
        self._closed: Callable[[], None] = lambda: None

    def on(self, event: str, handler: Callable[[], None]) -> None:
        assert event == "close"
        self._closed = handler

    def close(self) -> None:
        self.readyState = "closing"
        if self._answers:
            asyncio.get_running_loop().call_soon(self._closed)

    def send(self, text: str) -> None:
        if len(text) > self._most:
            raise ValueError(text)
        self.sent.append(msgspec.json.decode(text))


def opened(channel: Channel) -> EventChannel:
    events = EventChannel()
    assert events.open(channel)  # type: ignore[arg-type]
    return events


def test_events_wait_for_the_channel() -> None:
    events, channel = EventChannel(), Channel()
    events.send(InputAudioCleared(event_id="1"))
    events.send(InputAudioCleared(event_id="2"))
    assert events.backlog == 0
    events.open(channel)  # type: ignore[arg-type]
    events.send(InputAudioCleared(event_id="3"))
    assert [event["event_id"] for event in channel.sent] == ["1", "2", "3"]


def test_a_second_channel_is_used_when_the_first_is_closed() -> None:
    first, second = Channel(), Channel()
    events = opened(first)
    assert not events.open(second)  # type: ignore[arg-type]
    first.readyState = "closed"
    events.send(InputAudioCleared(event_id="1"))
    assert events.open(second)  # type: ignore[arg-type]
    events.send(InputAudioCleared(event_id="2"))
    assert [len(first.sent), len(second.sent)] == [0, 1]


def test_an_item_that_is_too_large_is_shown_without_its_sound() -> None:
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


def test_what_is_too_large_anyhow_is_left_out_and_that_is_told() -> None:
    channel = Channel()
    item = Message(id="a", role="user", content=(InputText(text="x" * 2000),))
    opened(channel).send(ItemAdded(event_id="1", previous_item_id=None, item=item))
    (event,) = channel.sent
    assert (event["type"], event["error"]["code"]) == ("error", "event_too_large")
    assert "conversation.item.added" in event["error"]["message"]


def test_what_the_client_says_is_an_event_or_is_not() -> None:
    events = EventChannel()
    assert isinstance(events.read('{"type": "input_audio_buffer.clear"}'), Received)
    assert isinstance(events.read(b'{"type": "input_audio_buffer.clear"}'), Received)
    garbled = events.read("{")
    assert isinstance(garbled, InvalidFrame)
    assert isinstance(garbled.problem, InvalidRequest)


def test_a_channel_is_closed_when_it_is_empty_and_nobody_is_waited_for_long() -> None:
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
    gone = Channel()
    gone.readyState = "closed"
    assert run(seconds(gone)) == 0.0
    assert run(EventChannel().close()) is None
