"""One call: a peer connection, the session at its end, and those who listen in.

It is the peer and the player of its session. It ends when the session does, or the other way
round: the client hangs up, its connection breaks, or nothing comes from it for a while.
"""

import asyncio
import logging
from typing import Any

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.runtime.runner import Runner
from vivavoce.session.facts import AudioArrived, AudioPlayed, Disconnected
from vivavoce.transports.send_queue import SendQueue
from vivavoce.transports.webrtc import offer as sdp
from vivavoce.transports.webrtc.channel import (
    MOST_BACKLOG_BYTES,
    ROOM_BYTES,
    EventChannel,
    take_all,
)
from vivavoce.transports.webrtc.ice import Line, servers
from vivavoce.transports.webrtc.reach import Reach
from vivavoce.transports.webrtc.tracks import Microphone, PlayoutTrack

log = logging.getLogger(__name__)

AHEAD_SECONDS = 20.0  # of sound that waits to be played; an answer that is further ahead waits
LOOK_SECONDS = 0.5  # between looks whether the client is still there
CLOSE_SECONDS = 5.0
_OPUS = "audio/opus"


class Call:
    """Make it, answer(), then watch() beside its session; hang_up() gives back everything."""

    def __init__(self, call_id: str, reach: Reach, *, local: bool) -> None:
        self.id = call_id
        self.runner: Runner | None = None
        """The session, once it has begun."""
        self.opened_with: str | None = None
        """The id of the short-lived key that opened it, if one did."""
        self._reach = reach
        self._local = local
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers(reach)))
        self._mind_connecting()
        self._track = PlayoutTrack(self._left, self._tick)
        self._microphone: Microphone | None = None
        self._lines: list[Line] = []
        self._channel = EventChannel()
        self._listeners: set[SendQueue] = set()
        self._eased = asyncio.Event()

    async def answer(self, offer: str) -> str:
        """The answer to an SDP offer. Raises InvalidRequest, and LimitReached without a port."""
        taken = sdp.read(offer)
        connection = self._connection
        transceiver = connection.addTransceiver(self._track, direction="sendrecv")
        capabilities = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([c for c in capabilities if c.mimeType.lower() == _OPUS])
        self._microphone = Microphone(transceiver, self._hear)
        connection.on("datachannel", self._on_channel)
        connection.on("connectionstatechange", self._on_state)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(taken.sdp, "offer"))
        except Exception as exc:  # it raises whatever the lines of strangers lead to
            why = exc or "no call can be made of it"
            raise InvalidRequest(f"Invalid 'sdp': {why}.", param="sdp") from exc
        transports = {transceiver.receiver.transport}
        if connection.sctp:
            take_all(connection.sctp)
            transports.add(connection.sctp.transport)
        for transport in transports:
            line = Line(transport.transport._connection, self._reach, self._local)
            line.take_over()
            self._lines.append(line)
        await connection.setLocalDescription(await connection.createAnswer())
        return taken.answered(connection.localDescription.sdp)

    def _mind_connecting(self) -> None:
        """aiortc connects in a task of its own, and nobody would hear of its end."""
        theirs: Any = self._connection
        connect = theirs._RTCPeerConnection__connect

        async def minded() -> None:
            try:
                await connect()
            except Exception as exc:  # noqa: BLE001  the offer's lines, or the call is over already
                log.info("%s: it does not connect: %r", self.id, exc)
                self._leave()

        theirs._RTCPeerConnection__connect = minded

    async def watch(self) -> None:
        """Tell the session when its client has gone without a word. Runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if "send" not in str(self._connection.getTransceivers()[0].currentDirection):
                tasks.create_task(self._play_to_nobody())
            await self._miss_the_client()

    async def _play_to_nobody(self) -> None:
        """To a client that hears nothing; answers take their time all the same."""
        while True:
            await self._track.recv()

    async def _miss_the_client(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            heard_at = max(line.heard_at for line in self._lines)
            if asyncio.get_running_loop().time() - heard_at > self._reach.gone_seconds:
                log.info("%s: nothing comes from the client any more", self.id)
                self._leave()
                return

    async def hang_up(self) -> None:
        """Hang up, and give back every port and task."""
        await self._channel.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close()
        except TimeoutError:
            log.warning("%s: its connection does not close", self.id)
        self._track.stop()

    def join(self, listener: SendQueue) -> None:
        """From now on that one is told everything, too."""
        self._listeners.add(listener)

    def part(self, listener: SendQueue) -> None:
        self._listeners.discard(listener)

    # the peer

    def send(self, event: AnyServerEvent) -> None:
        self._channel.send(event)
        for listener in self._listeners:
            listener.send(event)
        if self._channel.backlog > MOST_BACKLOG_BYTES:
            self._leave()

    def send_raw(self, data: bytes) -> None:
        self._channel.send_raw(data)

    async def wait_writable(self) -> None:
        while self.runner and self._is_full():
            self._eased.clear()
            await self._eased.wait()

    def close(self, code: int, reason: str) -> None:
        """The session is over."""
        for listener in self._listeners:
            listener.close(code, reason)
        self._eased.set()

    # the player

    def play(self, item_id: str, audio: bytes) -> None:
        self._track.waiting.put(item_id, audio)

    def flush(self) -> None:
        self._track.waiting.clear()
        self._eased.set()

    def _is_full(self) -> bool:
        return self._track.waiting.seconds > AHEAD_SECONDS or self._channel.backlog > ROOM_BYTES

    def _left(self, item_id: str, samples: int) -> None:
        if self.runner:
            self.runner.post(AudioPlayed(item_id, samples))

    def _tick(self) -> None:
        """Twenty milliseconds have passed."""
        if self._microphone:
            self._microphone.keep_time()
        if not self._eased.is_set() and not self._is_full():
            self._eased.set()

    def _hear(self, audio: bytes) -> None:
        if self.runner and audio and not self.runner.behind:
            self.runner.post(AudioArrived(audio))

    def _leave(self) -> None:
        if self.runner:
            self.runner.post(Disconnected())

    def _on_state(self) -> None:
        if self._connection.connectionState in ("closed", "failed"):
            self._leave()

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if not self._channel.open(channel):
            return

        def on_message(message: str | bytes) -> None:
            runner = self.runner
            if runner is None:
                return
            try:
                runner.post(self._channel.read(message))
            except Exception as exc:  # noqa: BLE001  a bug: it ends this session and no other
                runner.fail(exc)

        on: Any = channel.on
        on("message", on_message)
