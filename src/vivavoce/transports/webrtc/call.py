"""One call: the peer and the player of its session, and the sidebands that observe it."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from aiortc import RTCDataChannel

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.rtvi_requests import CandidateText
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.wire import WireProtocol
from vivavoce.runtime.runner import Runner
from vivavoce.session.facts import AudioArrived, AudioPlayed, Disconnected
from vivavoce.transports.resumable import History
from vivavoce.transports.send_queue import MAX_BACKLOG_BYTES, WRITABLE_BYTES, SendQueue
from vivavoce.transports.webrtc.channel import EventChannel
from vivavoce.transports.webrtc.peer_connection import CallConnection
from vivavoce.transports.webrtc.settings import WebRTCSettings

log = logging.getLogger(__name__)

CLOSED_GRACE_S = 3.0  # for another connection of a client that has closed its own
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
        self._settings = settings
        self._replaced = asyncio.Event()
        self._negotiating = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None  # of the connection before
        self._channel = EventChannel(protocol)
        self._listeners: set[SendQueue] = set()
        self._writable = asyncio.Event()
        self._grace_s = 0.0  # how long the session lasts without a connection
        self._leaving: asyncio.TimerHandle | None = None

    async def answer(self, sdp: str) -> str:
        """The SDP answer to an offer. Raises InvalidRequest, and LimitReached without a port."""
        return await self.connection.answer(sdp)

    def keep_for(self, seconds: float) -> None:
        """For this long the session continues after its connection was lost, because its client may
        come back."""
        self._grace_s = seconds
        self._channel.history = History()

    async def answer_again(
        self,
        sdp: str,
        *,
        restart: bool,
        local: bool,
        first: AnyServerEvent | None = None,
        last_event_id: str = "",
        items: bool = False,
    ) -> str:
        """The SDP answer to a later offer of the same client. The session continues.

        restart: by a new connection, which takes the place of the present one once it is made.
        first, last_event_id: see EventChannel.wait_for_another(). items: send all items again; it
        is done, too, where events are lost. Raises InvalidRequest, and LimitReached without a port.
        """
        async with self._negotiating:
            if not restart:
                return await self.connection.renegotiate(sdp)
            old, new = self.connection, CallConnection(self._settings, self, local=local)
            try:
                answer = await new.answer(sdp)
                await self._close_old()
                if self.runner is None:
                    raise InvalidRequest("The session has ended.", param="pc_id")
            except BaseException:
                await new.close()
                raise
            new.take_queue(old)
            self.connection = new
            if self._leaving is not None:
                self._leaving.cancel()
                self._leaving = None
            if not self._channel.wait_for_another(first, last_event_id) or items:
                self.runner.repeat_items()
            self._replaced.set()
            self._closing = asyncio.create_task(old.close())
            return answer

    async def add_candidates(self, candidates: Iterable[CandidateText]) -> None:
        """Take ICE candidates that the client found after its offer."""
        async with self._negotiating:
            await self.connection.add_candidates(candidates)

    async def watch(self) -> None:
        """Detect a client that has gone. Runs until it is cancelled."""
        while True:
            self._replaced.clear()
            watching = asyncio.create_task(self.connection.watch())
            try:
                await self._replaced.wait()
            finally:
                watching.cancel()

    async def hang_up(self) -> None:
        """Close the data channel, then the connection."""
        self._end()
        await self._channel.close()
        await self.connection.close()
        await self._close_old()

    # sidebands

    def join(self, listener: SendQueue) -> None:
        """Send every event to that queue as well, from now on."""
        self._listeners.add(listener)

    def part(self, listener: SendQueue) -> None:
        """Send no more events to that queue."""
        self._listeners.discard(listener)

    # the peer

    def send(self, event: AnyServerEvent) -> None:
        self._check_backlog()
        self._channel.send(event)
        for listener in self._listeners:
            listener.send(event)

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        self._check_backlog()
        self._channel.send_raw(data)
        for listener in self._listeners:
            listener.send_raw(data)

    @property
    def is_writable(self) -> bool:
        return self.runner is None or not self._is_full()

    @property
    def waiting_bytes(self) -> int:
        return self._channel.backlog

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

    def duck(self, ducked: bool) -> None:
        self.connection.queue.ducked = ducked

    # the connection's handler

    def on_audio(self, pcm: bytes) -> None:
        """Audio is dropped if the session is too far behind, because a track cannot be paused."""
        if self.runner and pcm and not self.runner.behind:
            self.runner.post(AudioArrived(pcm))

    def on_played(self, item_id: str, samples: int) -> None:
        if self.runner:
            self._channel.played(samples)
            self.runner.post(AudioPlayed(item_id, samples))

    def on_tick(self) -> None:
        if not self._writable.is_set() and not self._is_full():
            self._writable.set()

    def on_channel(self, channel: RTCDataChannel) -> None:
        if self._channel.open(channel):
            on: Any = channel.on
            on("message", self._on_message)

    def on_lost(self, reason: str) -> None:
        if self.runner is None or self._leaving is not None:
            return
        log.info("%s: %s", self.id, reason)
        if not self._grace_s:
            self._leave()
            return
        closed = reason.endswith(" closed")  # the client may make another connection
        seconds = min(self._grace_s, CLOSED_GRACE_S) if closed else self._grace_s
        self._channel.hold()
        self._leaving = asyncio.get_running_loop().call_later(seconds, self._leave)

    def _leave(self) -> None:
        """The client is gone, unless its packets arrive again."""
        if self._leaving is not None and not self.connection.is_silent and not self._is_behind:
            self._leaving = None
            self._channel.release()
            self._replaced.set()  # it is watched anew
        elif self.runner:
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

    async def _close_old(self) -> None:
        """Wait until the connection that was replaced is closed."""
        if self._closing:
            await self._closing
            self._closing = None

    def _check_backlog(self) -> None:
        """Disconnect a client that reads too slowly.

        The next event may be large, but is not the cause.
        """
        if self._is_behind:
            self.on_lost("the client takes events too slowly")

    @property
    def _is_behind(self) -> bool:
        return self._channel.backlog > MAX_BACKLOG_BYTES

    def _is_full(self) -> bool:
        queued = self.connection.queue.seconds
        return queued > MAX_QUEUED_SECONDS or self._channel.backlog > WRITABLE_BYTES

    def _end(self) -> None:
        self.runner = None
        self._writable.set()
        if self._leaving is not None:
            self._leaving.cancel()
