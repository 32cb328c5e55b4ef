"""A plain WebRTC client, as aiortc comes, but for ears that note what arrives."""

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
from vivavoce.transports.webrtc.playout import FRAME_SECONDS
from vivavoce.transports.webrtc.tracks import Microphone, PlayoutTrack

LOUD = 500  # amplitude above which something is heard


class Client:
    """One call. What it says is put(); what it hears is counted."""

    def __init__(self, label: str = "oai-events", direction: str = "sendrecv") -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel: RTCDataChannel = self.connection.createDataChannel(label)
        self.events: list[dict[str, Any]] = []
        self.location = ""
        self.heard = bytearray()
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._mouth = PlayoutTrack(lambda *_: None, lambda: None)
        transceiver = self.connection.addTransceiver(self._mouth, direction=direction)
        Microphone(transceiver, self.heard.extend)  # decodes as it comes, without a thread
        self.channel.on("message", self._took)

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def say(self, pcm: bytes) -> None:
        """16-bit PCM at 24 kHz, from now on in real time."""
        self._mouth.waiting.put("", pcm)

    async def silence(self) -> None:
        """Until all was said."""
        while self._mouth.waiting.seconds:  # noqa: ASYNC110  a track tells nobody
            await asyncio.sleep(FRAME_SECONDS)

    @property
    def loud_ms(self) -> int:
        """How long something was heard."""
        return loud_ms(bytes(self.heard))

    async def send(self, **event: Any) -> None:
        self.channel.send(msgspec.json.encode(event).decode())

    async def ask(self) -> None:
        await self.send(**ASK)
        await self.send(type="response.create")

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_SECONDS):
            while (event := await self._events.get())["type"] != kind:
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
async def on_the_phone(
    server: Server,
    *,
    label: str = "oai-events",
    direction: str = "sendrecv",
    query: str = "?model=gpt-realtime",
    **headers: str,
) -> AsyncIterator[Client]:
    """A client whose data channel is open and who has been greeted."""
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
