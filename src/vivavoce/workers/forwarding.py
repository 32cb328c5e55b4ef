"""Requests that another process must answer: found by the ids in them, and forwarded to it.

Each worker of several has a name, such as w1, which stands in the ids that it makes: rtc_w1_…,
sess_w1_…. A session that /start has promised has a UUID, whose last byte is the number of the
worker. A request that names such an id is forwarded to its worker over a Unix socket, with its key
and its address; the worker checks them as it checks its own.
"""

import asyncio
import json
import logging
import re
import socket
import uuid
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict

from vivavoce.api.http_errors import json_response
from vivavoce.api.sessions import LiveSessionList
from vivavoce.runtime.live_sessions import LiveSessionObject
from vivavoce.transports.frame_guard import MAX_MESSAGE_BYTES
from vivavoce.workers.messages import client_socket, supervisor_socket

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2.0
SUMMARY_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 2.0
ADDRESS_HEADER = "X-Vivavoce-Client"
"""The address of the client, between workers."""
SUMMARIES = frozenset({"/metrics", "/health", "/ready"})
"""Paths that the supervisor answers for all workers."""
SESSIONS_PATH = "/v1/sessions"
"""A list to which each worker has a part."""
EVENT_STREAM = "text/event-stream"
MAX_BODY_BYTES = 1 << 20
"""Of an offer in which the id of a call is looked for."""
_ID = re.compile(r"(?:rtc|sess)_w(\d+)_")
_OFFER_PATHS = frozenset({"/api/offer"})
_START_PATHS = frozenset({"/start", "/api/v1/start"})
_HOP_HEADERS = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailers", "transfer-encoding", "upgrade", "content-length", "host"),
    }
)  # RFC 9110, 7.6.1, and those that the client library writes


def worker_of(id_: str) -> int | None:
    """The number of the worker that made the id of a call or a session; None: it names none."""
    found = _ID.match(id_)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which of several workers this process is, and where the others are."""

    index: int
    count: int
    folder: str
    """Where the Unix sockets are."""
    sockets: tuple[socket.socket, ...] = ()
    """They have the address at which it serves."""

    @property
    def name(self) -> str:
        """What stands in the ids that it makes."""
        return f"w{self.index}"

    @property
    def client_socket(self) -> str:
        return client_socket(self.folder, self.index)

    async def other(self, request: web.Request) -> int | None:
        """The other worker that must answer a request; None: this one may."""
        number = await self._owner(request)
        return None if number in (None, self.index) or number >= self.count else number

    async def _owner(self, request: web.Request) -> int | None:
        resource = request.match_info.route.resource
        route = "" if resource is None else resource.canonical
        named = request.match_info.get("call_id") or request.query.get("call_id")
        named = named or request.query.get("session_id")
        if named:
            return worker_of(named)
        if session := request.match_info.get("session_id"):  # live, or promised by /start
            made_by = worker_of(session)
            return _worker_of_uuid(session) if made_by is None else made_by
        if route in _OFFER_PATHS and (request.content_length or 0) <= MAX_BODY_BYTES:
            return worker_of(_connection_id(await request.read()))
        if route in _START_PATHS and (key := request.headers.get("Idempotency-Key")):
            return zlib.crc32(key.encode(errors="replace")) % self.count
        return None


def _worker_of_uuid(text: str) -> int | None:
    try:
        return uuid.UUID(text).bytes[-1]
    except ValueError:
        return None


def _connection_id(body: bytes) -> str:
    """The pc_id of an offer; "" without one."""
    try:
        given = json.loads(body)
    except ValueError:
        return ""
    named = given.get("pc_id") if isinstance(given, dict) else None
    return named if isinstance(named, str) else ""


class Forwarder:
    """The middleware of a worker. An async context manager."""

    def __init__(self, place: WorkerPlace) -> None:
        self._place = place
        self._sessions: dict[str, aiohttp.ClientSession] = {}  # by Unix socket

    def add_to(self, app: web.Application) -> None:
        """After the authentication: what reaches this has passed it."""

        @web.middleware
        async def forward(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self.respond(request, handler)

        app.middlewares.append(forward)
        app.on_cleanup.append(self.close)

    async def respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if ADDRESS_HEADER in request.headers and _is_local_socket(request):
            return await handler(request.clone(remote=request.headers[ADDRESS_HEADER]))
        if request.path in SUMMARIES:
            return await self._summary(request) or await handler(request)
        if (request.method, request.path) == ("GET", SESSIONS_PATH):
            return await self._all_sessions(request, await handler(request))
        number = await self._place.other(request)
        if number is None:
            return await handler(request)
        path = client_socket(self._place.folder, number)
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._web_socket(request, path)
            return await self._request(request, path)
        except (aiohttp.ClientConnectionError, TimeoutError) as exc:
            log.warning("worker w%d does not answer: %s", number, exc)
            # a conversation may go on here, and a session may be promised here
            if "session_id" in request.query or request.path in _START_PATHS:
                return await handler(request)
            raise web.HTTPServiceUnavailable(
                text="The process that has this call is being restarted.",
                headers={"Retry-After": "1"},
            ) from exc

    async def close(self, _app: web.Application) -> None:
        for session in self._sessions.values():
            await session.close()

    async def _summary(self, request: web.Request) -> web.StreamResponse | None:
        """The supervisor's answer; None: it does not answer, and this process speaks for itself."""
        try:
            async with asyncio.timeout(SUMMARY_TIMEOUT_S):
                return await self._request(request, supervisor_socket(self._place.folder))
        except (aiohttp.ClientError, TimeoutError) as exc:
            log.warning("the supervisor does not answer: %s", exc)
            return None

    async def _all_sessions(
        self, request: web.Request, own: web.StreamResponse
    ) -> web.StreamResponse:
        """The sessions of all workers. `own`: those of this one; the others check the key, too."""
        if not isinstance(own, web.Response) or not isinstance(own.body, bytes):
            return own
        place = self._place
        others = [number for number in range(place.count) if number != place.index]
        found = await asyncio.gather(*(self._sessions_of(request, number) for number in others))
        lists = [msgspec.json.decode(own.body, type=LiveSessionList), *filter(None, found)]
        first = lists[0]
        return json_response(
            msgspec.structs.replace(
                first,
                data=sorted((one for each in lists for one in each.data), key=_opened_at),
                max_sessions=sum(each.max_sessions for each in lists),
                cpu=sum(each.cpu for each in lists),
                failures=sum(each.failures for each in lists),
            )
        )

    async def _sessions_of(self, request: web.Request, number: int) -> LiveSessionList | None:
        """Those of another worker; None: it does not answer."""
        path = client_socket(self._place.folder, number)
        try:
            async with asyncio.timeout(SUMMARY_TIMEOUT_S), self._asked(request, path) as answer:
                return msgspec.json.decode(await answer.read(), type=LiveSessionList)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as exc:
            log.warning("worker w%d does not say which sessions it has: %s", number, exc)
            return None

    @asynccontextmanager
    async def _asked(
        self, request: web.Request, path: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of another process to the same request."""
        async with self._client(path).request(
            request.method,
            f"http://localhost{request.raw_path}",
            headers=_headers(request),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            yield answer

    async def _request(self, request: web.Request, path: str) -> web.StreamResponse:
        async with self._asked(request, path) as answer:
            headers = CIMultiDict(
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in _HOP_HEADERS
            )
            if answer.content_type != EVENT_STREAM:
                return web.Response(status=answer.status, headers=headers, body=await answer.read())
            stream = web.StreamResponse(status=answer.status, headers=headers)
            await stream.prepare(request)
            async for piece in answer.content.iter_any():
                await stream.write(piece)
            await stream.write_eof()
            return stream

    async def _web_socket(self, request: web.Request, path: str) -> web.StreamResponse:
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        headers = CIMultiDict(
            (name, value)
            for name, value in _headers(request).items()
            if not name.lower().startswith("sec-websocket-")
        )
        try:
            there = await self._client(path).ws_connect(
                f"http://localhost{request.raw_path}",
                headers=headers,
                protocols=[name.strip() for name in offered.split(",") if name.strip()],
                autoping=False,
                compress=0,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
        except aiohttp.WSServerHandshakeError as exc:
            raise _refusal(exc.status) from exc
        here = web.WebSocketResponse(
            autoping=False,
            compress=False,
            max_msg_size=MAX_MESSAGE_BYTES,
            protocols=[there.protocol] if there.protocol else (),
            timeout=CLOSE_TIMEOUT_S,
        )
        try:
            await here.prepare(request)
            await _join(here, there)
        finally:
            await there.close()
        return here

    def _client(self, path: str) -> aiohttp.ClientSession:
        if path not in self._sessions:
            self._sessions[path] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path, limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                auto_decompress=False,
            )
        return self._sessions[path]


def _opened_at(session: LiveSessionObject) -> float:
    return session.opened_at


def _is_local_socket(request: web.Request) -> bool:
    """Whether a request came over a Unix socket, where only this user's processes connect."""
    transport = request.transport
    return transport is not None and not isinstance(transport.get_extra_info("sockname"), tuple)


def _headers(request: web.Request) -> CIMultiDict[str]:
    """Those of a request, with the address and the scheme of its client."""
    headers = CIMultiDict(
        (name, value) for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS
    )
    headers["Host"] = request.host
    headers[ADDRESS_HEADER] = request.remote or ""
    headers.setdefault("X-Forwarded-Proto", request.scheme)
    return headers


def _refusal(status: int) -> web.HTTPException:
    match status:
        case 401:
            return web.HTTPUnauthorized()
        case 403:
            return web.HTTPForbidden()
        case 404:
            return web.HTTPNotFound()
        case _:
            return web.HTTPServiceUnavailable(headers={"Retry-After": "1"})


async def _join(here: web.WebSocketResponse, there: aiohttp.ClientWebSocketResponse) -> None:
    """Pass frames both ways until one side closes; the other is closed with the same code."""
    both = [
        asyncio.create_task(_pass(here, there)),
        asyncio.create_task(_pass(there, here)),
    ]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pass(source: _Socket, sink: _Socket) -> None:
    try:
        while True:
            message = await source.receive()
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    await sink.send_str(message.data)
                case aiohttp.WSMsgType.BINARY:
                    await sink.send_bytes(message.data)
                case aiohttp.WSMsgType.PING:
                    await sink.ping(message.data)
                case aiohttp.WSMsgType.PONG:
                    await sink.pong(message.data)
                case _:
                    break
    except ConnectionError:
        return
    code = source.close_code
    reason = message.extra if isinstance(message.extra, str) else ""
    if code is None or code in (1005, 1006):
        code = 1001 if code is None or code == 1006 else 1000
    await sink.close(code=code, message=reason.encode()[:123])
