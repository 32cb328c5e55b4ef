"""Frames are followed by their headers; unmasked ones and unfinished messages fail a connection."""

import asyncio
import gc
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import WebSocketError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import idle_clock
from tests.server import Server, serving
from tests.transports.webrtc.caller import calling, masked, raw, until
from vivavoce.testing.virtual_time import run
from vivavoce.transports import frame_guard
from vivavoce.transports.frame_guard import (
    MAX_FRAMES_AT_ONCE,
    MESSAGE_TIMEOUT_S,
    UNCOUNTED_BYTES,
    FrameScanner,
    GuardedReader,
    GuardedSocket,
    MemoryBudget,
    UnmaskedFrame,
)

TEXT, CONTINUATION, PING = 0x1, 0x0, 0x9


def frame(payload: bytes, opcode: int = TEXT, *, final: bool = True) -> bytes:
    return bytes([(0x80 if final else 0) | opcode]) + masked(payload)[1:]


@dataclass
class Reader:
    """The reader behind the guard; `done` is what aiohttp's returns after an error."""

    done: bool = False
    got: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def take(self, data: bytes) -> bool:
        return False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.got += data
        return self.done, b""

    def feed_eof(self) -> None:
        self.ended = True


@dataclass
class Queue:
    failure: WebSocketError | None = None

    def set_exception(self, exc: WebSocketError) -> None:
        self.failure = exc


@dataclass
class Lines:
    """aiohttp's protocol, and its transport."""

    closed: bool = False
    reading: bool = True
    _reading_paused: bool = False

    @property
    def transport(self) -> "Lines":
        return self

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def guarded(budget: MemoryBudget | None = None) -> tuple[GuardedReader, Reader, Queue, Lines]:
    reader, queue, lines = Reader(), Queue(), Lines()
    return GuardedReader(reader, queue, lines, budget or MemoryBudget()), reader, queue, lines


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 125, 126, 66_000]), st.booleans(), st.booleans(), st.booleans()
        ),
        max_size=6,
    ),
    st.lists(st.integers(1, 9_000), min_size=1, max_size=30),
)
@settings(deadline=None)
def test_scanner_counts_messages_however_they_are_cut(
    frames: list[tuple[int, bool, bool, bool]], cuts: list[int]
) -> None:
    stream, open_bytes, finished = b"", 0, 0
    for size, final, control, _ in frames:
        if control:
            stream += frame(b"p" * min(size, 125), PING)
            continue
        stream += frame(b"x" * size, final=final)
        open_bytes = 0 if final else open_bytes + size
        finished += final
    scanner, at, n = FrameScanner(), 0, 0
    while at < len(stream):
        step = cuts[n % len(cuts)] * (1 if n < 2_000 else 1_000)
        piece = stream[at : at + step]
        assert scanner.feed(piece) == len(piece)
        at, n = at + step, n + 1
    assert (scanner.unfinished, scanner.finished) == (open_bytes, finished)


def test_scanner_counts_what_has_come_of_a_message() -> None:
    scanner = FrameScanner()
    scanner.feed(frame(b"x" * 1000)[:-1])
    assert (scanner.unfinished, scanner.finished) == (999, 0)
    scanner.feed(b"x")
    assert (scanner.unfinished, scanner.finished) == (0, 1)


@pytest.mark.parametrize("cut", [1, 4])
def test_scanner_refuses_a_frame_without_a_mask(cut: int) -> None:
    scanner, unmasked = FrameScanner(), b"\x81\x02{}"
    pieces = [unmasked[:cut], unmasked[cut:]] if cut == 1 else [unmasked]
    *before, last = pieces
    for piece in before:
        scanner.feed(piece)
    with pytest.raises(UnmaskedFrame):
        scanner.feed(last)


def test_guard_hands_on_every_byte() -> None:
    async def main() -> None:
        guard, reader, _, _ = guarded()
        stream = frame(b"a" * 300_000, final=False) + frame(b"b", CONTINUATION) + frame(b"c")
        for at in range(0, len(stream), 50_000):
            assert guard.feed_data(stream[at : at + 50_000]) == (False, b"")
        assert reader.got == stream
        guard.feed_eof()
        assert reader.ended

    run(main())


def test_guard_lets_others_run_between_many_small_frames() -> None:
    async def main() -> None:
        guard, reader, _, lines = guarded()
        many = frame(b"") * (3 * MAX_FRAMES_AT_ONCE) + frame(b"last")
        assert guard.feed_data(many) == (False, b"")
        assert not lines.reading
        more = frame(b"more")
        guard.feed_data(more)
        turns = 0
        while not lines.reading:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 3
        assert reader.got == many + more

    run(main())


@pytest.mark.parametrize("how", ["aiohttp has paused", "the reader fails", "unmasked", "eof"])
def test_guard_with_postponed_frames_handles_the_end_of_data(how: str) -> None:
    async def main() -> None:
        guard, reader, queue, lines = guarded()
        many = frame(b"") * (MAX_FRAMES_AT_ONCE + 1)
        guard.feed_data(many + (b"\x81\x00" if how == "unmasked" else b""))
        lines._reading_paused = how == "aiohttp has paused"
        reader.done = how == "the reader fails"
        if how == "eof":
            guard.feed_eof()
        await asyncio.sleep(1)
        assert not lines.reading
        lines._reading_paused = False
        await asyncio.sleep(1)
        assert lines.reading is (how == "aiohttp has paused")
        assert lines.closed is (how in ("the reader fails", "unmasked"))
        assert (queue.failure is not None) is (how == "unmasked")

    run(main())


def test_guard_fails_a_message_that_is_not_finished_in_time() -> None:
    async def main() -> None:
        budget = MemoryBudget()
        guard, reader, queue, lines = guarded(budget)
        guard.feed_data(frame(b"a" * 100_000)[:-1])
        assert budget.used == 100_000 - 1 - UNCOUNTED_BYTES
        await asyncio.sleep(MESSAGE_TIMEOUT_S - 1)
        assert queue.failure is None
        await asyncio.sleep(2)
        assert queue.failure is not None
        assert (queue.failure.code, str(queue.failure)) == (1008, "a message took longer than 60 s")
        assert (lines.closed, budget.used) == (True, 0)
        assert guard.feed_data(b"a") == (True, b"")
        assert len(reader.got) < 100_100

    run(main())


def test_guard_lets_a_stream_of_messages_go_on_that_are_cut_anywhere() -> None:
    async def main() -> None:
        guard, _, queue, _ = guarded()
        stream = frame(b"a" * 999) * 1000
        for at in range(0, len(stream), 4_000):
            guard.feed_data(stream[at : at + 4_000])
            await asyncio.sleep(1)
        assert queue.failure is None
        guard.feed_data(frame(b"a")[:-1])
        guard.feed_data(b"a")
        await asyncio.sleep(3 * MESSAGE_TIMEOUT_S)
        assert queue.failure is None

    run(main())


def test_guard_fails_the_connection_that_exceeds_the_budget_of_the_server() -> None:
    async def main() -> None:
        budget = MemoryBudget(300_000)
        first, second = guarded(budget), guarded(budget)
        part = frame(b"a" * 1_000_000)[:250_000]
        first[0].feed_data(part)
        assert second[0].feed_data(part) == (True, b"")
        assert second[2].failure is not None
        assert second[2].failure.code == 1013
        assert first[2].failure is None
        first[0].feed_data(b"a" * 100_000)
        first[0].feed_eof()
        assert budget.used == 0

    run(main())


def test_guard_gives_back_what_a_failed_reader_held() -> None:
    async def main() -> None:
        budget = MemoryBudget()
        guard, reader, _, _ = guarded(budget)
        reader.done = True
        assert guard.feed_data(frame(b"a" * 100_000)[:-1]) == (True, b"")
        assert budget.used == 0

    run(main())


@pytest.mark.parametrize("how", ["eof", "too slow", "unmasked"])
def test_guard_lets_go_of_the_reader_and_its_message_at_the_end(how: str) -> None:
    """No garbage collection may be needed: an unfinished message has up to 24 MiB."""

    async def main() -> None:
        guard, reader, _, _ = guarded()
        held = weakref.ref(reader)
        del reader
        guard.feed_data(frame(b"a" * 1000)[:-1])
        if how == "too slow":
            await asyncio.sleep(2 * MESSAGE_TIMEOUT_S)
        elif how == "unmasked":
            guard.feed_data(b"a\x81\x00")
        gc.disable()
        try:
            guard.feed_eof()
            assert held() is None
        finally:
            gc.enable()

    run(main())


async def closing(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Code and reason of the close frame."""
    async with asyncio.timeout(60):
        while True:
            opcode, length = await reader.readexactly(2)
            if length >= 126:
                length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
            payload = await reader.readexactly(length)
            if opcode == 0x88:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()


def served(script: Any) -> None:
    async def main() -> None:
        async with serving() as server:
            await script(server)
            await until(lambda: len(server.sessions) == 0)

    idle_clock.run(main())


def test_unmasked_frame_closes_the_connection_with_1002() -> None:
    async def script(server: Server) -> None:
        reader, writer = await raw(server.port)
        writer.write(b"\x81\x02{}")
        assert await closing(reader) == (1002, "frames of a client must be masked")
        writer.close()

    served(script)


def test_unmasked_frame_that_comes_with_the_request_closes_the_connection() -> None:
    async def script(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = (
            "GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        writer.write(head.encode() + b"\x81\x02{}")
        await reader.readuntil(b"\r\n\r\n")
        assert (await closing(reader))[0] == 1002
        writer.close()

    served(script)


def test_unfinished_message_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_guard, "MESSAGE_TIMEOUT_S", 0.0)

    async def script(server: Server) -> None:
        reader, writer = await raw(server.port)
        writer.write(masked(b"a" * 1000)[:-1])
        assert await closing(reader) == (1008, "a message took longer than 0 s")
        writer.close()

    served(script)


def test_text_that_is_not_utf8_closes_the_connection_with_1007() -> None:
    async def script(server: Server) -> None:
        reader, writer = await raw(server.port)
        writer.write(masked('{"type":"nothing","é":1}'.encode()))
        writer.write(masked(b'{"type":"\xff"}'))
        assert await closing(reader) == (1007, "a text frame is not UTF-8")
        writer.close()

    served(script)


def test_socket_that_is_closed_starts_no_heartbeat_for_late_data() -> None:
    async def script(server: Server) -> None:
        reader, writer = await raw(server.port)
        sockets = [o for o in gc.get_objects() if isinstance(o, GuardedSocket)]
        alive = weakref.ref(sockets[0])
        del sockets
        writer.write(masked(b"\xff"))
        await closing(reader)
        writer.write(b"late")
        writer.close()
        await until(lambda: len(server.sessions) == 0)
        async with calling(server) as caller:  # what was late has been read meanwhile
            await caller.ask()
            await caller.answer()
        await until(lambda: gc.collect() >= 0 and alive() is None)

    served(script)
