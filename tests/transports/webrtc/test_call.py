"""A call as the peer and the player of its session: backpressure, sidebands, and its end."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from tests import idle_clock
from tests.runtime.stage import MODELS, ScriptedEngines, make_runner, question, template
from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.codec import GA, encode
from vivavoce.protocol.server import AnyServerEvent, InputAudioCleared
from vivavoce.protocol.session import ServerVad
from vivavoce.session.facts import AudioArrived, AudioPlayed, Disconnected, Fact
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.testing.virtual_time import run
from vivavoce.transports.send_queue import MAX_BACKLOG_BYTES, WRITABLE_BYTES
from vivavoce.transports.webrtc.call import MAX_QUEUED_SECONDS, Call
from vivavoce.transports.webrtc.settings import WebRTCSettings

SECOND = bytes(48_000)
EVENT = InputAudioCleared(event_id="1")


class Posted:
    """A session that keeps the facts that are posted to it."""

    behind = False

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def post(self, fact: Fact) -> None:
        self.facts.append(fact)


class OpenChannel:
    """A data channel that takes what it is sent and keeps it."""

    readyState = "open"

    def __init__(self) -> None:
        self.bufferedAmount = 0
        self.texts: list[str] = []

    def on(self, event: str, handler: object) -> None:
        """Nothing is emitted: a wait for an event ends by its time-out."""

    def close(self) -> None:
        self.readyState = "closed"

    def send(self, text: str) -> None:
        self.texts.append(text)
        self.bufferedAmount += len(text)


class Listener:
    """The queue of a sideband."""

    def __init__(self) -> None:
        self.sent: list[AnyServerEvent | bytes] = []
        self.closed: tuple[int, str] | None = None

    def send(self, event: AnyServerEvent) -> None:
        self.sent.append(event)

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        self.sent.append(data)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)


class NotifyingCall(Call):
    """A call that tells when audio was queued."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.played = asyncio.Event()

    def play(self, item_id: str, audio: bytes) -> None:
        super().play(item_id, audio)
        self.played.set()


def make_call() -> tuple[Any, Posted, OpenChannel]:
    """A call whose channel is open, its session and its channel."""
    call: Any = Call("rtc_1", WebRTCSettings(), GA(), local=True)
    call.runner = posted = Posted()
    channel = OpenChannel()
    call.on_channel(channel)
    return call, posted, channel


async def is_waiting(wait: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(wait)
    await asyncio.sleep(0)
    assert not task.done()
    return task


def test_wait_writable_ends_when_queued_audio_is_played() -> None:
    async def main() -> None:
        call, _, _ = make_call()
        await call.wait_writable()
        for _ in range(int(MAX_QUEUED_SECONDS) + 1):
            call.play("item", SECOND)
        waiting = await is_waiting(call.wait_writable())
        call.connection.queue.take(2 * len(SECOND))
        call.on_tick()
        await waiting
        await call.hang_up()

    run(main())


@pytest.mark.parametrize("end", ["close", "flush", "hang_up"])
def test_wait_writable_ends_with_the_call_or_its_audio(end: str) -> None:
    async def main() -> None:
        call, _, _ = make_call()
        for _ in range(int(MAX_QUEUED_SECONDS) + 1):
            call.play("item", SECOND)
        waiting = await is_waiting(call.wait_writable())
        match end:
            case "close":
                call.close(1000, "")
            case "flush":
                call.flush()
        if end != "hang_up":
            await waiting
        await call.hang_up()
        await waiting

    run(main())


def test_wait_writable_waits_for_events_that_the_client_has_not_taken() -> None:
    async def main() -> None:
        call, _, channel = make_call()
        channel.bufferedAmount = WRITABLE_BYTES + 1
        waiting = await is_waiting(call.wait_writable())
        call.on_tick()
        assert not waiting.done()
        channel.bufferedAmount = 0
        call.on_tick()
        await waiting
        await call.hang_up()

    run(main())


@pytest.mark.parametrize("raw", [False, True])
def test_client_that_takes_no_events_is_disconnected(raw: bool) -> None:
    async def main() -> None:
        call, posted, channel = make_call()

        def send() -> None:
            call.send_raw(encode(EVENT)) if raw else call.send(EVENT)

        channel.bufferedAmount = MAX_BACKLOG_BYTES
        send()  # one event that is large alone is allowed
        assert posted.facts == []
        send()
        assert posted.facts == [Disconnected()]
        await call.hang_up()

    run(main())


def test_sideband_receives_events_and_raw_events_until_it_parts() -> None:
    async def main() -> None:
        call, _, channel = make_call()
        listener, left = Listener(), Listener()
        call.join(listener)
        call.join(left)
        call.send(EVENT)
        call.part(left)
        call.send_raw(b'{"type":"new"}')
        call.close(1000, "the call was hung up")
        assert listener.sent == [EVENT, b'{"type":"new"}']
        assert listener.closed == (1000, "the call was hung up")
        assert (left.sent, left.closed) == ([EVENT], None)
        assert channel.texts == [encode(EVENT).decode(), '{"type":"new"}']
        await call.hang_up()

    run(main())


def test_audio_is_dropped_while_the_session_is_behind_and_after_its_end() -> None:
    async def main() -> None:
        call, posted, _ = make_call()
        call.on_audio(b"\1\0")
        posted.behind = True
        call.on_audio(b"\2\0")
        posted.behind = False
        call.on_played("item", 480)
        call.close(1000, "")
        call.on_audio(b"\3\0")
        call.on_played("item", 480)
        call.on_lost("the connection is closed")
        assert posted.facts == [AudioArrived(b"\1\0"), AudioPlayed("item", 480)]
        await call.hang_up()

    run(main())


def test_ended_call_frees_its_session_without_garbage_collection() -> None:
    """The call stays alive, as it does while it hangs up."""

    async def main() -> tuple[Call, weakref.ref[Session]]:
        call: Any = NotifyingCall("rtc_1", WebRTCSettings(), GA(), local=True)
        session = Session(
            template(ServerVad()), MODELS, SessionLimits(), salt="t", now=0.0, server_plays=True
        )
        catalog = ScriptedEngines(llm={"answers": ["word " * 50]}).catalog
        call.runner = make_runner(session, call, catalog, player=call)
        running = asyncio.create_task(call.runner.run())
        await asyncio.sleep(0)
        for fact in question():
            call.runner.post(fact)
        await call.played.wait()
        call.on_lost("the test is over")
        await running
        await call.hang_up()
        return call, weakref.ref(session)

    gc.collect()
    gc.disable()
    try:
        call, session = run(main())
        assert call.runner is None
        assert session() is None
        assert call.connection.queue.seconds == 0.0
    finally:
        gc.enable()


def test_connection_that_fails_to_start_ends_the_session() -> None:
    async def main() -> list[Fact]:
        call: Any = Call("rtc_1", WebRTCSettings(), GA(), local=True)
        call.runner = posted = Posted()
        connection = call.connection._connection
        transceivers = connection._RTCPeerConnection__transceivers
        connection._RTCPeerConnection__transceivers = None  # any error will do
        await connection._RTCPeerConnection__connect()
        connection._RTCPeerConnection__transceivers = transceivers
        await call.hang_up()
        return posted.facts

    assert idle_clock.run(main()) == [Disconnected()]


@pytest.mark.parametrize("packets", [True, False])
def test_call_whose_packets_arrive_again_within_the_grace_time_goes_on(packets: bool) -> None:
    async def main() -> None:
        call = Call("rtc_1", WebRTCSettings(gone_seconds=15.0), GA(), local=True)
        session = call.runner = Posted()  # type: ignore[assignment]
        call.keep_for(20.0)
        call.connection._on_packet()
        await asyncio.sleep(15)
        call.on_lost("no packet arrives from the client")
        await asyncio.sleep(10)
        if packets:
            call.connection._on_packet()
        await asyncio.sleep(11)
        assert session.facts == ([] if packets else [Disconnected()])
        await call.hang_up()

    run(main())


def test_events_that_were_sent_while_the_client_was_lost_are_kept_for_it() -> None:
    """Longer than those that were sent to a client that could be reached."""

    async def main() -> None:
        call = Call("rtc_1", WebRTCSettings(), GA(), local=True)
        call.runner = Posted()  # type: ignore[assignment]
        call.keep_for(100.0)
        channel = OpenChannel()
        call.on_channel(channel)  # type: ignore[arg-type]
        call.send(InputAudioCleared(event_id="event_1"))
        call.on_lost("no packet arrives from the client")
        call.send(InputAudioCleared(event_id="event_2"))
        await asyncio.sleep(60)
        assert call._channel.wait_for_another(last_event_id="event_1")
        again = OpenChannel()
        call.on_channel(again)  # type: ignore[arg-type]
        assert ["event_2" in text for text in again.texts] == [True]
        assert not call._channel.wait_for_another(last_event_id="event_0")
        await call.hang_up()

    run(main())
