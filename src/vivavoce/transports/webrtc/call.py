"""One call: the peer and the player of its session, and the sidebands that observe it."""

import asyncio
import logging
from typing import Any

from aiortc import RTCDataChannel

from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.wire import WireProtocol
from vivavoce.runtime.runner import Runner
from vivavoce.session.facts import AudioArrived, AudioPlayed, Disconnected
from vivavoce.transports.send_queue import MAX_BACKLOG_BYTES, WRITABLE_BYTES, SendQueue
from vivavoce.transports.webrtc.channel import EventChannel
from vivavoce.transports.webrtc.peer_connection import CallConnection
from vivavoce.transports.webrtc.settings import WebRTCSettings

log = logging.getLogger(__name__)

MAX_QUEUED_SECONDS = 20.0  # of audio that waits to be played; generation pauses above it


class Call:
    """Make it, answer(), set `runner`, then watch() beside the session; hang_up() at the end.

    The session holds the call as its peer, and the call drops the session when it ends: no
    reference cycle keeps an ended session and its audio.
    """

    def __init__(
        self, call_id: str, settings: WebRTCSettings, protocol: WireProtocol, *, local: bool
    ) -> None:
        """protocol: spoken on the data channel. local: whether the client is on this machine."""
        self.id = call_id
        self.runner: Runner | None = None
        """The session, from its beginning to its end."""
        self.connection = CallConnection(settings, self, local=local)
        self._channel = EventChannel(protocol)
        self._listeners: set[SendQueue] = set()
        self._writable = asyncio.Event()

    async def answer(self, sdp: str) -> str:
        """The SDP answer to an offer. Raises InvalidRequest, and LimitReached without a port."""
        return await self.connection.answer(sdp)

    async def watch(self) -> None:
        """Notice a client that has gone. Runs until it is cancelled."""
        await self.connection.watch()

    async def hang_up(self) -> None:
        """Close the data channel, then the connection."""
        self._end()
        await self._channel.close()
        await self.connection.close()

    # sidebands

    def join(self, listener: SendQueue) -> None:
        """Send every event to that queue, too, from now on."""
        self._listeners.add(listener)

    def part(self, listener: SendQueue) -> None:
        """Send nothing more to that queue."""
        self._listeners.discard(listener)

    # the peer

    def send(self, event: AnyServerEvent) -> None:
        self._check_backlog()
        self._channel.send(event)
        for listener in self._listeners:
            listener.send(event)

    def send_raw(self, data: bytes) -> None:
        self._check_backlog()
        self._channel.send_raw(data)
        for listener in self._listeners:
            listener.send_raw(data)

    async def wait_writable(self) -> None:
        while self.runner is not None and self._is_full():
            self._writable.clear()
            await self._writable.wait()

    def close(self, code: int, reason: str) -> None:
        for listener in self._listeners:
            listener.close(code, reason)
        self._end()

    # the player

    def play(self, item_id: str, audio: bytes) -> None:
        self.connection.queue.put(item_id, audio)

    def flush(self) -> None:
        self.connection.queue.clear()
        self._writable.set()

    # the connection's handler

    def on_audio(self, pcm: bytes) -> None:
        """Audio that the session is too far behind to take is dropped: it cannot be paused."""
        if self.runner and pcm and not self.runner.behind:
            self.runner.post(AudioArrived(pcm))

    def on_played(self, item_id: str, samples: int) -> None:
        if self.runner:
            self.runner.post(AudioPlayed(item_id, samples))

    def on_tick(self) -> None:
        if not self._writable.is_set() and not self._is_full():
            self._writable.set()

    def on_channel(self, channel: RTCDataChannel) -> None:
        if self._channel.open(channel):
            on: Any = channel.on
            on("message", self._on_message)

    def on_lost(self, reason: str) -> None:
        if self.runner:
            log.info("%s: %s", self.id, reason)
            self.runner.post(Disconnected())

    def _on_message(self, message: str | bytes) -> None:
        runner = self.runner
        if runner is None:
            return
        try:
            for fact in self._channel.read(message):
                runner.post(fact)
        except Exception as exc:  # noqa: BLE001  a bug: it ends this session and no other
            runner.fail(exc)

    def _check_backlog(self) -> None:
        """Cut off a client that takes too little. What is sent next may be large, and is not it."""
        if self._channel.backlog > MAX_BACKLOG_BYTES:
            self.on_lost("the client takes events too slowly")

    def _is_full(self) -> bool:
        queued = self.connection.queue.seconds
        return queued > MAX_QUEUED_SECONDS or self._channel.backlog > WRITABLE_BYTES

    def _end(self) -> None:
        self.runner = None
        self._writable.set()
