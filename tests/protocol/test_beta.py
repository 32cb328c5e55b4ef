"""What a session says, as a beta client hears it."""

import json
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from tests.protocol.samples import (
    CALL,
    CALL_OUTPUT,
    DONE_RESPONSE,
    EVENT,
    FAILED_RESPONSE,
    HEARD_ANSWER,
    OPEN_RESPONSE,
    PLACE,
    PLAIN_SESSION,
    RICH_SESSION,
    SERVER_EVENTS,
    SPOKEN_ANSWER,
    TRANSCRIPTION_SESSION,
    USER_AUDIO,
    USER_MIX,
    WRITTEN_ANSWER,
)
from vivavoce.errors import InvalidRequest
from vivavoce.protocol import codec, server
from vivavoce.protocol.beta import Beta, NotInBeta, SameInBeta, is_beta_session, place
from vivavoce.protocol.beta_client import BetaResponseParams, BetaSessionPatch
from vivavoce.protocol.items import Item
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.server import (
    AnyServerEvent,
    ErrorBody,
    ErrorEvent,
    ItemAdded,
    ItemDone,
    ItemRetrieved,
    OutputAudioDelta,
    OutputItemDone,
    ResponseCreated,
    ResponseDone,
    SessionCreated,
    SessionUpdated,
)
from vivavoce.protocol.session import AudioOutputPatch, AudioPatch, RealtimePatch
from vivavoce.protocol.wire import Frame

RENAMED = {
    "conversation.item.added": "conversation.item.created",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
}
UNSAID = {
    "conversation.item.done",
    "conversation.item.input_audio_transcription.segment",
    "input_audio_buffer.timeout_triggered",
    "input_audio_buffer.dtmf_event_received",
}
RESHAPED = {"session", "response", "item", "error"}
RESHAPED_EVENTS = {
    server.ErrorEvent,
    server.SessionCreated,
    server.SessionUpdated,
    server.ItemAdded,
    server.ItemCreated,
    server.ItemRetrieved,
    server.ResponseCreated,
    server.ResponseDone,
    server.OutputItemAdded,
    server.OutputItemDone,
    server.OutputTextDelta,
    server.OutputTextDone,
    server.OutputTranscriptDelta,
    server.OutputTranscriptDone,
    server.OutputAudioDone,
}


def frames(event: AnyServerEvent) -> list[dict[str, Any]]:
    return [json.loads(frame.data) for frame in Beta().encode(event)]


def frame(event: AnyServerEvent) -> dict[str, Any]:
    (only,) = frames(event)
    return only


@pytest.mark.parametrize("event", SERVER_EVENTS, ids=lambda event: event.__struct_config__.tag)
def test_event_has_its_beta_name_and_its_other_fields(event: AnyServerEvent) -> None:
    ga = json.loads(codec.encode(event))
    name = ga.pop("type")
    if name in UNSAID or "mcp_" in name:
        assert frames(event) == []
        return
    beta = frames(event)[0]
    if not RESHAPED & set(ga):
        assert beta == {"type": RENAMED.get(name, name), **ga}
    else:
        assert set(beta) == {"type", *ga}


def test_audio_delta_is_renamed_only() -> None:
    assert frame(OutputAudioDelta(**PLACE, delta=b"\xfb\xff\xbf")) == {
        "type": "response.audio.delta",
        "event_id": "event_1",
        "response_id": "resp_1",
        "item_id": "item_2",
        "output_index": 0,
        "content_index": 0,
        "delta": "+/+/",
    }


def test_session_created_is_flat_and_conversation_created_follows() -> None:
    session, conversation = frames(SessionCreated(**EVENT, session=PLAIN_SESSION))
    assert session == {
        "type": "session.created",
        "event_id": "event_1",
        "session": {
            "object": "realtime.session",
            "id": "sess_1",
            "model": "gpt-realtime",
            "expires_at": 1_700_000_000,
            "modalities": ["text", "audio"],
            "instructions": "",
            "voice": "alloy",
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": None,
            "input_audio_noise_reduction": None,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
                "create_response": True,
                "interrupt_response": True,
            },
            "tools": [],
            "tool_choice": "auto",
            "temperature": 0.8,
            "max_response_output_tokens": "inf",
            "speed": 1.0,
            "tracing": None,
            "prompt": None,
            "include": None,
            "client_secret": None,
            "served_by": {"model": "here", "voice": "here"},
        },
    }
    assert conversation == {
        "type": "conversation.created",
        "event_id": "event_1_conversation",
        "conversation": {"id": "conv_1", "object": "realtime.conversation"},
    }


def test_session_updated_shows_what_was_set() -> None:
    session = frame(SessionUpdated(**EVENT, session=RICH_SESSION))["session"]
    shown = {
        "modalities": ["text"],
        "voice": "ash",
        "speed": 1.25,
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_alaw",
        "input_audio_transcription": {"model": "whisper-1", "language": "it", "prompt": "Roma"},
        "input_audio_noise_reduction": {"type": "near_field"},
        "turn_detection": {
            "type": "semantic_vad",
            "eagerness": "low",
            "create_response": False,
            "interrupt_response": True,
        },
        "tool_choice": "dial",
        "max_response_output_tokens": 100,
    }
    assert {name: session[name] for name in shown} == shown


def test_transcription_session_has_its_own_events_and_no_conversation() -> None:
    created = frame(SessionCreated(**EVENT, session=TRANSCRIPTION_SESSION))
    updated = frame(SessionUpdated(**EVENT, session=TRANSCRIPTION_SESSION))
    assert created["type"] == "transcription_session.created"
    assert updated["type"] == "transcription_session.updated"
    assert (
        created["session"]
        == updated["session"]
        == {
            "object": "realtime.transcription_session",
            "id": "sess_2",
            "expires_at": 1_700_000_000,
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1"},
            "input_audio_noise_reduction": None,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.25,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
                "create_response": True,
                "interrupt_response": True,
            },
            "include": None,
            "client_secret": None,
        }
    )


def test_turn_detection_that_is_off_is_null() -> None:
    heard = msgspec.structs.replace(PLAIN_SESSION.audio.input, turn_detection=None)
    audio = msgspec.structs.replace(PLAIN_SESSION.audio, input=heard)
    session = msgspec.structs.replace(PLAIN_SESSION, audio=audio)
    assert frame(SessionUpdated(**EVENT, session=session))["session"]["turn_detection"] is None


def test_item_done_is_not_sent() -> None:
    assert frame(ItemAdded(**EVENT, previous_item_id=None, item=USER_AUDIO)) == {
        "type": "conversation.item.created",
        "event_id": "event_1",
        "previous_item_id": None,
        "item": {
            "type": "message",
            "id": "item_1",
            "object": "realtime.item",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        },
    }
    assert frames(ItemDone(**EVENT, previous_item_id=None, item=USER_AUDIO)) == []


@pytest.mark.parametrize(
    ("item", "content"),
    [
        (WRITTEN_ANSWER, [{"type": "text", "text": "Hi."}]),
        (SPOKEN_ANSWER, [{"type": "audio", "transcript": "Hi."}]),
        (HEARD_ANSWER, [{"type": "audio", "transcript": "Hi.", "audio": "AwQ="}]),
        (
            USER_MIX,
            [
                {"type": "input_text", "text": "Look:"},
                {"type": "input_text", "text": "[image]"},
                {"type": "input_audio", "audio": "AQI=", "transcript": "Hello"},
            ],
        ),
    ],
)
def test_parts_of_an_item_have_their_beta_names(item: Item, content: Any) -> None:
    assert frame(ItemRetrieved(**EVENT, item=item))["item"]["content"] == content


@pytest.mark.parametrize("item", [CALL, CALL_OUTPUT])
def test_function_call_is_the_same_in_both_protocols(item: Item) -> None:
    event = OutputItemDone(**EVENT, response_id="resp_1", output_index=0, item=item)
    assert frame(event) == json.loads(codec.encode(event))


def test_response_is_flat() -> None:
    assert frame(ResponseDone(**EVENT, response=DONE_RESPONSE))["response"] == {
        "object": "realtime.response",
        "id": "resp_1",
        "status": "completed",
        "status_details": None,
        "output": [
            {
                "type": "message",
                "id": "item_2",
                "object": "realtime.item",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "audio", "transcript": "Hi."}],
            },
            {
                "type": "function_call",
                "id": "item_4",
                "object": "realtime.item",
                "status": "completed",
                "call_id": "call_1",
                "name": "dial",
                "arguments": '{"to":1}',
            },
        ],
        "conversation_id": "conv_1",
        "modalities": ["text", "audio"],
        "voice": "alloy",
        "output_audio_format": "g711_ulaw",
        "temperature": 0.8,
        "max_output_tokens": 4096,
        "usage": {
            "total_tokens": 3,
            "input_tokens": 1,
            "output_tokens": 2,
            "input_token_details": {
                "text_tokens": 0,
                "audio_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0},
            },
            "output_token_details": {"text_tokens": 0, "audio_tokens": 0},
        },
        "metadata": {"client_event_id": "e1"},
    }


def test_response_created_has_no_usage() -> None:
    assert frame(ResponseCreated(**EVENT, response=OPEN_RESPONSE))["response"]["usage"] is None


def test_failed_response_has_its_error() -> None:
    details = frame(ResponseDone(**EVENT, response=FAILED_RESPONSE))["response"]["status_details"]
    error = {"type": "server_error", "code": "engine_failed", "message": "No model."}
    assert details == {"type": "failed", "error": error}


def test_error_of_a_ga_setting_names_the_beta_path() -> None:
    body = ErrorBody(
        code="missing_required_parameter",
        message="Missing required parameter: 'session.audio.input.transcription.model'.",
        param="session.audio.input.transcription.model",
        event_id="mine",
    )
    assert frame(ErrorEvent(**EVENT, error=body))["error"] == {
        "type": "invalid_request_error",
        "code": "missing_required_parameter",
        "message": "Missing required parameter: 'session.input_audio_transcription.model'.",
        "param": "session.input_audio_transcription.model",
        "event_id": "mine",
    }


def test_error_without_a_param_is_the_same_in_both_protocols() -> None:
    event = ErrorEvent(**EVENT, error=ErrorBody(type="server_error", message="Failed."))
    assert frames(event) == [json.loads(codec.encode(event))]


@pytest.mark.parametrize("param", ["item_id", "session.tools[0].name", "session.voice", "type"])
def test_path_common_to_both_protocols_keeps_its_name(param: str) -> None:
    assert place(param) == param


def leaves(prefix: str, struct: type) -> set[str]:
    """The place of every setting below a struct; audio is the one nest that the beta has not."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    found = set()
    for field in info.fields:
        path = f"{prefix}.{field.name}"
        nested = [
            member.cls
            for member in getattr(field.type, "types", (field.type,))
            if isinstance(member, inspect.StructType) and ".audio" in path and path.count(".") < 3
        ]
        found |= leaves(path, nested[0]) if nested else {path}
    return found


@pytest.mark.parametrize(
    ("prefix", "ga", "beta"),
    [
        ("session", RealtimePatch, BetaSessionPatch),
        ("response", ResponseParams, BetaResponseParams),
    ],
)
def test_every_ga_setting_has_a_beta_path(prefix: str, ga: type, beta: type) -> None:
    new_in_ga = {"parallel_tool_calls", "reasoning", "truncation"}
    if prefix == "response":  # read and ignored
        new_in_ga |= {"audio.input", "audio.output.speed"}
    places = {place(path) for path in leaves(prefix, ga)}
    known = {f"{prefix}.{name}" for name in beta.__struct_fields__}  # type: ignore[attr-defined]
    assert places - known <= {f"{prefix}.{name}" for name in new_in_ga}
    assert f"{prefix}.voice" in places


VOICES = {"alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"}


def text(event: dict[str, Any]) -> Frame:
    return Frame("text", json.dumps(event).encode())


def with_voice(voice: str) -> SessionUpdated:
    output = msgspec.structs.replace(PLAIN_SESSION.audio.output, voice=voice)
    audio = msgspec.structs.replace(PLAIN_SESSION.audio, output=output)
    session = msgspec.structs.replace(PLAIN_SESSION, audio=audio)
    return SessionUpdated(**EVENT, session=session)


def shown_by(beta: Beta, event: AnyServerEvent) -> dict[str, Any]:
    (only,) = beta.encode(event)
    decoded: dict[str, Any] = json.loads(only.data)
    return decoded


@pytest.mark.parametrize("voice", ["marin", "cedar", "af_heart", *sorted(VOICES)])
def test_session_with_the_default_voice_shows_one_of_the_beta(voice: str) -> None:
    shown = shown_by(Beta(), with_voice(voice))["session"]["voice"]
    assert shown == (voice if voice in VOICES else "alloy")


@pytest.mark.parametrize(
    "named",
    [
        {"type": "session.update", "session": {"voice": "af_heart"}},
        {"type": "session.update", "session": {"voice": {"id": "af_heart"}}},
        {"type": "response.create", "response": {"voice": "af_heart"}},
    ],
)
def test_voice_that_the_client_named_is_shown(named: dict[str, Any]) -> None:
    beta = Beta()
    for _ in range(2):
        beta.decode(text(named))
    beta.decode(text({"type": "response.create"}))
    assert shown_by(beta, with_voice("af_heart"))["session"]["voice"] == "af_heart"
    assert shown_by(beta, with_voice("marin"))["session"]["voice"] == "alloy"


def test_settings_of_a_form_are_read_and_their_voice_is_shown() -> None:
    beta = Beta()
    patch = beta.read_session(b'{"voice":"af_heart","modalities":["text"]}')
    assert patch == RealtimePatch(
        output_modalities=("text",), audio=AudioPatch(output=AudioOutputPatch(voice="af_heart"))
    )
    assert shown_by(beta, with_voice("af_heart"))["session"]["voice"] == "af_heart"


@pytest.mark.parametrize("raw", [b'{"voices":"ash"}', b'{"audio":{}}'])
def test_settings_of_a_form_that_are_unknown_are_refused_with_their_path(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Beta().read_session(raw)
    assert caught.value.code == "unknown_parameter"
    assert caught.value.param in ("session.voices", "session.audio")


@pytest.mark.parametrize(
    ("raw", "beta"),
    [
        (b"{}", True),
        (b'{"voice":"ash","tools":[{"type":"function","name":"a"}]}', True),
        (b'{"type":"realtime","audio":{}}', False),
        (b'{"type":"transcription"}', False),
    ],
)
def test_settings_with_a_type_are_not_of_the_beta(raw: bytes, beta: bool) -> None:
    assert is_beta_session(raw) is beta


def test_error_names_the_path_as_it_was_sent_once() -> None:
    beta = Beta()
    with pytest.raises(InvalidRequest) as caught:
        beta.decode(text({"type": "session.update", "session": {"output_modalities": ["text"]}}))
    problem = caught.value
    body = ErrorBody(message=problem.message, param=problem.param, event_id=problem.event_id)
    event = ErrorEvent(**EVENT, error=body)
    assert shown_by(beta, event)["error"]["param"] == "session.output_modalities"
    assert shown_by(beta, event)["error"]["param"] == "session.modalities"


def test_every_server_event_is_sent_or_left_out_on_purpose() -> None:
    """The match over them is closed for mypy; this says so without it."""
    reshaped = {server.OutputAudioDelta, *RESHAPED_EVENTS}
    parts = (set(get_args(SameInBeta)), set(get_args(NotInBeta)), reshaped)
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert set().union(*parts) == set(get_args(AnyServerEvent))
