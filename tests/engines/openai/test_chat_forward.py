"""Requests that are handed on to the endpoint as they stand."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.engines.openai.chat_server import (
    FINISH,
    TICK,
    ChatServer,
    Reply,
    drops,
    engine,
    falls_silent,
    gives,
    hangs,
    lists,
    says,
    streams,
    text,
)
from vivavoce.engines.openai.chat_forward import Forwarded
from vivavoce.engines.openai.llm import OpenAILLM
from vivavoce.errors import EngineError

BODY = b'{ "model": "llama","messages":[],  "unknown": 1.0 }'


async def spoken_text(answer: Forwarded) -> str:
    async with aclosing(answer.chunks()) as chunks:
        return "".join(
            [
                choice["delta"].get("content", "")
                async for chunk in chunks
                for choice in chunk["choices"]
            ]
        )


def ask(*replies: Reply, **options: Any) -> str:
    """What would be spoken of the answer."""

    async def main() -> str:
        async with (
            ChatServer(list(replies)) as server,
            engine(server, **options) as llm,
            llm.forward(BODY, spoken=True) as answer,
        ):
            return await spoken_text(answer)

    return asyncio.run(main())


def test_the_answer_comes_byte_for_byte_with_its_status() -> None:
    async def main() -> None:
        said = b'{ "error": {"message": "no" } }\n'
        async with ChatServer([gives(418, said)]) as server, engine(server, api_key="k-1") as llm:
            async with llm.forward(BODY) as answer:
                assert answer.status == 418
                assert b"".join([part async for part in answer.parts()]) == said
            assert server.asked[0].headers["Authorization"] == "Bearer k-1"

    asyncio.run(main())


@pytest.mark.parametrize("status", [301, 401, 403])
def test_what_is_wrong_with_our_own_key_or_address_is_an_error(status: int) -> None:
    with pytest.raises(EngineError, match=f"{status}"):
        ask(gives(status, {"error": {"message": "who are you"}}))


def test_thoughts_are_not_spoken_in_either_form() -> None:
    streamed = ask(says("<thi", "nk>hmm", "</think> Hel", "lo."))
    message = {"role": "assistant", "content": "<think>hmm</think> Hello."}
    whole = gives(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    unstreamed = ask(whole)
    assert (streamed, unstreamed) == ("Hello.", "Hello.")


def test_what_looked_like_a_thought_is_spoken_when_the_answer_ends() -> None:
    said = ask(streams(text("<thi"), FINISH, "[DONE]"))
    assert said == "<thi"


def test_a_stream_that_ends_too_early_is_an_error() -> None:
    with pytest.raises(EngineError, match="broke off"):
        ask(streams(text("Hello")))
    with pytest.raises(EngineError, match="broke off"):
        ask(drops(text("Hello")))


def test_a_failure_inside_the_stream_is_told() -> None:
    with pytest.raises(EngineError, match="out of memory"):
        ask(streams(text("Hello"), '{"error": {"message": "out of memory"}}'))


def test_who_waits_to_hear_waits_as_long_as_a_turn_may() -> None:
    with pytest.raises(EngineError, match="did not begin"):
        ask(hangs, first_token_seconds=TICK)
    with pytest.raises(EngineError, match="fell silent"):
        ask(falls_silent(text("Hello")), gap_seconds=TICK)


def test_something_else_than_a_completion_is_an_error() -> None:
    with pytest.raises(EngineError, match="instead of a chat completion"):
        ask(gives(200, b"[1]"))


def test_leaving_early_aborts_the_request() -> None:
    async def main() -> None:
        async with ChatServer([falls_silent(text("Hello"))]) as server, engine(server) as llm:
            async with llm.forward(BODY) as answer, aclosing(answer.parts()) as parts:
                await anext(parts)
            async with asyncio.timeout(5):
                await server.aborted.wait()

    asyncio.run(main())


def test_an_answer_read_to_its_end_leaves_the_connection_open() -> None:
    async def twice(llm: OpenAILLM) -> None:
        for _ in range(2):
            async with llm.forward(BODY) as answer:
                _ = [part async for part in answer.parts()]

    async def main() -> list[int]:
        async with ChatServer([says("Hello.")]) as server, engine(server) as llm:
            await twice(llm)
        return [asked.connection for asked in server.asked]

    assert asyncio.run(main()) == [0, 0]


def test_the_model_is_the_one_that_is_set_or_the_first_that_is_listed() -> None:
    async def main(*replies: Reply, **options: Any) -> str:
        async with ChatServer(list(replies)) as server, engine(server, **options) as llm:
            return await llm.model()

    assert asyncio.run(main(hangs)) == "llama"
    assert asyncio.run(main(lists("first", "second"), model="")) == "first"
    with pytest.raises(EngineError, match="did not begin"):
        asyncio.run(main(hangs, model="", first_token_seconds=TICK))
