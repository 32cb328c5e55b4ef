"""The language model behind any OpenAI-compatible endpoint, on real sockets."""

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.engines.openai.chat_server import (
    FINISH,
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
from vivavoce.engines import registry
from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    ChatUsage,
    TextDelta,
)
from vivavoce.engines.openai.llm import OpenAILLM, OpenAILLMSettings
from vivavoce.errors import EngineError, SettingsError
from vivavoce.protocol.items import FunctionTool, InputImage, Message, ToolName


def ask(*replies: Reply, request: ChatRequest = HELLO, **options: Any) -> list[ChatEvent]:
    """The answer to one request."""
    events: list[ChatEvent] = []

    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        events.extend(await collect(llm, request))

    serve(*replies, test=test, **options)
    return events


def body_of(request: ChatRequest = HELLO, **options: Any) -> dict[str, Any]:
    """The body that goes out."""

    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        await collect(llm, request)

    (asked,) = serve(says("Hi"), test=test, **options).asked
    assert asked.path == "/v1/chat/completions"
    body: dict[str, Any] = asked.body
    return body


def test_the_least_that_is_sent() -> None:
    assert body_of() == {
        "model": "llama",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello."},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_tools_and_limits_are_sent_when_they_are_there() -> None:
    request = ChatRequest(
        "",
        HELLO.items,
        tools=(FunctionTool("f"),),
        tool_choice=ToolName("f"),
        parallel_tool_calls=False,
        max_output_tokens=9,
    )
    body = body_of(request, temperature=0.5, extra={"top_k": 3, "stream_options": None})
    assert {name: body.get(name) for name in ("tool_choice", "parallel_tool_calls")} == {
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
    }
    assert [tool["function"]["name"] for tool in body["tools"]] == ["f"]
    assert (body["max_tokens"], body["temperature"], body["top_k"]) == (9, 0.5, 3)
    assert "stream_options" not in body


def test_without_tools_nothing_is_said_of_them() -> None:
    body = body_of(ChatRequest("", HELLO.items, tool_choice="none", parallel_tool_calls=False))
    assert {"tools", "tool_choice", "parallel_tool_calls"}.isdisjoint(body)


def test_the_field_for_the_token_limit_can_be_chosen() -> None:
    request = ChatRequest("", HELLO.items, max_output_tokens=9)
    body = body_of(request, max_tokens_field="max_completion_tokens")
    assert (body["max_completion_tokens"], body.get("max_tokens")) == (9, None)


def test_a_picture_goes_only_to_a_model_that_sees() -> None:
    shown = Message(role="user", content=(InputImage("data:image/png;base64,AA=="),))
    seen, unseen = (body_of(ChatRequest("", (shown,)), sees=sees) for sees in (True, False))
    assert seen["messages"][0]["content"][0]["type"] == "image_url"
    assert unseen["messages"][0]["content"] == "[a picture, which you cannot see]"


def test_a_large_picture_arrives_whole() -> None:
    url = "data:image/png;base64," + "A" * (3 << 20)
    body = body_of(ChatRequest("", (Message(role="user", content=(InputImage(url),)),)))
    assert body["messages"][0]["content"][0]["image_url"]["url"] == url


def test_key_and_headers_are_sent() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        await collect(llm)

    (asked,) = serve(says("Hi"), test=test, api_key=f" {KEY}\n", headers={"X-Title": "t"}).asked
    names = ("Authorization", "X-Title", "Content-Type", "Accept-Encoding")
    assert [asked.headers[name] for name in names] == [
        f"Bearer {KEY}",
        "t",
        "application/json",
        "identity",
    ]


def test_the_first_model_for_talk_is_asked_for_once_and_only_when_needed() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        assert server.asked == []
        await asyncio.gather(collect(llm), collect(llm))
        await collect(llm)

    server = serve(lists("whisper-1", "qwen"), says("Hi"), test=test, model="")
    assert [asked.path for asked in server.asked] == ["/v1/models"] + ["/v1/chat/completions"] * 3
    assert [asked.body["model"] for asked in server.asked[1:]] == ["qwen"] * 3


def test_a_model_that_is_gone_is_looked_up_anew() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        with pytest.raises(EngineError, match="does not know the model 'qwen'"):
            await collect(llm)
        assert await collect(llm) == [TextDelta("Hi"), ChatEnded()]

    gone = gives(404, {"error": "no"})
    server = serve(lists("qwen"), gone, lists("llama"), says("Hi"), test=test, model="")
    assert server.asked[-1].body["model"] == "llama"


def test_words_come_one_by_one_and_usage_at_the_end() -> None:
    usage = '{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}'
    assert ask(streams(text("He"), text("llo"), FINISH, usage, "[DONE]")) == [
        TextDelta("He"),
        TextDelta("llo"),
        ChatEnded("stop", ChatUsage(9, 2)),
    ]


def test_a_word_is_told_before_the_next_is_made() -> None:
    go = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        response = await begin(request, text("He"))
        await go.wait()
        await response.write(f"data: {text('llo', 'stop')}\n\ndata: [DONE]\n\n".encode())
        return response

    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        async with aclosing(llm.generate(HELLO)) as answer:
            assert await anext(answer) == TextDelta("He")
            go.set()
            assert [event async for event in answer] == [TextDelta("llo"), ChatEnded()]

    serve(reply, test=test)


def test_a_function_is_called() -> None:
    function = {"name": "f", "arguments": "{}"}
    delta = {"tool_calls": [{"index": 0, "id": "a", "function": function}]}
    chunk = msgspec.json.encode({"choices": [{"delta": delta, "finish_reason": "stop"}]}).decode()
    assert ask(streams(chunk, "[DONE]")) == [
        CallStarted(0, "a", "f"),
        CallDelta(0, "{}"),
        ChatEnded(),
    ]


def test_an_answer_that_is_not_streamed_is_taken_whole() -> None:
    message = {"role": "assistant", "content": "Hello."}
    body = {
        "choices": [{"message": message, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    }
    assert ask(gives(200, body)) == [TextDelta("Hello."), ChatEnded("length", ChatUsage(9, 2))]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(streams(text("Hi"), FINISH), id="no DONE"),
        pytest.param(streams(text("Hi"), "[DONE]"), id="no finish_reason"),
        pytest.param(drops(text("Hi"), FINISH), id="cut off after the end"),
        pytest.param(falls_silent(text("Hi"), FINISH), id="kept open after the end"),
        pytest.param(falls_silent(text("Hi"), FINISH, "[DONE]"), id="kept open after DONE"),
        pytest.param(streams("", text("Hi"), FINISH, " [DONE]"), id="blanks"),
    ],
)
def test_an_answer_may_end_in_several_ways(reply: Reply) -> None:
    assert ask(reply, gap_seconds=TICK) == [TextDelta("Hi"), ChatEnded()]


def test_a_connection_is_used_again_though_its_end_comes_after_the_answers() -> None:
    heard = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        response = await begin(request, text("Hi"), FINISH, "[DONE]")
        await heard.wait()
        return response

    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        async with aclosing(llm.generate(HELLO)) as answer:
            async for event in answer:
                if isinstance(event, ChatEnded):
                    break
            heard.set()
        await collect(llm)

    server = serve(reply, says("Hi"), test=test)
    assert [asked.connection for asked in server.asked] == [0, 0]


@pytest.mark.parametrize("heard", [0, 1])
def test_closing_the_answer_aborts_the_request(heard: int) -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        answer = llm.generate(HELLO)
        if heard:
            assert await anext(answer) == TextDelta("He")
            await answer.aclose()
        else:
            waiting = asyncio.ensure_future(anext(answer))
            await server.arrived.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await server.aborted.wait()
        await collect(llm)

    server = serve(falls_silent(text("He")) if heard else hangs, says("Hi"), test=test)
    assert [asked.connection for asked in server.asked] == [0, 1]


def test_an_answer_that_is_never_begun_asks_nothing() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        await llm.generate(HELLO).aclose()

    assert serve(says("Hi"), test=test).asked == []


def test_settings_do_not_show_secrets() -> None:
    settings = OpenAILLMSettings(
        base_url="http://host/v1?key=hidden", api_key=KEY, headers={"X-Key": "hush"}
    )
    for shown in (repr(settings), str(list(settings.__rich_repr__()))):
        assert not any(secret in shown for secret in (KEY, "hidden", "hush"))
    assert "http://host/v1" in repr(OpenAILLMSettings(base_url="http://host/v1"))


def test_user_and_query_of_the_base_url_are_sent_and_not_shown() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        with pytest.raises(EngineError) as caught:
            await collect(llm)
        assert str(caught.value) == (
            f"the LLM at {server.base_url} wants an API key (401); set api_key"
        )

    async def main() -> ChatServer:
        async with ChatServer([gives(401)]) as server:
            url = server.base_url.replace("//", "//me:hush@") + "?key=hidden"
            async with engine(server, base_url=url) as llm:
                await test(server, llm)
            return server

    (asked,) = asyncio.run(main()).asked
    assert asked.path == "/v1/chat/completions?key=hidden"
    assert asked.headers["Authorization"] == "Basic bWU6aHVzaA=="


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"base_url": "localhost:11434"}, "base_url must begin with http:// or https://"),
        ({"base_url": "http://"}, "name a host"),
        ({"api_key": "sk-\N{EM DASH}"}, "must be printable ASCII"),
        ({"headers": {"X": "a\nb"}}, "must be printable ASCII"),
        ({"base_url": "http://me@host", "api_key": "k"}, "user name in base_url"),
        ({"gap_seconds": 0}, "> 0"),
        ({"modle": "x"}, "there is no setting 'modle' here"),
        ({"max_tokens_field": "tokens"}, "tokens"),
    ],
)
def test_a_mistake_in_the_settings_is_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        registry.create("llm", "openai", options)
    assert str(caught.value).startswith("[engines.llm.openai] ")
    assert complaint in str(caught.value)
    assert "sk-" not in str(caught.value)


def test_it_is_found_by_its_name() -> None:
    llm = registry.create("llm", "openai", {"sees": False})
    assert (type(llm), llm.sees) == (OpenAILLM, False)
