"""Chunks of a streamed chat completion, in the many ways of servers."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatUsage,
    TextDelta,
)
from vivavoce.engines.openai.chat_stream import (
    MAX_ANSWER_CHARACTERS,
    MAX_ARGUMENTS_CHARACTERS,
    MAX_CALLS,
    ChatChunk,
    ChatStream,
    ThoughtFilter,
    decode,
)
from vivavoce.errors import EngineError


def chunk(finish: str | None = None, **delta: Any) -> ChatChunk:
    body = {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return decode(msgspec.json.encode(body))


def part(arguments: Any = None, *, name: str | None = None, **rest: Any) -> dict[str, Any]:
    return {**rest, "type": "function", "function": {"name": name, "arguments": arguments}}


def read(*chunks: ChatChunk) -> list[ChatEvent]:
    stream = ChatStream("the LLM")
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


def test_stream_of_text_yields_each_delta() -> None:
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
def test_stream_end_has_the_reason_of_finish_reason(finish: str | None, reason: Any) -> None:
    assert read(chunk(content="He"), chunk(finish)) == [TextDelta("He"), ChatEnded(reason)]


def test_stream_with_thoughts_in_any_field_omits_them() -> None:
    assert read(
        chunk(reasoning_content="Hm."),
        chunk(reasoning="Hm."),
        chunk(content="<think>Hm."),
        chunk(content="</think>\n\nHello."),
    ) == [TextDelta("Hello."), ChatEnded()]


def test_stream_begins_with_a_thought_and_not_with_a_role() -> None:
    stream = ChatStream("the LLM")
    stream.feed(chunk(role="assistant", content=""))
    assert not stream.begun
    stream.feed(chunk(reasoning_content="Hm."))
    assert stream.begun


def test_stream_ending_in_part_of_a_think_tag_yields_it_at_the_end() -> None:
    assert read(chunk(content="<th")) == [TextDelta("<th"), ChatEnded()]


def test_stream_with_content_pieces_and_refusal_yields_their_text() -> None:
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
def test_stream_with_null_missing_or_unknown_fields_goes_on(body: bytes) -> None:
    assert read(decode(body), chunk(content="Hi")) == [TextDelta("Hi"), ChatEnded()]


def test_stream_of_one_whole_answer_yields_its_text() -> None:
    body = b'{"choices": [{"message": {"content": "Hello."}, "finish_reason": "length"}]}'
    assert read(decode(body)) == [TextDelta("Hello."), ChatEnded("length")]


def test_stream_of_one_call_yields_each_delta_of_arguments() -> None:
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
def test_stream_of_two_calls_in_each_server_dialect_yields_both(deltas: list[Any]) -> None:
    compact = [(i, n, a.replace(": ", ":")) for i, n, a in calls(*deltas)]
    assert compact == [(i, n, a.replace(": ", ":")) for i, n, a in TWO]


def test_stream_of_calls_without_ids_generates_them() -> None:
    (one, *first), (two, *second) = calls(
        [part('{"x": 1}', name="f"), part('{"x": 2}', name="f")],
    )
    assert (first, second) == (["f", '{"x": 1}'], ["f", '{"x": 2}'])
    assert one != two
    assert all(re.fullmatch(r"call_[0-9a-f]{24}", call_id) for call_id in (one, two))


def test_stream_of_two_calls_with_one_id_replaces_the_second() -> None:
    (one, _, _), (two, _, _) = calls(
        part("{}", index=0, id="a", name="f"), part("{}", index=1, id="a", name="g")
    )
    assert one == "a"
    assert two.startswith("call_")


def test_stream_of_call_without_arguments_yields_an_empty_object() -> None:
    assert calls(part(None, index=0, id="a", name="f")) == [("a", "f", "{}")]


def test_stream_of_text_and_call_yields_both() -> None:
    assert read(
        chunk(content="Wait."), chunk("stop", tool_calls=[part("{}", index=0, id="a", name="f")])
    ) == [TextDelta("Wait."), CallStarted(0, "a", "f"), CallDelta(0, "{}"), ChatEnded()]


def test_stream_of_call_without_name_raises_engine_error() -> None:
    with pytest.raises(EngineError, match=r"^the LLM sent a function call without a name"):
        calls(part("{}", index=0, id="a"))


def test_stream_of_one_name_without_ids_begins_a_call_after_each_whole_object() -> None:
    parts = ['{"a": "}', '"', ', "b": [{}', ', "\\"}"]', "}", "", '{"c": 1}', "{}"]
    assert [arguments for _, _, arguments in calls(*(part(text, name="f") for text in parts))] == [
        '{"a": "}", "b": [{}, "\\"}"]}',
        '{"c": 1}',
        "{}",
    ]


@given(st.lists(st.sampled_from(["a", "}", "{", '"', "\\", [], {"b": [1]}])), st.data())
def test_stream_of_calls_of_one_name_without_ids_cut_anywhere_yields_both(
    value: list[Any], data: st.DataObject
) -> None:
    whole = json.dumps({"value": value})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    deltas = [part(piece, name="f") for piece in pieces if piece]
    assert [arguments for _, _, arguments in calls(*deltas, *deltas)] == [whole, whole]


def test_stream_of_most_calls_yields_them_and_one_more_raises_engine_error() -> None:
    parts = [part("{}", index=i, id=f"c{i}", name="f") for i in range(MAX_CALLS + 1)]
    assert [call_id for call_id, _, _ in calls(parts[:-1])] == [f"c{i}" for i in range(MAX_CALLS)]
    with pytest.raises(EngineError, match=r"^the LLM sent more than 128 function calls"):
        calls(parts)


def test_stream_with_too_long_arguments_raises_engine_error() -> None:
    begin = part("", index=0, id="a", name="f")
    most = part("x" * MAX_ARGUMENTS_CHARACTERS, index=0)
    assert calls(begin, most)[0][1] == "f"
    with pytest.raises(EngineError, match="more than 1048576 characters of arguments"):
        calls(begin, most, part("x", index=0))


@pytest.mark.parametrize("field", ["content", "reasoning", "reasoning_content"])
def test_stream_with_too_long_text_raises_engine_error(field: str) -> None:
    most = chunk(**{field: "x" * (MAX_ANSWER_CHARACTERS - 1)})
    assert read(chunk(content="y"), most)[-1] == ChatEnded()
    with pytest.raises(EngineError, match="more than 1048576 characters in one answer"):
        read(chunk(content="yy"), most)


def test_stream_with_half_a_surrogate_pair_replaces_it() -> None:
    body = rb"""{"choices": [{"delta": {"content": "Great \ud83d", "tool_calls": [
        {"id": "\ud800", "function": {"name": "f\udc00", "arguments": {"x": "\ud83d"}}}]}}]}"""
    assert read(decode(body)) == [
        TextDelta("Great \ufffd"),
        CallStarted(0, "\ufffd", "f\ufffd"),
        CallDelta(0, '{"x":"\ufffd"}'),
        ChatEnded(),
    ]


ESCAPES = ["\\ud83d", "\\ude00", "\\uD83D\\uDE00", "\\\\", '\\"', "\\n", "\\ud55c", "u", "d83d"]


@given(st.lists(st.sampled_from(ESCAPES)).map("".join), st.data())
def test_stream_of_arguments_cut_anywhere_has_no_lone_surrogate(
    text: str, data: st.DataObject
) -> None:
    whole = f'{{"x": "{text}"}}'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    [(_, _, arguments)] = calls(part("", id="a", name="f"), *map(part, pieces))
    expected = json.loads(whole)["x"].encode("utf-16-le", "surrogatepass")
    assert json.loads(arguments) == {"x": expected.decode("utf-16-le", "replace")}


def test_stream_ending_in_half_an_escape_of_arguments_yields_it() -> None:
    begin = part('{"x": "', id="a", name="f")
    assert calls(begin, part("\\ud83d")) == [("a", "f", '{"x": "\\ufffd')]
    assert calls(begin, part("\\u12")) == [("a", "f", '{"x": "\\u12')]


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
def test_stream_with_usage_after_the_end_reports_it(usage: Any, read_as: ChatUsage | None) -> None:
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
def test_chunk_with_error_has_a_failure(body: bytes, failure: Any) -> None:
    assert decode(body).failure == failure


def test_decode_of_other_json_raises_value_error() -> None:
    for data in (b"<html>", b"[1]", b'{"choices": 1}', b'{"cho'):
        with pytest.raises(ValueError, match=r".+"):
            decode(data)


CASES = [
    ("Hello.", "Hello."),
    ("", ""),
    ("<think>Hm.</think>Hello.", "Hello."),
    ("\n<think>\nHm.\n</think>\n\nHello. ", "Hello. "),
    ("<think></think><think>Hm</think> Hello.", "Hello."),
    ("<think>a < b </thin </think>Hello.", "Hello."),
    ("<think>never ends", ""),
    ("<think>Hm.</think>", ""),
    ("<thin", "<thin"),
    ("<thing> is a tag", "<thing> is a tag"),
    (" one < two", " one < two"),
    ("Say <think>this</think>.", "Say <think>this</think>."),
    ("   ", "   "),
    ("<think></think>" * 3 + "Hello.", "Hello."),
]


@pytest.mark.parametrize(("text", "spoken"), CASES)
def test_thought_filter_of_text_keeps_what_is_spoken(text: str, spoken: str) -> None:
    thoughts = ThoughtFilter()
    assert thoughts.feed(text) + thoughts.close() == spoken


@given(st.sampled_from(CASES), st.data())
def test_thought_filter_of_text_cut_anywhere_keeps_the_same(
    case: tuple[str, str], data: st.DataObject
) -> None:
    text, spoken = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    thoughts = ThoughtFilter()
    parts = [thoughts.feed(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(parts) + thoughts.close() == spoken


def test_thought_filter_of_plain_text_holds_nothing_back() -> None:
    thoughts = ThoughtFilter()
    assert [thoughts.feed(text) for text in ("H", "el", "lo")] == ["H", "el", "lo"]


def test_thought_filter_of_endless_blanks_yields_them() -> None:
    assert ThoughtFilter().feed(" " * 1025) == " " * 1025
