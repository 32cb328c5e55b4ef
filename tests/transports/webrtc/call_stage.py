"""A WebRTC client for tests: plain aiortc, except that it decodes audio as it arrives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import numpy as np
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)

from tests.server import Server
from tests.transports.webrtc.caller import ASK, WAIT_SECONDS
from vivavoce.audio.formats import RATE
from vivavoce.transports.webrtc.aiortc_patches import (
    PayloadReceiver,
    drop_what_a_closed_transport_cannot_send,
)
from vivavoce.transports.webrtc.tracks import Microphone, PlayoutTrack

LOUD = 500  # RMS amplitude above which a frame counts as sound


class Client:
    """One call."""

    def __init__(self, label: str = "oai-events", direction: str = "sendrecv") -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel: RTCDataChannel = self.connection.createDataChannel(label)
        assert self.connection.sctp
        drop_what_a_closed_transport_cannot_send(self.connection.sctp)
        self.events: list[dict[str, Any]] = []
        self.location = ""
        self.heard = bytearray()
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._track = PlayoutTrack(lambda *_: None, lambda: None)
        transceiver = self.connection.addTransceiver(self._track, direction=direction)
        PayloadReceiver(transceiver, Microphone(self.heard.extend).add)
        self.channel.on("message", self._took)

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def speak(self, pcm: bytes) -> None:
        """Send 16-bit PCM at 24 kHz, in real time."""
        self._track.queue.put("", pcm)

    @property
    def loud_ms(self) -> int:
        """The duration of the received audio that is not silent."""
        return loud_ms(bytes(self.heard))

    async def send(self, **event: Any) -> None:
        self.channel.send(msgspec.json.encode(event).decode())

    async def ask(self) -> None:
        await self.send(**ASK)
        await self.send(type="response.create")

    async def next(self) -> dict[str, Any]:
        return await self._events.get()

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_SECONDS):
            while (event := await self.next())["type"] != kind:
                pass
        return event

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def _took(self, message: str | bytes) -> None:
        event = msgspec.json.decode(message)
        self.events.append(event)
        self._events.put_nowait(event)


def loud_ms(pcm: bytes) -> int:
    sound = np.frombuffer(pcm, "<i2").astype(float)
    frames = sound[: len(sound) // 240 * 240].reshape(-1, 240)  # of 10 ms
    return 10 * int((np.sqrt((frames**2).mean(axis=1)) > LOUD).sum())


def tone(seconds: float, hertz: float = 440.0) -> bytes:
    instants = np.arange(int(seconds * RATE)) / RATE
    return (12000 * np.sin(2 * np.pi * hertz * instants)).astype("<i2").tobytes()


@asynccontextmanager
async def in_call(
    server: Server,
    *,
    label: str = "oai-events",
    direction: str = "sendrecv",
    query: str = "?model=gpt-realtime",
    **headers: str,
) -> AsyncIterator[Client]:
    """A client whose data channel is open and that has received session.created."""
    client = Client(label, direction)
    try:
        async with aiohttp.ClientSession() as http:
            reply = await http.post(
                f"{server.http}/v1/realtime/calls{query}",
                data=await client.offer(),
                headers={"Content-Type": "application/sdp", **headers},
            )
            assert reply.status == 201, await reply.text()
            client.location = reply.headers["Location"]
            await client.accept(await reply.text())
            await client.until("session.created")
        yield client
    finally:
        await client.connection.close()
