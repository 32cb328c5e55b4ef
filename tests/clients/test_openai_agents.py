"""The agents library, where it is installed: it validates every event and tells of each it cannot.

Engines play a script, so that what it sends and needs is all that is judged.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest

from tests.clients.loop import awaited
from tests.clients.sound import TURN
from tests.fake_upstream import Answer, FakeUpstream
from tests.server import Server, scripted, serving
from tests.transports.test_relay import relaying

agents: Any = pytest.importorskip("agents")
realtime: Any = pytest.importorskip("agents.realtime")

Serve: TypeAlias = Callable[[list[str], list[Answer]], AbstractAsyncContextManager[Server]]

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


@asynccontextmanager
async def cascade(transcripts: list[str], answers: list[Answer]) -> AsyncIterator[Server]:
    """A cascade with a script. Of an answer with pauses the words come as slowly."""
    settings = scripted(
        stt={"transcripts": transcripts},
        llm={"answers": [_scripted(answer) for answer in answers]},
        tts={"realtime_factor": 0.05},
        turn={"default": 1.0},
    )
    async with serving(settings) as server:
        yield server


@asynccontextmanager
async def relay(transcripts: list[str], answers: list[Answer]) -> AsyncIterator[Server]:
    """A relay to an upstream server with the same script; it hears the first transcript only."""
    fake = FakeUpstream(*answers)
    fake.transcript = transcripts[0]
    async with fake.serve() as url, relaying(url, is_default=True) as (server, _):
        yield server
        await fake.wait_closed()


def _scripted(answer: Answer) -> dict[str, Any]:
    calls = [{"name": name, "arguments": arguments} for name, arguments in answer.calls]
    pace = {"tokens_per_second": 100} if answer.pause_s else {}
    return {"calls": calls} if calls else {"text": answer.text, **pace}


both = pytest.mark.parametrize("served", [cascade, relay])


@both
@awaited
async def test_agent_runs_its_function_and_sends_the_result(served: Serve) -> None:
    places = []

    def get_weather(location: str) -> str:
        """Get the current weather for a city."""
        places.append(location)
        return "sunny"

    tool = agents.function_tool(get_weather)
    call = Answer(calls=(("get_weather", {"location": "Rome"}),))
    async with (
        served([""], [call, Answer("It is sunny.", chunks=3)]) as server,
        talking(server, tools=[tool]) as talk,
    ):
        await talk.session.send_message("What is the weather in Rome?")
        await talk.until("tool_end")
        await talk.until_said("assistant", "It is sunny.")
        assert places == ["Rome"]
        ms = 900 if served is relay else len("It is sunny.") * 60
        assert talk.audio_bytes == 48 * ms


@both
@awaited
async def test_agent_receives_audio_and_is_interrupted(served: Serve) -> None:
    story = " ".join(f"word{n:02}" for n in range(100))
    heard = ["tell me a story"] * 2
    answers = [Answer(story, pause_s=0.02, chunks=3), Answer("All right.")]
    async with served(heard, answers) as server, talking(server) as talk:
        await talk.session.send_audio(TURN)
        while talk.audio_bytes < 48 * 2000:
            await talk.until("audio")
        await talk.session.send_audio(TURN)
        await talk.until("audio_interrupted")
        said = await talk.until_said("assistant", "All right.")
        assert [who for who, _ in said] == ["user", "assistant", "user", "assistant"]
        assert said[0] == ("user", heard[0])
        assert story.startswith(said[1][1].strip())
        assert said[2:] == [("user", heard[1]), ("assistant", "All right.")]


def _words(part: Any) -> str:
    return getattr(part, "transcript", None) or getattr(part, "text", None) or ""
