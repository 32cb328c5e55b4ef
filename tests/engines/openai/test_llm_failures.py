"""What the language model behind an endpoint says when it fails, on real sockets."""

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.engines.openai.chat_server import (
    HELLO,
    KEY,
    TICK,
    ChatServer,
    Reply,
    begin,
    collect,
    drops,
    engine,
    falls_silent,
    gives,
    hangs,
    lists,
    says,
    serve,
    streams,
    text,
)
from vivavoce.engines.base import ChatEnded, ChatEvent, TextDelta
from vivavoce.engines.openai.chat_stream import MAX_CALLS
from vivavoce.engines.openai.llm import MAX_ANSWER_BYTES, OpenAILLM, OpenAILLMSettings
from vivavoce.engines.sse import MAX_EVENT_BYTES
from vivavoce.errors import EngineError


def fail(*replies: Reply, **options: Any) -> tuple[list[ChatEvent], str]:
    """The events before the failure; and its sentence, with `URL` for the address."""
    events: list[ChatEvent] = []
    sentences: list[str] = []

    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        try:
            async with aclosing(llm.generate(HELLO)) as answer:
                async for event in answer:
                    events.append(event)
        except EngineError as exc:
            sentences.append(str(exc).replace(server.base_url, "URL"))

    serve(*replies, test=test, **options)
    (sentence,) = sentences
    return events, sentence


def test_generate_connection_refused_raises_engine_error() -> None:
    async def main() -> str:
        async with ChatServer([hangs]) as server:
            llm = engine(server)
        async with llm:
            with pytest.raises(EngineError) as caught:
                await collect(llm)
            return str(caught.value).replace(server.base_url, "URL")

    assert asyncio.run(main()) == "no LLM answers at URL: connection refused; is it running?"


def test_generate_tls_to_plain_server_raises_engine_error() -> None:
    async def main() -> str:
        async with ChatServer([hangs]) as server:
            url = server.base_url.replace("http:", "https:")
            async with engine(server, base_url=url) as llm:
                with pytest.raises(EngineError) as caught:
                    await collect(llm)
                return str(caught.value).replace(url, "URL")

    assert asyncio.run(main()).startswith("no LLM answers at URL: TLS failed (")


def test_generate_from_a_server_without_http_raises_engine_error() -> None:
    async def main() -> str:
        async def greet_as_mail_server(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"220 mail ready\r\n")
            await writer.drain()
            await reader.read()
            writer.close()

        async with await asyncio.start_server(greet_as_mail_server, "127.0.0.1", 0) as server:
            settings = OpenAILLMSettings(
                base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", model="m"
            )
            async with OpenAILLM(settings) as llm:
                with pytest.raises(EngineError) as caught:
                    await collect(llm)
                return str(caught.value).replace(settings.base_url, "URL")

    sentence = "no LLM answers at URL: what answers does not speak HTTP; check base_url"
    assert asyncio.run(main()) == sentence


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(hangs, id="no answer"),
        pytest.param(falls_silent(), id="only the head of one"),
        pytest.param(falls_silent(text("")), id="only a role"),
    ],
)
def test_generate_without_first_token_in_time_raises_engine_error(reply: Reply) -> None:
    assert fail(reply, first_token_seconds=TICK) == (
        [],
        f"the LLM at URL did not begin to answer within {TICK} s; "
        "is it overloaded or still loading its model?",
    )


def test_generate_with_comments_instead_of_tokens_times_out() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        while True:
            await response.write(b": still here\n\n")
            await asyncio.sleep(0)

    _, sentence = fail(reply, first_token_seconds=TICK)
    assert "did not begin to answer" in sentence


def test_generate_stalled_in_the_middle_raises_engine_error() -> None:
    assert fail(falls_silent(text("He")), gap_seconds=TICK) == (
        [TextDelta("He")],
        f"the LLM at URL fell silent in the middle of its answer for {TICK} s; try again",
    )


def test_generate_with_slow_consumer_does_not_time_out() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        async with aclosing(llm.generate(HELLO)) as answer:
            assert await anext(answer) == TextDelta("He")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2 * TICK):
                    await asyncio.Event().wait()
            assert [event async for event in answer] == [TextDelta("llo"), ChatEnded()]

    serve(says("He", "llo"), test=test, gap_seconds=TICK)


BAD = r'{"error": {"message": "no \ud800 memory"}}'
BROKEN_OFF = "the LLM at URL broke off in the middle of its answer; see its log, try again"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(drops(text("He")), id="cut off"),
        pytest.param(streams(text("He")), id="ended without finish_reason"),
    ],
)
def test_generate_of_a_stream_that_breaks_off_raises_engine_error(reply: Reply) -> None:
    assert fail(reply) == ([TextDelta("He")], BROKEN_OFF)


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (
            gives(401, {"error": {"message": f"bad key {KEY}"}}),
            "the LLM at URL refused the API key (401): bad key ***; check api_key",
        ),
        (
            gives(404, {"error": {"message": "model 'llama' not found, try pulling it first"}}),
            "the LLM at URL does not know the model 'llama' (404): model 'llama' not found, "
            "try pulling it first; check model, and that base_url is right",
        ),
        (
            gives(429, {"error": "slow down"}, Retry_After="7"),
            "the LLM at URL has had too many requests (429): slow down; wait 7 s",
        ),
        (
            gives(500, b"<html>oops", "text/html"),
            "the LLM at URL failed (500); see its log, try again",
        ),
        (
            gives(503, b"loading model", "text/plain"),
            "the LLM at URL failed (503): loading model; see its log, try again",
        ),
        (
            gives(307, Location="http://elsewhere/v1/chat/completions"),
            "the LLM at URL has moved (307) to http://elsewhere/v1/chat/completions; "
            "change base_url",
        ),
        (
            gives(200, b"<html>Welcome", "text/html"),
            "the LLM at URL sent a web page instead of a chat completion; "
            "is base_url right? It usually ends in /v1",
        ),
        (
            gives(200, {"hello": "world"}),
            "the LLM at URL sent something else instead of a chat completion; "
            "is base_url right? It usually ends in /v1",
        ),
        (
            streams("hello"),
            "the LLM at URL sent something else instead of a chat completion; "
            "is base_url right? It usually ends in /v1",
        ),
        (
            gives(200, {"error": {"message": "out of memory"}}),
            "the LLM at URL failed while it answered: out of memory; try again",
        ),
    ],
)
def test_generate_refused_has_its_sentence(reply: Reply, sentence: str) -> None:
    assert fail(reply, api_key=KEY) == ([], sentence)


def begins_a_whole(then: Reply) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b"{")
        await then(request)
        return response

    return reply


def test_generate_of_an_incomplete_unstreamed_answer_raises_engine_error() -> None:
    _, late = fail(begins_a_whole(hangs), first_token_seconds=TICK)
    assert late.startswith(f"the LLM at URL did not begin to answer within {TICK} s")
    assert fail(begins_a_whole(drops())) == ([], BROKEN_OFF)


def test_generate_with_error_in_the_stream_quotes_it_masked() -> None:
    error = msgspec.json.encode({"error": {"message": f"no memory for {KEY}"}}).decode()
    assert fail(streams(text("He"), error), api_key=KEY) == (
        [TextDelta("He")],
        "the LLM at URL failed while it answered: no memory for ***; try again",
    )


def test_generate_with_too_long_an_event_raises_engine_error() -> None:
    _, sentence = fail(streams("x" * MAX_EVENT_BYTES))
    assert sentence == (
        "the LLM at URL sent an event longer than 1 MiB; "
        "is base_url that of a chat-completions server?"
    )


def test_generate_of_call_without_name_raises_engine_error() -> None:
    delta = {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    chunk = msgspec.json.encode({"choices": [{"delta": delta}]}).decode()
    _, sentence = fail(streams(chunk, "[DONE]"))
    assert sentence == "the LLM at URL sent a function call without a name; try another model"


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (lists("whisper-1"), "the LLM at URL lists no chat model; load one, or set model"),
        (gives(404), "the LLM at URL does not list its models (404); set model"),
        (
            gives(200, b"<html>", "text/html"),
            "the LLM at URL sent something else instead of a list of models; set model",
        ),
    ],
)
def test_default_model_that_cannot_be_looked_up_raises_engine_error(
    reply: Reply, sentence: str
) -> None:
    assert fail(reply, model="") == ([], sentence)


def test_generate_refused_with_endless_body_raises_engine_error() -> None:
    async def refuses(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        return await hangs(request)

    _, sentence = fail(refuses, connect_seconds=TICK)
    assert sentence == "the LLM at URL failed (500); see its log, try again"


CLOSED = "no LLM answers at URL: the connection was closed before an answer; see its log, try again"


def test_new_connection_that_closes_is_not_retried() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        with pytest.raises(EngineError, match="closed before an answer"):
            await collect(llm)

    assert len(serve(drops(), says("Hi"), test=test).asked) == 1


def test_kept_connection_that_closes_is_replaced_once() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        await collect(llm)
        assert await collect(llm) == [TextDelta("again"), ChatEnded()]

    server = serve(says("Hi"), drops(), says("again"), test=test)
    assert [asked.connection for asked in server.asked] == [0, 0, 1]
    assert server.asked[1].body == server.asked[2].body


def test_replaced_connection_that_closes_raises_engine_error() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        await collect(llm)
        with pytest.raises(EngineError) as caught:
            await collect(llm)
        assert str(caught.value).replace(server.base_url, "URL") == CLOSED

    assert len(serve(says("Hi"), drops(), test=test).asked) == 3


def test_generate_before_entering_raises_engine_error() -> None:
    async def main() -> None:
        with pytest.raises(EngineError, match="its engine is not running"):
            await collect(OpenAILLM(OpenAILLMSettings(model="m")))

    asyncio.run(main())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param('{"choices": [{"delta": {"reasoning": ' + "[" * 100_000, id="reasoning"),
        pytest.param('{"error": ' + '{"error": ' * 100_000, id="error"),
    ],
)
def test_generate_with_deeply_nested_chunk_raises_engine_error(data: str) -> None:
    assert fail(streams(data))[1].startswith("the LLM at URL sent something else instead of")


def test_generate_with_half_a_surrogate_pair_replaces_it() -> None:
    events, sentence = fail(streams(r'{"choices": [{"delta": {"content": "Great \ud83d"}}]}', BAD))
    assert events == [TextDelta("Great \ufffd")]
    assert sentence == "the LLM at URL failed while it answered: no \ufffd memory; try again"


def test_generate_with_invalid_utf8_replaces_it() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        assert await collect(llm) == [TextDelta("a\ufffd"), ChatEnded()]

    serve(gives(200, b'{"choices": [{"message": {"content": "a\xff"}}]}'), test=test)


def test_generate_of_an_unstreamed_answer_beyond_the_bound_raises_engine_error() -> None:
    _, sentence = fail(gives(200, b" " * (MAX_ANSWER_BYTES + 1)))
    assert sentence.startswith("the LLM at URL sent more than 4 MiB instead of a chat completion")


def test_generate_with_too_many_calls_raises_engine_error() -> None:
    calls = [
        {"index": i, "id": f"c{i}", "function": {"name": "f", "arguments": "{}"}}
        for i in range(MAX_CALLS + 1)
    ]
    chunk = msgspec.json.encode({"choices": [{"delta": {"tool_calls": calls}}]}).decode()
    assert fail(streams(chunk)) == (
        [],
        "the LLM at URL sent more than 128 function calls in one answer; "
        "limit its tokens, or try another model",
    )
