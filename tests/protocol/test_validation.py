"""Every refusal says what, where, and what would have been right."""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.codec import decode
from vivavoce.protocol.validation import NO_MCP, reason_and_path, refusal


def refused(raw: str) -> tuple[str | None, str | None, str]:
    with pytest.raises(InvalidRequest) as caught:
        decode(raw)
    return caught.value.code, caught.value.param, caught.value.message


def update(settings: str) -> str:
    return '{"type":"session.update","session":{"type":"realtime",' + settings + "}}"


def heard(settings: str) -> str:
    return update('"audio":{"input":{' + settings + "}}")


def create(item: str) -> str:
    return '{"type":"conversation.item.create","item":{' + item + "}}"


def metadata(pairs: str) -> str:
    return '{"type":"response.create","response":{"metadata":{' + pairs + "}}}"


TURNS = "session.audio.input.turn_detection"


@pytest.mark.parametrize(
    ("raw", "code", "param", "message"),
    [
        ("{}", "invalid_event", None, "The 'type' field is missing."),
        (
            '{"type":"session.update"}',
            "missing_required_parameter",
            "session",
            "Missing required parameter: 'session'.",
        ),
        (
            '{"type":"session.update","session":{}}',
            "missing_required_parameter",
            "session.type",
            "Missing required parameter: 'session.type'. A client of the beta protocol, which has "
            "none, connects with the header 'OpenAI-Beta: realtime=v1'.",
        ),
        (
            update('"voice":"ash"'),
            "unknown_parameter",
            "session.voice",
            "Unknown parameter: 'session.voice'.",
        ),
        (
            heard('"turn_detection":{"type":"semantic_vad","threshold":1}'),
            "unknown_parameter",
            f"{TURNS}.threshold",
            f"Unknown parameter: '{TURNS}.threshold'.",
        ),
        (
            heard('"turn_detection":{"type":"none"}'),
            "invalid_value",
            f"{TURNS}.type",
            "Invalid value: 'none'. Supported values are: 'semantic_vad' and 'server_vad'.",
        ),
        (
            heard('"turn_detection":{"type":"semantic_vad","eagerness":"bogus"}'),
            "invalid_value",
            f"{TURNS}.eagerness",
            "Invalid value: 'bogus'. Supported values are: 'auto', 'high', 'low', and 'medium'.",
        ),
        (
            heard('"turn_detection":{"type":"server_vad","idle_timeout_ms":4999}'),
            "invalid_value",
            f"{TURNS}.idle_timeout_ms",
            f"Invalid '{TURNS}.idle_timeout_ms': expected a value >= 5000.",
        ),
        (
            heard('"format":{"type":"audio/pcm","rate":16000}'),
            "invalid_value",
            "session.audio.input.format.rate",
            "Invalid value: 16000. Supported values are: 24000.",
        ),
        (
            heard('"format":"pcm16"'),
            "invalid_type",
            "session.audio.input.format",
            "Invalid type for 'session.audio.input.format': expected an object, "
            "but got a string instead.",
        ),
        (
            update('"max_output_tokens":"many"'),
            "invalid_value",
            "session.max_output_tokens",
            "Invalid value: 'many'. Supported values are: 'inf' and an integer.",
        ),
        (
            update('"tool_choice":"dial"'),
            "invalid_value",
            "session.tool_choice",
            "Invalid value: 'dial'. Supported values are: 'auto', 'none', and 'required'.",
        ),
        (
            update('"tool_choice":5'),
            "invalid_type",
            "session.tool_choice",
            "Invalid type for 'session.tool_choice': expected a string or an object, "
            "but got an integer instead.",
        ),
        (
            update('"output_modalities":["text","video"]'),
            "invalid_value",
            "session.output_modalities[1]",
            "Invalid value: 'video'. Supported values are: 'audio' and 'text'.",
        ),
        (
            update('"tools":[{"type":"function","name":"a"},{"type":"mcp","server_label":"b"}]'),
            "invalid_value",
            "session.tools[1].type",
            f"Invalid value: 'mcp'. {NO_MCP}",
        ),
        (
            create('"type":"mcp_approval_response"'),
            "invalid_value",
            "item.type",
            f"Invalid value: 'mcp_approval_response'. {NO_MCP}",
        ),
        (
            create('"type":"message","role":"bot","content":[]'),
            "invalid_value",
            "item.role",
            "Invalid value: 'bot'. Supported values are: 'assistant', 'system', and 'user'.",
        ),
        (
            create('"type":"message","role":"user","content":[{"type":"input_audio","audio":"A"}]'),
            "invalid_value",
            "item.content[0].audio",
            "Invalid 'item.content[0].audio'. Expected base64-encoded audio bytes "
            "(mono PCM16 at 24kHz) but got an invalid value.",
        ),
        (
            metadata('"a":5'),
            "invalid_type",
            "response.metadata",
            "Invalid type for 'response.metadata': expected a string, but got an integer instead.",
        ),
        (
            metadata('"' + "a" * 65 + '":"b"'),
            "string_above_max_length",
            "response.metadata",
            "Invalid 'response.metadata': expected a string of length <= 64.",
        ),
        (
            metadata(",".join(f'"{n}":"b"' for n in range(17))),
            "invalid_value",
            "response.metadata",
            "Invalid 'response.metadata': expected an object of length <= 16.",
        ),
        (
            '{"type":"conversation.item.truncate","item_id":"a","content_index":0,'
            '"audio_end_ms":10.5}',
            "invalid_type",
            "audio_end_ms",
            "Invalid type for 'audio_end_ms': expected an integer, but got a number instead.",
        ),
        (
            '{"type":"conversation.item.truncate","item_id":"a","content_index":0,'
            '"audio_end_ms":-1}',
            "invalid_value",
            "audio_end_ms",
            "Invalid 'audio_end_ms': expected a value >= 0.",
        ),
        (
            '{"type":"conversation.item.truncate","content_index":1e999}',
            "invalid_value",
            "content_index",
            "Invalid 'content_index': number out of range.",
        ),
        (
            '{"type":"session.update","session":{"type":5}}',
            "invalid_type",
            "session.type",
            "Invalid type for 'session.type': expected a string.",
        ),
    ],
)
def test_refusal_names_the_path_and_what_is_supported(
    raw: str, code: str, param: str | None, message: str
) -> None:
    assert refused(raw) == (code, param, message)


@pytest.mark.parametrize(
    ("given", "shown"), [('"scooby.dooby.doo"', "'scooby.dooby.doo'"), ("5", "5"), ("null", "null")]
)
def test_unknown_event_type_is_refused_with_the_known_ones(given: str, shown: str) -> None:
    code, param, message = refused(f'{{"type":{given}}}')
    assert (code, param) == ("invalid_value", "type")
    assert message.startswith(
        f"Invalid value: {shown}. Supported values are: 'conversation.item.create', "
    )
    assert message.endswith("'response.cancel', 'response.create', and 'session.update'.")


def test_long_value_is_cut_in_the_message() -> None:
    long = "x" * 10_000
    _, _, message = refused(f'{{"type":"{long}"}}')
    assert message.startswith(f"Invalid value: '{long[:99]}…. Supported")
    _, param, _ = refused(update(f'"{long}":1'))
    assert param == f"session.{long[:100]}"


def test_field_named_like_a_validation_error_is_quoted() -> None:
    assert refused(update('"a` - at `$.b":1')) == (
        "unknown_parameter",
        "session.a` - at `$.b",
        "Unknown parameter: 'session.a` - at `$.b'.",
    )


class Part(msgspec.Struct):
    kind: Literal["a", "b"]
    sizes: Annotated[tuple[int, ...], Meta(min_length=1, max_length=2)] = (1,)


@pytest.mark.parametrize(
    ("value", "schema", "code", "param", "message"),
    [
        (
            {"kind": "c"},
            Part,
            "invalid_value",
            "parts[0].kind",
            "Invalid value: 'c'. Supported values are: 'a' and 'b'.",
        ),
        ({}, Part, "missing_required_parameter", "parts[0].kind", "'parts[0].kind'"),
        (5, Part, "invalid_type", "parts[0]", "expected an object, but got an integer"),
        ("c", Literal["a", "b"], "invalid_value", "parts[0]", "Invalid value: 'c'."),
        (
            {"kind": "a", "sizes": [1, 2, 3]},
            Part,
            "array_above_max_length",
            "parts[0].sizes",
            "Expected an array with maximum length 2.",
        ),
        (
            {"kind": "a", "sizes": []},
            Part,
            "invalid_value",
            "parts[0].sizes",
            "expected an array of length >= 1",
        ),
        ([[{"kind": "a"}, 5]], list[list[Part]], "invalid_type", "parts[0][0][1]", "an object"),
        ({"kind": "a", "sizes": [""]}, Part, "invalid_type", "parts[0].sizes[0]", "an integer"),
    ],
)
def test_complaint_about_a_part_names_its_place_in_the_whole(
    value: Any, schema: Any, code: str, param: str, message: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, schema)
    error = refusal(str(caught.value), schema, prefix="parts[0]")
    assert (error.code, error.param) == (code, param)
    assert message in error.message


@pytest.mark.parametrize(
    ("complaint", "reason", "path"),
    [
        ("Expected `int`, got `str` - at `$.a[0].b`", "Expected `int`, got `str`", "a[0].b"),
        ("Expected `int`, got `str` - at `$.a[...].b`", "Expected `int`, got `str`", "a"),
        ("Expected `int`, got `str`", "Expected `int`, got `str`", ""),
    ],
)
def test_complaint_is_split_into_reason_and_path(complaint: str, reason: str, path: str) -> None:
    assert reason_and_path(complaint) == (reason, path)
