"""Messages of RTVI clients: what they mean to a session, and how they are answered."""

import base64
import random
from typing import Any

import msgspec
import pytest

from vivavoce.errors import LimitReached, Unauthorized
from vivavoce.protocol import pipecat_frames as frames
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    InputAudioAppend,
    ItemCreate,
    OutputAudioClear,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)
from vivavoce.protocol.items import FunctionCallOutput, InputText, Message, OutputText
from vivavoce.protocol.responses import Response, ResponseAudio, ResponseAudioOutput
from vivavoce.protocol.rtvi import MAX_REPORTED, RtviProtocol
from vivavoce.protocol.rtvi_messages import MAX_TEXT_BYTES
from vivavoce.protocol.session import PCM, RealtimePatch, RealtimeSession
from vivavoce.protocol.wire import CloseRequest, ConnectRequest, Decoded, Frame, Reply

JS = {"version": "2.1.0", "about": {"library": "@pipecat-ai/client-js"}}


def made() -> RtviProtocol:
    return RtviProtocol(lambda: 1_700_000_000.0)


def text(kind: str, data: Any = None, id_: str = "m1") -> Frame:
    message = {"label": "rtvi-ai", "type": kind, "id": id_, "data": {} if data is None else data}
    return Frame("text", msgspec.json.encode(message))


def answers(decoded: list[Decoded]) -> list[dict[str, Any]]:
    """The messages that go back at once."""
    return [
        msgspec.json.decode(frame.data)
        for one in decoded
        if isinstance(one, Reply)
        for frame in one.frames
    ]


def sent(protocol: RtviProtocol, kind: str, data: Any = None, id_: str = "m1") -> list[Decoded]:
    return list(protocol.decode(text(kind, data, id_)))


def error_of(decoded: list[Decoded]) -> str:
    (answer,) = answers(decoded)
    assert (answer["type"], answer["id"]) == ("error-response", "m1")
    return str(answer["data"]["error"])


def response(status: Any = "completed", id_: str = "resp_1") -> Response:
    return Response(
        id=id_,
        status=status,
        conversation_id="conv_1",
        output_modalities=("audio",),
        max_output_tokens="inf",
        audio=ResponseAudio(ResponseAudioOutput(PCM(), "marin")),
    )


def called(protocol: RtviProtocol, *call_ids: str) -> list[dict[str, Any]]:
    """Function calls of a response that is done; the messages of its end."""
    for call_id in call_ids:
        event = says.FunctionArgumentsDone(
            event_id="e",
            response_id="resp_1",
            item_id="i",
            output_index=0,
            call_id=call_id,
            name="weather",
            arguments='{"city": "Paris"}',
        )
        assert list(protocol.encode(event)) == []
    done = says.ResponseDone(event_id="e", response=response())
    return [msgspec.json.decode(frame.data) for frame in protocol.encode(done)]


# --- frames


def test_frames_of_the_recorded_client_are_read() -> None:
    message = frames.write_message(b'{"label":"rtvi-ai"}')
    assert message[0] == 0x22
    assert frames.read_frame(message) == frames.MessageFrame(b'{"label":"rtvi-ai"}')
    head = bytes.fromhex("128f04 1205") + b"audio" + bytes.fromhex("1a8004")
    recorded = head + bytes(512) + bytes.fromhex("20807d2801")
    assert frames.read_frame(recorded) == frames.AudioFrame(bytes(512), 16_000, 1)
    interruption = bytes.fromhex("2a1808e6011213496e74657272757074696f6e4672616d652330")
    assert frames.read_frame(interruption) == frames.InterruptionFrame()


def test_frames_are_written_as_they_are_read() -> None:
    assert frames.read_frame(frames.write_audio(300, b"abcd", 24_000)) == frames.AudioFrame(
        b"abcd", 24_000, 1
    )
    assert frames.read_frame(frames.write_interruption(7)) == frames.InterruptionFrame()
    assert frames.read_frame(b"\x0a\x03\x1a\x01x") == frames.TextFrame("x")
    assert frames.read_frame(b"\x1a\x06\x1a\x01x\x22\x01u") == frames.TranscriptionFrame("x", "u")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\x01",  # a number, no member
        b"\x32\x00",  # member 6
        b"\x09" + bytes(8),  # fixed 64, and nothing else
        b"\x0d" + bytes(4),
        b"\x0b",  # a group
        b"\x12\x7f",  # longer than the message
        b"\x12" + b"\xff" * 20,
        b"\x22\xff\xff\xff\xff\x7f",
        b"\x12\x02\x18\x05",  # audio that is a number
        b"\x22\x03\x0a\x01\xff",  # no UTF-8
        bytes(frames.MAX_FRAME_BYTES + 1),
    ],
)
def test_bytes_that_are_no_frame_raise(data: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.read_frame(data)


def test_fields_of_another_type_count_as_absent() -> None:
    assert frames.read_frame(b"\x0a\x02\x18\x05") == frames.TextFrame("")
    assert frames.read_frame(b"\x12\x03\x22\x01\x00") == frames.AudioFrame(b"", 0, 0)


# --- the handshake


@pytest.mark.parametrize(
    ("version", "answered", "warned"),
    [
        ("1.0.0", "1.0.0", ""),
        ("1.2.0", "1.2.0", ""),
        ("1.4.0", "1.4.0", ""),
        ("2.0.0", "2.2.0", ""),
        ("2.1.0", "2.2.0", ""),
        ("2.2.0", "2.2.0", ""),
        ("3.0.0", "2.2.0", "not compatible"),
        ("abc", "2.2.0", "Invalid client version format (abc)"),
        ("2", "2.2.0", "Invalid client version format (2)"),
        (None, "2.2.0", "unknown"),
        (5, "2.2.0", "unknown"),
    ],
)
def test_client_ready_is_answered_with_bot_ready(version: Any, answered: str, warned: str) -> None:
    data = {} if version is None else {"version": version}
    *warnings, ready = answers(sent(made(), "client-ready", data, "c1"))
    assert (ready["type"], ready["id"], ready["data"]["version"]) == ("bot-ready", "c1", answered)
    assert ready["data"]["about"]["library"] == "vivavoce"
    assert ready["data"]["capabilities"]["audio_in"] is True
    assert [w["type"] for w in warnings] == ["error-response"] * bool(warned)
    assert all(warned in w["data"]["error"] and w["id"] == "c1" for w in warnings)


def test_first_message_decides_the_encoding() -> None:
    protocol = made()
    started = says.SpeechStarted(event_id="e", item_id="i", audio_start_ms=0)
    assert list(protocol.encode(started)) == []
    ready = frames.write_message(text("client-ready", JS).data)
    (reply,) = protocol.decode(Frame("binary", ready))
    assert isinstance(reply, Reply)
    assert {frame.kind for frame in (*reply.frames, *protocol.encode(started))} == {"binary"}
    assert isinstance(frames.read_frame(reply.frames[0].data), frames.MessageFrame)


def test_query_requests_the_session() -> None:
    query = {"rtvi": "1", "model": "small", "voice": "alto", "language": "de"}
    opening = made().opening(ConnectRequest("/ws", query))
    assert opening.model == "small"
    assert isinstance(opening.patch, RealtimePatch)
    shown = msgspec.to_builtins(opening.patch.audio)
    assert shown["output"] == {"voice": "alto"}
    assert shown["input"]["transcription"] == {"model": "whisper-1", "language": "de"}


@pytest.mark.parametrize(
    ("error", "code"),
    [(LimitReached("full"), 1013), (Unauthorized("no key"), 3000)],
)
def test_refusal_is_a_fatal_error(error: Any, code: int) -> None:
    refusal = made().refuse(error)
    assert refusal.code == code
    frame = frames.read_frame(refusal.frames[0].data)
    assert isinstance(frame, frames.MessageFrame)
    assert msgspec.json.decode(frame.data)["data"] == {"error": str(error), "fatal": True}


# --- typed turns


@pytest.mark.parametrize("run", [True, False])
@pytest.mark.parametrize("speak", [True, False])
def test_send_text_follows_its_options(run: bool, speak: bool) -> None:
    options = {"run_immediately": run, "audio_response": speak}
    events = sent(made(), "send-text", {"content": "Hi.", "options": options})
    created = next(event for event in events if isinstance(event, ItemCreate))
    assert isinstance(created.item, Message)
    assert created.item.content == (InputText("Hi."),)
    if not run:
        assert len(events) == 1
        return
    clear, cancel, _, answer = events
    assert isinstance(clear, OutputAudioClear)
    assert isinstance(cancel, ResponseCancel)
    assert isinstance(answer, ResponseCreate)
    wanted = answer.response.output_modalities if answer.response else None
    assert wanted == (None if speak else ("text",))


def test_typed_text_is_reported_when_it_is_in_the_conversation() -> None:
    protocol = made()
    events = sent(protocol, "send-text", {"content": "Hi."}, "t1")
    item = next(event.item for event in events if isinstance(event, ItemCreate))
    added = says.ItemAdded(event_id="e", previous_item_id=None, item=item)
    one, two = (msgspec.json.decode(frame.data) for frame in protocol.encode(added))
    assert (one["type"], one["data"]["msg_id"], one["data"]["input_type"]) == (
        "user-input",
        "t1",
        "chat",
    )
    assert (two["type"], two["data"]) == ("user-llm-text", {"text": "Hi."})
    assert list(protocol.encode(added)) == []


def test_typed_texts_that_never_arrive_are_forgotten() -> None:
    protocol = made()
    events = sent(protocol, "send-text", {"content": "first", "options": {}}, "t0")
    item = next(event.item for event in events if isinstance(event, ItemCreate))
    for _ in range(100):
        sent(protocol, "send-text", {"content": "more"})
    assert (
        list(protocol.encode(says.ItemAdded(event_id="e", previous_item_id=None, item=item))) == []
    )


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
@pytest.mark.parametrize("run", [True, False])
def test_append_to_context_adds_a_message(role: str, run: bool) -> None:
    data = {"role": role, "content": "Be brief.", "run_immediately": run}
    events = sent(made(), "append-to-context", data)
    created = next(event for event in events if isinstance(event, ItemCreate))
    part = OutputText if role == "assistant" else InputText
    assert isinstance(created.item, Message)
    assert (created.item.role, created.item.content) == (role, (part("Be brief."),))
    assert any(isinstance(event, ResponseCreate) for event in events) is run


@pytest.mark.parametrize("data", [{"buttons": ["1", "#"]}, {"button": "5"}])
def test_dtmf_is_a_turn(data: dict[str, Any]) -> None:
    events = sent(made(), "dtmf", data)
    created = next(event for event in events if isinstance(event, ItemCreate))
    assert isinstance(created.item, Message)
    keys = "".join(data.get("buttons", [data.get("button")]))
    assert created.item.content == (InputText(f"DTMF: {keys}"),)


@pytest.mark.parametrize("data", [{}, {"buttons": []}, {"buttons": ["A"]}])
def test_dtmf_without_keys_is_refused(data: dict[str, Any]) -> None:
    assert "dtmf" in error_of(sent(made(), "dtmf", data))


def test_frames_without_rtvi_have_their_meaning() -> None:
    protocol = made()
    spoken = protocol.decode(Frame("binary", b"\x1a\x03\x1a\x01x"))
    assert any(isinstance(event, ResponseCreate) for event in spoken)
    stopped = list(protocol.decode(Frame("binary", frames.write_interruption(1))))
    assert [type(event) for event in stopped] == [OutputAudioClear, ResponseCancel]
    assert list(protocol.decode(Frame("binary", b"\x0a\x03\x1a\x01x"))) == []


# --- function calls


def test_function_result_continues_the_conversation() -> None:
    protocol = made()
    sent(protocol, "client-ready", JS)
    messages = called(protocol, "c1", "c2")
    assert [m["type"] for m in messages] == [
        "bot-llm-stopped",
        "llm-function-call-in-progress",
        "llm-function-call-in-progress",
    ]
    assert messages[1]["data"] == {
        "tool_call_id": "c1",
        "function_name": "weather",
        "arguments": {"city": "Paris"},
    }
    created, stopped = sent(
        protocol, "llm-function-call-result", {"tool_call_id": "c1", "result": {"sun": True}}
    )
    assert isinstance(created, ItemCreate)
    assert isinstance(created.item, FunctionCallOutput)
    assert (created.item.call_id, created.item.output) == ("c1", '{"sun":true}')
    (message,) = answers([stopped])
    assert message["type"] == "llm-function-call-stopped"
    assert message["data"]["result"] == {"sun": True}
    last = sent(protocol, "llm-function-call-result", {"tool_call_id": "c2", "result": "dry"})
    assert isinstance(last[-1], ResponseCreate)


def test_function_result_during_a_response_is_answered_after_it() -> None:
    protocol = made()
    sent(protocol, "client-ready", JS)
    called(protocol, "c1")
    created = says.ResponseCreated(event_id="e", response=response("in_progress"))
    assert list(protocol.encode(created))
    result = sent(protocol, "llm-function-call-result", {"tool_call_id": "c1", "result": 1})
    assert not any(isinstance(event, ResponseCreate) for event in result)
    assert sent(protocol, "ui-event") == []
    called(protocol)
    assert [type(event) for event in sent(protocol, "ui-event")] == [ResponseCreate]


def test_function_call_has_its_old_form_for_version_1() -> None:
    protocol = made()
    sent(protocol, "client-ready", {"version": "1.0.0"})
    assert called(protocol, "c1")[-1]["type"] == "llm-function-call"


def test_function_result_without_a_call_is_refused() -> None:
    result = sent(made(), "llm-function-call-result", {"tool_call_id": "c9"})
    assert "'c9'" in error_of(result)


# --- requests


def test_session_update_is_answered_by_its_id() -> None:
    protocol = made()
    tools = [{"type": "function", "name": "weather"}]
    data = {"t": "session.update", "d": {"tools": tools}}
    (update,) = sent(protocol, "client-message", data, "u1")
    assert isinstance(update, SessionUpdate)
    updated = says.SessionUpdated(event_id="e", session=RealtimeSession(id="s"))
    (answer,) = (msgspec.json.decode(frame.data) for frame in protocol.encode(updated))
    assert (answer["type"], answer["id"]) == ("server-response", "u1")
    assert answer["data"]["d"]["id"] == "s"
    assert list(protocol.encode(updated)) == []


def test_session_update_that_the_session_refuses_is_an_error_response() -> None:
    protocol = made()
    sent(protocol, "client-message", {"t": "session.update", "d": {}}, "m1")
    body = says.ErrorBody(message="no", event_id="m1")
    (answer,) = protocol.encode(says.ErrorEvent(event_id="e", error=body))
    assert msgspec.json.decode(answer.data)["type"] == "error-response"
    updated = says.SessionUpdated(event_id="e", session=RealtimeSession(id="s"))
    assert list(protocol.encode(updated)) == []


@pytest.mark.parametrize(
    ("kind", "data", "error"),
    [
        ("client-message", {"t": "session.update", "d": {"voice": 1}}, "voice"),
        ("client-message", {"t": "session.update", "d": 5}, "session"),
        ("client-message", {"t": "ping"}, "Unknown client message 'ping'"),
        ("client-message", {}, "`t`"),
        ("send-text", {}, "`content`"),
        ("send-text", "x" * MAX_TEXT_BYTES, "at most"),
        ("wibble", {}, "Unsupported type wibble"),
        ("action", {}, "Unsupported type action"),
        ("raw-audio", {"base64Audio": "AAA"}, "raw-audio"),
    ],
)
def test_message_that_cannot_be_served_is_an_error_response(
    kind: str, data: Any, error: str
) -> None:
    assert error in error_of(sent(made(), kind, data))


@pytest.mark.parametrize("kind", ["describe-config", "describe-actions", "get-config"])
def test_client_configuration_offers_no_options(kind: str) -> None:
    (answer,) = answers(sent(made(), kind))
    assert answer["id"] == "m1"
    assert list(answer["data"].values()) == [[]]


def test_disconnect_bot_closes() -> None:
    (close,) = sent(made(), "disconnect-bot")
    assert isinstance(close, CloseRequest)
    assert close.code == 1000


@pytest.mark.parametrize(
    "data",
    [
        b"ping: 123",
        b"hello",
        b"\xff",
        b'{"label":"other","type":"send-text"}',
        b'{"type":"signalling","message":{}}',
        b'{"label":"rtvi-ai","id":"1","data":' + b"[" * 200_000,
    ],
)
def test_text_of_another_kind_is_ignored(data: bytes) -> None:
    assert list(made().decode(Frame("text", data))) == []


@pytest.mark.parametrize(
    "data", [b'{"label":"rtvi-ai","type":"send-text"}', b'{"label":"rtvi-ai","id":5}', b"[]"]
)
def test_message_without_an_id_is_an_error(data: bytes) -> None:
    (answer,) = answers(list(made().decode(Frame("text", data))))
    assert answer["type"] == "error"
    assert "Invalid RTVI message" in answer["data"]["error"]


def test_frames_that_cannot_be_read_are_reported_a_few_times() -> None:
    protocol, noise = made(), random.Random(7)
    replies = [
        one
        for _ in range(2000)
        for one in protocol.decode(Frame("binary", noise.randbytes(noise.randrange(200))))
        if isinstance(one, Reply)
    ]
    assert len(replies) == MAX_REPORTED


# --- audio


def test_interruption_frame_is_for_clients_that_know_it() -> None:
    cleared = says.OutputAudioCleared(event_id="e", response_id="r")
    protocol = made()
    list(protocol.decode(Frame("binary", frames.write_audio(0, bytes(2), 24_000))))
    first = next(iter(protocol.encode(cleared)))
    assert frames.read_frame(first.data) == frames.InterruptionFrame()
    ready = frames.write_message(text("client-ready", JS).data)
    list(protocol.decode(Frame("binary", ready)))
    first = next(iter(protocol.encode(cleared)))
    assert isinstance(frames.read_frame(first.data), frames.MessageFrame)


def test_audio_is_sent_as_the_first_message_was() -> None:
    protocol = made()
    sent(protocol, "client-ready", JS)
    assert list(protocol.encode_audio(b"")) == []
    (frame,) = protocol.encode_audio(bytes(960))
    data = msgspec.json.decode(frame.data)
    assert (data["type"], data["data"]["sample_rate"]) == ("bot-tts-audio", 24_000)


def test_audio_in_protobuf_is_followed_by_the_sentence_that_begins_in_it() -> None:
    protocol = made()
    place: dict[str, Any] = {"response_id": "resp_1", "item_id": "i", "output_index": 0}
    list(protocol.decode(Frame("binary", frames.write_message(text("client-ready", JS).data))))
    for event in (
        says.ResponseCreated(event_id="e", response=response("in_progress")),
        says.OutputTranscriptDelta(event_id="e", delta="Hello. ", **place),
        says.OutputAudioStarted(event_id="e", response_id="resp_1"),
    ):
        list(protocol.encode(event))
    audio, message = (frames.read_frame(f.data) for f in protocol.encode_audio(bytes(960)))
    assert audio == frames.AudioFrame(bytes(960), 24_000, 1)
    assert isinstance(message, frames.MessageFrame)
    shown = msgspec.json.decode(message.data)
    assert (shown["type"], shown["data"]["text"]) == ("bot-output", "Hello.")


def test_audio_of_any_rate_and_cut_is_24_khz_mono() -> None:
    protocol = made()
    stereo = bytes(4 * 4800)
    events = [
        event
        for at in range(0, len(stereo), 999)
        for event in protocol.decode(
            text(
                "raw-audio",
                {
                    "base64Audio": base64.b64encode(stereo[at : at + 999]).decode(),
                    "sampleRate": 48_000,
                    "numChannels": 2,
                },
            )
        )
    ]
    assert all(isinstance(event, InputAudioAppend) for event in events)
    total = sum(len(event.audio) for event in events if isinstance(event, InputAudioAppend))
    assert 4600 <= total <= 4800


def test_batch_of_audio_is_one_piece() -> None:
    piece = base64.b64encode(bytes(640)).decode()
    data = {"base64AudioBatch": [piece, piece], "sampleRate": 24_000}
    (event,) = sent(made(), "raw-audio-batch", data)
    assert isinstance(event, InputAudioAppend)
    assert len(event.audio) == 1280


@pytest.mark.parametrize("format_", [{"sampleRate": 12_345}, {"numChannels": 9}])
def test_audio_of_an_unknown_format_is_an_error(format_: dict[str, int]) -> None:
    (answer,) = answers(sent(made(), "raw-audio", {"base64Audio": "AAAA", **format_}))
    assert answer["type"] == "error"
