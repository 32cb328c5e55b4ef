"""Server-sent events: bytes in, data strings out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.sse import MAX_EVENT_BYTES, SseReader
from vivavoce.errors import EngineError


def read(*chunks: bytes) -> list[str]:
    reader = SseReader("the server")
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.close()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", ["one", "two"]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", ["one", "two"]),
        (b"data: one\r\rdata: two\r\r", ["one", "two"]),
        (b"data:no space\n\ndata:  two\n\n", ["no space", " two"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b": a comment\n\nevent: x\nid: 1\nretry: 5\ndata: one\n\n", ["one"]),
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", ["after a byte order mark"]),
        (b"data\n\ndatabase: no\n\n", [""]),
        (b'data: {"a": "b: c"}\n\n', ['{"a": "b: c"}']),
        (b"data: \xc3\xa9 \xff\n\n", ["é \ufffd"]),
        (b"data: \xe2\x80\xa8 and \x0b are in the line\n\n", ["\u2028 and \x0b are in the line"]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_sse_stream_yields_its_events(stream: bytes, events: list[str]) -> None:
    assert read(stream) == events


def test_sse_end_yields_an_event_without_blank_line_and_drops_a_cut_line() -> None:
    assert read(b"data: one\n\ndata: two\n") == ["one", "two"]
    assert read(b"data: one\n\ndata: tw") == ["one"]


def test_sse_event_ending_in_carriage_return_is_yielded_at_once() -> None:
    reader = SseReader("the server")
    assert reader.feed(b"data: one\r\n\r") == ["one"]
    assert reader.feed(b"") == []
    assert reader.feed(b"\ndata: two\n\n") == ["two"]


def test_sse_endless_line_raises_engine_error() -> None:
    reader = SseReader("the server")
    reader.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 6))
    with pytest.raises(EngineError, match="the server sent an event longer than 1 MiB"):
        reader.feed(b"x")


def test_sse_event_of_too_many_lines_raises_engine_error() -> None:
    line = b"data: " + b"x" * 1000 + b"\n"
    with pytest.raises(EngineError, match="longer than 1 MiB"):
        SseReader("the server").feed(line * (MAX_EVENT_BYTES // 1000))


def test_sse_event_of_too_many_empty_lines_raises_engine_error() -> None:
    reader = SseReader("the server", max_event_bytes=1 << 10)
    reader.feed(b"data:\n" * (1 << 10))
    with pytest.raises(EngineError, match=r"longer than 0\.000976562 MiB; is base_url right"):
        reader.feed(b"data:\n")


LINE = st.sampled_from(
    [
        b"data: one",
        b"data:",
        b"data",
        b"",
        b": hm",
        b"event: x",
        b"data: \xc3\xa9\xe2\x82\xac",
        b"x",
    ]
)
END = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(LINE, END)), st.data())
def test_sse_stream_cut_anywhere_yields_the_same_events(
    lines: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*chunks) == read(stream)
