"""Requests that are handed on to the endpoint as they stand."""

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
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
from vivavoce.engines.openai.forward import MAX_CHOICES, ForwardedAnswer
from vivavoce.engines.openai.llm import OpenAILLM
from vivavoce.errors import EngineError

BODY = b'{ "model": "llama","messages":[],  "unknown": 1.0 }'


async def spoken_text(answer: ForwardedAnswer) -> str:
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


def test_forward_passes_status_and_body_unchanged() -> None:
    async def main() -> None:
        said = b'{ "error": {"message": "no" } }\n'
        async with ChatServer([gives(418, said)]) as server, engine(server, api_key="k-1") as llm:
            async with llm.forward(BODY) as answer:
                assert answer.status == 418
                assert b"".join([part async for part in answer.parts()]) == said
            assert server.asked[0].headers["Authorization"] == "Bearer k-1"

    asyncio.run(main())


@pytest.mark.parametrize("status", [301, 401, 403])
def test_forward_with_refused_key_or_moved_address_raises_engine_error(status: int) -> None:
    with pytest.raises(EngineError, match=f"{status}"):
        ask(gives(status, {"error": {"message": "who are you"}}))


def test_forward_spoken_omits_thoughts_streamed_or_whole() -> None:
    streamed = ask(says("<thi", "nk>hmm", "</think> Hel", "lo."))
    message = {"role": "assistant", "content": "<think>hmm</think> Hello."}
    whole = gives(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    unstreamed = ask(whole)
    assert (streamed, unstreamed) == ("Hello.", "Hello.")


def test_forward_spoken_ending_in_part_of_a_think_tag_keeps_it() -> None:
    said = ask(streams(text("<thi"), FINISH, "[DONE]"))
    assert said == "<thi"


def test_forward_spoken_stream_that_breaks_off_raises_engine_error() -> None:
    with pytest.raises(EngineError, match="broke off"):
        ask(streams(text("Hello")))
    with pytest.raises(EngineError, match="broke off"):
        ask(drops(text("Hello")))


def test_forward_spoken_stream_with_error_raises_engine_error() -> None:
    with pytest.raises(EngineError, match="out of memory"):
        ask(streams(text("Hello"), '{"error": {"message": "out of memory"}}'))


def test_forward_spoken_has_the_time_limits_of_a_turn() -> None:
    with pytest.raises(EngineError, match="did not begin"):
        ask(hangs, first_token_seconds=TICK)
    with pytest.raises(EngineError, match="fell silent"):
        ask(falls_silent(text("Hello")), gap_seconds=TICK)


def test_forward_spoken_of_other_json_raises_engine_error() -> None:
    with pytest.raises(EngineError, match="instead of a chat completion"):
        ask(gives(200, b"[1]"))


def test_forward_left_early_aborts_the_request() -> None:
    async def main() -> None:
        async with ChatServer([falls_silent(text("Hello"))]) as server, engine(server) as llm:
            async with llm.forward(BODY) as answer, aclosing(answer.parts()) as parts:
                await anext(parts)
            async with asyncio.timeout(60):
                await server.aborted.wait()

    asyncio.run(main())


def test_forward_read_to_the_end_keeps_the_connection() -> None:
    async def twice(llm: OpenAILLM) -> None:
        for _ in range(2):
            async with llm.forward(BODY) as answer:
                _ = [part async for part in answer.parts()]

    async def main() -> list[int]:
        async with ChatServer([says("Hello.")]) as server, engine(server) as llm:
            await twice(llm)
        return [asked.connection for asked in server.asked]

    assert asyncio.run(main()) == [0, 0]


def test_model_is_the_one_set_or_the_first_listed() -> None:
    async def main(*replies: Reply, **options: Any) -> str:
        async with ChatServer(list(replies)) as server, engine(server, **options) as llm:
            return await llm.model()

    assert asyncio.run(main(hangs)) == "llama"
    assert asyncio.run(main(lists("first", "second"), model="")) == "first"
    with pytest.raises(EngineError, match="did not begin"):
        asyncio.run(main(hangs, model="", first_token_seconds=TICK))


def test_forward_spoken_with_half_a_surrogate_pair_replaces_it() -> None:
    data = r'{"choices": [{"delta": {"content": "Great \ud83d"}, "finish_reason": "stop"}]}'
    assert ask(streams(data)) == "Great \ufffd"
    body = rb'{"choices": [{"message": {"content": "Great \ud83d"}, "finish_reason": "stop"}]}'
    assert ask(gives(200, body)) == "Great \ufffd"


def test_forward_spoken_with_too_many_choices_raises_engine_error() -> None:
    choices = [{"index": i, "delta": {"content": "x"}} for i in range(MAX_CHOICES + 1)]
    with pytest.raises(EngineError, match="sent more than 128 choices"):
        ask(streams(msgspec.json.encode({"choices": choices}).decode()))


def test_forward_spoken_of_deeply_nested_json_raises_engine_error() -> None:
    with pytest.raises(EngineError, match="instead of a chat completion"):
        ask(streams('{"x": ' + "[" * 100_000))


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(drops(text("Hello"), FINISH), id="cut off after the end"),
        pytest.param(falls_silent(text("Hello"), FINISH), id="kept open after the end"),
    ],
)
def test_forward_spoken_finished_without_done_is_whole(reply: Reply) -> None:
    assert ask(reply, gap_seconds=TICK) == "Hello"
