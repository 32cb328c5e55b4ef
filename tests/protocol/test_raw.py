"""The raw protocol: every message of a client, every event of the server, without a connection."""

import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCallOutput, Message, ToolName
from vivavoce.protocol.raw import RawProtocol
from vivavoce.protocol.raw_input import MAX_AUDIO_BYTES, RawInput
from vivavoce.protocol.raw_messages import INTERRUPT_ID
from vivavoce.protocol.responses import (
    DurationUsage,
    Response,
    ResponseAudio,
    ResponseAudioOutput,
    ResponseError,
    StatusDetails,
)
from vivavoce.protocol.session import PCM, RealtimeSession, ServedBy
from vivavoce.protocol.wire import CloseRequest, ConnectRequest, Frame, Opening, Reply

PART: dict[str, Any] = {"event_id": "e", "response_id": "r", "item_id": "i", "output_index": 0}
NOISE = np.random.default_rng(1).normal(size=48_000) / 8


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(waits: bool = False, clock: Clock | None = None, **query: str) -> RawProtocol:
    raw = RawProtocol(clock or Clock(), waits=waits)
    raw.opening(ConnectRequest("/ws", query))
    return raw


def decoded(raw: RawProtocol, message: object) -> list[Any]:
    if isinstance(message, bytes):
        return list(raw.decode(Frame("binary", message)))
    text = message if isinstance(message, str) else json.dumps(message)
    return list(raw.decode(Frame("text", text.encode())))


def shown(raw: RawProtocol, event: says.AnyServerEvent) -> list[Any]:
    """Text frames as objects, binary frames as bytes."""
    return [
        frame.data if frame.kind == "binary" else json.loads(frame.data)
        for frame in raw.encode(event)
    ]


def kinds(events: list[Any]) -> list[str]:
    return [event["type"] if isinstance(event, dict) else type(event).__name__ for event in events]


def response(status: Any = "completed", **more: Any) -> Response:
    audio = ResponseAudio(ResponseAudioOutput(PCM(), "marin"))
    return Response(
        id="r",
        status=status,
        conversation_id="c",
        output_modalities=("audio",),
        max_output_tokens="inf",
        audio=audio,
        **more,
    )


# --- the query


def test_query_without_options_opens_the_default_session() -> None:
    opening = RawProtocol(Clock()).opening(ConnectRequest("/ws"))
    assert opening is not None
    assert opening.model == ""
    patch = msgspec.to_builtins(opening.patch)
    assert patch["audio"]["input"]["transcription"] == {"model": "whisper-1"}


def test_query_options_reach_the_session() -> None:
    query = {
        **{"model": "m", "voice": "nova", "language": "de", "stt_model": "s"},
        **{"allow_interruptions": "off", "output_format": "f32", "output_rate": "48000"},
    }
    raw = RawProtocol(Clock())
    opening = raw.opening(ConnectRequest("/ws", query))
    assert opening is not None
    assert opening.model == "m"
    audio = msgspec.to_builtins(opening.patch)["audio"]
    assert audio["input"]["transcription"] == {"model": "s", "language": "de"}
    assert audio["input"]["turn_detection"]["interrupt_response"] is False
    assert audio["output"]["voice"] == "nova"
    (frame,) = raw.encode_audio(bytes(9600))
    assert len(frame.data) > 9600 * 3


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"sample_rate": "fast"}, "'fast'"),
        ({"sample_rate": "12345"}, "12345"),
        ({"input_format": "g711_ulaw", "input_rate": "16000"}, "8000"),
        ({"format": "mp3"}, "'pcm16'"),
        ({"output_format": "opus"}, "'opus'"),
        ({"interim": "maybe"}, "on or off"),
        ({"pace": "slow"}, "'slow'"),
    ],
)
def test_query_with_a_bad_value_is_refused_with_the_values_there_are(
    query: dict[str, str], named: str
) -> None:
    with pytest.raises(InvalidRequest, match=named):
        RawProtocol(Clock()).opening(ConnectRequest("/ws", query))


@pytest.mark.parametrize(("pace", "plays"), [("off", False), ("on", True), ("1", True)])
def test_query_says_who_paces(pace: str, plays: bool) -> None:
    assert opened(pace=pace).server_plays is plays


# --- binary messages


def test_sound_of_16_khz_becomes_an_append_of_24_khz() -> None:
    raw = opened()
    events = [event for size in (1, 639, 640) for event in decoded(raw, bytes(size))]
    assert kinds(events) == ["InputAudioAppend"] * 2
    assert 1700 < sum(len(event.audio) for event in events) <= 1920
    assert decoded(raw, b"") == []


def test_sound_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="smaller chunks"):
        decoded(opened(), bytes(MAX_AUDIO_BYTES + 2))


def send_in_real_time(
    raw: RawProtocol, clock: Clock, data: bytes, bytes_per_second: int
) -> list[Any]:
    """All events of sound that is sent in pieces of 100 ms."""
    events = []
    step = bytes_per_second // 10
    for at in range(0, len(data), step):
        events += decoded(raw, data[at : at + step])
        clock.now += 0.1
    return events


@pytest.mark.parametrize(
    ("rate", "code"), [(16_000, None), (24_000, "sample_rate"), (48_000, "sample_rate")]
)
def test_sound_at_another_rate_than_named_is_warned_of_once(rate: int, code: str | None) -> None:
    clock = Clock()
    raw = opened(clock=clock)
    sound = (NOISE * 32767).astype("<i2").tobytes() * 10
    events = send_in_real_time(raw, clock, sound[: 2 * rate * 8], 2 * rate)
    notes = [event for event in events if isinstance(event, Reply)]
    assert len(notes) == (0 if code is None else 1)
    if code:
        warning = json.loads(notes[0].frames[0].data)
        assert warning["code"] == "sample_rate_mismatch"
        assert f"?sample_rate={rate}" in warning["error"]
        assert f"?sample_rate={rate}" in notes[0].log


def test_file_that_is_sent_at_once_is_not_warned_of() -> None:
    clock = Clock()
    raw = opened(clock=clock)
    assert kinds(send_in_real_time(raw, clock, b"\1\0" * 1_200_000, 400_000)) == (
        ["InputAudioAppend"] * 60
    )


def test_floats_sent_as_pcm_are_warned_of() -> None:
    reply, append = decoded(opened(), NOISE[:4096].astype("<f4").tobytes())
    assert json.loads(reply.frames[0].data)["code"] == "format_mismatch"
    assert isinstance(append, asks.InputAudioAppend)


def test_pcm_sent_as_named_is_not_warned_of() -> None:
    raw = opened(format="f32", sample_rate="48000")
    assert kinds(decoded(raw, NOISE[:4096].astype("<f4").tobytes())) == ["InputAudioAppend"]


def test_sound_in_json_is_an_append() -> None:
    audio = base64.b64encode(bytes(3200)).decode()
    for message in (
        {"type": "audio_raw", "data": {"audio": audio, "sample_rate": 8000}},
        {"type": "InputAudioRawFrame", "audio": audio},
        {"type": "audio", "data": audio},
        {"audio": audio},
    ):
        assert kinds(decoded(opened(), message)) == ["InputAudioAppend"]
    with pytest.raises(InvalidRequest, match="Supported values are"):
        decoded(opened(), {"type": "audio_raw", "audio": audio, "sample_rate": 7})
    with pytest.raises(InvalidRequest, match="base64"):
        decoded(opened(), {"type": "audio_raw", "audio": "!"})


# --- text messages


@pytest.mark.parametrize(
    "message",
    [
        {"type": "text", "text": "Hello"},
        {"type": "text", "data": "Hello"},
        {"type": "TextFrame", "data": {"text": "Hello"}},
        {"type": "TranscriptionFrame", "text": "Hello"},
        {"text": "Hello"},
    ],
)
def test_text_is_a_turn_that_interrupts(message: object) -> None:
    events = decoded(opened(), message)
    assert kinds(events) == ["OutputAudioClear", "ResponseCancel", "ItemCreate", "ResponseCreate"]
    assert {event.event_id for event in events[:2]} == {INTERRUPT_ID}
    assert events[2].item.content[0].text == "Hello"


def test_interrupt_without_pace_tells_the_client_to_stop() -> None:
    reply, cancel = decoded(opened(pace="off"), {"type": "interrupt"})
    assert json.loads(reply.frames[0].data)["type"] == "InterruptionFrame"
    assert isinstance(cancel, asks.ResponseCancel)
    assert kinds(decoded(opened(), {"type": "InterruptionFrame"})) == [
        "OutputAudioClear",
        "ResponseCancel",
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "commit"}, ["InputAudioCommit", "ResponseCreate"]),
        ({"type": "clear"}, ["InputAudioClear"]),
        ({"type": "LLMRunFrame"}, ["OutputAudioClear", "ResponseCancel", "ResponseCreate"]),
        ({"type": "BotStartedSpeakingFrame"}, []),
        ({"type": "ping"}, ["Reply"]),
        ({"type": "end"}, ["CloseRequest"]),
        ({"type": "VADParamsUpdateFrame", "params": {"stop_secs": 0.8}}, ["SessionUpdate"]),
        ({"type": "VADParamsUpdateFrame", "start_secs": 0.2}, []),
    ],
)
def test_message_becomes_events(message: object, expected: list[str]) -> None:
    assert kinds(decoded(opened(), message)) == expected


def test_words_to_be_said_are_a_response_of_their_own() -> None:
    *_, create = decoded(opened(), {"type": "TTSSpeakFrame", "text": "Welcome"})
    assert create.response.input[0].content[0].text == "Say exactly this: Welcome"


@pytest.mark.parametrize("run", [True, False])
def test_appended_messages_become_items(run: bool) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "One"}, {"text": "two"}]},
        {"role": "assistant", "content": "Three"},
    ]
    message = {"type": "LLMMessagesAppendFrame", "data": {"messages": chat, "run_llm": run}}
    events = decoded(opened(), message)
    items: list[Any] = [event.item for event in events if isinstance(event, asks.ItemCreate)]
    assert [(item.role, item.content[0].text) for item in items] == [
        ("system", "Be brief."),
        ("user", "One\ntwo"),
        ("assistant", "Three"),
    ]
    assert isinstance(events[-1], asks.ResponseCreate) is run
    assert all(isinstance(item, Message) for item in items)


def test_tools_are_taken_in_both_forms() -> None:
    tool = {"name": "look", "parameters": {"type": "object"}}
    message = {"type": "LLMSetToolsFrame", "tools": [tool, {"type": "function", "function": tool}]}
    (update,) = decoded(opened(), message)
    assert [each.name for each in update.session.tools] == ["look", "look"]
    with pytest.raises(InvalidRequest, match=r"tools\[0\].name"):
        decoded(opened(), {"type": "LLMSetToolsFrame", "tools": [{}]})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", "none"),
        ({"name": "look"}, ToolName("look")),
        ({"type": "function", "function": {"name": "look"}}, ToolName("look")),
    ],
)
def test_tool_choice_is_taken_in_both_forms(choice: object, expected: object) -> None:
    (update,) = decoded(opened(), {"type": "LLMSetToolChoiceFrame", "tool_choice": choice})
    assert update.session.tool_choice == expected
    (update,) = decoded(opened(), {"type": "config", "tool_choice": choice})
    assert update.session.tool_choice == expected
    with pytest.raises(InvalidRequest, match="tool_choice"):
        decoded(opened(), {"type": "LLMSetToolChoiceFrame"})


def test_tool_result_continues_the_answer() -> None:
    result = {"tool_call_id": "call_1", "result": {"degrees": 22}}
    message = {"type": "FunctionCallResultFrame", "data": result}
    create, *_, run = decoded(opened(), message)
    assert create.item == FunctionCallOutput(call_id="call_1", output='{"degrees":22}')
    assert isinstance(run, asks.ResponseCreate)
    (create,) = decoded(
        opened(), {"type": "tool_result", "tool_call_id": "c", "result": "x", "run_llm": False}
    )
    assert create.item.output == "x"


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("hello", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"type": 1}', "'type'"),
        ('{"type": "text"}', "'text'"),
        ('{"type": "text", "text": ""}', "'text'"),
        ('{"type": "dance"}', "Supported types are"),
        ('{"type": "session.update"}', "/v1/realtime"),
        ('{"nothing": 1}', "no known setting"),
        ('{"sample_rate": "x"}', "'sample_rate'"),
        ('{"type": "config", "data": ' + '{"input": ' * 200 + "1" + "}" * 201, "too deeply"),
    ],
)
def test_bad_message_is_refused_with_a_remedy(message: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        decoded(opened(), message)


def test_configuration_changes_the_session_and_the_sound() -> None:
    raw = opened()
    config = {
        **{"voice": "nova", "system_prompt": "Be brief.", "turn_stop_secs": 1.5},
        **{"modalities": ["audio", "text"], "interim": False, "speed": 1.2, "language": None},
        **{"input": {"sample_rate": 24_000}, "output": {"format": "g711_ulaw"}},
        "tools": [{"name": "look"}],
    }
    (update,) = decoded(raw, {"type": "StartFrame", "data": config})
    session = msgspec.to_builtins(update.session)
    assert session["instructions"] == "Be brief."
    assert session["output_modalities"] == ("audio",)
    assert session["audio"]["input"] == {
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 1500}
    }
    assert len(decoded(raw, bytes(480))[0].audio) == 480
    (frame,) = raw.encode_audio(bytes(9600))
    assert len(frame.data) < 1600


@pytest.mark.parametrize(("on", "expected"), [(True, "server_vad"), (False, None)])
def test_configuration_switches_turn_detection(on: bool, expected: str | None) -> None:
    (update,) = decoded(opened(), {"turn_detection": on})
    detection = msgspec.to_builtins(update.session)["audio"]["input"]["turn_detection"]
    assert (detection and detection["type"]) == expected


def test_output_returns_from_g711_to_pcm_at_16_khz() -> None:
    raw = opened(format="g711_alaw")
    decoded(raw, {"output_format": "pcm16", "modalities": ["text"], "stt_model": "s"})
    (frame,) = raw.encode_audio(bytes(9600))
    assert len(frame.data) > 6300


# --- the first message, where it requests the session


def test_first_message_requests_the_session() -> None:
    raw = opened(waits=True, voice="nova")
    opening, update = decoded(raw, {"model": "gpt-4o", "input": {"stream": True}})
    assert isinstance(opening, Opening)
    assert opening.model == "gpt-4o"
    assert msgspec.to_builtins(opening.patch)["audio"]["output"]["voice"] == "nova"
    assert isinstance(update, asks.SessionUpdate)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\0\0", ["Opening"]),
        ("dance", ["Opening", "Reply"]),
        ({"type": "dance"}, ["Opening", "Reply"]),
        ({"type": "text", "text": "Hi"}, ["Opening", "OutputAudioClear", "ResponseCancel"]),
    ],
)
def test_first_message_of_another_kind_requests_the_default_session(
    message: object, expected: list[str]
) -> None:
    events = decoded(opened(waits=True, model="m"), message)
    assert kinds(events)[: len(expected)] == expected
    assert events[0].model == "m"


@pytest.mark.parametrize("encoding", ["<f4", "<i2"])
@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
def test_sound_of_unknown_format_is_recognised(encoding: str, rate: int) -> None:
    clock = Clock()
    raw = opened(waits=True, clock=clock)
    values = np.tile(NOISE, 2)[: rate * 2]
    sound = values if encoding == "<f4" else values * 32767
    data = sound.astype(encoding).tobytes()
    opening, *events = send_in_real_time(raw, clock, data, len(data) // 2)
    (note,) = [event for event in events if isinstance(event, Reply)]
    name = "32-bit floats" if encoding == "<f4" else "16-bit PCM"
    assert note == Reply((), f"its audio is {name} at {rate} Hz, recognised from the bytes")
    samples = sum(len(e.audio) for e in events if isinstance(e, asks.InputAudioAppend)) // 2
    assert abs(samples - 48_000) < 100
    assert isinstance(opening, Opening)


def test_file_of_unknown_format_is_recognised_at_once() -> None:
    raw = opened(waits=True)
    decoded(raw, {"model": "m"})
    data = NOISE.astype("<f4").tobytes()
    events = [e for at in range(0, len(data), 20_000) for e in decoded(raw, data[at : at + 20_000])]
    assert kinds(events)[:2] == ["Reply", "InputAudioAppend"]
    assert "48000 Hz" in events[0].log


def test_silence_of_unknown_format_is_dropped_in_the_end() -> None:
    clock = Clock()
    sound = RawInput(clock, recognises=True)
    for _ in range(20):
        assert sound.feed(bytes(64 * 1024)) == b""
        clock.now += 0.1
    assert len(sound._held) <= MAX_AUDIO_BYTES


def test_held_sound_is_released_by_a_commit() -> None:
    raw = opened(waits=True)
    decoded(raw, {"model": "m"})
    assert decoded(raw, (NOISE[:6000] * 32767).astype("<i2").tobytes()) == []
    events = decoded(raw, {"type": "commit"})
    assert kinds(events) == ["InputAudioAppend", "InputAudioCommit", "ResponseCreate"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"input": {"encoding": "f32", "rate": 24_000}}, "32-bit floats at 24000 Hz"),
        ({"input_format": "g711_ulaw"}, "g711_ulaw at 8000 Hz"),
    ],
)
def test_sound_of_a_named_format_is_not_held(config: dict[str, Any], expected: str) -> None:
    raw = opened(waits=True)
    decoded(raw, config)
    assert kinds(decoded(raw, bytes(4000))) == ["InputAudioAppend"]
    assert str(raw._input.format) == expected


def test_rate_alone_leaves_the_encoding_to_be_recognised() -> None:
    raw = opened(waits=True)
    decoded(raw, {"sample_rate": 24_000})
    reply, append = decoded(raw, NOISE[:6000].astype("<f4").tobytes())
    assert reply.log == "its audio is 32-bit floats at 24000 Hz, recognised from the bytes"
    assert len(append.audio) == 12_000


# --- what the server sends


def test_session_is_shown_with_the_formats_in_force() -> None:
    session = RealtimeSession(id="sess_1", served_by=ServedBy("default", "en"))
    (start,) = shown(opened(), says.SessionCreated(event_id="e", session=session))
    assert start["type"] == "StartFrame"
    assert start["data"] == {
        **{"session_id": "sess_1", "model": "default", "voice": "en"},
        **{"audio_in_sample_rate": 16_000, "audio_in_format": "pcm16"},
        **{"audio_out_sample_rate": 16_000, "audio_out_format": "pcm16"},
    }
    assert start["session_id"] == "sess_1"
    event = says.SessionUpdated(event_id="e", session=RealtimeSession(id="s"))
    assert kinds(shown(opened(), event)) == ["ConfigFrame"]


def test_transcript_is_shown_while_it_grows() -> None:
    delta = says.TranscriptionDelta(event_id="e", item_id="i", delta="hello ")
    usage = DurationUsage(seconds=1)
    final = says.TranscriptionCompleted(
        event_id="e", item_id="i", transcript="hello world", usage=usage
    )
    raw = opened()
    first, second, last = (shown(raw, event)[0] for event in (delta, delta, final))
    assert (first["text"], first["final"]) == ("hello ", False)
    assert (second["text"], second["data"]["finalized"]) == ("hello hello ", False)
    assert (last["text"], last["final"], last["finalized"]) == ("hello world", True, True)
    assert shown(opened(interim="off"), delta) == []
    empty = msgspec.structs.replace(final, transcript="")
    assert shown(raw, empty) == []


def test_paced_answer_is_shown_in_order() -> None:
    raw = opened()
    started = shown(raw, says.OutputAudioStarted(event_id="e", response_id="r"))
    text = shown(raw, says.OutputTranscriptDelta(**PART, delta="Hi"))
    assert kinds(started + text) == ["BotStartedSpeakingFrame", "TextFrame"]
    assert len(list(raw.encode_audio(bytes(960)))) == 1
    assert shown(raw, says.OutputAudioDone(**PART)) == []  # it is not played yet
    rest, stopped = shown(raw, says.OutputAudioStopped(event_id="e", response_id="r"))
    assert isinstance(rest, bytes)
    assert stopped["type"] == "BotStoppedSpeakingFrame"
    shown(raw, says.OutputAudioStarted(event_id="e", response_id="r"))
    list(raw.encode_audio(bytes(960)))
    cleared = shown(raw, says.OutputAudioCleared(event_id="e", response_id="r"))
    assert kinds(cleared) == ["InterruptionFrame", "BotStoppedSpeakingFrame"]
    assert list(raw.encode_audio(b"")) == []


def test_unpaced_answer_is_shown_in_order() -> None:
    raw = opened(pace="off", output_rate="24000")
    delta = says.OutputAudioDelta(**PART, delta=b"\1\0" * 480)
    assert kinds(shown(raw, delta)) == ["BotStartedSpeakingFrame", "bytes"]
    assert kinds(shown(raw, delta)) == ["bytes"]
    assert kinds(shown(raw, says.OutputAudioDone(**PART))) == ["BotStoppedSpeakingFrame"]
    done = says.ResponseDone(event_id="e", response=response("cancelled"))
    assert kinds(shown(raw, done)) == ["InterruptionFrame", "LLMFullResponseEndFrame"]


def test_failed_answer_is_reported_once() -> None:
    raw = opened()
    error = ResponseError("server_error", "llm_failed", "the endpoint refused: 401")
    details = StatusDetails(type="failed", error=error)
    event = says.ResponseDone(event_id="e", response=response("failed", status_details=details))
    report, end = shown(raw, event)
    assert (report["type"], report["error"]) == ("ErrorFrame", "the endpoint refused: 401")
    assert end["status"] == "failed"
    body = says.ErrorBody(message="the endpoint refused: 401", code="llm_failed")
    assert shown(raw, says.ErrorEvent(event_id="e", error=body)) == []


def test_failed_transcription_is_reported() -> None:
    failed = says.TranscriptionError("transcription_error", "stt_failed", "no key")
    event = says.TranscriptionFailed(event_id="e", item_id="i", error=failed)
    (report,) = shown(opened(), event)
    assert (report["error"], report["code"], report["fatal"]) == ("no key", "stt_failed", False)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (says.ErrorBody(message="m", code="invalid_value"), [False]),
        (says.ErrorBody(message="m", code="session_idle"), [True]),
        (says.ErrorBody(message="m", event_id=INTERRUPT_ID), []),
    ],
)
def test_error_is_shown_unless_there_was_nothing_to_interrupt(
    body: says.ErrorBody, expected: list[bool]
) -> None:
    frames = shown(opened(), says.ErrorEvent(event_id="e", error=body))
    assert [frame["fatal"] for frame in frames] == expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            says.SpeechStarted(event_id="e", item_id="i", audio_start_ms=0),
            "UserStartedSpeakingFrame",
        ),
        (says.SpeechStopped(event_id="e", item_id="i", audio_end_ms=0), "UserStoppedSpeakingFrame"),
        (says.OutputTextDelta(**PART, delta="Hi"), "TextFrame"),
        (says.ResponseCreated(event_id="e", response=response()), "LLMFullResponseStartFrame"),
    ],
)
def test_event_is_shown_as_a_frame(event: says.AnyServerEvent, expected: str) -> None:
    assert kinds(shown(opened(), event)) == [expected]


@pytest.mark.parametrize(
    ("arguments", "expected"), [('{"a": 1}', {"a": 1}), ("", {}), ("{a", "{a")]
)
def test_function_call_is_shown_with_its_arguments(arguments: str, expected: object) -> None:
    event = says.FunctionArgumentsDone(
        event_id="e",
        response_id="r",
        item_id="i",
        output_index=0,
        call_id="call_1",
        name="look",
        arguments=arguments,
    )
    (call,) = shown(opened(), event)
    assert call["data"] == {
        "function_name": "look",
        "tool_call_id": "call_1",
        "arguments": expected,
    }


def test_event_without_a_frame_is_left_out() -> None:
    assert shown(opened(), says.RateLimitsUpdated(event_id="e")) == []


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (Unauthorized("no key"), 3000, "invalid_api_key"),
        (LimitReached("full"), 1013, None),
        (InvalidRequest("bad", code="invalid_value"), 1008, "invalid_value"),
    ],
)
def test_refusal_is_a_fatal_error_and_a_close(error: Any, code: int, name: str | None) -> None:
    refusal = opened().refuse(error)
    frame = json.loads(refusal.frames[0].data)
    assert (refusal.code, frame["code"], frame["fatal"]) == (code, name, True)


def test_silent_client_is_told_what_to_send() -> None:
    raw = opened()
    note = raw.silence_note()
    assert note is not None
    frame = json.loads(note.frames[0].data)
    assert frame["code"] == "no_audio"
    assert "16-bit PCM at 16000 Hz" in frame["error"]
    decoded(raw, bytes(640))
    assert raw.silence_note() is None


def test_ping_and_end_need_no_session() -> None:
    (reply,) = decoded(opened(), {"type": "ping"})
    assert json.loads(reply.frames[0].data)["type"] == "pong"
    assert decoded(opened(), {"type": "EndFrame"}) == [CloseRequest()]


def test_text_of_a_spoken_answer_is_shown_before_its_words_have_sound() -> None:
    raw = opened()
    assert list(raw.generated_text("r", "Early. ")) == []  # not begun
    shown(raw, says.ResponseCreated(event_id="e", response=response("in_progress")))
    (frame,) = raw.generated_text("r", "Hello.")
    assert json.loads(frame.data)["text"] == "Hello."
    assert kinds(
        shown(raw, says.OutputTranscriptDelta(**PART, content_index=0, delta="Hello."))
    ) == ["TTSTextFrame"]
    shown(raw, says.ResponseDone(event_id="e", response=response("cancelled")))
    assert list(raw.generated_text("r", "Late.")) == []


def test_text_of_a_written_answer_is_shown_once() -> None:
    raw = opened()
    written = msgspec.structs.replace(response("in_progress"), output_modalities=("text",))
    shown(raw, says.ResponseCreated(event_id="e", response=written))
    assert list(raw.generated_text("r", "Hello.")) == []
    assert kinds(shown(raw, says.OutputTextDelta(**PART, content_index=0, delta="Hello."))) == [
        "TextFrame"
    ]
