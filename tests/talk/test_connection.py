import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.talk.stage import CREATED, GREETING, OPENING, Script, serving
from vivavoce.errors import SettingsError
from vivavoce.secret import Secret
from vivavoce.talk.address import endpoint
from vivavoce.talk.connection import Lost, WebSocket, connected
from vivavoce.talk.events import read, response_create, written
from vivavoce.talk.options import Waits
from vivavoce.talk.server_process import free_port

WAITS = Waits(connect=5.0)


async def refusal(address: str, waits: Waits = WAITS) -> str:
    with pytest.raises(SettingsError) as caught:
        async with connected(address, Secret("sk-hidden"), waits):
            raise AssertionError("it connected")
    assert "sk-hidden" not in str(caught.value)
    return str(caught.value)


def with_server(script: Script, use: Callable[[WebSocket], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(script) as server, connected(server.url, Secret(), WAITS) as wire:
            await use(wire)

    asyncio.run(main())


def test_frames_go_both_ways() -> None:
    async def use(wire: WebSocket) -> None:
        first = await wire.receive()
        assert isinstance(first, bytes)
        assert read(first).fields == CREATED
        await wire.send(written(response_create()))
        second = await wire.receive()
        assert isinstance(second, bytes)
        assert read(second).type == "hello"

    with_server({GREETING: [(0, CREATED)], ("response.create", 1): [(0, {"type": "hello"})]}, use)


def test_the_key_and_the_model_are_told() -> None:
    async def main() -> None:
        async with serving(OPENING) as server:
            async with connected(endpoint(server.url, "mine"), Secret("sk-1"), WAITS):
                pass
            assert server.headers[0]["Authorization"] == "Bearer sk-1"
            assert server.queries[0]["model"] == "mine"
            async with connected(server.url, Secret(), WAITS):
                pass
            assert "Authorization" not in server.headers[1]

    asyncio.run(main())


def test_a_server_that_closes_is_quoted_and_what_is_sent_then_is_dropped() -> None:
    async def use(wire: WebSocket) -> None:
        assert await wire.receive() == Lost("the server closed the connection (1011): it broke")
        await wire.send(written(response_create()))

    with_server({GREETING: [(0, Lost("it broke"))]}, use)


def test_where_nobody_listens_the_remedy_is_told() -> None:
    address = f"ws://127.0.0.1:{free_port()}/v1/realtime"
    assert asyncio.run(refusal(f"{address}?model=m")) == (
        f"no server answers at {address}: connection refused; start one with `vivavoce serve`"
    )


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (
            401,
            "the server at {} does not accept the key (401); "
            "give it with --api-key or in OPENAI_API_KEY",
        ),
        (404, "there is no Realtime API at {} (404); check the path of --url"),
        (503, "the server at {} takes no more sessions just now (503); try again later"),
        (500, "the server at {} refuses the connection: HTTP 500; check --url"),
    ],
)
def test_a_server_that_refuses_is_explained(status: int, sentence: str) -> None:
    async def main() -> str:
        async with serving({}, status=status) as server:
            message = await refusal(server.url)
            return message.replace(server.url, "{}")

    assert asyncio.run(main()) == sentence


def test_one_that_takes_the_connection_and_says_nothing_is_given_up() -> None:
    async def main() -> str:
        ended = asyncio.Event()

        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await ended.wait()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            message = await refusal(f"ws://127.0.0.1:{port}/v1/realtime", Waits(connect=0.1))
            ended.set()
        return message.replace(str(port), "PORT")

    assert asyncio.run(main()) == (
        "no server answers at ws://127.0.0.1:PORT/v1/realtime within 0.1 s; is the address right?"
    )


def test_one_that_does_not_speak_http_is_no_realtime_server() -> None:
    async def main() -> str:
        async def other(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            writer.close()

        server = await asyncio.start_server(other, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await refusal(f"ws://127.0.0.1:{port}/v1/realtime")

    assert "is no Realtime server" in asyncio.run(main())
