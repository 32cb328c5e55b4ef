"""What engines of this process answer, as the official client reads it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from multidict import CIMultiDict

from tests import idle_clock
from tests.api.chat.stage import recording, scripted, stage, user, wav
from vivavoce.api.chat.endpoint import passed
from vivavoce.engines.base import ChatEvent, ChatRequest, TextDelta
from vivavoce.engines.scripted.engines import ScriptedLLM
from vivavoce.engines.scripted.scripts import LLMScript
from vivavoce.protocol.items import InputText, Message

HELLO: Any = [{"role": "user", "content": "Hello"}]
CALL = {"name": "weather", "arguments": {"city": "a city with a long name"}, "call_id": "c1"}
USAGE = {"input_tokens": 5, "output_tokens": 3, "cached_tokens": 1}


def test_whole_answer_has_text_calls_and_usage() -> None:
    async def main() -> None:
        llm = scripted({"text": "One moment.", "calls": [CALL], "usage": USAGE})
        async with stage(llm) as here:
            done = await here.client.chat.completions.create(model="gpt-x", messages=HELLO, n=2)
            assert (done.object, done.model) == ("chat.completion", "gpt-x")
            assert [choice.index for choice in done.choices] == [0, 1]
            for choice in done.choices:
                assert choice.finish_reason == "tool_calls"
                assert choice.message.content == "One moment."
                assert choice.message.tool_calls is not None
                call: Any = choice.message.tool_calls[0]
                assert (call.id, call.function.name) == ("c1", "weather")
                assert call.function.arguments == '{"city":"a city with a long name"}'
            assert done.usage is not None
            assert (done.usage.prompt_tokens, done.usage.total_tokens) == (10, 16)

    idle_clock.run(main())


def test_streamed_answer_adds_up_to_the_whole_one() -> None:
    async def main() -> None:
        llm = scripted({"text": "One moment.", "calls": [CALL], "usage": USAGE})
        async with (
            stage(llm) as here,
            here.client.chat.completions.stream(
                model="default", messages=HELLO, stream_options={"include_usage": True}
            ) as stream,
        ):
            done = await stream.get_final_completion()
        choice = done.choices[0]
        assert (choice.message.content, choice.finish_reason) == ("One moment.", "tool_calls")
        assert choice.message.tool_calls is not None
        function = choice.message.tool_calls[0].function
        assert function.arguments == '{"city":"a city with a long name"}'
        assert done.usage is not None
        assert done.usage.total_tokens == 8

    idle_clock.run(main())


def test_usage_chunk_is_sent_only_where_it_is_requested() -> None:
    async def main() -> None:
        async with stage(scripted("Yes.")) as here:
            create = here.client.chat.completions.create
            asked: Any = {"model": "x", "messages": HELLO, "stream": True}
            plain = [chunk async for chunk in await create(**asked)]
            asked["stream_options"] = {"include_usage": True}
            got = [chunk async for chunk in await create(**asked)]
            assert [len(chunk.choices) for chunk in plain] == [1, 1]
            assert [len(chunk.choices) for chunk in got] == [1, 1, 0]
            assert [chunk.usage is None for chunk in got] == [True, True, False]
            assert len({chunk.id for chunk in got}) == 1

    idle_clock.run(main())


def test_long_recording_reaches_the_engine_as_text() -> None:
    async def main() -> None:
        llm = scripted("Yes.")
        async with stage(llm, stt={"transcripts": ["a long story"]}) as here:
            part = recording(wav(seconds=10))
            await here.client.chat.completions.create(model="x", messages=[user(part)])
            assert llm.requests[0] == ChatRequest(
                "", (Message(role="user", content=(InputText("a long story"),)),)
            )

    idle_clock.run(main())


class Endless(ScriptedLLM):
    """Has said a good deal, and then thinks until it is stopped."""

    def __init__(self) -> None:
        super().__init__(LLMScript())
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        self.begun.set()
        try:
            for _ in range(20):
                yield TextDelta("And so on, and on. ")
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": True},
        {"stream": True, "modalities": ["text", "audio"], "audio": {"voice": "ash"}},
    ],
)
def test_client_disconnect_stops_the_engine(more: dict[str, Any]) -> None:
    async def main() -> None:
        llm = Endless()
        async with stage(llm) as here:
            asked = {"model": "x", "messages": HELLO, **more}
            if "stream" in more:
                async with here.http.post(here.url, json=asked) as response:
                    await response.content.readany()
                    response.close()
            else:
                ask = asyncio.create_task(here.post(asked))
                await llm.begun.wait()
                ask.cancel()
            async with asyncio.timeout(60):
                await llm.stopped.wait()

    idle_clock.run(main())


def test_connection_headers_are_not_passed_on() -> None:
    headers = CIMultiDict(
        {
            "Content-Type": "text/plain",
            "Content-Length": "5",
            "Connection": "close, X-Hop",
            "X-Hop": "1",
            "Transfer-Encoding": "chunked",
            "Access-Control-Allow-Origin": "*",
            "X-RateLimit-Remaining": "3",
        }
    )
    assert dict(passed(headers)) == {
        "Content-Type": "text/plain",
        "Content-Length": "5",
        "X-RateLimit-Remaining": "3",
    }
    headers["Content-Encoding"] = "gzip"
    assert "Content-Length" not in passed(headers)
