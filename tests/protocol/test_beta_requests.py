"""What beta clients ask for, and what it is in GA."""

import json
from typing import Any

import msgspec
import pytest

from tests.protocol.client_samples import (
    BETA_CLIENT_EVENTS,
    COMMON_CLIENT_EVENTS,
)
from tests.protocol.samples import (
    PLAIN_SESSION,
    RICH_SESSION,
    TRANSCRIPTION_SESSION,
)
from vivavoce.errors import InvalidRequest
from vivavoce.protocol import beta, codec
from vivavoce.protocol.beta import Beta
from vivavoce.protocol.client import (
    AnyClientEvent,
    InputAudioAppend,
    ItemCreate,
    ResponseCreate,
    SessionUpdate,
)
from vivavoce.protocol.items import (
    FunctionCallOutput,
    FunctionTool,
    InputAudio,
    InputText,
    ItemReference,
    Message,
    OutputAudio,
    OutputText,
    ToolName,
)
from vivavoce.protocol.responses import AudioOutputParams, AudioParams, ResponseParams
from vivavoce.protocol.session import (
    PCMA,
    PCMU,
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    CustomVoice,
    NoiseReductionPatch,
    PCMPatch,
    RealtimePatch,
    SemanticVadPatch,
    ServerVadPatch,
    SessionPatch,
    TranscriptionAudioPatch,
    TranscriptionPatch,
    TranscriptionSessionPatch,
)
from vivavoce.protocol.wire import Frame


def decode(event: dict[str, Any]) -> AnyClientEvent:
    (read,) = Beta().decode(Frame("text", json.dumps(event).encode()))
    return read


def wants(kind: str = "session.update", /, **settings: Any) -> SessionPatch:
    event = decode({"type": kind, "session": settings})
    assert isinstance(event, SessionUpdate)
    return event.session


def refused(event: dict[str, Any]) -> tuple[str | None, str | None, str | None, str]:
    with pytest.raises(InvalidRequest) as caught:
        decode({**event, "event_id": "mine"})
    error = caught.value
    return error.code, error.param, error.event_id, error.message


@pytest.mark.parametrize("event", COMMON_CLIENT_EVENTS, ids=lambda event: event["type"])
def test_event_common_to_both_protocols_decodes_to_the_same(event: dict[str, Any]) -> None:
    assert decode(event) == codec.decode(json.dumps(event))


@pytest.mark.parametrize("event", BETA_CLIENT_EVENTS, ids=lambda event: event["type"])
def test_beta_event_decodes_to_a_ga_event(event: dict[str, Any]) -> None:
    read = decode(event)
    assert codec.decode(msgspec.json.encode(read)) == read
    assert read.event_id == event.get("event_id")


def test_append_decodes_to_an_append() -> None:
    event = decode({"type": "input_audio_buffer.append", "audio": "AAAA", "event_id": "mine"})
    assert event == InputAudioAppend(audio=b"\0\0\0", event_id="mine")


def test_flat_session_decodes_to_a_nested_one() -> None:
    assert wants(
        modalities=["audio", "text"],
        model="gpt-4o-realtime-preview",
        instructions="Be brief.",
        voice="ash",
        input_audio_format="g711_ulaw",
        output_audio_format="g711_alaw",
        input_audio_transcription={"model": "whisper-1"},
        input_audio_noise_reduction={"type": "far_field"},
        turn_detection={"type": "semantic_vad", "eagerness": "high"},
        tools=[{"type": "function", "name": "dial"}],
        tool_choice="dial",
        temperature=0.7,
        max_response_output_tokens=10,
        speed=1.1,
        tracing="auto",
        prompt={"id": "pmpt_1"},
        include=["x"],
        client_secret={"expires_after": {"anchor": "created_at"}},
    ) == RealtimePatch(
        model="gpt-4o-realtime-preview",
        output_modalities=("audio",),
        instructions="Be brief.",
        tools=(FunctionTool(name="dial"),),
        tool_choice=ToolName("dial"),
        max_output_tokens=10,
        tracing="auto",
        prompt={"id": "pmpt_1"},
        include=("x",),
        audio=AudioPatch(
            input=AudioInputPatch(
                format=PCMU(),
                transcription=TranscriptionPatch(model="whisper-1"),
                noise_reduction=NoiseReductionPatch(type="far_field"),
                turn_detection=SemanticVadPatch(eagerness="high"),
            ),
            output=AudioOutputPatch(format=PCMA(), voice="ash", speed=1.1),
        ),
    )


def test_absent_setting_stays_absent() -> None:
    assert wants() == RealtimePatch()
    assert wants(type="realtime", temperature=0.7) == RealtimePatch()
    assert wants(turn_detection={"type": "server_vad"}) == RealtimePatch(
        audio=AudioPatch(input=AudioInputPatch(turn_detection=ServerVadPatch()))
    )


def test_null_setting_switches_off_or_counts_as_absent() -> None:
    assert wants(
        turn_detection=None,
        input_audio_transcription=None,
        input_audio_noise_reduction=None,
        tools=None,
        modalities=None,
        temperature=None,
        voice=None,
        input_audio_format=None,
    ) == RealtimePatch(
        tools=None,
        audio=AudioPatch(
            input=AudioInputPatch(transcription=None, noise_reduction=None, turn_detection=None)
        ),
    )


def test_turn_detection_of_type_none_is_null() -> None:
    assert wants(turn_detection={"type": "none"}) == wants(turn_detection=None)


@pytest.mark.parametrize(
    ("modalities", "ga"),
    [(["text", "audio"], ("audio",)), (["audio", "text"], ("audio",)), (["text"], ("text",))],
)
def test_modalities_with_audio_become_audio_alone(
    modalities: list[str], ga: tuple[str, ...]
) -> None:
    settings = wants(modalities=modalities)
    assert isinstance(settings, RealtimePatch)
    assert settings.output_modalities == ga


@pytest.mark.parametrize("modalities", [["audio"], []])
def test_modalities_that_the_beta_lacks_are_refused(modalities: list[str]) -> None:
    message = (
        f"Invalid modalities: {modalities}. "
        f"Supported combinations are: ['text'] and ['audio', 'text']."
    )
    update = {"type": "session.update", "session": {"modalities": modalities}}
    assert refused(update) == ("invalid_value", "session.modalities", "mine", message)
    create = {"type": "response.create", "response": {"modalities": modalities}}
    assert refused(create) == ("invalid_value", "response.modalities", "mine", message)


@pytest.mark.parametrize("choice", ["none", "auto", "required", {"type": "function", "name": "f"}])
def test_tool_choice_is_a_mode_or_a_function(choice: Any) -> None:
    settings = wants(tool_choice=choice)
    assert isinstance(settings, RealtimePatch)
    assert settings.tool_choice == (choice if isinstance(choice, str) else ToolName("f"))


@pytest.mark.parametrize(
    ("settings", "code", "param"),
    [
        ({"audio": {}}, "unknown_parameter", "session.audio"),
        ({"type": "transcription"}, "invalid_value", "session.type"),
        ({"input_audio_format": "mp3"}, "invalid_value", "session.input_audio_format"),
        (
            {"turn_detection": {"type": "server_vad", "threshold": 2}},
            "invalid_value",
            "session.turn_detection.threshold",
        ),
        (
            {"turn_detection": {"threshold": 1}},
            "missing_required_parameter",
            "session.turn_detection.type",
        ),
        ({"voice": 5}, "invalid_type", "session.voice"),
        ({"tools": [{"type": "mcp"}]}, "invalid_value", "session.tools[0].type"),
        ({"max_response_output_tokens": 0}, "invalid_value", "session.max_response_output_tokens"),
    ],
)
def test_beta_refusal_names_the_path_as_sent(
    settings: dict[str, Any], code: str, param: str
) -> None:
    error = refused({"type": "session.update", "session": settings})
    assert error[:3] == (code, param, "mine")


def test_unknown_beta_event_is_refused_with_the_known_ones() -> None:
    assert "'transcription_session.update'" in refused({"type": "scooby.dooby.doo"})[3]


def test_transcription_session_update_decodes_to_a_session_update() -> None:
    assert wants(
        "transcription_session.update",
        modalities=["text"],
        input_audio_format="pcm16",
        input_audio_transcription={"model": "whisper-1", "language": "it"},
        turn_detection=None,
        include=["x"],
        client_secret=None,
    ) == TranscriptionSessionPatch(
        include=("x",),
        audio=TranscriptionAudioPatch(
            input=AudioInputPatch(
                format=PCMPatch(),
                transcription=TranscriptionPatch(model="whisper-1", language="it"),
                turn_detection=None,
            )
        ),
    )
    assert wants("transcription_session.update") == TranscriptionSessionPatch()


@pytest.mark.parametrize("session", [PLAIN_SESSION, RICH_SESSION])
def test_session_as_shown_may_be_sent_back(session: Any) -> None:
    shown = msgspec.to_builtins(beta.realtime_session(session))
    settings = wants(**shown)
    assert isinstance(settings, RealtimePatch)
    assert settings.output_modalities == session.output_modalities
    assert settings.tool_choice == session.tool_choice


def test_transcription_session_as_shown_may_be_sent_back() -> None:
    shown = msgspec.to_builtins(beta.transcription_session(TRANSCRIPTION_SESSION))
    settings = wants("transcription_session.update", **shown)
    assert settings.audio == TranscriptionAudioPatch(
        input=AudioInputPatch(
            format=PCMPatch(),
            transcription=TranscriptionPatch(model="whisper-1"),
            noise_reduction=None,
            turn_detection=ServerVadPatch(
                threshold=0.25,
                prefix_padding_ms=300,
                silence_duration_ms=500,
                create_response=True,
                interrupt_response=True,
            ),
        )
    )


def respond(**params: Any) -> ResponseParams | None:
    event = decode({"type": "response.create", "response": params})
    assert isinstance(event, ResponseCreate)
    return event.response


def test_response_create_without_parameters_is_decoded() -> None:
    assert decode({"type": "response.create"}) == ResponseCreate()
    assert decode({"type": "response.create", "response": None}) == ResponseCreate()
    assert respond() == ResponseParams()
    assert respond(modalities=None, tool_choice=None, input=None) == ResponseParams()


def test_flat_response_parameters_decode_to_nested_ones() -> None:
    assert respond(
        conversation="none",
        modalities=["text", "audio"],
        instructions="Be brief.",
        voice={"id": "v"},
        output_audio_format="pcm16",
        tools=[],
        tool_choice="required",
        temperature=0.7,
        max_response_output_tokens="inf",
        metadata={"a": "b"},
        input=[],
    ) == ResponseParams(
        conversation="none",
        output_modalities=("audio",),
        instructions="Be brief.",
        audio=AudioParams(AudioOutputParams(format=PCMPatch(), voice=CustomVoice("v"))),
        tools=(),
        tool_choice="required",
        max_output_tokens="inf",
        metadata={"a": "b"},
        input=(),
    )


@pytest.mark.parametrize("name", ["max_response_output_tokens", "max_output_tokens"])
def test_token_limit_of_a_response_has_two_names(name: str) -> None:
    assert respond(**{name: 7}) == ResponseParams(max_output_tokens=7)


def test_token_limit_given_twice_is_that_of_the_sdk_name() -> None:
    both = respond(max_output_tokens=7, max_response_output_tokens=8)
    assert both == ResponseParams(max_output_tokens=8)


def text(words: str) -> dict[str, str]:
    return {"type": "input_text", "text": words}


def test_item_reference_inside_a_message_becomes_an_item() -> None:
    reference = {"type": "item_reference", "id": "item_1"}
    params = respond(
        input=[
            {
                "type": "message",
                "id": "m",
                "role": "user",
                "content": [text("a"), reference, text("b"), text("c")],
            },
            {"type": "message", "role": "user", "content": [reference]},
            {"type": "message", "role": "user", "content": []},
            {"type": "item_reference", "id": "item_2"},
            {"type": "function_call_output", "call_id": "c", "output": "o"},
        ]
    )
    assert params is not None
    assert params.input == (
        Message(role="user", content=(InputText("a"),)),
        ItemReference("item_1"),
        Message(id="m", role="user", content=(InputText("b"), InputText("c"))),
        ItemReference("item_1"),
        Message(role="user", content=()),
        ItemReference("item_2"),
        FunctionCallOutput(call_id="c", output="o"),
    )


@pytest.mark.parametrize(
    ("role", "part", "ga"),
    [
        ("assistant", {"type": "text", "text": "a"}, OutputText("a")),
        ("assistant", {"type": "output_text", "text": "a"}, OutputText("a")),
        ("assistant", {"type": "audio", "transcript": "a"}, OutputAudio("a")),
        ("assistant", {"type": "audio", "transcript": None}, OutputAudio()),
        ("user", {"type": "text", "text": "a"}, InputText("a")),
        ("user", {"type": "audio", "audio": "AAAA"}, InputAudio(audio=b"\0\0\0")),
        (
            "user",
            {"type": "input_audio", "audio": "AAAA", "transcript": "a"},
            InputAudio(audio=b"\0\0\0", transcript="a"),
        ),
        ("system", {"type": "text", "text": "a"}, InputText("a")),
    ],
)
def test_parts_of_a_message_are_translated_by_its_role(role: Any, part: Any, ga: Any) -> None:
    item = {"type": "message", "id": "item_1", "role": role, "content": [part]}
    event = decode({"type": "conversation.item.create", "item": item, "previous_item_id": "root"})
    assert event == ItemCreate(
        item=Message(id="item_1", role=role, content=(ga,)), previous_item_id="root"
    )
