"""A protocol of the tests alone: binary PCM in, JSON text and paced binary PCM out.

It is one class and one row of a table: a new wire protocol changes neither session/ nor
transports/.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType, web

from tests import idle_clock
from tests.server import HOST, Complaints, Server, scripted, serving
from tests.transports.webrtc.caller import LOUD, SOFT, until
from vivavoce.audio.pacer import FRAME_BYTES
from vivavoce.audio.resample import Resampler
from vivavoce.errors import InvalidRequest, Unauthorized, VoiceError
from vivavoce.protocol import server as says
from vivavoce.protocol.client import InputAudioAppend, ItemCreate, OutputAudioClear, ResponseCreate
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.wire import (
    CloseRequest,
    ConnectRequest,
    Decoded,
    Frame,
    Opening,
    Refusal,
    Reply,
)
from vivavoce.settings import Settings
from vivavoce.transports import connection
from vivavoce.transports.protocols import WIRE_TABLE, WireRoute, paths, protocol_for
from vivavoce.transports.websocket import Admit, WebSocketEndpoint, connect_request

WAIT_SECONDS = 60.0


class Beep:
    """16 kHz PCM in binary frames; in text frames {"do": …} from the client, {"is": …} to it.

    Nothing is opened before {"do": "start"}. One "say" is two events of a session.
    """

    subprotocols = ("beep",)
    server_plays = True
    is_ga = False

    def __init__(self) -> None:
        self._resampler = Resampler(16_000, 24_000)

    def opening(self, request: ConnectRequest) -> Opening | None:
        return Opening(model=request.query["m"]) if "m" in request.query else None

    def decode(self, frame: Frame) -> Iterator[Decoded]:
        if frame.kind == "binary":
            yield InputAudioAppend(audio=self._resampler.feed(frame.data))
            return
        match msgspec.json.decode(frame.data):
            case {"do": "start", "model": str(model)}:
                yield Reply((says_is("started"),))
                yield Opening(model=model)
            case {"do": "say", "text": str(text)}:
                yield ItemCreate(item=Message(role="user", content=(InputText(text),)))
                yield ResponseCreate()
            case {"do": "ping"}:
                yield Reply((says_is("pong"),))
            case {"do": "stop"}:
                yield OutputAudioClear()
            case {"do": "leave"}:
                yield CloseRequest(4001, "requested")
            case other:
                raise InvalidRequest(f"Unknown: {other}")

    def encode(self, event: AnyServerEvent) -> Iterator[Frame]:
        match event:
            case says.OutputTranscriptDelta(delta=delta):
                yield says_is("text", text=delta)
            case says.OutputAudioStarted() | says.OutputAudioStopped() | says.OutputAudioCleared():
                yield says_is(event.__struct_config__.tag.rpartition(".")[2])  # type: ignore[union-attr]
            case says.SpeechStarted():
                yield says_is("hearing")
            case says.ErrorEvent(error=error):
                yield says_is("error", text=error.message)

    def encode_audio(self, audio: bytes) -> Iterator[Frame]:
        yield Frame("binary", audio)

    def refuse(self, error: VoiceError) -> Refusal:
        return Refusal((says_is("refused"),), 4000, str(error))


def says_is(what: str, **more: str) -> Frame:
    return Frame("text", msgspec.json.encode({"is": what, **more}))


def admit_all(request: web.Request, key: str = "") -> Opening:
    return Opening(who="somebody")


@asynccontextmanager
async def beeping(
    settings: Settings | None = None, admit: Admit = admit_all
) -> AsyncIterator[tuple[Server, str]]:
    """A server that speaks it; the address."""
    table = (WireRoute("/beep", Beep),)
    async with serving(settings) as server:
        app = web.Application()
        WebSocketEndpoint(server.sessions, admit, table=table).add_to(app)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        try:
            yield server, f"ws://{HOST}:{runner.addresses[0][1]}/beep"
            await until(lambda: len(server.sessions) == 0)
        finally:
            await runner.cleanup()


class Client:
    """One connection; audio is counted, the rest is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.audio = 0
        self.sizes: list[int] = []

    async def do(self, what: str, **more: str) -> None:
        await self.socket.send_str(msgspec.json.encode({"do": what, **more}).decode())

    async def next(self) -> dict[str, Any] | None:
        """The next text; None: the connection is closed."""
        async with asyncio.timeout(WAIT_SECONDS):
            while (message := await self.socket.receive()).type is WSMsgType.BINARY:
                self.audio += len(message.data)
                self.sizes.append(len(message.data))
        return msgspec.json.decode(message.data) if message.type is WSMsgType.TEXT else None

    async def until(self, what: str) -> dict[str, Any]:
        while (got := await self.next()) is not None:
            if got["is"] == what:
                return got
        raise AssertionError(f"closed {self.socket.close_code} before {what}")


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(address, protocols=("other", "beep")) as socket,
    ):
        assert socket.protocol == "beep"
        yield Client(socket)


def test_foreign_protocol_asks_for_an_answer_and_gets_paced_audio() -> None:
    async def main() -> None:
        settings = scripted(llm={"answers": ["One two three four five six seven eight."]})
        async with beeping(settings) as (_, address), client(f"{address}?m=default") as caller:
            began = asyncio.get_running_loop().time()
            await caller.do("say", text="Count.")
            await caller.until("started")
            await caller.until("stopped")
            seconds = asyncio.get_running_loop().time() - began
            assert caller.audio > 0
            assert max(caller.sizes) <= FRAME_BYTES
            # in real time, less what may be ahead; nothing else slows it down
            assert seconds > caller.audio / 48_000 - 0.1

    idle_clock.run(main())


def test_foreign_protocol_audio_is_resampled_from_its_rate() -> None:
    async def main() -> None:
        settings = scripted(stt={"transcripts": ["hello"]}, llm={"answers": ["Hi."]})
        async with beeping(settings) as (_, address), client(f"{address}?m=x") as caller:
            await caller.socket.send_bytes(LOUD * 8 + SOFT * 30)
            await caller.until("hearing")
            await caller.until("stopped")

    idle_clock.run(main())


def test_foreign_protocol_clears_its_audio_at_once() -> None:
    async def main() -> None:
        settings = scripted(llm={"answers": ["word " * 400]})
        async with beeping(settings) as (_, address), client(f"{address}?m=x") as caller:
            await caller.do("say", text="Talk.")
            await caller.until("started")
            await caller.do("stop")
            await caller.until("cleared")
            heard = caller.audio
            await caller.do("ping")
            await caller.until("pong")
            assert caller.audio == heard

    idle_clock.run(main())


def test_foreign_protocol_may_open_its_session_by_a_frame() -> None:
    async def main() -> None:
        async with beeping() as (server, address), client(address) as caller:
            await caller.socket.ping()
            await caller.do("ping")
            await caller.until("pong")
            assert len(server.sessions) == 0
            await caller.do("start", model="default")
            await caller.until("started")
            await caller.do("say", text="Hello.")
            await caller.until("text")
            assert len(server.sessions) == 1

    idle_clock.run(main())


def test_foreign_protocol_bad_frame_is_an_error_and_the_session_goes_on() -> None:
    async def main() -> None:
        async with beeping() as (_, address), client(f"{address}?m=x") as caller:
            await caller.do("dance")
            assert (await caller.until("error"))["text"] == "Unknown: {'do': 'dance'}"
            await caller.do("ping")
            await caller.until("pong")

    idle_clock.run(main())


@pytest.mark.parametrize("query", ["?m=x", ""])
def test_foreign_protocol_may_ask_for_the_close(query: str) -> None:
    async def main() -> None:
        async with beeping() as (_, address), client(address + query) as caller:
            await caller.do("leave")
            assert await caller.next() is None
            assert caller.socket.close_code == 4001

    idle_clock.run(main())


def test_foreign_protocol_refusal_has_its_own_shape() -> None:
    def refuse_all(request: web.Request, key: str = "") -> Opening:
        raise Unauthorized("no key")

    async def main() -> None:
        async with beeping(admit=refuse_all) as (_, address), client(address) as caller:
            await caller.until("refused")
            assert await caller.next() is None
            assert caller.socket.close_code == 4000

    idle_clock.run(main())


def test_opening_frame_that_cannot_be_read_is_refused() -> None:
    async def main() -> None:
        async with beeping() as (_, address), client(address) as caller:
            await caller.do("dance")
            await caller.until("refused")
            assert await caller.next() is None

    idle_clock.run(main())


def test_client_without_an_opening_frame_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OPENING_TIMEOUT_S", 0.0)

    async def main() -> None:
        async with beeping() as (_, address), client(address) as caller:
            assert await caller.next() is None
            assert caller.socket.close_code == 1008

    idle_clock.run(main())


@pytest.mark.parametrize("leaves", ["closes", "breaks the rules"])
def test_client_that_leaves_before_the_opening_frame_opens_no_session(leaves: str) -> None:
    async def main() -> None:
        async with beeping() as (server, address), client(address) as caller:
            if leaves == "closes":
                await caller.socket.close()
            else:
                caller.socket._writer.transport.write(b"\x81\x00")
                assert await caller.next() is None
                assert caller.socket.close_code == 1002
            assert len(server.sessions) == 0

    idle_clock.run(main())


def test_error_in_the_admission_closes_with_1011_and_no_http() -> None:
    def broken(request: web.Request, key: str = "") -> Opening:
        raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")

    async def main() -> list[str]:
        complaints = Complaints()
        connection.log.addHandler(complaints)
        connection.log.propagate = False
        try:
            async with beeping(admit=broken) as (_, address), client(address) as caller:
                assert await caller.next() is None
                assert caller.socket.close_code == 1011
        finally:
            connection.log.propagate = True
            connection.log.removeHandler(complaints)
        return complaints.messages

    (complaint,) = idle_clock.run(main())
    assert "UnicodeEncodeError" in complaint


@pytest.mark.parametrize(
    ("query", "headers", "subprotocols", "name"),
    [
        ({}, {}, (), "GA"),
        ({}, {}, ("realtime",), "GA"),
        ({}, {"openai-beta": "realtime=v1"}, (), "Beta"),
        ({}, {"openai-beta": "assistants=v2, realtime=v1"}, (), "Beta"),
        ({}, {}, ("realtime", "openai-beta.realtime-v1"), "Beta"),
        ({"api-version": "2024-10-01-preview"}, {}, (), "Beta"),
        ({"api-version": "2025-08-28"}, {}, (), "GA"),
    ],
)
def test_table_finds_the_protocol_of_a_realtime_request(
    query: dict[str, str], headers: dict[str, str], subprotocols: tuple[str, ...], name: str
) -> None:
    request = ConnectRequest("/v1/realtime", query, headers, subprotocols)
    assert type(protocol_for(request)).__name__ == name


def test_table_finds_the_beta_at_the_address_of_a_relay() -> None:
    assert type(protocol_for(ConnectRequest("/api/realtime"))).__name__ == "Beta"


@pytest.mark.parametrize("path", ["/ws", "/v1/voice/stream"])
def test_table_finds_the_raw_protocol(path: str) -> None:
    assert type(protocol_for(ConnectRequest(path))).__name__ == "RawProtocol"


@pytest.mark.parametrize(("rtvi", "name"), [("1", "RtviProtocol"), ("0", "RawProtocol")])
def test_table_finds_rtvi_by_its_option(rtvi: str, name: str) -> None:
    assert type(protocol_for(ConnectRequest("/ws", {"rtvi": rtvi}))).__name__ == name


def test_table_without_the_path_of_a_request_raises() -> None:
    assert paths(WIRE_TABLE) == {
        *("/api/realtime", "/v1/realtime", "/v1/voice/stream", "/ws"),
        "/telephony/ws",
    }
    with pytest.raises(LookupError):
        protocol_for(ConnectRequest("/beep"))


def test_request_is_described_by_its_route() -> None:
    seen: list[ConnectRequest] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(connect_request(request))
        return web.Response()

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/a/{b}", look)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        address = f"http://{HOST}:{runner.addresses[0][1]}/a/1?m=x"
        headers = {"OpenAI-Beta": "y", "Sec-WebSocket-Protocol": "one,, two"}
        async with aiohttp.ClientSession() as http, http.get(address, headers=headers):
            pass
        await runner.cleanup()

    idle_clock.run(main())
    (request,) = seen
    assert (request.path, request.query["m"]) == ("/a/{b}", "x")
    assert request.headers["openai-beta"] == "y"
    assert request.subprotocols == ("one", "two")
