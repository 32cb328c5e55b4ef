"""RTVI: files, errors of clients, calls of WebRTC, metrics, and options of a session."""

import struct
from typing import Any

import msgspec
import pytest

from tests.protocol.test_rtvi_client import answers, error_of, made, response, sent
from tests.protocol.test_rtvi_output import CREATED, PART, STARTED, STOPPED, E, told, words
from tests.protocol.test_rtvi_output import HEARD as SESSION
from vivavoce.protocol import pipecat_frames as frames
from vivavoce.protocol import server as says
from vivavoce.protocol.client import InputAudioAppend, ItemCreate, OutputAudioClear, ResponseCreate
from vivavoce.protocol.items import FunctionCall, InputImage, InputText, Message
from vivavoce.protocol.responses import DurationUsage, TranscriptionTokens, Usage
from vivavoce.protocol.rtvi import MAX_REPORTED, RtviProtocol
from vivavoce.protocol.rtvi_output import RtviOutput
from vivavoce.protocol.rtvi_requests import options_of
from vivavoce.protocol.wire import Frame, Reply

CALL = FunctionCall(name="weather", call_id="call_1")


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ({"type": "bytes", "bytes": "QUJD", "width": 1}, "data:image/png;base64,QUJD"),
        ({"type": "bytes", "bytes": "data:image/png;base64,QQ=="}, "data:image/png;base64,QQ=="),
        ({"type": "url", "url": "https://a.example/b.png"}, "https://a.example/b.png"),
    ],
)
def test_picture_is_a_turn_with_its_text(source: dict[str, Any], address: str) -> None:
    data = {"content": "What is it?", "file": {"format": "image/png", "source": source}}
    decoded = sent(made(), "send-file", data)
    created = next(one for one in decoded if isinstance(one, ItemCreate))
    assert isinstance(created.item, Message)
    assert created.item.content == (InputText("What is it?"), InputImage(address))
    assert isinstance(decoded[0], OutputAudioClear)
    assert isinstance(decoded[-1], ResponseCreate)


def test_file_of_another_format_is_refused() -> None:
    file = {"format": "application/pdf", "source": {"type": "url", "url": "https://a.example"}}
    decoded = sent(made(), "send-file", {"content": "", "file": file})
    assert "application/pdf" in error_of(decoded)


def test_picture_without_a_text_and_without_a_run_is_added_alone() -> None:
    source = {"type": "bytes", "bytes": "QUJD"}
    data = {
        "content": "",
        "file": {"format": "image/png", "source": source},
        "options": {"run_immediately": False},
    }
    (created,) = sent(made(), "send-file", data)
    assert isinstance(created, ItemCreate)
    assert isinstance(created.item, Message)
    assert len(created.item.content) == 1


@pytest.mark.parametrize("kind", ["error", "error-response"])
def test_error_of_a_client_is_logged_a_few_times_and_not_answered(kind: str) -> None:
    protocol = made()
    message = {"label": "rtvi-ai", "type": kind, "data": {"error": "no\nhandler"}}
    frame = Frame("text", msgspec.json.encode(message))
    notes = [one for _ in range(MAX_REPORTED + 5) for one in protocol.decode(frame)]
    assert len(notes) == MAX_REPORTED
    assert all(isinstance(note, Reply) and note.frames == () for note in notes)
    assert isinstance(notes[0], Reply)
    assert notes[0].log == f'{kind}: b\'{{"error":"no\\\\nhandler"}}\''


def test_wav_header_before_audio_is_left_out() -> None:
    pcm = struct.pack("<480h", *range(480))
    header = b"RIFF" + bytes(4) + b"WAVE" + bytes(32)
    frame = Frame("binary", frames.write_audio(0, header + pcm, 24_000))
    (appended,) = made().decode(frame)
    assert isinstance(appended, InputAudioAppend)
    assert appended.audio == pcm


def test_channel_of_a_call_tells_what_is_spoken_and_that_the_peer_has_left() -> None:
    protocol = RtviProtocol(lambda: 0.0, channel=True, library_version="1.2")
    (ready,) = answers(sent(protocol, "client-ready", {"version": "2.1.0"}))
    assert ready["data"]["about"] == {"library": "vivavoce", "library_version": "1.2"}
    for event in (CREATED, words("One. "), says.OutputAudioStarted(**E, response_id="resp_1")):
        list(protocol.encode(event))
    (shown,) = protocol.played(480)
    assert msgspec.json.decode(shown.data)["type"] == "bot-output"
    (left,) = protocol.ended()
    assert msgspec.json.decode(left.data)["message"] == {"type": "peerLeft"}


def test_call_that_was_cut_off_is_stopped_and_arguments_that_are_no_json_are_text() -> None:
    output = RtviOutput(lambda: 0.0)
    other = FunctionCall(name="news", call_id="call_2")
    added = [
        says.OutputItemAdded(**E, response_id="resp_1", output_index=0, item=call)
        for call in (CALL, other)
    ]
    done = says.FunctionArgumentsDone(**PART, call_id="call_1", name="weather", arguments="{no")
    told(output, CREATED, *added, done)
    messages = told(output, says.ResponseDone(**E, response=response("cancelled")))
    running = next(m for m in messages if m["type"] == "llm-function-call-in-progress")
    assert running["data"]["arguments"] == "{no"
    stopped = next(m for m in messages if m["type"] == "llm-function-call-stopped")
    assert stopped["data"] == {
        "tool_call_id": "call_2",
        "cancelled": True,
        "function_name": "news",
    }


@pytest.mark.parametrize(
    "usage", [DurationUsage(seconds=2), TranscriptionTokens(1, 1, 0)], ids=["seconds", "tokens"]
)
def test_metrics_of_a_turn_have_the_times_and_amounts_of_all_engines(usage: Any) -> None:
    now = [0.0]
    output = RtviOutput(lambda: now[0])
    told(output, says.SessionCreated(**E, session=SESSION), STARTED, STOPPED)
    now[0] = 0.25
    told(output, says.TranscriptionCompleted(**E, item_id="u", transcript="hello", usage=usage))
    told(output, CREATED)
    now[0] = 0.5
    told(output, words("Four."))
    now[0] = 1.0
    told(output, says.OutputAudioStarted(**E, response_id="resp_1"))
    told(output, says.OutputTranscriptDone(**PART, transcript="Four."))
    done = msgspec.structs.replace(
        response(), usage=Usage(total_tokens=9, input_tokens=7, output_tokens=2)
    )
    metrics = next(
        m["data"]
        for m in told(output, says.ResponseDone(**E, response=done))
        if m["type"] == "metrics"
    )
    times = {item["processor"]: item["value"] for item in metrics["ttfb"]}
    assert times == {"stt": 0.25, "llm": 0.25, "tts": 0.75}
    assert metrics["processing"][0]["value"] == 0.75
    assert metrics["characters"][0]["value"] == len("Four.") + 1
    heard = [item["value"] for item in metrics.get("stt_usage", ())]
    assert heard == ([{"audio_seconds": 2}] if isinstance(usage, DurationUsage) else [])


def test_transcript_without_an_end_of_speech_has_no_time() -> None:
    output = RtviOutput(lambda: 0.0)
    usage = DurationUsage(seconds=0)
    told(output, says.TranscriptionCompleted(**E, item_id="u", transcript="hello", usage=usage))
    assert output.user.transcript_delay is None


@pytest.mark.parametrize("data", [None, [], "voice", {"voice": 1, "other": "x"}])
def test_options_that_are_no_text_are_left_out(data: object) -> None:
    assert options_of(data) == {}


def test_options_of_a_mapping_are_those_that_may_be_chosen() -> None:
    assert options_of({"voice": "ash", "key": "x"}) == {"voice": "ash"}
