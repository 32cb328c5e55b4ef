"""A paced peer sends events at once and audio in real time, and clears at once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.transports.test_foreign_protocol import Beep
from tests.transports.test_send_queue import Client
from vivavoce.audio.pacer import AHEAD_SECONDS, FRAME_BYTES
from vivavoce.protocol.server import OutputTranscriptDelta
from vivavoce.session.facts import AudioPlayed, Fact
from vivavoce.testing.virtual_time import run
from vivavoce.transports.paced import MAX_QUEUED_SECONDS, PacedPeer
from vivavoce.transports.send_queue import SendQueue

SECOND = bytes(48_000)
DELTA = OutputTranscriptDelta(
    event_id="e", response_id="r", item_id="i", output_index=0, delta="Hello"
)
Now = Callable[[], float]


class Instant(Client):
    """A client that reads at once."""

    async def _put(self, size: int) -> None: ...


def paced(script: Any, client: Client | None = None) -> tuple[Client, list[Fact]]:
    """Run a script beside a paced peer; what the client and the session were given."""
    client, facts = client or Instant(), list[Fact]()

    async def main() -> None:
        queue = SendQueue(client, client, Beep())
        peer = PacedPeer(queue, Beep())
        peer.post = facts.append
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(queue.write())
            tasks.create_task(peer.run())
            await script(peer, asyncio.get_running_loop().time)
            peer.close(1000, "")
        assert peer.post is None

    run(main())
    return client, facts


def audio(client: Client) -> int:
    """Milliseconds of audio that a client got."""
    return sum(len(data) for data in client.got if not data.startswith(b"{")) // 480 * 10


def test_audio_is_sent_in_real_time_and_reported() -> None:
    async def script(peer: PacedPeer, now: Now) -> None:
        peer.play("a", SECOND)
        peer.play("b", SECOND)
        await asyncio.sleep(0.51)
        assert audio(client) == 500 + 1000 * AHEAD_SECONDS
        await asyncio.sleep(1.51 - 2 * AHEAD_SECONDS)
        assert audio(client) < 2000
        await asyncio.sleep(AHEAD_SECONDS)

    client = Instant()
    _, facts = paced(script, client)
    assert audio(client) == 2000
    assert {len(data) for data in client.got} == {FRAME_BYTES}
    played = [fact for fact in facts if isinstance(fact, AudioPlayed)]
    assert [fact.item_id for fact in played] == ["a"] * 50 + ["b"] * 50
    assert sum(fact.samples for fact in played) == 48_000


def test_events_are_not_delayed_by_audio_and_raw_events_are_translated() -> None:
    async def script(peer: PacedPeer, now: Now) -> None:
        peer.play("a", SECOND)
        peer.send(DELTA)
        peer.send_raw(b'{"type":"something.new"}')
        await asyncio.sleep(0)

    client, _ = paced(script)
    assert client.got[0] == b'{"is":"text","text":"Hello"}'


def test_flush_drops_all_audio_that_was_not_sent() -> None:
    async def script(peer: PacedPeer, now: Now) -> None:
        peer.play("a", SECOND)
        await asyncio.sleep(0.11)
        peer.flush()
        await asyncio.sleep(1)
        assert audio(client) == 100 + 1000 * AHEAD_SECONDS
        peer.play("b", SECOND)
        await asyncio.sleep(0.11)

    client = Instant()
    paced(script, client)
    assert audio(client) == 2 * (100 + 1000 * AHEAD_SECONDS)


def test_generation_waits_while_much_audio_is_queued() -> None:
    async def script(peer: PacedPeer, now: Now) -> None:
        await peer.wait_writable()
        for _ in range(int(MAX_QUEUED_SECONDS) + 5):
            peer.play("a", SECOND)
        await peer.wait_writable()
        assert now() == pytest.approx(5, abs=0.1)
        peer.play("a", SECOND * 9)
        waiting = asyncio.create_task(peer.wait_writable())
        await asyncio.sleep(1)
        assert not waiting.done()
        peer.flush()
        await waiting
        peer.play("a", SECOND * 30)
        waiting = asyncio.create_task(peer.wait_writable())
        await asyncio.sleep(0)
        peer.close(1000, "")
        await waiting

    paced(script)


def test_audio_for_a_slow_client_stays_where_it_can_be_cleared() -> None:
    async def script(peer: PacedPeer, now: Now) -> None:
        peer.play("a", SECOND * 5)
        await asyncio.sleep(5)
        assert peer._queue.waiting_bytes < 20_000
        assert peer._pacer.queue.seconds > 2

    paced(script, Client(bytes_per_second=9_600))
