"""Frames pass in order, before the reader makes messages of them, however their bytes are cut."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol.ws_frames import (
    MAX_JOINED_BYTES,
    MAX_PASSED_AT_ONCE,
    PassingReader,
    frame_head,
)

MASK = b"\x11\x22\x33\x44"


def unmask(mask: bytes, data: bytearray) -> None:
    for n in range(len(data)):
        data[n] ^= mask[n % 4]


def frame(text: bytes, first: int = 0x81, *, masked: bool = False) -> bytes:
    size, bit = len(text), 0x80 if masked else 0
    head = bytes((first, bit | size)) if size < 126 else bytes((first, bit | 126))
    if 126 <= size < 1 << 16:
        head += size.to_bytes(2, "big")
    elif size >= 1 << 16:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return head + text
    payload = bytearray(text)
    unmask(MASK, payload)
    return head + MASK + bytes(payload)


@dataclass
class Stage:
    """A reader that collects, and what has passed; texts that begin with "a" pass."""

    masked: bool = False
    passed: list[bytes] = field(default_factory=list)
    handed: bytes = b""
    ended: bool = False
    fails: bool = False

    def __post_init__(self) -> None:
        self.reading = PassingReader(self, unmask if self.masked else None)
        self.reading.passes = self.passes
        self.reading.idle = True

    def passes(self, text: bytes) -> bool:
        if text[:1] == b"a":
            self.passed.append(text)
        return text[:1] == b"a"

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.handed += data
        return self.fails, b""

    def feed_eof(self) -> None:
        self.ended = True


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [1, 125, 126, 65_535])
def test_text_frame_passes_and_the_reader_gets_nothing(masked: bool, size: int) -> None:
    stage = Stage(masked)
    assert stage.reading.feed_data(frame(b"a" * size, masked=masked) * 2) == (False, b"")
    assert stage.passed == [b"a" * size] * 2
    assert stage.handed == b""
    assert stage.reading.idle


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 125, 126, 700, 66_000]), st.booleans()), max_size=6),
    st.lists(st.integers(1, 9_000), min_size=1, max_size=20),
    st.booleans(),
)
def test_every_frame_passes_or_is_handed_on_in_order_however_the_bytes_are_cut(
    frames: list[tuple[int, bool]], cuts: list[int], masked: bool
) -> None:
    texts = [(b"a" if passes else b"b") * size for size, passes in frames]
    stream = b"".join(frame(text, masked=masked) for text in texts)
    stage, at, n = Stage(masked), 0, 0
    while at < len(stream):
        step = cuts[n % len(cuts)]
        stage.reading.feed_data(stream[at : at + step])
        at, n = at + step, n + 1
    count = len(stage.passed)
    assert stage.passed == texts[:count]
    assert stage.handed == b"".join(frame(text, masked=masked) for text in texts[count:])


def test_frame_behind_one_that_did_not_pass_waits_until_that_was_taken() -> None:
    stage = Stage()
    stage.reading.feed_data(frame(b"a1") + frame(b"b") + frame(b"a2"))
    stage.reading.feed_data(frame(b"a3"))
    assert stage.passed == [b"a1"]
    assert stage.handed == frame(b"b") + frame(b"a2") + frame(b"a3")
    stage.reading.idle = True  # the task waits again
    stage.reading.feed_data(frame(b"a4"))
    assert stage.passed == [b"a1", b"a4"]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [20, 200])
def test_beginning_of_a_frame_leaves_the_reader_idle(size: int, masked: bool) -> None:
    stage = Stage(masked=masked)
    for n, byte in enumerate(frame(b"a" * size, masked=masked)):
        assert stage.reading.idle, n
        stage.reading.feed_data(bytes((byte,)))
    assert stage.passed == [b"a" * size]


@pytest.mark.parametrize("first", [0x01, 0x80, 0x82, 0x88, 0x89, 0xC1])
def test_frame_that_is_no_whole_text_is_handed_on(first: int) -> None:
    stage = Stage()
    stage.reading.feed_data(frame(b"a", first))
    assert (stage.passed, stage.handed) == ([], frame(b"a", first))


@pytest.mark.parametrize("masked", [True, False])
def test_frame_masked_against_the_rule_is_handed_on(masked: bool) -> None:
    stage = Stage(masked)
    wrong = frame(b"a", masked=not masked)
    stage.reading.feed_data(wrong)
    assert (stage.passed, stage.handed) == ([], wrong)


def test_long_frame_is_handed_on_as_it_comes() -> None:
    stage = Stage()
    long = frame(b"a" * (MAX_JOINED_BYTES + 10))
    for at in range(0, len(long), 30_000):
        stage.reading.feed_data(long[at : at + 30_000] + (frame(b"b") if at >= 60_000 else b""))
        assert long.startswith(stage.handed[: len(long)])
        assert len(stage.handed) >= min(len(long), at + 30_000)
    assert stage.handed == long + frame(b"b")


def test_failure_of_the_reader_ends_a_long_frame() -> None:
    stage = Stage()
    long = frame(b"a" * (MAX_JOINED_BYTES + 10))
    stage.reading.feed_data(long[:100])
    stage.fails = True
    assert stage.reading.feed_data(long[100:] + frame(b"a")) == (True, b"")
    assert stage.passed == []


def test_only_so_many_frames_pass_at_once() -> None:
    stage = Stage()
    stage.reading.feed_data(frame(b"a") * (MAX_PASSED_AT_ONCE + 1))
    assert len(stage.passed) == MAX_PASSED_AT_ONCE
    assert stage.handed == frame(b"a")


def test_nothing_passes_where_nobody_takes_it() -> None:
    stage = Stage()
    stage.reading.passes = None
    stage.reading.feed_data(frame(b"a"))
    assert stage.handed == frame(b"a")


def test_frames_stop_passing_when_one_of_them_ends_the_session() -> None:
    stage = Stage()

    def pass_once(text: bytes) -> bool:
        stage.reading.passes = None
        return stage.passes(text)

    stage.reading.passes = pass_once
    stage.reading.feed_data(frame(b"a1") + frame(b"a2"))
    assert stage.passed == [b"a1"]
    assert stage.handed == frame(b"a2")


def test_end_of_the_connection_reaches_the_reader() -> None:
    stage = Stage()
    stage.reading.feed_eof()
    assert stage.ended


@pytest.mark.parametrize("size", [126, 65_535])
def test_read_of_one_medium_text_passes_the_shorter_way(size: int) -> None:
    for masked in (False, True):
        stage = Stage(masked)
        assert stage.reading.take(frame(b"a" * size, masked=masked))
        assert not stage.reading.take(frame(b"b" * size, masked=masked))
        assert not stage.reading.take(frame(b"a", masked=masked))
        assert (stage.passed, stage.handed) == ([b"a" * size], b"")
        assert stage.reading.feed_data(frame(b"a" * size, masked=masked)) == (False, b"")
        assert (stage.passed, stage.handed) == ([b"a" * size] * 2, b"")


@pytest.mark.parametrize(("masked", "bit"), [(False, 0), (True, 0x80)])
@pytest.mark.parametrize(
    ("size", "length"),
    [(125, "7d"), (126, "7e007e"), (65_535, "7effff"), (65_536, "7f0000000000010000")],
)
def test_frame_head_has_the_shortest_length(size: int, length: str, masked: bool, bit: int) -> None:
    first, *rest = bytes.fromhex(length)
    assert frame_head(1, size, masked=masked) == bytes((0x81, first | bit, *rest))
