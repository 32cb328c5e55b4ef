"""The send queue is bounded in bytes and in time; a client that is cut off gets the reason."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientConnectionResetError, WSMsgType

from vivavoce.protocol.beta import Beta
from vivavoce.protocol.codec import GA
from vivavoce.protocol.server import OutputAudioDelta
from vivavoce.protocol.wire import Frame, WireProtocol
from vivavoce.testing.virtual_time import run
from vivavoce.transports.send_queue import (
    CLOSE_TIMEOUT_S,
    MAX_BACKLOG_BYTES,
    READ_TIMEOUT_S,
    WRITABLE_BYTES,
    SendQueue,
)


@dataclass
class Client:
    """A client at the other end of a wire: it takes so many bytes a second; 0: none, ever."""

    bytes_per_second: float = 1e12
    got: list[bytes] = field(default_factory=list)
    opcodes: list[WSMsgType] = field(default_factory=list)
    left: float = 0.0
    closed: tuple[int, bytes] | None = None
    aborted: bool = False
    gone: bool = False

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        self.opcodes.append(opcode)
        await self._put(len(message))
        self.got.append(message)

    async def close(self, *, code: int, message: bytes) -> None:
        await self._put(0)
        self.closed = (code, message)

    async def _put(self, size: int) -> None:
        """Take it, and come back when all is taken that was put."""
        if self.gone:
            raise ClientConnectionResetError
        self.left += size
        while self.left > 0:
            await asyncio.sleep(0.1)
            self.left = max(0.0, self.left - self.bytes_per_second / 10)

    def get_write_buffer_size(self) -> int:
        return int(self.left)

    def abort(self) -> None:
        self.aborted = True


def sound(size: int) -> OutputAudioDelta:
    """An event that is about so many bytes on the wire."""
    return OutputAudioDelta(
        event_id="event_1",
        response_id="resp_1",
        item_id="item_1",
        output_index=0,
        content_index=0,
        delta=bytes(size * 3 // 4),
    )


async def served(client: Client, script: Any, protocol: WireProtocol | None = None) -> SendQueue:
    """Run a script beside a writing queue, to the cleanup."""
    queue = SendQueue(client, client, protocol or GA())

    async def write() -> None:
        await queue.write()
        await queue.finish_close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        await script(queue)
    return queue


def test_queue_sends_in_order_before_the_close() -> None:
    async def script(queue: SendQueue) -> None:
        for size in (10, 20, 30):
            queue.send(sound(4 * size))
        queue.close(1000, "done")
        queue.send(sound(99))
        queue.close(1011, "too late")

    client = Client()
    run(served(client, script))
    assert [len(frame) for frame in client.got] == sorted(len(frame) for frame in client.got)
    assert len(client.got) == 3
    assert (client.closed, client.aborted) == ((1000, b"done"), False)


def test_frame_goes_out_at_once_where_none_waits_and_the_connection_takes_it() -> None:
    """One that it does not take waits, and those behind it."""
    sent: list[bytes] = []

    def send_now(message: bytes, opcode: int) -> bool:
        if len(sent) < 2:
            sent.append(message)
            return True
        return False

    async def script() -> None:
        client = Client()
        queue = SendQueue(client, client, GA(), send_now)
        for n in range(4):
            queue.send_frames((Frame("text", b"%d" % n),))
        assert sent == [b"0", b"1"]
        assert queue.waiting_bytes == 2
        queue.close(1000, "")
        await queue.write()
        await queue.finish_close()
        queue.send_frames((Frame("text", b"late"),))
        assert client.got == [b"2", b"3"]

    run(script())


def test_wait_writable_waits_while_too_much_is_queued() -> None:
    async def script(queue: SendQueue) -> None:
        loop = asyncio.get_running_loop()
        await queue.wait_writable()
        for _ in range(5):
            queue.send(sound(WRITABLE_BYTES))
        await queue.wait_writable()
        assert loop.time() == pytest.approx(4 * 4, abs=0.5)
        assert queue.waiting_bytes <= WRITABLE_BYTES
        queue.close(1000, "")

    run(served(Client(bytes_per_second=WRITABLE_BYTES / 4), script))


def test_wait_writable_ends_with_the_close() -> None:
    async def script(queue: SendQueue) -> None:
        for _ in range(3):
            queue.send(sound(WRITABLE_BYTES))
        waiting = asyncio.create_task(queue.wait_writable())
        await asyncio.sleep(1)
        assert not waiting.done()
        queue.close(1000, "")
        await waiting

    run(served(Client(bytes_per_second=WRITABLE_BYTES), script))


def test_client_beyond_the_backlog_bound_is_cut_off() -> None:
    most = 0

    async def script(queue: SendQueue) -> None:
        nonlocal most
        while not is_closed(queue):
            queue.send(sound(100_000))
            most = max(most, queue.waiting_bytes)
            await asyncio.sleep(0.01)

    client = Client(bytes_per_second=50_000)
    queue = run(served(client, script))
    assert MAX_BACKLOG_BYTES - 200_000 < most <= MAX_BACKLOG_BYTES + 200_000
    assert queue.waiting_bytes == 0
    assert client.closed is not None
    code, reason = client.closed
    assert code == 1008
    assert reason.startswith(b"the client reads too slowly: 8")
    assert not client.aborted


def is_closed(queue: SendQueue) -> bool:
    """Whether what is sent is taken no more."""
    before = queue.waiting_bytes
    queue.send(sound(4))
    return queue.waiting_bytes == before


def test_client_that_reads_nothing_is_cut_off_and_aborted() -> None:
    async def script(queue: SendQueue) -> None:
        for _ in range(3):
            queue.send(sound(1000))

    client = Client(bytes_per_second=0)

    async def main() -> float:
        await served(client, script)
        return asyncio.get_running_loop().time()

    least = READ_TIMEOUT_S + CLOSE_TIMEOUT_S
    assert least - 0.01 <= run(main()) <= least + READ_TIMEOUT_S / 4
    assert (client.closed, client.aborted) == (None, True)


def test_close_of_a_client_that_reads_nothing_is_aborted() -> None:
    async def script(queue: SendQueue) -> None:
        queue.send(sound(1000))
        await asyncio.sleep(1)
        queue.close(1012, "the server is shutting down")

    client = Client(bytes_per_second=0)
    run(served(client, script))
    assert client.aborted


def test_client_gets_all_bytes_where_the_socket_is_closed_before_they_are_taken() -> None:
    """aiohttp closes so where a task was reading from the client."""

    @dataclass
    class ClosedAtOnce(Client):
        async def close(self, *, code: int, message: bytes) -> None:
            self.closed, self.left = (code, message), 1000.0
            asyncio.get_running_loop().call_later(2.0, setattr, self, "left", 0.0)

    async def script(queue: SendQueue) -> None:
        queue.close(1008, "the client reads too slowly")

    async def main() -> float:
        await served(client, script)
        return asyncio.get_running_loop().time()

    client = ClosedAtOnce()
    assert 2.0 <= run(main()) < 3.0
    assert (client.closed, client.aborted) == ((1008, b"the client reads too slowly"), False)


def test_slow_client_that_reads_is_not_cut_off() -> None:
    async def script(queue: SendQueue) -> None:
        for _ in range(10):
            queue.send(sound(100_000))
        await asyncio.sleep(200)
        queue.close(1000, "")

    client = Client(bytes_per_second=10_000)
    run(served(client, script))
    assert len(client.got) == 10
    assert client.closed == (1000, b"")


def test_one_large_event_does_not_cut_off() -> None:
    async def script(queue: SendQueue) -> None:
        queue.send(sound(1000))
        queue.send(sound(3 * MAX_BACKLOG_BYTES))
        for _ in range(50):
            queue.send(sound(1000))
        await asyncio.sleep(100)
        queue.close(1000, "")

    client = Client(bytes_per_second=1_000_000)
    run(served(client, script))
    assert len(client.got) == 52
    assert client.closed == (1000, b"")


def test_two_large_events_cut_off() -> None:
    async def script(queue: SendQueue) -> None:
        for _ in range(3):
            queue.send(sound(2 * MAX_BACKLOG_BYTES))

    client = Client(bytes_per_second=1_000_000_000)
    run(served(client, script))
    assert client.closed is not None
    assert client.closed[0] == 1008


def test_lost_connection_gets_no_close_frame() -> None:
    async def script(queue: SendQueue) -> None:
        queue.send(sound(1000))

    client = Client(gone=True)
    run(served(client, script))
    assert client.closed is None


def test_lost_connection_drops_the_frames_that_wait() -> None:
    async def script(queue: SendQueue) -> None:
        for _ in range(3):
            queue.send(sound(1000))

    queue = run(served(Client(gone=True), script))
    assert queue.waiting_bytes == 0
    assert not queue._frames


def test_long_close_reason_is_cut_between_characters() -> None:
    async def script(queue: SendQueue) -> None:
        queue.close(1011, "é" * 100)

    client = Client()
    run(served(client, script))
    assert client.closed == (1011, ("é" * 61).encode())


def test_writing_many_frames_yields_to_other_tasks() -> None:
    class Hasty(Client):
        async def _put(self, size: int) -> None: ...

    async def script(queue: SendQueue) -> None:
        for _ in range(1000):
            queue.send(sound(4))
        turns = 0
        while queue.waiting_bytes:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 1000 // 32
        queue.close(1000, "")

    run(served(Hasty(), script))


def test_binary_frames_are_sent_as_binary() -> None:
    async def script(queue: SendQueue) -> None:
        queue.send_frames((Frame("binary", b"pcm"), Frame("text", b"{}")))
        queue.close(1000, "")
        queue.send_frames((Frame("text", b"late"),))

    client = Client()
    run(served(client, script))
    assert client.got == [b"pcm", b"{}"]
    assert client.opcodes == [WSMsgType.BINARY, WSMsgType.TEXT]


RAW = b'{ "type":"response.output_audio.done", "event_id":"e", "response_id":"r", "item_id":"i"'
RAW += b', "output_index":0, "content_index":0, "new":1 }'


@pytest.mark.parametrize(
    ("protocol", "got"),
    [
        (GA(), [RAW, b'{"type":"something.new"}']),
        (
            Beta(),
            [
                b'{"type":"response.audio.done","event_id":"e","response_id":"r","item_id":"i",'
                b'"output_index":0,"content_index":0}'
            ],
        ),
    ],
    ids=["ga", "beta"],
)
def test_raw_event_is_sent_unchanged_in_ga_and_translated_elsewhere(
    protocol: WireProtocol, got: list[bytes]
) -> None:
    async def script(queue: SendQueue) -> None:
        queue.send_raw(RAW)
        queue.send_raw(b'{"type":"something.new"}')
        queue.close(1000, "")
        queue.send_raw(RAW)

    client = Client()
    run(served(client, script, protocol))
    assert client.got == got
