"""The raw protocol in Pipecat's protobuf frames: both directions, without a connection."""

import json
from typing import Any

import numpy as np
import pytest

from tests.protocol.test_raw import PART, Clock, response
from vivavoce.errors import InvalidRequest, Unauthorized
from vivavoce.protocol import client as asks
from vivavoce.protocol import pipecat_frames as frames
from vivavoce.protocol import server as says
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.pipecat_frames import PipecatFrame, read_frame, write_message
from vivavoce.protocol.raw_frames import RawFramesProtocol
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.wire import ConnectRequest, ExpectsSound, Frame, Reply, ShowsText


def opened(**query: str) -> RawFramesProtocol:
    protocol = RawFramesProtocol(Clock())
    protocol.opening(ConnectRequest("/ws", {"format": "protobuf", **query}))
    return protocol


def taken(protocol: RawFramesProtocol, data: bytes, kind: Any = "binary") -> list[Any]:
    return list(protocol.decode(Frame(kind, data)))


def shown(protocol: RawFramesProtocol, event: says.AnyServerEvent) -> list[PipecatFrame]:
    sent = list(protocol.encode(event))
    assert all(frame.kind == "binary" for frame in sent)
    return [read_frame(frame.data) for frame in sent]


def test_sound_is_taken_at_its_own_rate_and_number_of_channels() -> None:
    protocol = opened()
    second = np.full(16_000, 1000, "<i2")
    (append,) = taken(protocol, frames.write_audio(1, second.tobytes(), 16_000))
    assert abs(len(append.audio) - 48_000) < 200
    both = np.repeat(second, 2).tobytes()
    frame = frames.write_audio(2, both, 24_000)
    stereo = frame[:-1] + bytes([2])  # the number of channels is the last field
    (append,) = taken(protocol, stereo)
    assert set(np.frombuffer(append.audio, "<i2")[10:-10]) == {1000}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x12\x7f", "pipecat.Frame"),
        (frames.write_audio(1, b"\0\0", 16_001), "'sample_rate'"),
        (frames.write_audio(1, b"\0\0", 16_000)[:-1] + b"\x02", "2 channels"),
        (frames.write_audio(1, b"\0\0", 16_000)[:-1] + b"\x7f", "127 channels"),
    ],
)
def test_frame_that_cannot_be_read_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        taken(opened(), data)


def test_text_and_transcription_frames_are_turns_and_an_interruption_interrupts() -> None:
    turn = asks.ItemCreate(item=Message(role="user", content=(InputText("Hello"),)))
    for data in (frames.write_text(1, "Hello"), frames.write_transcription(1, "Hello", "me")):
        assert turn in taken(opened(), data)
    kinds = [type(one) for one in taken(opened(), frames.write_interruption(1))]
    assert kinds == [asks.OutputAudioClear, asks.ResponseCancel]


def test_message_frames_and_text_messages_are_those_of_the_raw_protocol() -> None:
    for kind, data in (
        ("binary", write_message(b'{"type": "ping"}')),
        ("text", b'{"type":"ping"}'),
    ):
        (reply,) = taken(opened(), data, kind)
        assert isinstance(reply, Reply)
        answer = read_frame(reply.frames[0].data)
        assert isinstance(answer, frames.MessageFrame)
        assert json.loads(answer.data)["type"] == "pong"


def test_answer_comes_as_text_and_sound_of_24_khz() -> None:
    protocol = opened()
    (started,) = shown(
        protocol, says.ResponseCreated(event_id="e", response=response("in_progress"))
    )
    assert isinstance(started, frames.MessageFrame)
    (text,) = protocol.generated_text("r", "Hi.")
    assert read_frame(text.data) == frames.TextFrame("Hi.")
    (sound,) = protocol.encode_audio(bytes(960))
    assert read_frame(sound.data) == frames.AudioFrame(bytes(960), 24_000, 1)
    assert isinstance(protocol, ShowsText)
    assert protocol.server_plays
    assert not opened(pace="off").server_plays


def test_final_transcript_is_a_frame_and_one_in_progress_is_a_message() -> None:
    protocol = opened()
    words: dict[str, Any] = {"event_id": "e", "item_id": "i", "content_index": 0}
    (early,) = shown(protocol, says.TranscriptionDelta(**words, delta="Hel"))
    assert isinstance(early, frames.MessageFrame)
    whole = says.TranscriptionCompleted(**words, transcript="Hello", usage=DurationUsage(seconds=1))
    assert shown(protocol, whole) == [frames.TranscriptionFrame("Hello", "user")]


def test_interruption_is_a_frame() -> None:
    protocol = opened()
    cleared = says.OutputAudioCleared(event_id="e", response_id="r")
    assert frames.InterruptionFrame() in shown(protocol, cleared)
    assert shown(protocol, says.OutputTextDelta(**PART, content_index=0, delta="x")) == [
        frames.TextFrame("x")
    ]


def test_refusal_and_the_note_on_silence_are_messages() -> None:
    protocol = opened(output_rate="16000")
    refusal = protocol.refuse(Unauthorized("no key"))
    error = read_frame(refusal.frames[0].data)
    assert isinstance(error, frames.MessageFrame)
    assert (json.loads(error.data)["code"], refusal.code) == ("invalid_api_key", 3000)
    assert isinstance(protocol, ExpectsSound)
    note = protocol.silence_note()
    assert note is not None
    assert isinstance(read_frame(note.frames[0].data), frames.MessageFrame)
    taken(protocol, frames.write_audio(1, bytes(640), 16_000))
    assert protocol.silence_note() is None
