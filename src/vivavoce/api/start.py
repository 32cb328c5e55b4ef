"""POST /start and /connect: where Pipecat's and Voxray's clients ask for a session.

The answer says where the session is: the address of a WebSocket, or an id for the offers of WebRTC
(vivavoce.transports.webrtc.small_webrtc). The session begins with the connection itself.
"""

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from vivavoce.api.client_secrets import ClientSecrets
from vivavoce.api.http_errors import json_response
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.codec import Reader
from vivavoce.protocol.rtvi_requests import (
    ConnectResponse,
    StartedData,
    StartRequest,
    StartResponse,
    options_of,
)
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.places import Place, uuid_of

SESSION_SECONDS = 3600.0  # how long an id waits for its first offer, and accepts later ones
MAX_STARTED = 10_000  # ids that are kept; the oldest are dropped
MAX_IDEMPOTENCY_KEY = 256  # characters
FirstId: TypeAlias = Callable[[str, str, float], Awaitable[str]]
"""Called with a key, an id and seconds; returns the id that was stored first for the key."""
TRANSPORTS = {"websocket": "websocket", "webrtc": "webrtc", "smallwebrtc": "webrtc"}


class PromisedSession(msgspec.Struct, frozen=True):
    """A WebRTC session that was requested and has not begun."""

    opening: Opening
    options: Mapping[str, str]
    idempotency: tuple[str, str] | None
    until: float


class PromisedSessions(msgspec.Struct):
    """The WebRTC sessions that were requested and have not begun, kept for SESSION_SECONDS.

    `clock` returns seconds. place: of this process among several; it is part of each id. first:
    returns the id that the whole cluster has for an idempotency key, given the new one of this
    process.
    """

    clock: Callable[[], float]
    place: Place | None = None
    first: FirstId | None = None
    _sessions: OrderedDict[str, PromisedSession] = msgspec.field(default_factory=OrderedDict)
    _by_key: dict[tuple[str, str], str] = msgspec.field(default_factory=dict)

    async def add(
        self, opening: Opening, options: Mapping[str, str], idempotency: tuple[str, str] | None
    ) -> str:
        """The id of a session; the same id for the same idempotency key."""
        self._forget_old()
        if idempotency and (known := self._by_key.get(idempotency)):
            return known
        session_id = str(uuid.uuid4() if self.place is None else uuid_of(self.place))
        if idempotency and self.first is not None:
            key = hashlib.sha256("\0".join(idempotency).encode(errors="replace")).hexdigest()
            first = await self.first(f"start:{key}", session_id, SESSION_SECONDS)
            if first != session_id:  # another process has made a session for this key
                return first
        until = self.clock() + SESSION_SECONDS
        self._sessions[session_id] = PromisedSession(opening, options, idempotency, until)
        if idempotency:
            self._by_key[idempotency] = session_id
        while len(self._sessions) > MAX_STARTED:
            self._forget_first()
        return session_id

    def find(self, session_id: str) -> tuple[Opening, Mapping[str, str]]:
        """Raises InvalidRequest for an id that is not valid, and HTTPNotFound."""
        try:
            uuid.UUID(session_id)
        except ValueError as exc:
            raise InvalidRequest("The id of the session is not a UUID.") from exc
        self._forget_old()
        if (session := self._sessions.get(session_id)) is None:
            raise web.HTTPNotFound
        return session.opening, session.options

    def _forget_old(self) -> None:
        while self._sessions and next(iter(self._sessions.values())).until < self.clock():
            self._forget_first()

    def _forget_first(self) -> None:
        _, session = self._sessions.popitem(last=False)
        if session.idempotency:
            self._by_key.pop(session.idempotency, None)


class StartRoutes:
    """Answers requests for sessions. ice_servers: as browsers take them, with the credentials of
    TURN.

    place, first: see PromisedSessions.
    """

    def __init__(
        self,
        client_secrets: ClientSecrets,
        ice_servers: tuple[dict[str, str], ...],
        clock: Callable[[], float],
        place: Place | None = None,
        first: FirstId | None = None,
    ) -> None:
        self.promised = PromisedSessions(clock, place, first)
        self._client_secrets = client_secrets
        self._ice_servers = ice_servers

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/start", self.start)
        app.router.add_post("/api/v1/start", self.voxray_start)
        app.router.add_post("/connect", self.connect)

    async def start(self, request: web.Request) -> web.Response:
        """An answer without further fields, because clients refuse fields that they do not know."""
        return json_response(await self._start(request))

    async def voxray_start(self, request: web.Request) -> web.Response:
        return json_response(StartedData(await self._start(request)), 201)

    async def connect(self, request: web.Request) -> web.Response:
        """The address of the WebSocket; a key, if one is needed, is part of it."""
        opening = self._client_secrets.admit(request)
        transport, options = await _asked(request, "websocket")
        if transport == "websocket":
            token = self._client_secrets.websocket_token(request)
            found = options | ({"token": token} if token else {})
            return json_response(ConnectResponse(ws_url=_websocket(request, found)))
        session_id = await self.promised.add(opening, options, None)
        address = f"{_scheme(request, 'http')}://{request.host}/sessions/{session_id}/api/offer"
        return json_response(ConnectResponse(webrtc_url=address))

    async def _start(self, request: web.Request) -> StartResponse:
        opening = self._client_secrets.admit(request)
        transport, options = await _asked(request, "webrtc")
        if transport == "websocket":
            token = self._client_secrets.websocket_token(request)
            return StartResponse(ws_url=_websocket(request, options), token=token)
        key = request.headers.get("Idempotency-Key", "")[:MAX_IDEMPOTENCY_KEY]
        session_id = await self.promised.add(opening, options, (opening.who, key) if key else None)
        servers = {"iceServers": list(self._ice_servers)} if self._ice_servers else None
        return StartResponse(session_id=session_id, ice_config=servers)


_request: Reader[StartRequest] = Reader(StartRequest, "request")


async def _asked(request: web.Request, default: str) -> tuple[str, dict[str, str]]:
    """The transport and the options that a request names. Raises InvalidRequest."""
    asked = _request.read(await request.read() or b"{}")
    name = request.query.get("transport") or asked.transport
    name = name or ("daily" if asked.create_daily_room else default)
    if (transport := TRANSPORTS.get(name)) is None:
        raise InvalidRequest(
            f"The transport '{name[:100]}' is not served. Use 'websocket' or 'webrtc'.",
            param="transport",
        )
    return transport, options_of(request.query) | options_of(asked.body)


def _websocket(request: web.Request, options: Mapping[str, str]) -> str:
    query = urlencode({"rtvi": "1", **options})
    return f"{_scheme(request, 'ws')}://{request.host}/ws?{query}"


def _scheme(request: web.Request, plain: str) -> str:
    """https or wss if the client's side of a proxy is encrypted."""
    forwarded = request.headers.get("X-Forwarded-Proto", request.scheme)
    return f"{plain}s" if forwarded == "https" else plain
