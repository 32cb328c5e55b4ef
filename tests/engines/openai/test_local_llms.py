"""Looking for a language model on this machine."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.engines.openai.chat_server import ChatServer, Reply, drops, gives, hangs, lists
from vivavoce.engines.openai.local_llms import USUAL, Found, Place, find

PATIENT = 10.0
"""More seconds than an answer on loopback can take."""


def look(*replies: Reply, own: int | None = None, seconds: float = PATIENT) -> str | None:
    """The letter of the server that is found, of A, B, ... which reply so; and check its place."""

    async def main() -> str | None:
        async with AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(ChatServer([reply])) for reply in replies]
            places = [Place("ABC"[i], server.port) for i, server in enumerate(servers)]
            own_port = None if own is None else servers[own].port
            found = await find(places, own_port=own_port, seconds=seconds)
            if found is None:
                return None
            server = servers["ABC".index(found.name)]
            assert found == Found(found.name, server.base_url, "llama")
            assert [asked.path for asked in server.asked] == ["/v1/models"]
            return found.name

    return asyncio.run(main())


def test_the_usual_places_in_their_order() -> None:
    assert [(place.name, place.base_url) for place in USUAL] == [
        ("Ollama", "http://127.0.0.1:11434/v1"),
        ("llama.cpp", "http://127.0.0.1:8080/v1"),
        ("LM Studio", "http://127.0.0.1:1234/v1"),
        ("vLLM", "http://127.0.0.1:8000/v1"),
    ]


def test_the_first_in_order_is_found_though_all_answer() -> None:
    assert look(lists("llama"), lists("llama")) == "A"


def test_a_server_without_a_model_for_talk_is_passed_over() -> None:
    assert look(lists(), lists("nomic-embed-text"), lists("whisper-1", "llama")) == "C"


def test_our_own_server_is_passed_over_by_its_port_and_by_its_models() -> None:
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
def test_whatever_else_answers_there_is_passed_over(reply: Reply) -> None:
    assert look(reply) is None
    assert look(reply, lists("llama")) == "B"


def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    assert look(hangs, seconds=0.05) is None


def test_a_later_server_that_hangs_does_not_hold_up_an_earlier_one() -> None:
    assert look(lists("llama"), hangs) == "A"


def test_nobody_there_gives_none() -> None:
    async def main() -> Found | None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await find([Place("A", port)], seconds=PATIENT)

    assert asyncio.run(main()) is None


def test_what_does_not_speak_http_is_passed_over() -> None:
    async def main() -> Found | None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail ready\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
            return await find([Place("A", server.sockets[0].getsockname()[1])], seconds=PATIENT)

    assert asyncio.run(main()) is None
