"""Chunks of a streamed chat completion, in the many ways of servers."""

import re
from typing import Any

import msgspec
import pytest

from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatUsage,
    TextDelta,
)
from vivavoce.engines.openai.chat_stream import ChatStream, Chunk, decode


def chunk(finish: str | None = None, **delta: Any) -> Chunk:
    body = {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return decode(msgspec.json.encode(body))


def part(arguments: Any = None, *, name: str | None = None, **rest: Any) -> dict[str, Any]:
    return {**rest, "type": "function", "function": {"name": name, "arguments": arguments}}


def read(*chunks: Chunk) -> list[ChatEvent]:
    stream = ChatStream()
    return [event for each in chunks for event in stream.feed(each)] + stream.end()


def calls(*deltas: dict[str, Any] | list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(id, name, arguments) of each call, after checking the order that the contract asks for."""
    events = read(*(chunk(tool_calls=d if isinstance(d, list) else [d]) for d in deltas))
    assert events.pop() == ChatEnded()
    found: list[tuple[str, str, str]] = []
    for event in events:
        if isinstance(event, CallStarted):
            assert event.index == len(found)
            found.append((event.call_id, event.name, ""))
        else:
            assert isinstance(event, CallDelta)
            assert event.index == len(found) - 1
            call_id, name, arguments = found[-1]
            found[-1] = (call_id, name, arguments + event.arguments)
    return found


def test_text_comes_as_it_is_made() -> None:
    events = read(chunk(role="assistant", content=""), chunk(content="He"), chunk("stop"))
    assert events == [TextDelta("He"), ChatEnded("stop")]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
        ("eos", "stop"),
        (None, "stop"),
    ],
)
def test_why_an_answer_ended(finish: str | None, reason: Any) -> None:
    assert read(chunk(content="He"), chunk(finish)) == [TextDelta("He"), ChatEnded(reason)]


def test_thoughts_are_not_spoken_in_whatever_field_they_come() -> None:
    assert read(
        chunk(reasoning_content="Hm."),
        chunk(reasoning="Hm."),
        chunk(content="<think>Hm."),
        chunk(content="</think>\n\nHello."),
    ) == [TextDelta("Hello."), ChatEnded()]


def test_a_thought_is_a_token_but_a_role_is_not() -> None:
    stream = ChatStream()
    stream.feed(chunk(role="assistant", content=""))
    assert not stream.begun
    stream.feed(chunk(reasoning_content="Hm."))
    assert stream.begun


def test_text_that_looked_like_the_start_of_a_thought_is_told_at_the_end() -> None:
    assert read(chunk(content="<th")) == [TextDelta("<th"), ChatEnded()]


def test_content_may_come_in_pieces_or_as_a_refusal() -> None:
    pieces = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hello."}]
    assert read(chunk(content=pieces), chunk(refusal="No.")) == [
        TextDelta("Hello."),
        TextDelta("No."),
        ChatEnded(),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"delta": null, "finish_reason": null}]}',
        b'{"choices": [{"delta": {"content": null, "tool_calls": null}}]}',
        b'{"choices": [{"delta": {"tool_calls": []}}], "usage": null, "error": null}',
        b'{"choices": [{"delta": {"tool_calls": [{"index": 1}]}}], "unknown": [1]}',
    ],
)
def test_what_is_null_or_missing_or_unknown_does_no_harm(body: bytes) -> None:
    assert read(decode(body), chunk(content="Hi")) == [TextDelta("Hi"), ChatEnded()]


def test_a_whole_answer_is_one_chunk() -> None:
    body = b'{"choices": [{"message": {"content": "Hello."}, "finish_reason": "length"}]}'
    assert read(decode(body)) == [TextDelta("Hello."), ChatEnded("length")]


def test_a_calls_arguments_come_as_they_are_made() -> None:
    assert read(
        chunk(tool_calls=[part("", index=0, id="a", name="f")]),
        chunk(tool_calls=[part('{"x"', index=0)]),
        chunk(tool_calls=[part(": 1}", index=0)]),
        chunk("tool_calls"),
    ) == [CallStarted(0, "a", "f"), CallDelta(0, '{"x"'), CallDelta(0, ": 1}"), ChatEnded()]


TWO = [("a", "f", '{"x": 1}'), ("b", "g", '{"y": 2}')]


@pytest.mark.parametrize(
    "deltas",
    [
        pytest.param(
            [
                part('{"x": ', index=0, id="a", name="f"),
                part("1}", index=0),
                part('{"y": ', index=1, id="b", name="g"),
                part("2}", index=1),
            ],
            id="as OpenAI does",
        ),
        pytest.param(
            [
                [part('{"x": ', index=0, id="a", name="f"), part("", index=1, id="b", name="g")],
                [part('{"y"', index=1), part("1", index=0)],
                [part("}", index=0), part(": 2}", index=1)],
            ],
            id="turning back to the first",
        ),
        pytest.param(
            [
                part('{"x": ', index=0, id="a", name="f"),
                part("1}", index=0, id="a", name="f"),
                part('{"y": 2}', index=1, id="b", name="g"),
            ],
            id="id and name in each chunk",
        ),
        pytest.param(
            [
                part('{"x": 1}', index=0, id="a", name="f"),
                part('{"y": ', index=0, id="b", name="g"),
                part("2}", index=0),
            ],
            id="index always 0",
        ),
        pytest.param(
            [
                part('{"x": ', index=0, id="a", name="f"),
                part("1}", index=0, name="f"),
                part('{"y": 2}', index=1, id="b", name="g"),
            ],
            id="name again, without id",
        ),
        pytest.param(
            [[part('{"x": 1}', id="a", name="f"), part('{"y": 2}', id="b", name="g")]],
            id="no index, whole",
        ),
        pytest.param(
            [
                part('{"x": ', id="a", name="f"),
                part("1}"),
                part('{"y": ', id="b", name="g"),
                part("2}", id="b"),
            ],
            id="no index, in parts",
        ),
        pytest.param(
            [
                part('{"x": ', index=0, id="a", name="f"),
                part("1}", index=1),
                part('{"y": 2}', index=2, id="b", name="g"),
            ],
            id="index counts on within a call",
        ),
        pytest.param(
            [
                part('{"x": ', index=0, id="a"),
                part("1}", index=0, name="f"),
                part('{"y": 2}', index=1, name="g"),
                part(index=1, id="b"),
            ],
            id="name late, id late",
        ),
        pytest.param(
            [
                part({"x": 1}, index="0", id="a", name="f"),
                part({"y": 2}, index=1, id="b", name="g"),
            ],
            id="arguments as objects",
        ),
    ],
)
def test_two_calls_in_the_many_ways_of_servers(deltas: list[Any]) -> None:
    compact = [(i, n, a.replace(": ", ":")) for i, n, a in calls(*deltas)]
    assert compact == [(i, n, a.replace(": ", ":")) for i, n, a in TWO]


def test_calls_without_ids_get_some() -> None:
    (one, *first), (two, *second) = calls(
        [part('{"x": 1}', name="f"), part('{"x": 2}', name="f")],
    )
    assert (first, second) == (["f", '{"x": 1}'], ["f", '{"x": 2}'])
    assert one != two
    assert all(re.fullmatch(r"call_[0-9a-f]{24}", call_id) for call_id in (one, two))


def test_an_id_that_two_calls_share_is_replaced_in_the_second() -> None:
    (one, _, _), (two, _, _) = calls(
        part("{}", index=0, id="a", name="f"), part("{}", index=1, id="a", name="g")
    )
    assert one == "a"
    assert two.startswith("call_")


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert calls(part(None, index=0, id="a", name="f")) == [("a", "f", "{}")]


def test_text_and_then_a_call() -> None:
    assert read(
        chunk(content="Wait."), chunk("stop", tool_calls=[part("{}", index=0, id="a", name="f")])
    ) == [TextDelta("Wait."), CallStarted(0, "a", "f"), CallDelta(0, "{}"), ChatEnded()]


def test_a_call_that_never_got_its_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="without a name"):
        calls(part("{}", index=0, id="a"))


@pytest.mark.parametrize(
    ("usage", "read_as"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2}, ChatUsage(9, 2)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 8},
            },
            ChatUsage(9, 2, 8),
        ),
        (
            {"prompt_tokens": 9.0, "completion_tokens": "2", "prompt_tokens_details": None},
            ChatUsage(9, 2),
        ),
        ({"prompt_tokens": 9}, None),
        ({"prompt_tokens": "many", "completion_tokens": 2}, None),
        ("none", None),
        (None, None),
    ],
)
def test_usage_comes_after_the_end_in_a_chunk_without_choices(
    usage: Any, read_as: ChatUsage | None
) -> None:
    last = decode(msgspec.json.encode({"choices": [], "usage": usage}))
    assert read(chunk("stop"), last) == [ChatEnded("stop", read_as)]


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (b'{"error": {"message": "no"}}', {"message": "no"}),
        (b'{"error": "no"}', "no"),
        (b'{"choices": [{"finish_reason": "error"}]}', "error"),
        (b'{"choices": []}', None),
    ],
)
def test_a_failure_inside_the_stream(body: bytes, failure: Any) -> None:
    assert decode(body).failure == failure


def test_what_is_no_chunk_is_an_error() -> None:
    for data in (b"<html>", b"[1]", b'{"choices": 1}', b'{"cho'):
        with pytest.raises(ValueError, match=r".+"):
            decode(data)
