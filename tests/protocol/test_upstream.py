"""Server events of an upstream server, read tolerantly."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol.codec import encode
from vivavoce.protocol.items import FunctionCall, Message, OutputAudio, OutputText
from vivavoce.protocol.responses import DurationUsage, TranscriptionTokens, Usage
from vivavoce.protocol.server import (
    ContentPartDone,
    ErrorBody,
    ErrorEvent,
    ItemAdded,
    OutputItemDone,
    RateLimit,
    RateLimitsUpdated,
    ResponseCreated,
    ResponseDone,
    ShownPart,
    SpeechStarted,
    TranscriptionCompleted,
)
from vivavoce.protocol.session import PCM
from vivavoce.protocol.upstream import (
    UpstreamEvent,
    UpstreamItem,
    UpstreamPart,
    UpstreamResponse,
    read_server_event,
    read_upstream,
)

FIELDS = st.sampled_from([*UpstreamEvent.__struct_fields__, "content", "id", "text", "other"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=12,
)


def test_event_of_an_item_is_read_with_its_parts() -> None:
    event = read_upstream(
        b'{"type":"conversation.item.added","event_id":"e","previous_item_id":"p","item":{"id":"a",'
        b'"type":"message","role":"user","status":"completed","novelty":1,'
        b'"content":[{"type":"input_audio","transcript":"hi"}]}}'
    )
    part = UpstreamPart(type="input_audio", transcript="hi")
    item = UpstreamItem(id="a", type="message", role="user", status="completed", content=(part,))
    assert event == UpstreamEvent(
        type="conversation.item.added", event_id="e", previous_item_id="p", item=item
    )


def test_event_of_a_response_is_read_with_its_usage() -> None:
    event = read_upstream(b'{"type":"response.done","response":{"id":"r","usage":{"x":1}}}')
    assert event.response == UpstreamResponse(id="r", usage={"x": 1})


@pytest.mark.parametrize(
    "fields",
    [b'"item":5', b'"delta":{}', b'"output_index":"x"', b'"response":[]', b'"item":{"content":{}}'],
)
def test_event_with_a_field_of_another_type_keeps_its_type(fields: bytes) -> None:
    event = read_upstream(b'{"type":"a.b","event_id":"e",' + fields + b"}")
    assert event == UpstreamEvent(type="a.b", event_id="e")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"5",
        b"[]",
        b"null",
        b'{"type":5}',
        b'{"type":"a"',
        b'{"item":5,"type":"a"',
        b'{"item":5,"type":"\\ud800"}',
        b'{"type":"\\ud800"}',
        b'{"type":"\xff"}',
        b"[" * 100_000,
        b'{"item":5,"other":' + b"[" * 100_000,
    ],
)
def test_frame_that_is_no_event_has_no_type(raw: bytes) -> None:
    assert read_upstream(raw) == UpstreamEvent()


@given(st.binary(max_size=200))
def test_reading_any_bytes_raises_nothing(raw: bytes) -> None:
    assert isinstance(read_upstream(raw), UpstreamEvent)


@given(st.dictionaries(FIELDS, JSON, max_size=8), st.integers(0, 500))
def test_reading_any_object_or_its_beginning_raises_nothing(value: Any, length: int) -> None:
    raw = msgspec.json.encode(value)
    event = read_upstream(raw)
    if isinstance(value.get("type"), str) and not event.type:
        assert value["type"] == "" or not isinstance(value.get("event_id", ""), str)
    assert isinstance(read_upstream(raw[:length]), UpstreamEvent)


def read_whole(kind: str, **fields: Any) -> Any:
    return read_server_event(msgspec.json.encode({"type": kind, "event_id": "e", **fields}))


def test_whole_event_of_another_server_is_read_where_its_type_is_known() -> None:
    event = ErrorEvent(event_id="e", error=ErrorBody(message="No."))
    assert read_server_event(encode(event)) == event
    assert read_whole("something.new") is None
    for raw in (b"\xff", b"5", b'{"type":["error"]}', b"{", b"[" * 100_000):
        assert read_server_event(raw) is None


def test_response_without_the_newer_fields_is_read() -> None:
    created = read_whole("response.created", response={"id": "r", "output": None})
    assert isinstance(created, ResponseCreated)
    response = created.response
    assert (response.id, response.status, response.output) == ("r", "in_progress", ())
    assert response.output_modalities == ("audio",)
    assert response.max_output_tokens == "inf"
    assert isinstance(response.audio.output.format, PCM)
    assert response.conversation_id == "conv_upstream"  # null would be out of band
    assert response.usage is None


def test_response_keeps_what_is_there_and_leaves_out_items_of_unknown_types() -> None:
    message = {"id": "a", "type": "message", "role": "assistant"}
    parts = [{"type": "text", "text": "so"}, {"type": "novelty"}, {"type": "audio"}]
    error = {"type": "server_error", "code": None, "message": "No."}
    done = read_whole(
        "response.done",
        response={
            "id": "r",
            "status": "failed",
            "status_details": {"type": "failed", "error": error, "reason": None},
            "output": [{**message, "content": parts}, {"id": "m", "type": "mcp_call"}],
            "output_modalities": ["text"],
            "max_output_tokens": 7,
            "audio": {"output": {"format": {"type": "audio/odd"}, "voice": "marin"}},
            "usage": {"total_tokens": 3, "input_tokens": 2.5, "output_tokens": None},
            "metadata": {"a": "b"},
        },
    )
    assert isinstance(done, ResponseDone)
    response = done.response
    assert response.status == "failed"
    assert response.status_details
    assert response.status_details.error.code == ""  # type: ignore[union-attr]
    content = (OutputText("so"), OutputAudio())
    assert response.output == (Message(id="a", role="assistant", content=content),)
    assert response.output_modalities == ("text",)
    assert response.max_output_tokens == 7
    assert response.audio.output.voice == "marin"
    assert response.usage == Usage(3, 3, 0)
    assert response.metadata == {"a": "b"}


def test_item_event_without_a_place_is_read() -> None:
    item = {"id": "c", "type": "function_call", "role": "tool", "name": "f", "call_id": "1"}
    assert read_whole("conversation.item.added", item=item) == ItemAdded(
        event_id="e", previous_item_id=None, item=FunctionCall(id="c", name="f", call_id="1")
    )
    done = read_whole("response.output_item.done", response_id="r", item={**item, "id": 5})
    assert done == OutputItemDone(
        event_id="e", response_id="r", output_index=0, item=FunctionCall(name="f", call_id="1")
    )
    assert read_whole("conversation.item.added", item={"type": "novelty"}) is None
    assert read_whole("conversation.item.added") is None


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({}, ShownPart(type="audio")),
        ({"part": {"type": "output_text", "text": "x"}}, ShownPart(type="text", text="x")),
        ({"part": {"type": 5, "transcript": None}}, ShownPart(type="audio")),
    ],
)
def test_part_event_is_read_whatever_its_part_is_called(
    fields: dict[str, Any], part: ShownPart
) -> None:
    event = read_whole("response.content_part.done", response_id="r", item_id="i", **fields)
    assert event == ContentPartDone(
        event_id="e", response_id="r", item_id="i", output_index=0, content_index=0, part=part
    )


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({}, DurationUsage(0)),
        ({"usage": {"type": "duration", "seconds": 1.2}}, DurationUsage(2)),
        ({"usage": {"seconds": 3}}, DurationUsage(3)),
        (
            {"usage": {"type": "tokens", "total_tokens": 5, "input_tokens": 4, "output_tokens": 1}},
            TranscriptionTokens(5, 4, 1),
        ),
    ],
)
def test_transcript_is_read_however_its_recogniser_is_paid(
    fields: dict[str, Any], usage: DurationUsage | TranscriptionTokens
) -> None:
    event = read_whole(
        "conversation.item.input_audio_transcription.completed",
        item_id="i",
        transcript="hi",
        **fields,
    )
    assert event == TranscriptionCompleted(event_id="e", item_id="i", transcript="hi", usage=usage)


def test_scalars_that_are_absent_are_neutral() -> None:
    event = read_whole("input_audio_buffer.speech_started")
    assert event == SpeechStarted(event_id="e", item_id="", audio_start_ms=0)
    limits = [{"name": "tokens", "limit": 5, "remaining": 1.5, "reset_seconds": None}]
    assert read_whole("rate_limits.updated", rate_limits=limits) == RateLimitsUpdated(
        event_id="e", rate_limits=(RateLimit("tokens", 5, 2, 0.0),)
    )
    assert read_whole("response.output_audio.delta", delta="?") is None  # no base64


@given(st.dictionaries(FIELDS, JSON, max_size=8), st.sampled_from(["response.done", "error"]))
def test_reading_any_object_whole_raises_nothing(value: Any, kind: str) -> None:
    read_server_event(msgspec.json.encode({**value, "type": kind}))
