"""Calls as load: packets are encoded before and not decoded, so that many fit on one core."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import msgspec
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from vivavoce.audio.pacer import FRAME_BYTES
from vivavoce.transports.webrtc.aiortc_patches import PayloadReceiver, RtpPayload
from vivavoce.transports.webrtc.opus import OpusEncoder
from vivavoce.transports.webrtc.tracks import PlayoutTrack

WAIT_SECONDS = 20.0


def encoded(pcm: bytes) -> list[bytes]:
    encoder = OpusEncoder()
    whole = len(pcm) // FRAME_BYTES * FRAME_BYTES
    return [encoder.encode(pcm[at : at + FRAME_BYTES]) for at in range(0, whole, FRAME_BYTES)]


class LoopedTrack(PlayoutTrack):
    """Sends the same packets over and over."""

    def __init__(self, packets: Sequence[bytes], said: Callable[[int], None]) -> None:
        super().__init__(lambda *_: None, lambda: None)
        self._packets = packets
        self._said = said
        self._count = -1

    def _payload(self) -> bytes:
        self._count += 1
        self._said(self._count % len(self._packets))
        return self._packets[self._count % len(self._packets)]


class Call:
    """One call; `arrivals` are (sequence number, timestamp, when it came)."""

    def __init__(
        self,
        packets: Sequence[bytes],
        *,
        said: Callable[[int], None] = lambda _: None,
        heard: Callable[[bytes], None] | None = None,
    ) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.connection.createDataChannel("oai-events")
        self.arrivals: list[tuple[int, int, float]] = []
        self._heard = heard
        transceiver = self.connection.addTransceiver(
            LoopedTrack(packets, said), direction="sendrecv"
        )
        PayloadReceiver(transceiver, self._arrived)
        self._ready = asyncio.Event()
        self.channel.on("message", lambda _: self._ready.set())
        self.channel.on("open", self._opened)

    async def dial(self, http: aiohttp.ClientSession, port: int) -> float:
        """Call; return the seconds from the offer to the greeting, or to the open channel."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        began = time.perf_counter()
        async with http.post(
            f"http://127.0.0.1:{port}/v1/realtime/calls",
            data=self.connection.localDescription.sdp,
            headers={"Content-Type": "application/sdp"},
        ) as reply:
            answer = await reply.text()
            if reply.status != 201:
                raise RuntimeError(answer)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(WAIT_SECONDS):
            await self._ready.wait()
        return time.perf_counter() - began

    def send(self, **event: Any) -> None:
        self.channel.send(msgspec.json.encode(event).decode())

    def _opened(self) -> None:
        if self._heard:  # an echo sends no session.created
            self._ready.set()

    def _arrived(self, payload: RtpPayload) -> None:
        self.arrivals.append((payload.sequence, payload.timestamp, time.perf_counter()))
        if self._heard:
            self._heard(payload.data)


def gaps(arrivals: Sequence[tuple[int, int, float]], buffer_seconds: float) -> tuple[int, int]:
    """Packets that a player with that much of a buffer would have missed, and all of them."""
    if not arrivals:
        return 1, 1
    (first, start, _), (last, _, _) = arrivals[0], arrivals[-1]
    expected = (last - first) % 2**16 + 1
    late = [at - ((stamp - start) % 2**32) / 48_000 for _, stamp, at in arrivals]
    punctual = sorted(late)[len(late) // 10]
    missed = sum(each > punctual + buffer_seconds for each in late)
    return missed + expected - len({sequence for sequence, _, _ in arrivals}), expected
