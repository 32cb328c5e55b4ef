"""The connection of a call: its negotiation, its tracks, and whether packets still arrive."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)

from vivavoce.audio.pacer import PlayoutQueue
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.rtvi_requests import CandidateText
from vivavoce.transports.webrtc import aiortc_patches, offer
from vivavoce.transports.webrtc.ice import CandidateGatherer, ice_servers
from vivavoce.transports.webrtc.settings import WebRTCSettings
from vivavoce.transports.webrtc.tracks import Microphone, PlayoutTrack

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
MAX_ADDED_CANDIDATES = 40  # after the offer; each is an address to which packets are sent


class ConnectionHandler(Protocol):
    """Receives what happens on a connection. None of the methods waits."""

    def on_audio(self, pcm: bytes) -> None:
        """The client's audio: mono 16-bit PCM at 24 kHz."""
        ...

    def on_played(self, item_id: str, samples: int) -> None:
        """This many samples of an item were sent."""
        ...

    def on_tick(self) -> None:
        """20 ms of audio were sent."""
        ...

    def on_channel(self, channel: RTCDataChannel) -> None:
        """The client has opened a data channel."""
        ...

    def on_lost(self, reason: str) -> None:
        """The client cannot be reached any more."""
        ...


class CallConnection:
    """Make it, answer(), then watch() while the call lasts; close() gives back ports and tasks."""

    def __init__(
        self, settings: WebRTCSettings, handler: ConnectionHandler, *, local: bool
    ) -> None:
        """local: whether the client is on this machine."""
        self._settings = settings
        self._handler = handler
        self._local = local
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=ice_servers(settings)))
        aiortc_patches.report_connect_failure(self._connection, self._on_connect_failure)
        self._microphone = Microphone(handler.on_audio)
        self._track = PlayoutTrack(handler.on_played, self._on_tick)
        self._packet_at = 0.0  # when the last packet arrived, on the loop's clock
        self._offer: offer.SdpOffer | None = None
        self._candidates_left = MAX_ADDED_CANDIDATES
        self._closing = False

    @property
    def queue(self) -> PlayoutQueue:
        """Audio that waits to be played."""
        return self._track.queue

    @property
    def is_silent(self) -> bool:
        """Whether the client cannot be reached: the connection has ended, or no packet arrives."""
        ended = self._connection.connectionState in ("closed", "failed")
        return ended or self._silent_in() <= 0

    async def answer(self, sdp: str) -> str:
        """The SDP answer to an offer. Raises InvalidRequest, and LimitReached without a port."""
        self._offer = accepted = offer.read(sdp)
        connection = self._connection
        transceiver = connection.addTransceiver(self._track, direction="sendrecv")
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        opus = [c for c in codecs if c.mimeType.lower() == aiortc_patches.OPUS_MIME_TYPE]
        transceiver.setCodecPreferences(opus)
        aiortc_patches.PayloadReceiver(transceiver, self._microphone.add)
        connection.on("datachannel", self._handler.on_channel)
        connection.on("connectionstatechange", self._on_state)
        await self._set_remote(accepted)
        transports = {transceiver.receiver.transport}
        if connection.sctp:
            aiortc_patches.accept_invalid_messages(connection.sctp)
            aiortc_patches.drop_what_a_closed_transport_cannot_send(connection.sctp)
            transports.add(connection.sctp.transport)
        self._on_packet()
        for transport in transports:
            ice = aiortc_patches.ice_connection(transport)
            aiortc_patches.observe_packets(ice, self._on_packet)
            CandidateGatherer(ice, self._settings, local=self._local)
        return await self._answer(accepted)

    async def renegotiate(self, sdp: str) -> str:
        """The answer to another offer of the same client. Raises InvalidRequest.

        The transport stays as it is: aiortc restarts no ICE.
        """
        accepted = offer.read(sdp)
        if self._offer is None or accepted.mids["audio"] != self._offer.mids["audio"]:
            raise InvalidRequest(
                "Invalid 'sdp': its audio section is not the one of the connection; send "
                "'restart_pc': true to make a new connection.",
                param="sdp",
            )
        await self._set_remote(accepted)
        self._offer = accepted
        return await self._answer(accepted)

    async def add_candidates(self, candidates: Iterable[CandidateText]) -> None:
        """Take ICE candidates that the client found after its offer; unusable ones are ignored."""
        assert self._offer, "nothing was answered yet"
        known = self._offer.mids.values()
        for each in candidates:
            section = each.sdp_mid
            if section is None and each.sdp_mline_index is not None:
                section = self._offer.mid_at(each.sdp_mline_index)
            if section not in known:
                continue
            if not each.candidate:  # there are no more
                await self._connection.addIceCandidate(None)
                return
            candidate = offer.read_candidate(each.candidate)
            if candidate is not None and self._candidates_left:
                self._candidates_left -= 1
                candidate.sdpMid = section
                await self._connection.addIceCandidate(candidate)

    def take_queue(self, other: "CallConnection") -> None:
        """Play the audio that waits on the other connection, in place of what waits here."""
        mine, theirs = self._track, other._track
        mine.queue, theirs.queue = theirs.queue, mine.queue

    async def watch(self) -> None:
        """Report a client from which no packets arrive any more. Runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if "send" not in str(self._connection.getTransceivers()[0].currentDirection):
                tasks.create_task(self._play_unheard())
            await self._wait_for_silence()
            self._handler.on_lost("no packet arrives from the client")

    async def close(self) -> None:
        """Close, and release every port and task. The handler is not called."""
        self._closing = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()
        except TimeoutError:
            log.warning("a WebRTC connection does not close")
        self._track.stop()
        self.queue.clear()

    async def _set_remote(self, accepted: offer.SdpOffer) -> None:
        try:
            await self._connection.setRemoteDescription(
                RTCSessionDescription(accepted.sdp, "offer")
            )
        except Exception as exc:  # aiortc raises many types for what it cannot parse
            why = exc or "no call can be made of it"
            raise InvalidRequest(f"Invalid 'sdp': {why}.", param="sdp") from exc

    async def _answer(self, accepted: offer.SdpOffer) -> str:
        connection = self._connection
        await connection.setLocalDescription(await connection.createAnswer())
        return accepted.answered(connection.localDescription.sdp)

    async def _play_unheard(self) -> None:
        """Take the audio in real time and drop it, for a client that receives none."""
        while True:
            await self._track.recv()

    async def _wait_for_silence(self) -> None:
        while (left := self._silent_in()) > 0:  # noqa: ASYNC110  packets come in between
            await asyncio.sleep(left)

    def _silent_in(self) -> float:
        """Seconds until the client is taken for gone, if no packet arrives."""
        return self._packet_at + self._settings.gone_seconds - asyncio.get_running_loop().time()

    def _on_packet(self) -> None:
        self._packet_at = asyncio.get_running_loop().time()

    def _on_tick(self) -> None:
        self._microphone.tick()
        self._handler.on_tick()

    def _on_connect_failure(self, exc: Exception) -> None:
        if not self._closing:
            self._handler.on_lost(f"no connection can be made: {exc!r}")

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if state in ("closed", "failed") and not self._closing:
            self._handler.on_lost(f"the connection is {state}")
