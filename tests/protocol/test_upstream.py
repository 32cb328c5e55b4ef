"""Server events of an upstream server, read tolerantly."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol.upstream import (
    UpstreamEvent,
    UpstreamItem,
    UpstreamPart,
    UpstreamResponse,
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
