"""What waits for a client is bounded, in bytes and in time, and the client is told why it goes."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientConnectionResetError, WSMsgType

from tests.virtual_time import run
from vivavoce.protocol.codec import GA
from vivavoce.protocol.server import OutputAudioDelta
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
    left: float = 0.0
    closed: tuple[int, bytes] | None = None
    aborted: bool = False
    gone: bool = False

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        assert opcode is WSMsgType.TEXT
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


async def served(client: Client, script: Any) -> SendQueue:
    """Run a script beside a writing outbox, to the goodbye."""
    outbox = SendQueue(client, client, GA())

    async def write() -> None:
        await outbox.write()
        await outbox.finish_close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        await script(outbox)
    return outbox


def test_all_goes_out_in_order_before_the_close() -> None:
    async def script(outbox: SendQueue) -> None:
        for size in (10, 20, 30):
            outbox.send(sound(4 * size))
        outbox.close(1000, "done")
        outbox.send(sound(99))
        outbox.close(1011, "too late")

    client = Client()
    run(served(client, script))
    assert [len(frame) for frame in client.got] == sorted(len(frame) for frame in client.got)
    assert len(client.got) == 3
    assert (client.closed, client.aborted) == ((1000, b"done"), False)


def test_an_answer_waits_while_too_much_is_in_the_outbox() -> None:
    async def script(outbox: SendQueue) -> None:
        loop = asyncio.get_running_loop()
        await outbox.wait_writable()
        for _ in range(5):
            outbox.send(sound(WRITABLE_BYTES))
        await outbox.wait_writable()
        assert loop.time() == pytest.approx(4 * 4, abs=0.5)
        assert outbox.waiting_bytes <= WRITABLE_BYTES
        outbox.close(1000, "")

    run(served(Client(bytes_per_second=WRITABLE_BYTES / 4), script))


def test_who_waits_for_room_is_let_go_by_a_close() -> None:
    async def script(outbox: SendQueue) -> None:
        for _ in range(3):
            outbox.send(sound(WRITABLE_BYTES))
        waiting = asyncio.create_task(outbox.wait_writable())
        await asyncio.sleep(1)
        assert not waiting.done()
        outbox.close(1000, "")
        await waiting

    run(served(Client(bytes_per_second=WRITABLE_BYTES), script))


def test_a_client_that_lets_too_much_wait_is_cut_off_at_the_bound() -> None:
    most = 0

    async def script(outbox: SendQueue) -> None:
        nonlocal most
        while not outbox_closed(outbox):
            outbox.send(sound(100_000))
            most = max(most, outbox.waiting_bytes)
            await asyncio.sleep(0.01)

    client = Client(bytes_per_second=50_000)
    outbox = run(served(client, script))
    assert MAX_BACKLOG_BYTES - 200_000 < most <= MAX_BACKLOG_BYTES + 200_000
    assert outbox.waiting_bytes == 0
    assert client.closed is not None
    code, reason = client.closed
    assert code == 1008
    assert reason.startswith(b"the client reads too slowly: 8")
    assert not client.aborted


def outbox_closed(outbox: SendQueue) -> bool:
    """Whether what is sent is taken no more."""
    before = outbox.waiting_bytes
    outbox.send(sound(4))
    return outbox.waiting_bytes == before


def test_a_client_that_takes_nothing_is_cut_off_and_hung_up_on() -> None:
    async def script(outbox: SendQueue) -> None:
        for _ in range(3):
            outbox.send(sound(1000))

    client = Client(bytes_per_second=0)

    async def main() -> float:
        await served(client, script)
        return asyncio.get_running_loop().time()

    least = READ_TIMEOUT_S + CLOSE_TIMEOUT_S
    assert least - 0.01 <= run(main()) <= least + READ_TIMEOUT_S / 4
    assert (client.closed, client.aborted) == (None, True)


def test_a_close_does_not_wait_forever_for_a_client_that_takes_nothing() -> None:
    async def script(outbox: SendQueue) -> None:
        outbox.send(sound(1000))
        await asyncio.sleep(1)
        outbox.close(1012, "the server is shutting down")

    client = Client(bytes_per_second=0)
    run(served(client, script))
    assert client.aborted


def test_a_slow_client_that_takes_something_is_waited_for() -> None:
    async def script(outbox: SendQueue) -> None:
        for _ in range(10):
            outbox.send(sound(100_000))
        await asyncio.sleep(200)
        outbox.close(1000, "")

    client = Client(bytes_per_second=10_000)
    run(served(client, script))
    assert len(client.got) == 10
    assert client.closed == (1000, b"")


def test_one_large_event_cuts_nobody_off() -> None:
    async def script(outbox: SendQueue) -> None:
        outbox.send(sound(1000))
        outbox.send(sound(3 * MAX_BACKLOG_BYTES))
        for _ in range(50):
            outbox.send(sound(1000))
        await asyncio.sleep(100)
        outbox.close(1000, "")

    client = Client(bytes_per_second=1_000_000)
    run(served(client, script))
    assert len(client.got) == 52
    assert client.closed == (1000, b"")


def test_two_large_events_are_too_much() -> None:
    async def script(outbox: SendQueue) -> None:
        for _ in range(3):
            outbox.send(sound(2 * MAX_BACKLOG_BYTES))

    client = Client(bytes_per_second=1_000_000_000)
    run(served(client, script))
    assert client.closed is not None
    assert client.closed[0] == 1008


def test_a_connection_that_is_gone_gets_no_goodbye() -> None:
    async def script(outbox: SendQueue) -> None:
        outbox.send(sound(1000))

    client = Client(gone=True)
    run(served(client, script))
    assert client.closed is None


def test_a_long_reason_is_cut_between_two_letters() -> None:
    async def script(outbox: SendQueue) -> None:
        outbox.close(1011, "é" * 100)

    client = Client()
    run(served(client, script))
    assert client.closed == (1011, ("é" * 61).encode())


def test_writing_lets_others_run() -> None:
    class Hasty(Client):
        async def _put(self, size: int) -> None: ...

    async def script(outbox: SendQueue) -> None:
        for _ in range(1000):
            outbox.send(sound(4))
        turns = 0
        while outbox.waiting_bytes:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 1000 // 32
        outbox.close(1000, "")

    run(served(Hasty(), script))
