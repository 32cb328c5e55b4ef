"""The shared HTTP client: a sentence for each failure, retries, uploads, WebSockets."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL as YarlURL

from tests.engines.openai.chat_server import (
    TICK,
    Asked,
    ChatServer,
    Reply,
    drops,
    falls_silent,
    gives,
    hangs,
)
from vivavoce.engines.http import HttpClient, ResponseTimeouts
from vivavoce.engines.remote import RemoteServer, ServerKind, message_of, refusal_text
from vivavoce.errors import EngineError

T = TypeVar("T")

LLM = ServerKind("LLM", "a chat completion")
KEY = "sk-abcdefgh1234"
URL = "http://127.0.0.1:9/v1"
REQUEST = aiohttp.RequestInfo(YarlURL(URL), "GET", CIMultiDictProxy(CIMultiDict()), YarlURL(URL))
TARGET = ConnectionKey("127.0.0.1", 9, False, True, None, None, None, None)


def remote(base_url: str = URL, key: str = KEY, **headers: str) -> RemoteServer:
    return RemoteServer(base_url, LLM, api_key=key, headers=headers)


def refusal(
    status: int, body: bytes = b"", *, key: str = KEY, model: str | None = "llama", **headers: str
) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return str(remote(key=key).refused(status, named, body, model))


NAME = f"the LLM at {URL}"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, f"{NAME} rejected the request (400): no; check model and extra"),
        (401, f"{NAME} refused the API key (401): no; check api_key"),
        (403, f"{NAME} refused the API key (403): no; check api_key"),
        (
            404,
            f"{NAME} does not know the model 'llama' (404): no; "
            "check model, and that base_url is right",
        ),
        (429, f"{NAME} has had too many requests (429): no; wait, or use another model"),
        (500, f"{NAME} failed (500): no; see its log, try again"),
        (503, f"{NAME} failed (503): no; see its log, try again"),
    ],
)
def test_refused_status_has_its_sentence(status: int, sentence: str) -> None:
    assert refusal(status, b'{"error": {"message": "no"}}') == sentence


def test_refused_401_without_key_asks_for_one() -> None:
    assert refusal(401, key="") == f"{NAME} wants an API key (401); set api_key"


@pytest.mark.parametrize(
    ("retry_after", "remedy"),
    [
        ("7", "wait 7 s"),
        ("Fri, 31 Dec 1999 23:59:59 GMT", "wait until Fri, 31 Dec 1999 23:59:59 GMT"),
    ],
)
def test_refused_429_says_how_long_to_wait(retry_after: str, remedy: str) -> None:
    sentence = f"{NAME} has had too many requests (429); {remedy}"
    assert refusal(429, Retry_After=retry_after) == sentence


def test_refused_redirect_names_the_new_address_without_secrets() -> None:
    there = "https://user:pass@elsewhere/v1/chat?key=1"
    assert refusal(308, Location=there) == (
        f"{NAME} has moved (308) to https://elsewhere/v1/chat; change base_url"
    )


def test_refused_list_of_models_says_so() -> None:
    sentence = f"{NAME} does not list its models (404); set model"
    assert str(remote().refused(404, {}, b"", "")) == sentence


def test_address_is_shown_without_user_and_query() -> None:
    hidden = remote("https://me:hush@host:1/v1/?api-version=1&key=hidden", "")
    assert hidden.address == "https://host:1/v1"
    assert hidden.masked("hush hidden") == "*** ***"


def test_url_of_path_keeps_the_query() -> None:
    url = remote("https://host/openai/?api-version=1", "").url("chat/completions")
    assert str(url) == "https://host/openai/chat/completions?api-version=1"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"the key {KEY} and {KEY}.", "the key *** and ***."),
        ("Incorrect API key provided: sk-ab****1234. Find", "Incorrect API key provided: *** Find"),
        ("two\n\n lines", "two lines"),
        ("x" * 301, "x" * 300 + "..."),
        ("y" * 295 + KEY, "y" * 295 + "***"),
        ("header-secret", "***"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_masked_text_is_one_short_line_without_secrets(text: str, masked: str) -> None:
    assert remote(**{"X-Key": "header-secret"}).masked(text) == masked


def test_masked_text_keeps_a_placeholder_key() -> None:
    assert remote(key="x").masked("an extra box") == "an extra box"


def test_headers_of_the_settings_replace_that_of_the_key() -> None:
    headers = remote(authorization="Basic abc").headers
    assert headers.getall("Authorization") == ["Basic abc"]
    assert remote().headers["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in remote(key="").headers


NESTED: Any = "no"
for _ in range(100_000):
    NESTED = {"error": NESTED}
REFUSED = f"[Errno {errno.ECONNREFUSED}] Connect call failed"


@pytest.mark.parametrize(
    ("exc", "why"),
    [
        (
            aiohttp.ClientConnectorError(TARGET, OSError(errno.ECONNREFUSED, "refused")),
            "connection refused; is it running?",
        ),
        (
            aiohttp.ClientConnectorError(TARGET, OSError(f"Multiple exceptions: {REFUSED}")),
            "connection refused; is it running?",
        ),
        (
            aiohttp.ClientConnectorError(TARGET, OSError(errno.ENETUNREACH, "No route")),
            "No route; check base_url and the network",
        ),
        (
            aiohttp.ClientConnectorDNSError(TARGET, socket.gaierror(-2, "unknown")),
            "the name '127.0.0.1' is not known to DNS; check base_url",
        ),
        (
            aiohttp.ClientConnectorSSLError(TARGET, ssl.SSLError(1, "[SSL: X] bad (_ssl.c:1)")),
            "TLS failed ([SSL: X] bad (_ssl.c:1)); check https in base_url, and the certificate",
        ),
        (
            aiohttp.ClientConnectorCertificateError(
                TARGET, ssl.SSLCertVerificationError("self-signed")
            ),
            "TLS failed (self-signed); check https in base_url, and the certificate",
        ),
        (
            aiohttp.ConnectionTimeoutError("late"),
            "it accepted no connection in time; is the address right?",
        ),
        (
            aiohttp.ServerDisconnectedError(),
            "the connection was closed before an answer; see its log, try again",
        ),
        (
            aiohttp.ClientOSError(errno.ECONNRESET, "reset"),
            "the connection was closed before an answer; see its log, try again",
        ),
        (
            aiohttp.WSServerHandshakeError(REQUEST, (), message="Invalid challenge response"),
            "what answers does not speak WebSocket; check base_url",
        ),
        (
            aiohttp.ClientPayloadError("cut"),
            "the connection failed (ClientPayloadError); try again",
        ),
    ],
)
def test_unreachable_error_says_why(exc: Any, why: str) -> None:
    assert str(remote().unreachable(exc)) == f"no LLM answers at {URL}: {why}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"error": {"message": "no", "type": "x"}}, "no"),
        ({"error": "no"}, "no"),
        ({"object": "error", "message": "no"}, "no"),
        ({"detail": [{"loc": ["body"], "msg": "no"}]}, "no"),
        ([{"error": {"message": "no"}}], "no"),
        ({"error": {"code": 1}}, ""),
        (NESTED, "no"),
        ({}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_message_of_each_error_shape_is_found(value: Any, message: str) -> None:
    assert message_of(value) == message


def test_refusal_text_is_plain_text_and_no_web_page() -> None:
    assert (
        refusal_text(b"Too many\n"),
        refusal_text(b" <!doctype html><p>No"),
        refusal_text(b""),
    ) == ("Too many", "", "")


def test_refused_404_without_model_names_the_address() -> None:
    sentence = f"{NAME} has nothing at this address (404); check base_url"
    assert refusal(404, model=None) == sentence


@pytest.mark.parametrize("body", [b"[" * 10_000, b'{"error": ' * 10_000])
def test_refusal_text_of_deeply_nested_json_is_taken_as_text(body: bytes) -> None:
    assert refusal_text(body) == body.decode().strip()


def test_refused_with_half_a_surrogate_pair_replaces_it() -> None:
    assert "Great \ufffd" in refusal(500, rb'{"error": {"message": "Great \ud83d"}}')
    assert "\ufffd" in refusal(302, Location="http://host/\udcff")


SPEECH = ServerKind("speech-to-text server", "a transcript")
SHORT = ResponseTimeouts(TICK, TICK)
LONG = ResponseTimeouts(10.0, 10.0)


def run(
    test: Callable[[HttpClient], Awaitable[T]], *replies: Reply, base_url: str = ""
) -> tuple[T, list[Asked]]:
    """What the test returns for a client of a server with these replies; and what was asked."""

    async def main() -> tuple[T, list[Asked]]:
        async with ChatServer(list(replies)) as server:
            remote_server = RemoteServer(
                base_url or server.base_url, SPEECH, api_key=KEY, headers={}
            )
            async with HttpClient(remote_server, connect_timeout_s=10.0) as client:
                return await test(client), server.asked

    return asyncio.run(main())


async def get(client: HttpClient, timeouts: ResponseTimeouts = LONG) -> bytes:
    async with client.request("GET", "models", timeouts=timeouts) as response:
        return b"".join([part async for part in response.parts()])


def form() -> aiohttp.FormData:
    data = aiohttp.FormData({"model": "whisper"})
    data.add_field("file", b"RIFF", filename="speech.wav", content_type="audio/wav")
    return data


async def upload(client: HttpClient) -> bytes:
    async with client.request("POST", "transcribe", form, timeouts=LONG) as response:
        return await response.read(1000, asyncio.get_running_loop().time() + 10.0)


async def echo_body(request: web.Request) -> web.StreamResponse:
    return web.Response(body=await request.read())


def check_form(body: bytes) -> None:
    assert b'name="model"\r\n\r\nwhisper\r\n' in body
    assert b'filename="speech.wav"\r\n\r\nRIFF\r\n' in body


def test_client_uploads_a_multipart_form() -> None:
    body, asked = run(upload, echo_body)
    check_form(body)
    assert asked[0].headers["Content-Type"].startswith("multipart/form-data; boundary=")


def test_client_uploads_a_form_again_when_a_kept_connection_was_closed() -> None:
    async def test(client: HttpClient) -> bytes:
        await get(client)
        return await upload(client)

    body, asked = run(test, gives(200), drops(), echo_body)
    check_form(body)
    assert [each.connection for each in asked] == [0, 0, 1]


def test_client_errors_name_the_kind_of_server() -> None:
    with pytest.raises(
        EngineError, match=r"^the speech-to-text server at http://127.*did not begin"
    ):
        run(lambda client: get(client, SHORT), hangs)
    with pytest.raises(EngineError, match=r"^no speech-to-text server answers at http://127"):
        run(get, drops())


def test_client_redirect_is_not_followed() -> None:
    async def test(client: HttpClient) -> str:
        async with client.request("GET", "models", timeouts=LONG) as response:
            return str(await response.refusal(10.0))

    sentence, asked = run(test, gives(307, Location="http://elsewhere/v1"), gives(200))
    assert sentence.endswith("has moved (307) to http://elsewhere/v1; change base_url")
    assert len(asked) == 1


def test_response_longer_than_its_bound_raises_engine_error() -> None:
    async def test(client: HttpClient) -> bytes:
        async with client.request("GET", "models", timeouts=LONG) as response:
            return await response.read(1 << 20, asyncio.get_running_loop().time() + 10.0)

    assert len(run(test, gives(200, bytes(1 << 20)))[0]) == 1 << 20
    with pytest.raises(EngineError, match="sent more than 1 MiB instead of a transcript"):
        run(test, gives(200, bytes((1 << 20) + 1)))


def test_response_that_stalls_raises_engine_error() -> None:
    with pytest.raises(EngineError, match="did not begin to answer"):
        run(lambda client: get(client, SHORT), falls_silent())
    with pytest.raises(EngineError, match="fell silent in the middle"):
        run(lambda client: get(client, SHORT), falls_silent("x"))


def test_response_read_to_the_end_keeps_the_connection_and_one_left_early_does_not() -> None:
    async def test(client: HttpClient) -> None:
        await get(client)
        async with client.request("GET", "models", timeouts=LONG):
            pass
        await get(client)

    _, asked = run(test, gives(200), falls_silent("x"), gives(200))
    assert [each.connection for each in asked] == [0, 0, 1]


def test_client_before_entering_raises_engine_error() -> None:
    client = HttpClient(remote(), connect_timeout_s=1.0)
    with pytest.raises(EngineError, match="its engine is not running"):
        asyncio.run(get(client))


async def echo_websocket(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=("realtime",))
    await socket.prepare(request)
    await socket.send_str(f"{request.path_qs} {request.headers['X-Trace']}")
    async for message in socket:
        await socket.send_bytes(message.data)
    return socket


async def open_websocket(
    client: HttpClient, path: str = "realtime", timeout_s: float = 10.0
) -> aiohttp.ClientWebSocketResponse:
    return await client.connect_websocket(
        path,
        query={"model": "gpt"},
        headers={"X-Trace": "t"},
        protocols=("realtime",),
        timeout_s=timeout_s,
    )


def test_websocket_opens_with_path_query_headers_and_protocol() -> None:
    async def test(client: HttpClient) -> list[Any]:
        async with await open_websocket(client) as socket:
            await socket.send_bytes(b"audio")
            return [socket.protocol, await socket.receive_str(), await socket.receive_bytes()]

    received, asked = run(test, echo_websocket)
    assert received == ["realtime", "/v1/realtime?model=gpt t", b"audio"]
    assert asked[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (gives(401, {"error": f"bad key {KEY}"}), r"refused the API key \(401\): bad key \*\*\*;"),
        (gives(302, Location="http://elsewhere/"), r"has moved \(302\) to http://elsewhere/"),
        (gives(404), r"has nothing at this address \(404\)"),
        (gives(200, {"hello": "world"}), "what answers does not speak WebSocket"),
        (drops(), "the connection was closed before an answer"),
    ],
)
def test_websocket_that_is_refused_raises_engine_error(reply: Reply, sentence: str) -> None:
    with pytest.raises(EngineError, match=sentence):
        run(open_websocket, reply)


def test_websocket_that_does_not_open_in_time_raises_engine_error() -> None:
    with pytest.raises(EngineError, match="did not begin to answer"):
        run(lambda client: open_websocket(client, timeout_s=TICK), hangs)
