"""Which chat models a server lists, and which server on this machine has one."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest

from tests.engines.openai.chat_server import ChatServer, Reply, drops, gives, hangs, lists
from vivavoce.engines.openai.discovery import (
    FIRST_LIST_TIMEOUT_S,
    LIST_MAX_AGE_S,
    LOCAL_SERVERS,
    ListedModels,
    LocalModel,
    LocalServer,
    chat_models,
    find_local_model,
)
from vivavoce.errors import EngineError
from vivavoce.testing import virtual_time

LONG_S = 10.0
"""More seconds than an answer on loopback can take."""


def look(*replies: Reply, own: int | None = None, timeout_s: float = LONG_S) -> str | None:
    """The letter of the server that is found, of A, B, ... with these replies."""

    async def main() -> str | None:
        async with AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(ChatServer([reply])) for reply in replies]
            servers_to_ask = [
                LocalServer("ABC"[i], server.port) for i, server in enumerate(servers)
            ]
            own_port = None if own is None else servers[own].port
            found = await find_local_model(servers_to_ask, own_port=own_port, timeout_s=timeout_s)
            if found is None:
                return None
            server = servers["ABC".index(found.server)]
            assert found == LocalModel(found.server, server.base_url, "llama")
            assert [asked.path for asked in server.asked] == ["/v1/models"]
            return found.server

    return asyncio.run(main())


def test_local_servers_are_in_order_of_preference() -> None:
    assert [(server.name, server.base_url) for server in LOCAL_SERVERS] == [
        ("Ollama", "http://127.0.0.1:11434/v1"),
        ("llama.cpp", "http://127.0.0.1:8080/v1"),
        ("LM Studio", "http://127.0.0.1:1234/v1"),
        ("vLLM", "http://127.0.0.1:8000/v1"),
    ]


def test_find_with_several_servers_takes_the_first() -> None:
    assert look(lists("llama"), lists("llama")) == "A"


def test_find_skips_a_server_without_chat_model() -> None:
    assert look(lists(), lists("nomic-embed-text"), lists("whisper-1", "llama")) == "C"


def test_find_skips_our_own_server_by_port_and_by_models() -> None:
    assert look(lists("llama"), lists("llama"), own=0) == "B"
    assert look(lists("llama", owner="vivavoce"), lists("llama")) == "B"


@pytest.mark.parametrize(
    "reply",
    [
        gives(404, {"error": "no"}),
        gives(200, b"<html>", "text/html"),
        gives(200, b'"\xff"'),
        gives(302, b"", Location="http://127.0.0.1:1/v1/models"),
        drops(),
        drops("x"),
    ],
)
def test_find_skips_a_server_that_answers_something_else(reply: Reply) -> None:
    assert look(reply) is None
    assert look(reply, lists("llama")) == "B"


def test_find_with_hanging_server_ends_in_time() -> None:
    assert look(hangs, timeout_s=0.05) is None


def test_find_with_later_server_hanging_takes_the_first() -> None:
    assert look(lists("llama"), hangs) == "A"


def test_find_without_server_returns_none() -> None:
    async def main() -> LocalModel | None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await find_local_model([LocalServer("A", port)], timeout_s=LONG_S)

    assert asyncio.run(main()) is None


def test_find_skips_a_server_that_does_not_speak_http() -> None:
    async def main() -> LocalModel | None:
        async def greet_as_mail_server(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"220 mail ready\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(greet_as_mail_server, "127.0.0.1", 0) as server:
            return await find_local_model(
                [LocalServer("A", server.sockets[0].getsockname()[1])], timeout_s=LONG_S
            )

    assert asyncio.run(main()) is None


def listing(*names: str, owner: str = "library") -> bytes:
    return msgspec.json.encode({"data": [{"id": name, "owned_by": owner} for name in names]})


@pytest.mark.parametrize(
    "name",
    [
        "text-embedding-nomic-embed-text-v1.5",
        "all-minilm:latest",
        "bge-m3",
        "intfloat/e5-large",
        "openai/whisper-large-v3",
        "tts-1",
        "gpt-4o-mini-tts",
        "gpt-4o-transcribe",
        "hexgrad/Kokoro-82M",
        "jina-reranker-v2",
        "dall-e-3",
        "omni-moderation-latest",
        "gpt-realtime",
        "babbage-002",
    ],
)
def test_chat_models_leaves_out_other_models(name: str) -> None:
    assert chat_models(listing(name, "llama3.2:latest")) == ["llama3.2:latest"]


@pytest.mark.parametrize(
    "name",
    [
        "qwen3:8b",
        "/models/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
        "gpt-4o-mini",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "gemma-3n-e4b",
        "deepseek-r1:1.5b",
        "watts-13b",
    ],
)
def test_chat_models_keeps_a_chat_model(name: str) -> None:
    assert chat_models(listing(name)) == [name]


def test_chat_models_of_our_own_server_are_empty() -> None:
    assert chat_models(listing("default", owner="vivavoce")) == []


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"data": null}', []),
        (b'{"data": [], "models": []}', []),
        (b'{"data": [{"id": null}, {"id": "a"}, {}]}', ["a"]),
        (b'[{"id": "a"}]', ["a"]),
    ],
)
def test_chat_models_of_other_shapes_are_read(body: bytes, names: list[str]) -> None:
    assert chat_models(body) == names


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"3", b'{"data": "a"}', b'"\xff"', b'{"x":' + b"[" * 10_000]
)
def test_chat_models_of_something_else_raises_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        chat_models(body)


class ListingServer:
    """Lists these names, or fails where there are none, after a delay in virtual time."""

    def __init__(self, *names: str, delay_s: float = 0.1) -> None:
        self.names = names
        self.delay_s = delay_s
        self.lookups = 0

    async def fetch(self) -> list[str]:
        self.lookups += 1
        await asyncio.sleep(self.delay_s)
        if not self.names:
            raise EngineError("no list")
        return list(self.names)


def test_listed_models_first_question_waits_and_later_ones_do_not_look_up() -> None:
    async def main() -> tuple[list[bool], int]:
        server = ListingServer("llama")
        listed = ListedModels(server.fetch)
        answers = await asyncio.gather(*(listed.has(name) for name in ("llama", "qwen", "llama")))
        return answers, server.lookups

    assert virtual_time.run(main()) == ([True, False, True], 1)


def test_listed_models_slow_first_lookup_is_waited_for_a_bounded_time() -> None:
    async def main() -> None:
        listed = ListedModels(ListingServer("llama", delay_s=FIRST_LIST_TIMEOUT_S + 1).fetch)
        clock = asyncio.get_running_loop().time
        assert not await listed.has("llama")
        assert clock() == FIRST_LIST_TIMEOUT_S
        assert not await listed.has("llama")
        assert clock() == FIRST_LIST_TIMEOUT_S
        await asyncio.sleep(1)
        assert await listed.has("llama")

    virtual_time.run(main())


def test_listed_models_old_list_is_used_while_it_is_looked_up_again() -> None:
    async def main() -> None:
        server = ListingServer("llama")
        listed = ListedModels(server.fetch)
        assert await listed.has("llama")
        server.names = ("qwen",)
        await asyncio.sleep(LIST_MAX_AGE_S)
        clock = asyncio.get_running_loop().time
        now = clock()
        assert await listed.has("llama")
        assert clock() == now
        await asyncio.sleep(1)
        assert await listed.has("qwen")
        assert not await listed.has("llama")
        assert server.lookups == 2
        await listed.close()

    virtual_time.run(main())


def test_listed_models_failing_lookup_counts_as_empty_or_keeps_the_old_list() -> None:
    async def main() -> None:
        server = ListingServer()
        listed = ListedModels(server.fetch)
        assert not await listed.has("llama")
        server.names = ("llama",)
        await asyncio.sleep(LIST_MAX_AGE_S)
        await listed.has("llama")
        await asyncio.sleep(1)
        server.names = ()
        await asyncio.sleep(LIST_MAX_AGE_S)
        assert await listed.has("llama")
        await asyncio.sleep(1)
        assert await listed.has("llama")

    virtual_time.run(main())


def test_listed_models_removed_name_is_gone_until_it_is_listed_again() -> None:
    async def main() -> None:
        listed = ListedModels(ListingServer("llama").fetch)
        listed.remove("llama")
        assert await listed.has("llama")
        listed.remove("llama")
        assert not await listed.has("llama")
        await asyncio.sleep(1)
        assert await listed.has("llama")

    virtual_time.run(main())


def test_listed_models_close_ends_the_lookup() -> None:
    async def main() -> None:
        listed = ListedModels(ListingServer("llama", delay_s=1e9).fetch)
        await listed.has("llama")
        await listed.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(main())
