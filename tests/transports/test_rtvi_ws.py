"""RTVI over a WebSocket, in both of its encodings, against a running server."""

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType

from tests.clients.loop import awaited
from tests.server import Server, scripted, serving
from tests.transports.webrtc.caller import LOUD, SOFT, until
from vivavoce.protocol import pipecat_frames as frames

WAIT_SECONDS = 60.0
MAX_AHEAD_S = 0.08


class Client:
    """One connection. `binary`: messages are protobuf frames."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, binary: bool) -> None:
        self.socket = socket
        self.binary = binary
        self.got: list[dict[str, Any]] = []
        self.audio = 0
        self.began: float | None = None
        self.ahead = 0.0  # seconds, the most
        self.interruptions = 0

    async def send(self, kind: str, data: Any = None, id_: str = "m1") -> None:
        message = {"label": "rtvi-ai", "type": kind, "id": id_, "data": data or {}}
        written = msgspec.json.encode(message)
        if self.binary:
            await self.socket.send_bytes(frames.write_message(written))
        else:
            await self.socket.send_str(written.decode())

    async def speak(self, sound: bytes = LOUD * 8 + SOFT * 40) -> None:
        if self.binary:
            await self.socket.send_bytes(frames.write_audio(0, sound, 16_000))
            return
        audio = base64.b64encode(sound).decode()
        await self.send("raw-audio", {"base64Audio": audio, "sampleRate": 16_000})

    async def next(self) -> dict[str, Any] | None:
        """The next message; None: closed."""
        while True:
            async with asyncio.timeout(WAIT_SECONDS):
                received = await self.socket.receive()
            if received.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return None
            assert (received.type is WSMsgType.BINARY) is self.binary
            data = received.data
            if self.binary:
                frame = frames.read_frame(data)
                if isinstance(frame, frames.AudioFrame):
                    assert frame.sample_rate == 24_000
                    self._hear(frame.audio)
                    continue
                if isinstance(frame, frames.InterruptionFrame):
                    self.interruptions += 1
                    continue
                assert isinstance(frame, frames.MessageFrame)
                data = frame.data
            message: dict[str, Any] = msgspec.json.decode(data)
            if message["type"] == "bot-tts-audio":
                self._hear(base64.b64decode(message["data"]["audio"]))
                continue
            self.got.append(message)
            return message

    async def until(self, kind: str) -> dict[str, Any]:
        while message := await self.next():
            if message["type"] == kind:
                return message
        raise AssertionError(f"closed {self.socket.close_code} before {kind}: {self.types}")

    def _hear(self, audio: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if self.began is None:
            self.began = now
        self.audio += len(audio)
        self.ahead = max(self.ahead, self.audio / 48_000 - (now - self.began))

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.got]


@asynccontextmanager
async def client(server: Server, *, binary: bool = True, query: str = "") -> AsyncIterator[Client]:
    """A client that is ready."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{server.ws}/ws?rtvi=1{query}") as socket,
    ):
        one = Client(socket, binary=binary)
        await one.send("client-ready", {"version": "2.1.0"}, "ready1")
        first = await one.next()
        assert first is not None
        assert (first["type"], first["id"]) == ("bot-ready", "ready1")
        yield one


@pytest.mark.parametrize("binary", [True, False])
@awaited
async def test_spoken_turn_is_told_in_order(binary: bool) -> None:
    settings = scripted(
        stt={"transcripts": ["who is there"]}, llm={"answers": ["Nobody is. Go away now."]}
    )
    async with serving(settings) as server, client(server, binary=binary) as one:
        await one.speak()
        await one.until("bot-stopped-speaking")
        order = [
            *("user-started-speaking", "user-transcription", "user-llm-text"),
            *("user-stopped-speaking", "bot-llm-started", "bot-tts-started"),
            *("bot-started-speaking", "bot-output", "bot-tts-text", "bot-stopped-speaking"),
        ]
        assert sorted(order, key=one.types.index) == order
        assert {
            "bot-llm-text",
            "bot-transcription",
            "bot-llm-stopped",
            "bot-tts-stopped",
            "metrics",
        } <= {*one.types}
        said = [m["data"] for m in one.got if m["type"] == "user-transcription"]
        assert (said[-1]["text"], said[-1]["final"]) == ("who is there", True)
        segments = [m["data"] for m in one.got if m["type"] == "bot-output"]
        assert [(s["text"], s["spoken_status"]) for s in segments] == [
            ("Nobody is.", "new"),
            ("Nobody is.", "completed"),
            ("Go away now.", "new"),
            ("Go away now.", "completed"),
        ]
        assert segments[0]["segment_id"] == segments[1]["segment_id"]
        assert one.audio > 0
        assert one.ahead <= MAX_AHEAD_S
        metrics = next(m["data"] for m in one.got if m["type"] == "metrics")
        assert metrics["tokens"][0]["total_tokens"] > 0
        assert {item["processor"] for item in metrics["ttfb"]} >= {"llm"}


@awaited
async def test_typed_text_interrupts_what_is_said() -> None:
    settings = scripted(llm={"answers": ["One more word. " * 100, "Short."]})
    async with serving(settings) as server, client(server) as one:
        await one.send("send-text", {"content": "Talk."})
        await one.until("bot-output")
        await one.send(
            "send-text", {"content": "Stop.", "options": {"audio_response": False}}, "m2"
        )
        await one.until("bot-interrupted")
        heard = one.audio
        await one.until("bot-stopped-speaking")
        output = await one.until("bot-output")
        assert output["data"]["text"] == "Short."
        assert output["data"]["will_be_spoken"] is False
        assert one.audio == heard
        assert one.interruptions == 1
        statuses = [m["data"]["spoken_status"] for m in one.got if m["type"] == "bot-output"]
        assert "completed" not in statuses


@awaited
async def test_speech_interrupts_what_is_said() -> None:
    settings = scripted(stt={"transcripts": ["wait"]}, llm={"answers": ["word " * 400, "Yes."]})
    async with serving(settings) as server, client(server) as one:
        await one.send("send-text", {"content": "Talk."})
        await one.until("bot-started-speaking")
        await one.speak()
        await one.until("bot-interrupted")
        heard = one.audio
        await one.until("bot-started-speaking")
        assert one.audio == heard


@awaited
async def test_tool_is_run_by_the_client() -> None:
    call = {"calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}
    settings = scripted(llm={"answers": [call, "It is sunny."]})
    async with serving(settings) as server, client(server) as one:
        tools = [{"type": "function", "name": "weather"}]
        await one.send("client-message", {"t": "session.update", "d": {"tools": tools}}, "u1")
        assert (await one.until("server-response"))["id"] == "u1"
        await one.send("send-text", {"content": "The weather?"}, "t1")
        asked = (await one.until("llm-function-call-in-progress"))["data"]
        assert asked["function_name"] == "weather"
        result = {**asked, "result": {"sun": True}}
        await one.send("llm-function-call-result", result, "r1")
        await one.until("llm-function-call-stopped")
        assert "sunny" in (await one.until("bot-output"))["data"]["text"]


@awaited
async def test_hostile_frames_leave_the_session_alive() -> None:
    noise = random.Random(11)
    async with serving(scripted(llm={"answers": ["Still here."]})) as server:
        async with client(server) as one:
            for _ in range(2_000):
                await one.socket.send_bytes(noise.randbytes(noise.randrange(1, 300)))
                await one.socket.send_bytes(b"\x12\xff\xff\xff\xff\x0f" + noise.randbytes(20))
                await one.socket.send_str('{"label":"rtvi-ai","type":"x"')
            await one.send("send-text", {"content": "Are you there?"})
            await one.until("bot-stopped-speaking")
            await one.send("disconnect-bot")
            while await one.next():
                pass
            assert one.socket.close_code == 1000
        await until(lambda: len(server.sessions) == 0)
        async with client(server) as again:
            await again.send("send-text", {"content": "And now?"})
            await again.until("bot-started-speaking")


@awaited
async def test_audio_without_any_message_is_a_session() -> None:
    """As Pipecat's Python client sends it."""
    settings = scripted(stt={"transcripts": ["hello"]}, llm={"answers": ["Hi."]})
    async with (
        serving(settings) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{server.ws}/ws?rtvi=1") as socket,
    ):
        one = Client(socket, binary=True)
        await one.speak()
        await one.until("bot-stopped-speaking")
        assert one.audio > 0
