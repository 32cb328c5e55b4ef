"""The places where the server takes JSON from clients, and a run of generated cases over them."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import Any, Protocol

import aiohttp
import msgspec
from aiohttp import WSMsgType

from tests.fake_upstream import FakeUpstream
from tests.fuzz.mutations import mutated, strings_of
from tests.fuzz.requests import (
    OFFER,
    WAIT_SECONDS,
    CallQueryEntrance,
    QueryEntrance,
    SettingsEntrance,
    Wrong,
    bodies,
)
from tests.protocol.client_samples import BETA_CLIENT_EVENTS, GA_CLIENT_EVENTS, USER_ITEM
from tests.server import Server, scripted, serving
from tests.transports.webrtc.call_stage import Client, in_call
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.beta import Beta
from vivavoce.protocol.codec import GA
from vivavoce.protocol.wire import Frame, WireProtocol
from vivavoce.settings import RelayModel, Settings
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.transports.frame_guard import MAX_MESSAGE_BYTES

CASES_A_CONNECTION = 40
MAX_WRONG = 20  # then a run ends
MAX_CHANNEL_BYTES = 60_000  # of a message on the data channel
BETA = {"OpenAI-Beta": "realtime=v1"}

QUESTION: list[dict[str, Any]] = [
    {"type": "conversation.item.create", "item": USER_ITEM},
    {"type": "response.create"},
]


class Entrance(Protocol):
    """Takes one text after another. `samples` are valid ones."""

    samples: list[Any]

    async def send(self, raw: bytes, rng: Random) -> str:
        """Send a text and wait for its answer, in short. Raises Wrong."""

    async def close(self) -> None: ...


# --- events


class EventEntrance:
    """A place that takes client events. Behind each text comes a request whose answer is known."""

    def __init__(self, samples: list[Any], protocol: Callable[[], WireProtocol]) -> None:
        self.samples = samples
        self._protocol = protocol
        self._sent = 0

    async def send(self, raw: bytes, rng: Random) -> str:
        self._sent += 1
        marker = f"marker_{self._sent}"
        await self._send(raw, rng)
        kind = "conversation.item.retrieve"
        await self._send_event({"type": kind, "item_id": "item_absent", "event_id": marker})
        refused = self._refusal(raw)
        errors = 0
        while (event := await self._next()) is not None:
            if event["type"] != "error":
                continue
            error = event["error"]
            if error["event_id"] == marker:
                if refused and not errors:
                    raise Wrong(f"no error event, although: {refused}")
                return "error" if errors else "accepted"
            if error["type"] == "server_error":
                raise Wrong(f"server_error: {error}")
            errors += 1
        return self._closed(raw)

    async def close(self) -> None:
        """Nothing by default."""

    def _refusal(self, raw: bytes) -> InvalidRequest | None:
        try:
            list(self._protocol().decode(Frame("text", raw)))
        except InvalidRequest as exc:
            return exc
        return None

    async def _send(self, raw: bytes, rng: Random) -> None:
        raise NotImplementedError

    async def _send_event(self, event: dict[str, Any]) -> None:
        raise NotImplementedError

    async def _next(self) -> dict[str, Any] | None:
        """The next event; None: closed."""
        raise NotImplementedError

    def _closed(self, raw: bytes) -> str:
        raise Wrong("the connection was closed")


class SocketEntrance(EventEntrance):
    """A WebSocket; a new one after CASES_A_CONNECTION texts."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        samples: list[Any],
        protocol: Callable[[], WireProtocol] = GA,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(samples, protocol)
        self._http = http
        self._url = url
        self._headers = headers or {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    async def _send(self, raw: bytes, rng: Random) -> None:
        if self._sent % CASES_A_CONNECTION == 0:
            await self.close()
        if self._socket is None:
            self._socket = await self._http.ws_connect(
                self._url, headers=self._headers, max_msg_size=0
            )
        kind = WSMsgType.TEXT if rng.random() < 0.8 else WSMsgType.BINARY
        await self._socket.send_frame(raw, kind)

    async def _send_event(self, event: dict[str, Any]) -> None:
        assert self._socket is not None
        with suppress(ConnectionError):  # it was closed for the text before
            await self._socket.send_json(event)

    async def _next(self) -> dict[str, Any] | None:
        assert self._socket is not None
        async with asyncio.timeout(WAIT_SECONDS):
            message = await self._socket.receive()
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return None
        event: dict[str, Any] = json.loads(message.data)
        return event

    def _closed(self, raw: bytes) -> str:
        assert self._socket is not None
        code, self._socket = self._socket.close_code, None
        if code == 1009 and len(raw) > MAX_MESSAGE_BYTES:
            return "closed 1009"
        try:
            raw.decode()
        except UnicodeDecodeError:
            if code == 1007:
                return "closed 1007"
        raise Wrong(f"the connection was closed with {code}")


class ChannelEntrance(EventEntrance):
    """The data channel of a call."""

    def __init__(self, client: Client) -> None:
        super().__init__(GA_CLIENT_EVENTS, GA)
        self._client = client

    async def _send(self, raw: bytes, rng: Random) -> None:
        try:
            self._client.channel.send(raw.decode())
        except UnicodeDecodeError:
            self._client.channel.send(raw)

    async def send(self, raw: bytes, rng: Random) -> str:
        return await super().send(raw[:MAX_CHANNEL_BYTES], rng)

    async def _send_event(self, event: dict[str, Any]) -> None:
        self._client.channel.send(json.dumps(event))

    async def _next(self) -> dict[str, Any] | None:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._client.next()


# --- a run


class Complaints(logging.Handler):
    """Errors, and tracebacks of whatever level, in the log."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.found.append(logging.Formatter().format(record))


@asynccontextmanager
async def entrances(
    server: Server, admin: Server, relay: Server
) -> AsyncIterator[dict[str, Entrance]]:
    """All of them, by name. Each is chosen equally often.

    admin: a server with records. relay: one whose calls go between their clients and an upstream
    server.
    """
    ga, beta = GA_CLIENT_EVENTS, BETA_CLIENT_EVENTS
    realtime, transcription = f"{server.ws}/v1/realtime?model=m", "?intent=transcription"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(in_call(server))
        observed = await stack.enter_async_context(in_call(server))
        call = f"?call_id={observed.location.rpartition('/')[2]}"
        url = f"{server.ws}/v1/realtime"
        back = [QueryEntrance(http, server, path) for path in ("/v1/realtime", "/ws?rtvi=1")]
        await back[0].begin()
        back[1].samples = back[0].samples
        call_back = CallQueryEntrance(http, server)
        await call_back.begin()
        async with http.post(f"{server.http}/start") as started:
            session_id = (await started.json())["sessionId"]
        async with http.post(
            f"{admin.http}/v1/admin/keys", json={"name": "root", "admin": True}
        ) as made:
            key = (await made.json())["key"]
        direct = await _direct_call(http, relay)
        found: dict[str, Entrance] = {
            "GA events": SocketEntrance(http, realtime, ga),
            "beta events": SocketEntrance(http, realtime, beta, Beta, BETA),
            "GA transcription events": SocketEntrance(http, url + transcription, ga),
            "beta transcription events": SocketEntrance(
                http, url + transcription, beta, Beta, BETA
            ),
            "sideband events": SocketEntrance(http, url + call, ga),
            "data channel events": ChannelEntrance(client),
            "sideband events of a direct call": SocketEntrance(http, direct, ga),
            "resumption": back[0],
            "call resumption": call_back,
            "RTVI resumption": back[1],
            "settings": SettingsEntrance(),
            **bodies(http, server, session_id, admin, key),
        }
        try:
            yield found
        finally:
            for entrance in found.values():
                await entrance.close()


async def _direct_call(http: aiohttp.ClientSession, relay: Server) -> str:
    """The address of the sideband of a call whose media does not come to the relay."""
    url, sdp = f"{relay.http}/v1/realtime/calls?model=far", {"Content-Type": "application/sdp"}
    async with http.post(url, data=OFFER.read_text(encoding="utf-8"), headers=sdp) as made:
        call_id = made.headers["Location"].rpartition("/")[2]
    return f"{relay.ws}/v1/realtime?call_id={call_id}"


@asynccontextmanager
async def servers() -> AsyncIterator[tuple[Server, Server, Server]]:
    """Those that entrances() takes. The upstream server of the last takes everything in silence."""
    settings = scripted(
        stt={"transcripts": ["hello"]},
        llm={"answers": ["Yes."]},
        session={"voice": "marin", "max_items": 300},
    )
    upstream = FakeUpstream()
    upstream.is_deaf = True
    async with (
        SQLiteStore(":memory:") as store,
        upstream.serve() as url,
        serving(settings, store=store) as server,
        serving(scripted(), accounts=True) as admin,
        serving(_relaying(url)) as relay,
    ):
        yield server, admin, relay


def _relaying(url: str) -> Settings:
    plain = scripted(session={"max_items": 300, "stall_seconds": 1e6})
    direct = RelayModel(upstream=url, api_key="sk-upstream", media="direct", fallback="none")
    return msgspec.structs.replace(plain, models={**plain.models, "far": direct})


async def fuzz(
    cases: int, seed: int = 1, first: int = 0, names: Sequence[str] = ()
) -> Counter[tuple[str, str]]:
    """Send so many generated texts; how often each entrance gave each answer.

    The case of a number depends on the seed and the number only. Raises Wrong with the
    cases that were not answered as they should be, or left an error or a traceback in the log.
    """
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        async with servers() as there, entrances(*there) as found:
            chosen = [name for name in found if not names or name in names]
            strings = {name: strings_of(found[name].samples) for name in chosen}
            for number in range(first, first + cases):
                rng = Random(f"{seed}:{number}")
                name = rng.choice(chosen)
                raw = mutated(rng.choice(found[name].samples), strings[name], rng)
                try:
                    answer = await found[name].send(raw, rng)
                    if complaints.found:
                        raise Wrong(complaints.found.pop())
                except Exception as exc:  # noqa: BLE001  all are reported, with their cases
                    wrong.append(f"{name}, seed {seed}, case {number}: {exc!r}\n{_excerpt(raw)!r}")
                    if len(wrong) == MAX_WRONG:
                        break
                    answer = "wrong"
                    await found[name].close()
                counts[name, answer] += 1
            await _converse(there[0])
            for each in there:
                each.complaints.clear()  # they are among those found here
    finally:
        logging.getLogger().removeHandler(complaints)
    wrong += complaints.found
    if wrong:
        raise Wrong("\n\n".join(wrong))
    return counts


def _excerpt(raw: bytes) -> bytes:
    return raw if len(raw) < 2_000 else raw[:1_000] + b" ... " + raw[-1_000:]


async def _converse(server: Server) -> None:
    """A valid turn, which must be answered."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{server.ws}/v1/realtime?model=m") as socket,
        asyncio.timeout(WAIT_SECONDS),
    ):
        for event in QUESTION:
            await socket.send_json(event)
        while (event := await socket.receive_json())["type"] != "response.done":
            pass
        if event["response"]["status"] != "completed":
            raise Wrong(f"a turn after all cases was not answered: {event}")
