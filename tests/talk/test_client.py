"""Addresses, connections and events of the client."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from tests.talk.scripted_server import (
    CREATED,
    OPENING,
    START,
    Script,
    port_that_refuses,
    serving,
    tone,
)
from vivavoce.errors import SettingsError
from vivavoce.protocol import codec
from vivavoce.secret import Secret
from vivavoce.talk import client
from vivavoce.talk.client import (
    ConnectionLost,
    Event,
    WebSocketConnection,
    connect,
    decode,
    encode,
    endpoint,
    response_create,
    without_query,
)
from vivavoce.talk.options import Timeouts


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("ws://localhost:8080/v1/realtime", "ws://localhost:8080/v1/realtime?model=gpt-realtime"),
        ("http://localhost:8080", "ws://localhost:8080/v1/realtime?model=gpt-realtime"),
        ("localhost:8080", "ws://localhost:8080/v1/realtime?model=gpt-realtime"),
        ("https://api.openai.com/v1", "wss://api.openai.com/v1/realtime?model=gpt-realtime"),
        ("https://host/voice/", "wss://host/voice/v1/realtime?model=gpt-realtime"),
        ("wss://host/v1/realtime?model=mine", "wss://host/v1/realtime?model=mine"),
        ("wss://host?model=", "wss://host/v1/realtime?model=gpt-realtime"),
        ("ws://[::1]:8080", "ws://[::1]:8080/v1/realtime?model=gpt-realtime"),
        ("ws://h/v1/realtime?intent=x&model=a", "ws://h/v1/realtime?intent=x&model=a"),
    ],
)
def test_endpoint_of_a_base_address_is_completed(typed: str, address: str) -> None:
    assert endpoint(typed) == address


def test_endpoint_with_a_model_replaces_the_one_in_the_address() -> None:
    assert endpoint("ws://h?model=a", "b c") == "ws://h/v1/realtime?model=b+c"


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("ftp://h", "ftp:// is none of ws, wss, http, https"),
        ("ws:///v1/realtime", "it names no host"),
        ("ws://h:port", "Port could not be cast to integer value as 'port'"),
        ("", "it names no host"),
        ("ws://user:secret@h", "it holds a user or password; give a key with --api-key"),
    ],
)
def test_endpoint_of_an_invalid_address_raises_with_the_reason(typed: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        endpoint(typed)
    assert f"is not the address of a Realtime server: {reason};" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_query_removes_the_query() -> None:
    assert without_query("wss://h/v1/realtime?token=t") == "wss://h/v1/realtime"


TIMEOUTS = Timeouts(connect=60.0)


async def refusal(address: str, timeouts: Timeouts = TIMEOUTS) -> str:
    with pytest.raises(SettingsError) as caught:
        async with connect(address, Secret("sk-hidden"), timeouts):
            raise AssertionError("it connected")
    assert "sk-hidden" not in str(caught.value)
    return str(caught.value)


def with_server(script: Script, use: Callable[[WebSocketConnection], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(script) as server, connect(server.url, Secret(), TIMEOUTS) as connection:
            await use(connection)

    asyncio.run(main())


def test_connection_sends_and_receives_frames() -> None:
    async def use(connection: WebSocketConnection) -> None:
        first = await connection.receive()
        assert isinstance(first, bytes)
        assert decode(first).fields == CREATED
        await connection.send(encode(response_create()))
        second = await connection.receive()
        assert isinstance(second, bytes)
        assert decode(second).type == "hello"

    with_server({START: [(0, CREATED)], ("response.create", 1): [(0, {"type": "hello"})]}, use)


def test_connect_sends_the_key_and_the_model() -> None:
    async def main() -> None:
        async with serving(OPENING) as server:
            async with connect(endpoint(server.url, "mine"), Secret("sk-1"), TIMEOUTS):
                pass
            assert server.headers[0]["Authorization"] == "Bearer sk-1"
            assert server.queries[0]["model"] == "mine"
            async with connect(server.url, Secret(), TIMEOUTS):
                pass
            assert "Authorization" not in server.headers[1]

    asyncio.run(main())


def test_connection_closed_by_the_server_has_its_reason_and_drops_what_is_sent() -> None:
    async def use(connection: WebSocketConnection) -> None:
        assert await connection.receive() == ConnectionLost(
            "the server closed the connection (1011): it broke"
        )
        await connection.send(encode(response_create()))

    with_server({START: [(0, ConnectionLost("it broke"))]}, use)


def test_connect_to_an_address_without_a_server_names_the_remedy() -> None:
    with port_that_refuses() as port:
        address = f"ws://127.0.0.1:{port}/v1/realtime"
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
        (404, "there is no Realtime API at {} (404); check the path of the address"),
        (503, "the server at {} takes no more sessions just now (503); try again later"),
        (500, "the server at {} refuses the connection: HTTP 500; check the address"),
    ],
)
def test_connect_refused_by_the_server_explains_the_status(status: int, sentence: str) -> None:
    async def main() -> str:
        async with serving({}, status=status) as server:
            message = await refusal(server.url)
            return message.replace(server.url, "{}")

    assert asyncio.run(main()) == sentence


def test_connect_to_a_silent_server_times_out() -> None:
    async def main() -> str:
        ended = asyncio.Event()

        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await ended.wait()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            message = await refusal(f"ws://127.0.0.1:{port}/v1/realtime", Timeouts(connect=0.1))
            ended.set()
        return message.replace(str(port), "PORT")

    assert asyncio.run(main()) == (
        "no server answers at ws://127.0.0.1:PORT/v1/realtime within 0.1 s; is the address right?"
    )


def test_connect_to_a_server_without_http_says_so() -> None:
    async def main() -> str:
        async def other(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            writer.close()

        server = await asyncio.start_server(other, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await refusal(f"ws://127.0.0.1:{port}/v1/realtime")

    assert "is no Realtime server" in asyncio.run(main())


@pytest.mark.parametrize("frame", [b"", b"{", b"[1]", b'"x"', b"\xff", b"{}", b'{"type":7}'])
def test_decode_of_an_invalid_frame_returns_an_empty_event(frame: bytes) -> None:
    assert decode(frame).type == client.NOT_AN_EVENT


def test_event_field_absent_or_of_another_type_reads_as_empty() -> None:
    event = decode(b'{"type":"error","error":{"message":null,"code":7},"delta":5}')
    assert event.text("error", "message") == event.text("error", "code") == ""
    assert event.text("delta", "deeper") == event.text("nothing") == ""
    assert event.get("error", "code") == 7
    assert event.pcm() == b""


def test_event_pcm_is_decoded_from_base64() -> None:
    assert decode(b'{"type":"response.output_audio.delta","delta":"AQI="}').pcm() == b"\1\2"
    assert decode(b'{"type":"response.output_audio.delta","delta":"%"}').pcm() == b""


@pytest.mark.parametrize(
    "event",
    [
        client.append_audio(tone(40)),
        client.user_text("hello"),
        client.response_create(),
        client.truncate("item_1", 0, 120),
        client.session_update(voice="cedar", instructions="x", spoken=True, transcription=True),
    ],
)
def test_sent_event_is_valid_for_the_server(event: Event) -> None:
    codec.decode(encode(event))


def test_append_audio_event_keeps_its_pcm() -> None:
    pcm = tone(40)
    assert decode(encode(client.append_audio(pcm))).pcm() == pcm


def test_session_update_has_only_the_requested_settings() -> None:
    def update(**wanted: object) -> object:
        settings = {"voice": "", "instructions": "", "spoken": False, "transcription": True}
        event = client.session_update(**settings | wanted)  # type: ignore[arg-type]
        return None if event is None else msgspec.to_builtins(event.fields)["session"]

    assert update() is None
    assert update(voice="v") == {"type": "realtime", "audio": {"output": {"voice": "v"}}}
    assert update(instructions="i") == {"type": "realtime", "instructions": "i"}
    assert update(spoken=True, transcription=False) == {
        "type": "realtime",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "turn_detection": {"type": "server_vad"},
            }
        },
    }
