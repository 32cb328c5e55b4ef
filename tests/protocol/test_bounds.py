"""What one frame may cost is bounded, and found without a walk over its values."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.beta import Beta
from vivavoce.protocol.bounds import (
    MAX_DEPTH,
    MAX_FRAME_BYTES,
    MAX_TEXT_BYTES,
    MAX_VALUES,
    check_size,
    is_too_deep,
)
from vivavoce.protocol.client import InputAudioAppend, ItemCreate, ResponseCreate, SessionUpdate
from vivavoce.protocol.codec import decode
from vivavoce.protocol.items import MAX_INPUT_ITEMS, MAX_PARTS, MAX_TOOLS, Message
from vivavoce.protocol.wire import Frame

LARGE = "A" * (2 * MAX_TEXT_BYTES)
TEXT = {"type": "input_text", "text": "a"}
TOOL = {"type": "function", "name": "a"}


def refused(event: Any) -> InvalidRequest:
    raw = event if isinstance(event, bytes) else json.dumps(event).encode()
    with pytest.raises(InvalidRequest) as caught:
        decode(raw)
    return caught.value


def update(**settings: Any) -> dict[str, Any]:
    session = {"type": "realtime", **settings}
    return {"type": "session.update", "event_id": "mine", "session": session}


def create(*content: dict[str, Any]) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": list(content)}
    return {"type": "conversation.item.create", "event_id": "mine", "item": item}


def respond(**params: Any) -> dict[str, Any]:
    return {"type": "response.create", "event_id": "mine", "response": params}


def test_append_of_audio_may_be_as_large_as_a_frame() -> None:
    audio = "A" * (MAX_FRAME_BYTES - 100)
    event = decode(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
    assert isinstance(event, InputAudioAppend)
    assert len(event.audio) == len(audio) * 3 // 4


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "audio": LARGE},
        {"type": "input_image", "image_url": f"data:image/png;base64,{LARGE}"},
    ],
)
def test_item_with_audio_or_a_picture_may_be_larger_than_text(part: dict[str, Any]) -> None:
    event = decode(json.dumps(create(TEXT, part), indent=1))
    assert isinstance(event, ItemCreate)
    assert isinstance(event.item, Message)
    item = {"type": "message", "role": "user", "content": [part]}
    assert isinstance(decode(json.dumps(respond(input=[item]))), ResponseCreate)


def test_frame_above_the_bound_is_refused_by_its_event_id() -> None:
    audio = "A" * MAX_FRAME_BYTES
    error = refused({"type": "input_audio_buffer.append", "audio": audio, "event_id": "mine"})
    assert (error.code, error.param, error.event_id) == ("event_too_large", None, "mine")
    assert f"At most {MAX_FRAME_BYTES} are accepted" in error.message


@pytest.mark.parametrize(
    "event",
    [
        update(instructions=LARGE),
        update(instructions="word, " * 300_000),
        update(tracing={"audio": LARGE}),
        create({"type": "input_text", "text": LARGE}),
        create({"type": "input_text", "text": LARGE}, {"type": "input_audio", "audio": "AAAA"}),
        respond(instructions=LARGE),
        {"type": "response.cancel", "audio": LARGE, "event_id": "mine"},
        {"type": "nothing", "x": ["a"] * 400_000, "event_id": "mine"},
    ],
    ids=["text", "words", "tracing", "item", "item and audio", "response", "cancel", "quotes"],
)
def test_large_event_that_is_not_media_is_refused_with_the_bound(event: dict[str, Any]) -> None:
    error = refused(event)
    assert (error.code, error.event_id) == ("event_too_large", "mine")
    assert f"At most {MAX_TEXT_BYTES} are accepted, apart from audio and images." in error.message


def test_large_text_hidden_under_the_name_of_audio_is_refused() -> None:
    assert refused(create({"type": "input_text", "text": "a", "audio": LARGE})).code == (
        "event_too_large"
    )
    text = {"type": "input_text", "text": '"audio":"' + LARGE}
    assert refused(create(text, {"type": "input_audio", "audio": "AAAA"})).code == "event_too_large"


@pytest.mark.parametrize(
    "settings",
    [
        {"tracing": [1] * (MAX_VALUES + 1)},
        {"tracing": [[]] * (MAX_VALUES // 2 + 1)},
        {"tracing": ['"', "\\"] * (MAX_VALUES // 2 + 1)},
        {"tracing": [""] * (3 * MAX_VALUES)},
        {"prompt": {f"k{n}": n for n in range(MAX_VALUES + 1)}},
        {"tools": [TOOL] * MAX_VALUES},
    ],
    ids=["numbers", "lists", "escapes", "strings", "keys", "tools"],
)
def test_event_with_too_many_values_is_refused_with_the_bound(settings: dict[str, Any]) -> None:
    error = refused(update(**settings))
    assert (error.code, error.event_id) == ("event_too_large", "mine")
    assert f"At most {MAX_VALUES} are accepted." in error.message


def test_text_full_of_separators_is_one_value() -> None:
    words = '[{a,"b\\",}]' * 20_000
    event = decode(json.dumps(update(instructions=words)))
    assert isinstance(event, SessionUpdate)
    assert event.session.instructions == words  # type: ignore[union-attr]


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize(("levels", "deep"), [(MAX_DEPTH, False), (MAX_DEPTH + 1, True)])
def test_depth_is_counted_outside_strings(levels: int, deep: bool) -> None:
    value = ["]}" * 200, "[{" * 200, '"\\"[', nested(levels - 1)]
    assert is_too_deep(json.dumps(update(tracing=value)).encode()) is deep
    assert not is_too_deep(json.dumps({"a": [[]] * 300}).encode())


@given(st.recursive(st.text(alphabet='[]{}",\\a', max_size=9), st.lists, max_leaves=20))
def test_depth_equals_that_of_the_decoded_value(value: Any) -> None:
    def depth(node: Any) -> int:
        return 1 + max(map(depth, node), default=0) if isinstance(node, list) else 0

    wrapped = value
    for _ in range(99):
        wrapped = [wrapped]
    assert is_too_deep(json.dumps([wrapped]).encode()) is (depth([wrapped]) > MAX_DEPTH + 2)


def test_small_text_is_returned_as_it_is() -> None:
    raw = b'{"type":"response.cancel"}'
    assert check_size(raw) is raw


@pytest.mark.parametrize(
    ("event", "param", "most"),
    [
        (update(tools=[TOOL] * (MAX_TOOLS + 1)), "session.tools", MAX_TOOLS),
        (respond(tools=[TOOL] * (MAX_TOOLS + 1)), "response.tools", MAX_TOOLS),
        (create(*[TEXT] * (MAX_PARTS + 1)), "item.content", MAX_PARTS),
        (
            respond(input=[{"type": "item_reference", "id": "a"}] * (MAX_INPUT_ITEMS + 1)),
            "response.input",
            MAX_INPUT_ITEMS,
        ),
    ],
)
def test_array_above_its_length_is_refused_with_the_bound(
    event: dict[str, Any], param: str, most: int
) -> None:
    ga = refused(event)
    assert (ga.code, ga.param, ga.event_id) == ("array_above_max_length", param, "mine")
    assert ga.message == (
        f"Invalid '{param}': array too long. Expected an array with maximum length {most}."
    )
    beta = json.loads(json.dumps(event))
    if "session" in beta:
        del beta["session"]["type"]
    with pytest.raises(InvalidRequest) as caught:
        Beta().decode(Frame("text", json.dumps(beta).encode()))
    assert (caught.value.code, caught.value.param) == (ga.code, param)
