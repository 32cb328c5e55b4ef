"""The language model behind any OpenAI-compatible endpoint, on real sockets."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
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


def test_request_without_options_has_only_the_required_fields() -> None:
    assert body_of() == {
        "model": "llama",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello."},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_request_with_tools_and_limits_sends_them() -> None:
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


def test_request_without_tools_has_no_tool_fields() -> None:
    body = body_of(ChatRequest("", HELLO.items, tool_choice="none", parallel_tool_calls=False))
    assert {"tools", "tool_choice", "parallel_tool_calls"}.isdisjoint(body)


def test_request_token_limit_is_in_the_chosen_field() -> None:
    request = ChatRequest("", HELLO.items, max_output_tokens=9)
    body = body_of(request, max_tokens_field="max_completion_tokens")
    assert (body["max_completion_tokens"], body.get("max_tokens")) == (9, None)


def test_request_with_image_sends_it_only_if_the_model_takes_images() -> None:
    shown = Message(role="user", content=(InputImage("data:image/png;base64,AA=="),))
    seen, unseen = (body_of(ChatRequest("", (shown,)), sees=sees) for sees in (True, False))
    assert seen["messages"][0]["content"][0]["type"] == "image_url"
    assert unseen["messages"][0]["content"] == "[a picture, which you cannot see]"


def test_request_with_large_image_arrives_whole() -> None:
    url = "data:image/png;base64," + "A" * (3 << 20)
    body = body_of(ChatRequest("", (Message(role="user", content=(InputImage(url),)),)))
    assert body["messages"][0]["content"][0]["image_url"]["url"] == url


def test_request_has_key_and_headers() -> None:
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


def test_default_model_is_looked_up_once_and_only_when_needed() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        assert server.asked == []
        await asyncio.gather(collect(llm), collect(llm))
        await collect(llm)

    server = serve(lists("whisper-1", "qwen"), says("Hi"), test=test, model="")
    assert [asked.path for asked in server.asked] == ["/v1/models"] + ["/v1/chat/completions"] * 3
    assert [asked.body["model"] for asked in server.asked[1:]] == ["qwen"] * 3


def test_default_model_unknown_to_the_server_is_looked_up_again() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        with pytest.raises(EngineError, match="does not know the model 'qwen'"):
            await collect(llm)
        assert await collect(llm) == [TextDelta("Hi"), ChatEnded()]

    gone = gives(404, {"error": "no"})
    server = serve(lists("qwen"), gone, lists("llama"), says("Hi"), test=test, model="")
    assert server.asked[-1].body["model"] == "llama"


def test_model_that_the_client_names_is_used_if_it_is_listed() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        for name in ("qwen", "gpt-realtime", "whisper-1", "", "llama"):
            await collect(llm, replace(HELLO, model=name))

    listing = lists("llama", "qwen", "whisper-1", "gpt-realtime")
    server = serve(listing, says("Hi"), test=test)
    assert [asked.path for asked in server.asked] == ["/v1/models"] + ["/v1/chat/completions"] * 5
    models = [asked.body["model"] for asked in server.asked[1:]]
    assert models == ["qwen", "llama", "llama", "llama", "llama"]


def test_model_that_the_client_names_is_not_used_if_there_is_no_list() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        await collect(llm, replace(HELLO, model="qwen"))

    server = serve(gives(404), says("Hi"), test=test)
    assert server.asked[1].body["model"] == "llama"


def test_model_that_is_listed_and_gone_is_not_used_again() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        asked = replace(HELLO, model="qwen")
        with pytest.raises(EngineError, match="does not know the model 'qwen'"):
            await collect(llm, asked)
        assert await collect(llm, asked) == [TextDelta("Hi"), ChatEnded()]

    async def reply(request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/models":
            return await lists("qwen")(request)
        gone = (await request.json())["model"] == "qwen"
        return await (gives(404, {"error": "no"}) if gone else says("Hi"))(request)

    serve(reply, test=test)


def test_generate_yields_each_delta_and_usage_at_the_end() -> None:
    usage = '{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}'
    assert ask(streams(text("He"), text("llo"), FINISH, usage, "[DONE]")) == [
        TextDelta("He"),
        TextDelta("llo"),
        ChatEnded("stop", ChatUsage(9, 2)),
    ]


def test_generate_yields_a_delta_before_the_next_is_sent() -> None:
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


def test_generate_yields_a_function_call() -> None:
    function = {"name": "f", "arguments": "{}"}
    delta = {"tool_calls": [{"index": 0, "id": "a", "function": function}]}
    chunk = msgspec.json.encode({"choices": [{"delta": delta, "finish_reason": "stop"}]}).decode()
    assert ask(streams(chunk, "[DONE]")) == [
        CallStarted(0, "a", "f"),
        CallDelta(0, "{}"),
        ChatEnded(),
    ]


def test_generate_of_an_unstreamed_answer_yields_its_text() -> None:
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
def test_generate_ends_in_each_way_that_servers_end(reply: Reply) -> None:
    assert ask(reply, gap_seconds=TICK) == [TextDelta("Hi"), ChatEnded()]


def test_connection_whose_body_ends_after_the_answer_is_reused() -> None:
    received = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        response = await begin(request, text("Hi"), FINISH, "[DONE]")
        await received.wait()
        return response

    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        async with aclosing(llm.generate(HELLO)) as answer:
            async for event in answer:
                if isinstance(event, ChatEnded):
                    break
            received.set()
        await collect(llm)

    server = serve(reply, says("Hi"), test=test)
    assert [asked.connection for asked in server.asked] == [0, 0]


@pytest.mark.parametrize("received", [0, 1])
def test_generate_closed_early_aborts_the_request(received: int) -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        answer = llm.generate(HELLO)
        if received:
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

    server = serve(falls_silent(text("He")) if received else hangs, says("Hi"), test=test)
    assert [asked.connection for asked in server.asked] == [0, 1]


def test_generate_never_iterated_sends_nothing() -> None:
    async def test(server: ChatServer, llm: OpenAILLM) -> None:
        await llm.generate(HELLO).aclose()

    assert serve(says("Hi"), test=test).asked == []


def test_settings_repr_hides_secrets() -> None:
    settings = OpenAILLMSettings(
        base_url="http://host/v1?key=hidden", api_key=KEY, headers={"X-Key": "hush"}
    )
    for shown in (repr(settings), str(list(settings.__rich_repr__()))):
        assert not any(secret in shown for secret in (KEY, "hidden", "hush"))
    assert "http://host/v1" in repr(OpenAILLMSettings(base_url="http://host/v1"))


def test_base_url_user_and_query_are_sent_and_not_shown() -> None:
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
def test_settings_with_a_mistake_raise_settings_error(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        registry.create("llm", "openai", options)
    assert str(caught.value).startswith("[engines.llm.openai] ")
    assert complaint in str(caught.value)
    assert "sk-" not in str(caught.value)


def test_registry_finds_the_engine_by_name() -> None:
    llm = registry.create("llm", "openai", {"sees": False})
    assert (type(llm), llm.sees) == (OpenAILLM, False)
