"""The WebSocket client of engines: settings, a connection kept ready, messages with deadlines.

Engines of recognition (socket_stt.py) open a WebSocket an utterance, engines of synthesis
(socket_tts.py) share one. Failures are those of engines/remote.py.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn, Self, TypeAlias

import aiohttp
import msgspec

from vivavoce.engines.base import BaseEngine
from vivavoce.engines.http import HttpClient, PositiveSeconds
from vivavoce.engines.remote import RemoteServer, ServerKind, parse_base_url
from vivavoce.errors import EngineError, EngineLost
from vivavoce.protocol import json
from vivavoce.secret import Secret, conceal

MAX_QUERY_ITEMS = 64
SPARE_MAX_AGE_S = 8.0
"""A connection that was not used for so long is not used any more: services close idle ones."""
CLOSE_TIMEOUT_S = 1.0
HEARTBEAT_S = 20.0
_decoder = msgspec.json.Decoder(dict[str, Any])
Socket: TypeAlias = aiohttp.ClientWebSocketResponse
Query: TypeAlias = Mapping[str, str]


class SocketSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which service and key, and how long to wait for it."""

    base_url: str
    """https:// or wss://."""
    api_key: str = ""
    model: str = ""
    connect_seconds: PositiveSeconds = 5.0
    first_result_seconds: PositiveSeconds = 10.0
    """From the end of the input to the first result."""
    gap_seconds: PositiveSeconds = 15.0
    """The longest silence within an answer."""
    headers: dict[str, str] = {}
    """Sent along with every connection."""
    query: dict[str, str] = {}
    """Added to that of the address."""

    def __post_init__(self) -> None:
        base = self.base_url.strip()
        for scheme in ("ws", "wss"):
            if base.startswith(f"{scheme}://"):
                base = f"http{scheme[2:]}{base.removeprefix(scheme)}"
        parse_base_url(base)
        key = str(self.api_key).strip() if isinstance(self.api_key, str) else self.api_key
        for text in (key, *self.headers, *self.headers.values()):
            if isinstance(text, str) and not (text.isascii() and text.isprintable()):
                raise ValueError("api_key and headers must be printable ASCII")
        if len(self.query) > MAX_QUERY_ITEMS:
            raise ValueError(f"query: at most {MAX_QUERY_ITEMS} items")
        msgspec.structs.force_setattr(self, "base_url", base)
        msgspec.structs.force_setattr(self, "api_key", key)
        conceal(self, "api_key", "headers")


def server_of(
    settings: SocketSettings, kind: ServerKind, *, key_header: str, key_scheme: str = "Bearer"
) -> RemoteServer:
    """The service as its errors name it. key_scheme: before the key; "": nothing is."""

    def revealed(text: Any) -> str:
        return text.reveal() if isinstance(text, Secret) else str(text)

    key = revealed(settings.api_key)
    headers = {name: revealed(value) for name, value in settings.headers.items()}
    if key:
        headers = {key_header: f"{key_scheme} {key}".lstrip(), **headers}
    server = RemoteServer(settings.base_url, kind, headers=headers, has_key=bool(key))
    server.hide(key)
    return server


class SocketEngine(BaseEngine):
    """An engine that speaks to a service over WebSockets. Its __init__ calls connect_to()."""

    _server: RemoteServer
    _client: HttpClient
    _path: str
    _settings: SocketSettings

    def connect_to(self, settings: SocketSettings, server: RemoteServer, path: str) -> None:
        """path: of the WebSockets, after base_url."""
        self._server, self._path, self._settings = server, path, settings
        self._client = HttpClient(server, connect_timeout_s=settings.connect_seconds)
        self._spare: tuple[Query, asyncio.Task[Socket], float] | None = None
        self._last: Query | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._drop_spare()
        if self._closing:
            await asyncio.wait(self._closing)
        await self._client.__aexit__(*exc)

    def warm(self) -> None:
        """Open the connection that comes next, with the query of the last one."""
        if self._last is None:
            self._last = self.first_query()
        clock = asyncio.get_running_loop().time
        if self._spare is not None and clock() - self._spare[2] < SPARE_MAX_AGE_S:
            return
        self._drop_spare()
        opening = asyncio.create_task(self.connect(self._last, self._path))
        opening.add_done_callback(_retrieve)
        self._spare = (self._last, opening, clock())

    def first_query(self) -> Query:
        """That of the connection which is opened before the first request is known."""
        return self._settings.query

    async def take(self, query: Query) -> Socket:
        """An open WebSocket that is not used otherwise. Raises EngineError."""
        self._last = query
        spare, self._spare = self._spare, None
        if spare is not None:
            known, opening, at = spare
            fresh = asyncio.get_running_loop().time() - at < SPARE_MAX_AGE_S
            if known == query and fresh:
                with suppress(EngineError):
                    socket = await opening
                    if not socket.closed:
                        return socket
            else:
                self._spare = spare
                self._drop_spare()
        return await self.connect(query, self._path)

    def give_back(self, socket: Socket) -> None:
        """Close it, in the background."""
        task = asyncio.create_task(_close(socket))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def receive(self, socket: Socket) -> dict[str, Any] | None:
        """The next message in JSON; None: the service has closed the connection as it should.

        Raises EngineLost: it broke; EngineError: it is something else, or reports a failure.
        """
        message = await socket.receive()
        match message.type:
            case aiohttp.WSMsgType.TEXT:
                try:
                    return json.decode(message.data, _decoder)
                except (ValueError, RecursionError) as exc:
                    raise self._server.unexpected("something else") from exc
            case aiohttp.WSMsgType.BINARY:
                raise self._server.unexpected("bytes")
            case aiohttp.WSMsgType.CLOSE if message.data == aiohttp.WSCloseCode.OK:
                return None
            case aiohttp.WSMsgType.CLOSE if message.extra:
                raise self._server.failed(f"{message.extra} ({message.data})")
        self.lose()

    def lose(self) -> NoReturn:
        """Raise EngineLost: the connection broke in the middle."""
        raise EngineLost(str(self._server.broken_off()), retry_after_s=0.0)

    async def send(self, socket: Socket, message: object) -> None:
        """Bytes as they are, everything else as JSON. Raises EngineLost."""
        try:
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_str(msgspec.json.encode(message).decode())
        except (aiohttp.ClientError, ConnectionError):
            self.lose()

    async def within(
        self, receiving: Callable[[], Any], begun: asyncio.Future[Any], first_s: float
    ) -> Any:
        """What receiving() gives; at the latest first_s after `begun` is done.

        Raises EngineError: nothing came in time; and what `begun` raised.
        """
        waiting = asyncio.ensure_future(receiving())
        try:
            await asyncio.wait((waiting, begun), return_when=asyncio.FIRST_COMPLETED)
            if begun.done():
                begun.result()
            await asyncio.wait((waiting,), timeout=first_s)
            if not waiting.done():
                raise self._server.late(first_s)
            return waiting.result()
        finally:
            waiting.cancel()
            await asyncio.wait((waiting,))

    async def connect(self, query: Query, path: str) -> Socket:
        """A new WebSocket. Raises EngineError."""
        return await self._client.connect_websocket(
            path,
            query=query,
            heartbeat_s=HEARTBEAT_S,
            timeout_s=self._settings.connect_seconds,
        )

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is None:
            return
        task = asyncio.create_task(_drop(spare[1]))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _drop(opening: asyncio.Task[Socket]) -> None:
    opening.cancel()
    with suppress(EngineError, asyncio.CancelledError):
        await _close(await opening)


async def _close(socket: Socket) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()


def _retrieve(task: asyncio.Task[Socket]) -> None:
    if not task.cancelled():
        task.exception()  # raised again for the caller that takes the connection
