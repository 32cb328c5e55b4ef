"""The agents library, where it is installed: it validates every event and tells of each it cannot.

Engines play a script, so that what it sends and needs is all that is judged.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.clients.loop import awaited
from tests.clients.sound import TURN
from tests.server import Server, scripted, serving

agents: Any = pytest.importorskip("agents")
realtime: Any = pytest.importorskip("agents.realtime")

WAIT_SECONDS = 60.0
SETTINGS = {
    "voice": "ash",
    "turn_detection": {"type": "semantic_vad", "interrupt_response": True},
    "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
}


class Talk:
    """A session of the library; an error that it tells of fails the test."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.audio_bytes = 0
        self.history: list[Any] = []
        self._events = aiter(session)

    async def until(self, kind: str) -> Any:
        """Read on to an event of that type, be it the session's or the model's."""
        while True:
            async with asyncio.timeout(WAIT_SECONDS):
                event = await anext(self._events)
            inner = event.data if event.type == "raw_model_event" else event
            assert inner.type not in ("error", "exception"), inner
            if event.type == "audio":
                self.audio_bytes += len(event.audio.data)
            if event.type == "history_updated":
                self.history = event.history
            if kind in (event.type, inner.type):
                return inner

    async def until_said(self, who: str, words: str) -> list[tuple[str, str]]:
        """Read on until that is the last thing said; return all that was, by the library's book."""
        said: list[tuple[str, str]] = []
        while not said or said[-1] != (who, words):
            await self.until("history_updated")
            said = [
                (item.role, " ".join(_words(part) for part in item.content))
                for item in self.history
                if item.type == "message"
            ]
        return said


@asynccontextmanager
async def talking(server: Server, **agent: Any) -> AsyncIterator[Talk]:
    runner = realtime.RealtimeRunner(
        realtime.RealtimeAgent(name="Assistant", instructions="Help.", **agent)
    )
    config = {
        "url": f"{server.ws}/v1/realtime?model=gpt-realtime",
        "api_key": "sk-test",
        "initial_model_settings": SETTINGS,
    }
    async with await runner.run(model_config=config) as session:
        yield Talk(session)


@awaited
async def test_agent_runs_its_function_and_sends_the_result() -> None:
    places = []

    def get_weather(location: str) -> str:
        """Get the current weather for a city."""
        places.append(location)
        return "sunny"

    tool = agents.function_tool(get_weather)
    call = {"name": "get_weather", "arguments": {"location": "Rome"}}
    script = scripted(llm={"answers": [{"calls": [call]}, "It is sunny."]})
    async with serving(script) as server, talking(server, tools=[tool]) as talk:
        await talk.session.send_message("What is the weather in Rome?")
        await talk.until("tool_end")
        await talk.until_said("assistant", "It is sunny.")
        assert places == ["Rome"]
        assert talk.audio_bytes == 48 * len("It is sunny.") * 60


@awaited
async def test_agent_receives_audio_and_is_interrupted() -> None:
    story = " ".join(f"word{n:02}" for n in range(100))
    script = scripted(
        stt={"transcripts": ["tell me a story", "stop that"]},
        llm={"answers": [{"text": story, "tokens_per_second": 100}, "All right."]},
        tts={"realtime_factor": 0.05},
        turn={"default": 1.0},
    )
    async with serving(script) as server, talking(server) as talk:
        await talk.session.send_audio(TURN)
        while talk.audio_bytes < 48 * 2000:
            await talk.until("audio")
        await talk.session.send_audio(TURN)
        await talk.until("audio_interrupted")
        said = await talk.until_said("assistant", "All right.")
        assert [who for who, _ in said] == ["user", "assistant", "user", "assistant"]
        assert said[0] == ("user", "tell me a story")
        assert story.startswith(said[1][1].strip())
        assert said[2:] == [("user", "stop that"), ("assistant", "All right.")]


def _words(part: Any) -> str:
    return getattr(part, "transcript", None) or getattr(part, "text", None) or ""
