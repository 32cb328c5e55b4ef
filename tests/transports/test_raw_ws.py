"""/ws and /v1/voice/stream with the `websockets` package: raw sound in, JSON and sound out."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests import idle_clock
from tests.server import Server, scripted, serving
from tests.transports.webrtc.caller import LOUD, SOFT, until
from vivavoce.limits.keys import hash_of
from vivavoce.protocol import pipecat_frames
from vivavoce.protocol.raw_input import MAX_AUDIO_BYTES
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.transports import websocket

WAIT_S = 60.0
KEY = "vv-the-key-of-the-raw-client"
SPEECH = LOUD * 8 + SOFT * 30
"""A turn, at any rate."""
LONG = {"answers": ["word " * 400]}


class RawClient:
    """One connection; sound is counted, frames are kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.sound = 0
        self.largest = 0
        self.frames: list[dict[str, Any]] = []

    async def send(self, kind: str, **data: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, "data": data}))

    async def next(self) -> dict[str, Any]:
        """The next frame of text."""
        async with asyncio.timeout(WAIT_S):
            while isinstance(message := await self.socket.recv(), bytes):
                self.sound += len(message)
                self.largest = max(self.largest, len(message))
        frame: dict[str, Any] = json.loads(message)
        self.frames.append(frame)
        return frame

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        while True:
            frame = await self.next()
            if frame["type"] == kind and fields.items() <= frame.items():
                return frame

    async def answer(self) -> str:
        """The text of an answer that was played to its end."""
        start = len(self.frames)
        await self.until("BotStoppedSpeakingFrame")
        return self.text(start)

    def text(self, start: int = 0) -> str:
        return "".join(f["text"] for f in self.frames[start:] if f["type"] == "TextFrame").strip()

    @property
    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.frames]


@asynccontextmanager
async def client(server: Server, path: str = "/ws", **headers: str) -> AsyncIterator[RawClient]:
    async with connect(server.ws + path, additional_headers=headers, max_size=None) as socket:
        yield RawClient(socket)


def played(script: Callable[[Server], Any], settings: Settings | None = None) -> None:
    """Run a script against a server; no session is left in the end."""

    async def main() -> None:
        async with serving(settings or scripted()) as server:
            await script(server)
            await until(lambda: len(server.sessions) == 0)

    idle_clock.run(main())


def test_client_that_sends_nothing_sees_a_frame_at_once() -> None:
    async def script(server: Server) -> None:
        async with client(server) as caller:
            start = await caller.next()
            assert start["type"] == "StartFrame"
            assert start["data"]["audio_out_sample_rate"] == 16_000
            assert start["model"] == "default"

    played(script)


def test_spoken_turn_is_transcribed_and_answered_with_paced_sound() -> None:
    async def script(server: Server) -> None:
        async with client(server) as caller:
            await caller.socket.send(SPEECH)
            began = asyncio.get_running_loop().time()
            await caller.until("BotStartedSpeakingFrame")
            await caller.until("BotStoppedSpeakingFrame")
            seconds = asyncio.get_running_loop().time() - began
            text = ("TextFrame", "TTSTextFrame", "TranscriptionFrame")
            assert [kind for kind in caller.kinds if kind not in text] == [
                "StartFrame",
                "UserStartedSpeakingFrame",
                "UserStoppedSpeakingFrame",
                "LLMFullResponseStartFrame",
                "BotStartedSpeakingFrame",
                "LLMFullResponseEndFrame",
                "BotStoppedSpeakingFrame",
            ]
            final = [f for f in caller.frames if f["type"] == "TranscriptionFrame" and f["final"]]
            assert [frame["data"]["text"] for frame in final] == ["one two three"]
            assert caller.text() == "Four five six seven."
            order = ("TextFrame", "BotStartedSpeakingFrame", "TTSTextFrame")
            at = [caller.kinds.index(kind) for kind in order]
            assert at[0] < min(at[1:])
            assert caller.largest <= 2 * 16_000 * 0.02 + 64
            # in real time, less what may be ahead; nothing else slows it down
            assert seconds > caller.sound / 32_000 - 0.1

    transcripts = {"transcripts": [{"text": "one two three", "partials": True}]}
    played(script, scripted(stt=transcripts, llm={"answers": ["Four five six seven."]}))


@pytest.mark.parametrize("size", [2, 999, 65_536])
def test_spoken_turn_may_come_in_pieces_of_any_size(size: int) -> None:
    async def script(server: Server) -> None:
        async with client(server, "/ws?interim=off") as caller:
            sound = SPEECH if size > 2 else LOUD[:400] * 10 + SOFT[:600] * 30
            for at in range(0, len(sound), size):
                await caller.socket.send(sound[at : at + size])
            final = await caller.until("TranscriptionFrame", final=True)
            assert final["text"] == "hello"

    played(script)


def test_typed_turn_is_answered_and_a_second_one_interrupts_the_first() -> None:
    async def script(server: Server) -> None:
        async with client(server) as caller:
            await caller.send("text", text="Talk.")
            await caller.until("BotStartedSpeakingFrame")
            await caller.socket.send('{"type": "TextFrame", "text": "Stop."}')
            await caller.until("InterruptionFrame")
            assert await caller.answer() == ""
            assert await caller.answer() == "Yes."
            assert "ErrorFrame" not in caller.kinds

    played(script, scripted(llm={"answers": ["word " * 400, "Yes."]}))


def test_interruption_stops_the_sound_within_a_frame() -> None:
    async def script(server: Server) -> None:
        async with client(server) as caller:
            await caller.send("text", text="Talk.")
            await caller.until("BotStartedSpeakingFrame")
            await caller.send("interrupt")
            await caller.until("BotStoppedSpeakingFrame")
            heard = caller.sound
            await caller.send("interrupt")  # there is nothing left to interrupt
            await caller.send("ping")
            await caller.until("pong")
            assert caller.sound == heard
            assert "ErrorFrame" not in caller.kinds

    played(script, scripted(llm=LONG))


def test_speech_stops_the_sound_within_a_frame() -> None:
    async def script(server: Server) -> None:
        async with client(server) as caller:
            await caller.send("text", text="Talk.")
            await caller.until("BotStartedSpeakingFrame")
            await caller.socket.send(LOUD * 8)
            await caller.until("UserStartedSpeakingFrame")
            await caller.until("InterruptionFrame")
            heard = caller.sound
            await caller.send("ping")
            await caller.until("pong")
            assert caller.sound == heard

    played(script, scripted(llm=LONG))


def test_unpaced_answer_comes_faster_than_it_is_spoken() -> None:
    async def script(server: Server) -> None:
        async with client(server, "/ws?pace=off&output_rate=24000") as caller:
            began = asyncio.get_running_loop().time()
            await caller.send("text", text="Talk.")
            await caller.until("LLMFullResponseEndFrame", status="completed")
            seconds = asyncio.get_running_loop().time() - began
            assert caller.sound / 48_000 > 2 * seconds
            assert caller.kinds.index("BotStoppedSpeakingFrame") == len(caller.kinds) - 2

    played(script, scripted(llm={"answers": ["word " * 100]}))


def test_tool_is_called_and_its_result_is_answered() -> None:
    async def script(server: Server) -> None:
        async with client(server) as caller:
            await caller.send("config", tools=[{"name": "weather"}], turn_stop_secs=1)
            await caller.until("ConfigFrame")
            await caller.send("text", text="How is it in Rome?")
            call = await caller.until("FunctionCallInProgressFrame")
            assert call["data"]["arguments"] == {"city": "Rome"}
            result = {"tool_call_id": call["tool_call_id"], "result": {"degrees": 22}}
            await caller.until("LLMFullResponseEndFrame")
            await caller.send("FunctionCallResultFrame", **result)
            assert await caller.answer() == "It is warm."

    call = {"calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}
    played(script, scripted(llm={"answers": [call, "It is warm."]}))


@pytest.mark.parametrize(
    "message", ["hello", '{"type": "dance"}', '{"type": "config", "voice": 7}', bytes(300_000)]
)
def test_bad_message_is_an_error_frame_and_the_session_goes_on(message: str | bytes) -> None:
    async def script(server: Server) -> None:
        async with client(server) as caller:
            await caller.socket.send(message)
            error = await caller.until("ErrorFrame")
            assert error["fatal"] is False
            await caller.send("text", text="Hello.")
            assert await caller.answer() != ""

    assert len(bytes(300_000)) > MAX_AUDIO_BYTES
    played(script)


def test_client_in_frames_of_pipecat_has_a_spoken_turn() -> None:
    async def script(server: Server) -> None:
        async with connect(server.ws + "/ws?format=protobuf", max_queue=None) as socket:
            await socket.send(pipecat_frames.write_audio(1, SPEECH, 16_000))
            seen: list[pipecat_frames.PipecatFrame] = []
            async with asyncio.timeout(WAIT_S):
                while not any(isinstance(one, pipecat_frames.AudioFrame) for one in seen):
                    message = await socket.recv()
                    assert isinstance(message, bytes)
                    seen.append(pipecat_frames.read_frame(message))
            assert pipecat_frames.TranscriptionFrame("one two", "user") in seen
            assert pipecat_frames.TextFrame("Three.") in seen

    played(script, scripted(stt={"transcripts": ["one two"]}, llm={"answers": ["Three."]}))


def test_end_closes_the_connection() -> None:
    async def script(server: Server) -> None:
        async with client(server) as caller:
            await caller.send("EndFrame")
            with pytest.raises(ConnectionClosed):
                await caller.until("never")
            assert caller.socket.close_code == 1000

    played(script)


def test_client_that_connects_again_has_a_new_session() -> None:
    async def script(server: Server) -> None:
        names = set()
        for _ in range(3):
            async with client(server) as caller:
                names.add((await caller.next())["session_id"])
                await caller.send("text", text="Hello.")
                await caller.until("BotStartedSpeakingFrame")
        assert len(names) == 3

    played(script)


def test_key_is_required_and_taken_from_the_query() -> None:
    keyed = {"keys": {"somebody": hash_of(Secret(KEY))}}

    async def script(server: Server) -> None:
        async with client(server) as caller:
            error = await caller.next()
            assert (error["code"], error["fatal"]) == ("invalid_api_key", True)
            with pytest.raises(ConnectionClosed):
                await caller.next()
            assert caller.socket.close_code == 3000
        async with client(server, f"/ws?api_key={KEY}") as caller:
            assert (await caller.next())["type"] == "StartFrame"
        async with client(server, Authorization=f"Bearer {KEY}") as caller:
            assert (await caller.next())["type"] == "StartFrame"

    played(script, msgspec.structs.replace(scripted(), **keyed))


def test_short_lived_key_decides_the_voice_of_the_session() -> None:
    async def script(server: Server) -> None:
        session = {"type": "realtime", "audio": {"output": {"voice": "coral"}}}
        async with aiohttp.ClientSession() as http:
            url = f"{server.http}/v1/realtime/client_secrets"
            token = (await (await http.post(url, json={"session": session})).json())["value"]
        async with client(server, f"/ws?api_key={token}&voice=nova") as caller:
            assert (await caller.until("StartFrame"))["voice"] == "nova"
            assert (await caller.until("ConfigFrame"))["voice"] == "coral"

    played(script)


def test_option_with_a_bad_value_is_refused_by_name() -> None:
    async def script(server: Server) -> None:
        async with client(server, "/ws?sample_rate=fast") as caller:
            error = await caller.next()
            assert "'sample_rate'" in error["error"]
            with pytest.raises(ConnectionClosed):
                await caller.next()
            assert caller.socket.close_code == 1008

    played(script)


def test_silent_client_is_told_so_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(websocket, "NO_SOUND_S", 0.0)
    caplog.set_level(logging.INFO)

    async def script(server: Server) -> None:
        async with client(server) as caller:
            error = await caller.until("ErrorFrame")
            assert error["code"] == "no_audio"
        async with client(server, "/v1/realtime") as caller:
            await caller.until("session.created")

    played(script)
    assert "no audio has arrived" in caplog.text


# --- /v1/voice/stream


def test_stream_begins_with_a_configuration() -> None:
    async def script(server: Server) -> None:
        async with client(server, "/v1/voice/stream") as caller:
            config = {"model": "gpt-4o", "input": {"stream": True}}
            await caller.socket.send(json.dumps(config))
            await caller.until("StartFrame")
            await caller.until("ConfigFrame")
            await caller.send("text", text="Hello.")
            assert await caller.answer() == "Hi."
            assert caller.sound > 0

    played(script, scripted(llm={"answers": ["Hi."]}))


def test_stream_of_floats_of_a_browser_is_recognised_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    loud = np.random.default_rng(1).normal(size=48_000).clip(-3, 3) / 4
    sound = np.concatenate([loud, np.zeros(96_000)]).astype("<f4").tobytes()

    async def script(server: Server) -> None:
        async with client(server, "/v1/voice/stream") as caller:
            for at in range(0, len(sound), 16_384):
                await caller.socket.send(sound[at : at + 16_384])
            assert (await caller.until("TranscriptionFrame", final=True))["text"] == "hello"

    played(script)
    assert "its audio is 32-bit floats at 48000 Hz, recognised from the bytes" in caplog.text


# --- hostile clients


HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=60),
    st.sampled_from(["text", "config", "audio", "TextFrame", "LLMMessagesAppendFrame", "x"]).map(
        lambda kind: json.dumps({"type": kind, "data": {"text": 1, "audio": "!", "messages": [1]}})
    ),
    st.sampled_from(["[" * 5000, '{"type": ', '{"a": ' * 2000, "null", '"\\ud800"', "\0"]),
    st.builds(lambda size: bytes([255]) * size, st.integers(0, 2000)),
    st.just(base64.b64encode(bytes(100)).decode()),
)


@settings(max_examples=1, database=None)
@given(frames=st.lists(HOSTILE, min_size=50, max_size=50))
def test_hostile_frames_leave_the_session_serving(frames: list[str | bytes]) -> None:
    async def script(server: Server) -> None:
        async with client(server, "/ws?pace=off") as caller:
            for _ in range(4):
                for frame in frames:
                    await caller.socket.send(frame)
                await caller.send("ping")
                await caller.until("pong")
            await caller.send("text", text="Hello.")
            await caller.until("LLMFullResponseEndFrame", status="completed")

    played(script)
