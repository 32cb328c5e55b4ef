"""Plug-ins of livekit-agents work as engines: fakes that derive from its classes, a real one."""

import asyncio
import sys
from contextlib import aclosing
from types import ModuleType
from typing import Any

import pytest

from tests.engines.openai.chat_server import ChatServer, streams, text
from vivavoce.engines.base import CallDelta, CallStarted, ChatEnded, ChatRequest, TextDelta
from vivavoce.engines.livekit_plugins import LiveKitLLM, LiveKitSettings, LiveKitSTT, LiveKitTTS
from vivavoce.errors import EngineError, SettingsError
from vivavoce.protocol.items import FunctionTool, InputText, Message
from vivavoce.testing import check_llm, check_stt, check_tts

agents: Any = pytest.importorskip("livekit.agents")


class FakeSTT(agents.stt.STT):  # type: ignore[misc]
    def __init__(self, *, streaming: bool = True, api_key: str = "") -> None:
        capabilities = agents.stt.STTCapabilities(streaming=streaming, interim_results=True)
        super().__init__(capabilities=capabilities)
        self.key = api_key

    async def _recognize_impl(self, buffer: Any, **how: Any) -> Any:
        if self.key:
            raise agents.APIStatusError(f"bad key {self.key}", status_code=401)
        return _event("final_transcript", "hello there")

    def stream(self, **how: Any) -> Any:
        return FakeRecognition(stt=self, conn_options=how["conn_options"])


def _event(kind: str, text: str) -> Any:
    data = agents.stt.SpeechData(language="en", text=text)
    return agents.stt.SpeechEvent(type=agents.stt.SpeechEventType(kind), alternatives=[data])


class FakeRecognition(agents.stt.RecognizeStream):  # type: ignore[misc]
    async def _run(self) -> None:
        heard = False
        async for frame in self._input_ch:
            if not isinstance(frame, self._FlushSentinel) and any(bytes(frame.data)):
                heard = True
        if heard:
            self._event_ch.send_nowait(_event("interim_transcript", "hel"))
            self._event_ch.send_nowait(_event("final_transcript", "hello"))
            self._event_ch.send_nowait(_event("final_transcript", "there"))


class FakeTTS(agents.tts.TTS):  # type: ignore[misc]
    def __init__(self, *, fails: bool = False, streaming: bool = False) -> None:
        capabilities = agents.tts.TTSCapabilities(streaming=streaming)
        super().__init__(capabilities=capabilities, sample_rate=16_000, num_channels=1)
        self.fails = fails

    def synthesize(self, text: str, *, conn_options: Any) -> Any:
        return FakeSpeech(tts=self, input_text=text, conn_options=conn_options)

    def stream(self, *, conn_options: Any) -> Any:
        return FakeStreamedSpeech(tts=self, conn_options=conn_options)


class FakeStreamedSpeech(agents.tts.SynthesizeStream):  # type: ignore[misc]
    async def _run(self, output: Any) -> None:
        if self._tts.fails:
            raise agents.APIConnectionError("no route to the service")
        output.initialize(
            request_id="r", sample_rate=16_000, num_channels=1, mime_type="audio/pcm", stream=True
        )
        output.start_segment(segment_id="s")
        async for given in self._input_ch:
            if isinstance(given, str):
                output.push(b"\x00\x40" * 200 * len(given))
        output.flush()


class FakeSpeech(agents.tts.ChunkedStream):  # type: ignore[misc]
    async def _run(self, output: Any) -> None:
        if self._tts.fails:
            raise agents.APIConnectionError("no route to the service")
        output.initialize(request_id="r", sample_rate=16_000, num_channels=1, mime_type="audio/pcm")
        output.push(b"\x00\x40" * 200 * len(self._input_text))
        output.flush()


class FakeLLM(agents.llm.LLM):  # type: ignore[misc]
    def chat(self, *, chat_ctx: Any, tools: Any = None, conn_options: Any, **how: Any) -> Any:
        return FakeAnswer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class FakeAnswer(agents.llm.LLMStream):  # type: ignore[misc]
    async def _run(self) -> None:
        for word in ("I ", "can."):
            delta = agents.llm.ChoiceDelta(role="assistant", content=word)
            self._event_ch.send_nowait(agents.llm.ChatChunk(id="c", delta=delta))
        if self._tools:
            call = agents.llm.FunctionToolCall(name="wave", arguments="{}", call_id="call_1")
            delta = agents.llm.ChoiceDelta(tool_calls=[call])
            self._event_ch.send_nowait(agents.llm.ChatChunk(id="c", delta=delta))


@pytest.fixture(autouse=True)
def _fake_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package livekit.plugins.fake."""
    module = ModuleType("livekit.plugins.fake")
    vars(module).update(STT=FakeSTT, TTS=FakeTTS, LLM=FakeLLM)
    monkeypatch.setitem(sys.modules, "livekit.plugins.fake", module)


def made(kind: str, **options: Any) -> LiveKitSettings:
    return LiveKitSettings(plugin=f"fake.{kind}", options=options)


def test_fake_plugins_pass_the_conformance_checks() -> None:
    async def main() -> None:
        for streaming in (True, False):
            async with LiveKitSTT(made("STT", streaming=streaming)) as stt:
                await check_stt(stt)
        for streaming in (True, False):
            async with LiveKitTTS(made("TTS", streaming=streaming)) as tts:
                assert tts.sample_rate == 16_000
                assert tts.streams_text == streaming
                await check_tts(tts, speed=False)
        async with LiveKitLLM(made("LLM")) as llm:
            await check_llm(llm)

    asyncio.run(main())


def test_tool_calls_of_a_plugin_are_passed_on() -> None:
    request = ChatRequest(
        "Be kind.",
        (Message(role="user", content=(InputText("Wave."),)),),
        tools=(FunctionTool("wave"),),
    )

    async def main() -> None:
        async with LiveKitLLM(made("LLM")) as llm, aclosing(llm.generate(request)) as events:
            assert [event async for event in events] == [
                TextDelta("I "),
                TextDelta("can."),
                CallStarted(0, "call_1", "wave"),
                CallDelta(0, "{}"),
                ChatEnded(),
            ]

    asyncio.run(main())


def test_failure_of_a_plugin_is_one_sentence_without_its_key() -> None:
    async def audio() -> Any:
        yield b"\x00\x40" * 800

    async def main() -> None:
        settings = made("STT", streaming=False, api_key="very-secret")
        async with LiveKitSTT(settings) as stt:
            with pytest.raises(EngineError, match=r"fake.STT failed: .*bad key \*\*\*"):
                async for _ in stt.transcribe(audio(), language="en", prompt=""):
                    pass
        async with LiveKitTTS(made("TTS", fails=True)) as tts:
            speech = tts.synthesize(
                "Hi.", voice="default", speed=1.0, language=None, instructions=""
            )
            with pytest.raises(EngineError, match=r"plug-in fake\.TTS failed: \w"):
                async for _ in speech:
                    pass

    asyncio.run(main())


@pytest.mark.parametrize(
    ("plugin", "mistake"),
    [
        ("no_such_one.STT", "pip install livekit-plugins-no_such_one"),
        ("fake.ASR", "no class 'ASR'"),
    ],
)
def test_plugin_that_is_not_there_is_refused_with_the_remedy(plugin: str, mistake: str) -> None:
    with pytest.raises(SettingsError, match=mistake):
        LiveKitSTT(LiveKitSettings(plugin=plugin))


def test_real_plugin_speaks_to_a_server() -> None:
    pytest.importorskip("livekit.plugins.openai")

    async def main() -> None:
        chunks = [data.replace("{", '{"id": "c", ', 1) for data in map(text, ("It ", "works."))]
        async with ChatServer([streams(*chunks, "[DONE]")]) as server:
            options = {"base_url": server.base_url, "api_key": "k", "model": "m"}
            settings = LiveKitSettings(plugin="openai.LLM", options=options)
            request = ChatRequest("", (Message(role="user", content=(InputText("Hi."),)),))
            async with LiveKitLLM(settings) as llm, aclosing(llm.generate(request)) as events:
                found = [event async for event in events]
            assert found[:2] == [TextDelta("It "), TextDelta("works.")]

    asyncio.run(main())
