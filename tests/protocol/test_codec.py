"""Bytes in, events out; and nothing but events and InvalidRequest."""

import base64
import copy
import json
import re
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.client_samples import (
    BETA_CLIENT_EVENTS,
    GA_CLIENT_EVENTS,
)
from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized, VoiceError
from vivavoce.protocol.beta import Beta
from vivavoce.protocol.client import (
    AnyClientEvent,
    InputAudioAppend,
    ItemCreate,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)
from vivavoce.protocol.codec import (
    CLIENT_TYPES,
    GA,
    Reader,
    decode,
    encode,
    explain,
)
from vivavoce.protocol.items import FunctionTool, InputAudio, InputImage, InputText, Message
from vivavoce.protocol.json import to_bytes
from vivavoce.protocol.responses import AudioOutputParams, AudioParams, ResponseParams
from vivavoce.protocol.server import ErrorBody, ErrorEvent, OutputAudioDelta, Resume
from vivavoce.protocol.session import (
    AudioInputPatch,
    AudioPatch,
    RealtimePatch,
    ServerVadPatch,
)
from vivavoce.protocol.wire import (
    CloseRequest,
    ConnectRequest,
    Frame,
    Opening,
    Reply,
    WireProtocol,
)

DIALECTS: tuple[WireProtocol, ...] = (GA(), Beta())
DEEP = "[" * 150 + "]" * 150
TOO_DEEP = "[" * 5_000 + "]" * 5_000


def read(raw: bytes | str, dialect: WireProtocol) -> AnyClientEvent:
    data = raw if isinstance(raw, bytes) else to_bytes(raw)
    (event,) = dialect.decode(Frame("text", data))
    assert not isinstance(event, Reply | CloseRequest | Opening)
    return event


def refused(raw: bytes | str, dialect: WireProtocol | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(raw, dialect or GA())
    return caught.value


def update(settings: str) -> str:
    start = '{"type":"session.update","event_id":"mine","session":{"type":"realtime",'
    return start + settings + "}}"


@pytest.mark.parametrize("event", GA_CLIENT_EVENTS, ids=lambda event: event["type"])
def test_client_event_decoded_and_encoded_is_the_same(event: dict[str, Any]) -> None:
    read = decode(json.dumps(event))
    assert decode(msgspec.json.encode(read)) == read


def test_client_types_lists_every_client_event() -> None:
    assert len(CLIENT_TYPES) == len(get_args(AnyClientEvent)) == 11
    assert CLIENT_TYPES[0] == "conversation.item.create"


def test_audio_of_an_append_is_decoded_from_base64() -> None:
    event = decode(b'{"type":"input_audio_buffer.append","audio":"+//+"}')
    assert event == InputAudioAppend(audio=b"\xfb\xff\xfe")


def test_setting_that_is_null_is_kept_apart_from_an_absent_one() -> None:
    event = decode(update('"audio":{"input":{"turn_detection":null}}'))
    assert event == SessionUpdate(
        event_id="mine",
        session=RealtimePatch(audio=AudioPatch(input=AudioInputPatch(turn_detection=None))),
    )


def test_null_where_none_is_allowed_counts_as_absent() -> None:
    nulls = '"model":null,"max_output_tokens":null,"tool_choice":null,"instructions":null'
    first = '{"type":"function","name":"a","description":null,"parameters":null}'
    second = '{"type":"function","name":"b","parameters":null}'
    tools = f'"tools":[{first},{second}]'
    turns = '"turn_detection":{"type":"server_vad","threshold":null,"create_response":null}'
    audio = f'"audio":{{"output":null,"input":{{"format":null,{turns}}}}}'
    assert decode(update(f"{nulls},{tools},{audio}")) == SessionUpdate(
        event_id="mine",
        session=RealtimePatch(
            instructions=None,
            tools=(FunctionTool(name="a"), FunctionTool(name="b")),
            audio=AudioPatch(input=AudioInputPatch(turn_detection=ServerVadPatch())),
        ),
    )


def test_null_in_an_item_counts_as_absent() -> None:
    raw = """{"type":"conversation.item.create","event_id":null,"previous_item_id":null,"item":{
        "id":null,"object":null,"status":null,"type":"message","role":"user","content":[
            {"type":"input_audio","audio":null,"transcript":null},
            {"type":"input_image","image_url":"data:,","detail":null}]}}"""
    content = (InputAudio(), InputImage("data:,"))
    assert decode(raw) == ItemCreate(item=Message(role="user", content=content))


def test_response_create_with_a_null_response_has_none() -> None:
    assert decode(b'{"type":"response.create","response":null}') == ResponseCreate()
    assert decode(b'{"type":"response.create","response":{"metadata":null}}') == (
        ResponseCreate(response=ResponseParams(metadata=None))
    )


def test_null_in_a_required_field_is_a_missing_parameter() -> None:
    error = refused(b'{"type":"conversation.item.delete","item_id":null,"event_id":"mine"}')
    assert (error.code, error.param) == ("missing_required_parameter", "item_id")
    assert error.event_id == "mine"


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"type":"response.create","response":{"output_modalities":[null]}}', "[0]"),
        (b'{"type":"response.create","response":{"metadata":{"a":null}}}', "response.metadata"),
        # of two keys with one name the first is complained of and the last is kept
        (b'{"type":"session.update","session":null,"session":{}}', "session"),
        (
            b'{"type":"response.create","response":{"input":[{"type":"item_reference","id":null}],'
            b'"input":[5,{"id":[]}]}}',
            "response.input[0].id",
        ),
    ],
)
def test_null_in_a_list_is_an_invalid_type(raw: bytes, param: str) -> None:
    error = refused(raw)
    assert error.code in ("invalid_type", "missing_required_parameter")
    assert error.param is not None
    assert error.param.endswith(param)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'{"type":"response.cancel"} trailing',
        b'{"type":"response.cancel","response_id":"\xff"}',
        update('"reasoning":{"a":NaN}'),
        update(f'"tracing":{TOO_DEEP}'),
        update(f'"model":null,"tracing":{TOO_DEEP}'),
        b'{"type":"session.update","session":{"type":"realtime","model":null,}}',
        b'{"type":%s}' % TOO_DEEP.encode(),
    ],
    ids=ascii,
)
def test_frame_that_is_not_json_is_refused_as_invalid_json(raw: bytes | str) -> None:
    error = refused(raw)
    assert error.code == "invalid_json"
    assert error.message.startswith("The event is not valid JSON: ")


@pytest.mark.parametrize(
    ("raw", "event_id"),
    [
        (b'{"type":"response.cancel","event_id":"mine",}', "mine"),
        ('{"type":"response.cancel", "event_id" : "mine"', "mine"),
        (
            b'{"type":"response.cancel","response_id":"%s\xff","event_id":"last"}'
            % (b"a" * 100_000),
            "last",
        ),
        (b'{"type":"response.cancel","event_id":"%s"' % (b"a" * 513), None),
        (b'{"event_id":5,', None),
    ],
    ids=["comma", "cut off", "long", "overlong id", "no id"],
)
def test_frame_that_is_not_json_is_refused_by_an_event_id_that_it_shows(
    raw: bytes | str, event_id: str | None
) -> None:
    error = refused(raw)
    assert (error.code, error.event_id) == ("invalid_json", event_id)


@pytest.mark.parametrize("raw", [b"[]", b"null", b"5", b'"response.cancel"'])
def test_frame_that_is_not_an_object_is_refused_as_invalid_event(raw: bytes) -> None:
    error = refused(raw)
    assert (error.code, error.param) == ("invalid_event", None)
    assert error.message == "The event is not a JSON object."


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (update(f'"tracing":{DEEP}'), "session"),
        (
            update(f'"tools":[{{"type":"function","name":"a","parameters":{{"a":{DEEP}}}}}]'),
            "session",
        ),
        ('{"type":"response.create","response":{"prompt":{"a":' + DEEP + "}}}", "response"),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS, ids=["ga", "beta"])
def test_free_json_nested_too_deeply_is_refused_with_its_field(
    dialect: WireProtocol, raw: str, param: str
) -> None:
    error = refused(raw, dialect)
    assert (error.code, error.param) == ("invalid_value", param)
    assert error.message == (f"Invalid '{param}': nested too deeply. Expected at most 100 levels.")


def test_append_of_empty_audio_is_refused() -> None:
    error = refused(b'{"type":"input_audio_buffer.append","audio":"","event_id":"mine"}')
    assert (error.code, error.param, error.event_id) == ("invalid_value", "audio", "mine")
    assert error.message == (
        "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) "
        "but got empty bytes."
    )


def test_event_id_above_512_characters_is_refused() -> None:
    longest = "x" * 512
    event = {"type": "response.cancel", "event_id": longest}
    assert decode(json.dumps(event)) == ResponseCancel(event_id=longest)
    event["event_id"] += "y"
    error = refused(json.dumps(event))
    assert (error.code, error.param) == ("string_above_max_length", "event_id")
    assert error.event_id == longest
    error = refused(json.dumps({**event, "type": "scooby.dooby.doo"}))
    assert (error.param, error.event_id) == ("type", longest)


def test_event_id_that_is_not_a_string_is_refused_and_not_echoed() -> None:
    error = refused(b'{"type":"response.cancel","event_id":5}')
    assert (error.code, error.param, error.event_id) == ("invalid_type", "event_id", None)


def test_validation_error_of_an_unreadable_event_is_explained() -> None:
    error = explain(msgspec.ValidationError("Object missing required field `type`"), b"{")
    assert (error.code, error.event_id) == ("invalid_event", None)


@given(st.binary(min_size=1, max_size=4_000))
def test_audio_encoded_and_decoded_is_the_same(audio: bytes) -> None:
    raw = msgspec.json.encode(InputAudioAppend(audio=audio))
    delta = OutputAudioDelta(
        event_id="e", response_id="r", item_id="i", output_index=0, delta=audio
    )
    for dialect in DIALECTS:
        assert read(raw, dialect) == InputAudioAppend(audio=audio)
        (frame,) = dialect.encode(delta)
        assert base64.b64decode(json.loads(frame.data)["delta"]) == audio


@given(st.binary(max_size=4_000), st.integers(0, 9))
def test_audio_delta_encoded_is_what_msgspec_writes(audio: bytes, content_index: int) -> None:
    delta = OutputAudioDelta(
        event_id="é",
        response_id="r",
        item_id='"i',
        output_index=0,
        content_index=content_index,
        delta=audio,
    )
    assert encode(delta) == GA().encode(delta)[0].data == msgspec.json.encode(delta)


def survives(dialect: WireProtocol, raw: bytes | str) -> None:
    """The one promise about arbitrary input; the refusal must also be sayable."""
    error = None
    try:
        event = read(raw, dialect)
    except InvalidRequest as exc:
        error = exc
    if error is None:
        assert type(event) in get_args(AnyClientEvent)
        return
    body = ErrorBody(
        code=error.code, message=error.message, param=error.param, event_id=error.event_id
    )
    assert len(tuple(dialect.encode(ErrorEvent(event_id="e", error=body)))) == 1
    assert "" not in (error.message, error.code)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree."""
    members = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    found = [path]
    for key, inner in members:
        found += places(inner, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, events: list[dict[str, Any]]) -> str:
    """A valid event in which some members were replaced, taken out, or added."""
    event: Any = copy.deepcopy(draw(st.sampled_from(events)))
    for _ in range(draw(st.integers(1, 3))):
        if not event:
            break
        *above, key = draw(st.sampled_from(places(event)[1:]))
        node = event
        for step in above:
            node = node[step]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "remove":
                del node[key]
            case "add" if isinstance(node, dict):
                node[draw(st.text(max_size=9))] = draw(JSON)
            case _ if isinstance(node, dict) or key < len(node):
                node[key] = draw(st.none() | JSON)
    return json.dumps(event)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_random_bytes_are_decoded_or_refused(raw: bytes | str) -> None:
    for dialect in DIALECTS:
        survives(dialect, raw)


@given(JSON)
def test_any_json_is_decoded_or_refused(value: Any) -> None:
    for dialect in DIALECTS:
        survives(dialect, json.dumps(value))
        survives(dialect, json.dumps({"type": "session.update", "session": value}))


@given(mutated(GA_CLIENT_EVENTS))
def test_mutated_event_is_decoded_or_refused(raw: str) -> None:
    survives(GA(), raw)


@given(mutated(BETA_CLIENT_EVENTS))
def test_mutated_beta_event_is_decoded_or_refused(raw: str) -> None:
    survives(Beta(), raw)


@given(st.sampled_from(GA_CLIENT_EVENTS), st.data())
def test_event_with_changed_bytes_is_decoded_or_refused(
    event: dict[str, Any], data: st.DataObject
) -> None:
    raw = bytearray(json.dumps(event).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    survives(GA(), bytes(raw))


HALF = '"Great \\ud83d"'


@pytest.mark.parametrize("dialect", DIALECTS, ids=["ga", "beta"])
def test_lone_surrogate_in_an_event_is_taken_as_a_replacement_character(
    dialect: WireProtocol,
) -> None:
    part = f'{{"type":"input_text","text":{HALF}}}'
    item = f'{{"type":"message","role":"user","content":[{part}]}}'
    event = read(f'{{"type":"conversation.item.create","item":{item}}}', dialect)
    assert event == ItemCreate(item=Message(role="user", content=(InputText("Great \ufffd"),)))


def test_lone_surrogate_beside_nulls_is_taken_as_a_replacement_character() -> None:
    event = decode(update(f'"model":null,"instructions":{HALF}'))
    assert event == SessionUpdate(
        event_id="mine", session=RealtimePatch(instructions="Great \ufffd")
    )


def test_refusal_of_an_event_with_a_lone_surrogate_names_its_event_id() -> None:
    error = refused(f'{{"event_id":"mine","type":"nothing","x":{HALF}}}')
    assert (error.code, error.param, error.event_id) == ("invalid_value", "type", "mine")


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ('"modalities":["text"]', "response.modalities"),
        ('"max_response_output_tokens":5', "response.max_response_output_tokens"),
        ('"voice":"echo"', "response.voice"),
        ('"output_audio_format":"g711_ulaw"', "response.output_audio_format"),
        ('"instruction":"typo"', "response.instruction"),
        ('"audio":{"outputs":{}}', "response.audio.outputs"),
        ('"audio":{"output":{"voices":"a"}}', "response.audio.output.voices"),
    ],
)
def test_response_create_with_an_unknown_field_is_refused_with_its_path(
    params: str, param: str
) -> None:
    error = refused(f'{{"type":"response.create","event_id":"mine","response":{{{params}}}}}')
    assert (error.code, error.param, error.event_id) == ("unknown_parameter", param, "mine")
    assert error.message == f"Unknown parameter: '{param}'."


def test_response_create_with_audio_settings_of_a_session_ignores_them() -> None:
    audio = '{"input":{"transcription":null},"output":{"voice":"ash","speed":1.2}}'
    event = decode(f'{{"type":"response.create","response":{{"audio":{audio}}}}}')
    assert isinstance(event, ResponseCreate)
    assert event.response is not None
    assert event.response.audio == AudioParams(
        output=AudioOutputParams(voice="ash", speed=1.2), input={"transcription": None}
    )


@pytest.mark.parametrize(
    ("query", "opening"),
    [
        ({}, Opening()),
        ({"model": "gpt-realtime"}, Opening(model="gpt-realtime")),
        ({"intent": "transcription"}, Opening(kind="transcription")),
        ({"intent": "conversation", "model": "m"}, Opening(model="m")),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS, ids=["ga", "beta"])
def test_query_of_a_realtime_address_says_what_is_opened(
    dialect: WireProtocol, query: dict[str, str], opening: Opening
) -> None:
    assert dialect.opening(ConnectRequest("/v1/realtime", query)) == opening


@pytest.mark.parametrize(
    ("error", "code", "close"),
    [
        (Unauthorized("No key."), "invalid_api_key", 3000),
        (InvalidRequest("No.", code="bad", param="session.x"), "bad", 3000),
        (LimitReached("full"), None, 1013),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS, ids=["ga", "beta"])
def test_refused_connection_gets_an_error_event_and_a_close_code(
    dialect: WireProtocol, error: VoiceError, code: str | None, close: int
) -> None:
    frames, closed, reason = dialect.refuse(error)
    assert closed == close
    if code is None:
        assert (frames, reason) == ((), "full")
        return
    (frame,) = frames
    event = json.loads(frame.data)
    assert (event["type"], event["error"]["code"], event["error"]["message"]) == (
        "error",
        code,
        str(error),
    )
    assert event["error"]["param"] == getattr(error, "param", None)
    assert reason == f"invalid_request_error.{code}"


@pytest.mark.parametrize("dialect", DIALECTS, ids=["ga", "beta"])
def test_realtime_protocols_leave_the_playout_to_the_client(dialect: WireProtocol) -> None:
    assert not dialect.server_plays
    with pytest.raises(AssertionError):
        dialect.encode_audio(b"")


def test_reader_names_what_it_reads() -> None:
    reader: Reader[ResponseParams] = Reader(ResponseParams, "body")
    for raw, message in (
        ("{", "The body is not valid JSON"),
        ("[]", "The body is not a JSON object."),
        ("1" * 30_000_000, "The body is too large"),
        ('{"prompt":{"a":' + DEEP + "}}", "Invalid body: nested too deeply."),
    ):
        with pytest.raises(InvalidRequest, match=re.escape(message)):
            reader.read(raw)


def test_token_with_which_a_session_resumes_is_not_in_its_repr() -> None:
    assert "rt_secret" not in repr(Resume(token="rt_secret", grace_seconds=15.0))
