"""Passes a request on to another process, and its answer back: any request, an event stream, or a
WebSocket. Which process that is, forwarding.py decides.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from vivavoce.transports.frame_guard import MAX_MESSAGE_BYTES
from vivavoce.workers.hops import HOP_HEADER, HopSigner

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 1.0
CLOSE_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 60.0
"""The longest time between two pieces of an answer; event streams send something more often."""
HEARTBEAT_S = 10.0
"""Between pings to another process; without a pong for half of it the connection is closed."""
ADDRESS_HEADER = "X-Vivavoce-Client"
"""The header with the address of the client, between workers."""
EVENT_STREAM = "text/event-stream"
_HOP_HEADERS = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailers", "transfer-encoding", "upgrade", "content-length", "host"),
        *(HOP_HEADER.lower(), ADDRESS_HEADER.lower()),
    }
)  # RFC 9110, 7.6.1, those that the client library writes, and our own


class ForwardTarget(NamedTuple):
    """A process to which requests are forwarded."""

    url: str
    socket: str = ""
    """Its Unix socket; "": it is another node."""


class ForwardClient:
    """Connections to other processes."""

    def __init__(self, signer: HopSigner | None = None) -> None:
        """signer: signs the address of the client for other nodes; None: there are none."""
        self._signer = signer
        self._sessions: dict[str, aiohttp.ClientSession] = {}  # by Unix socket or address

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    @asynccontextmanager
    async def asked(
        self, request: web.Request, target: ForwardTarget
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of another process to the same request."""
        async with self.session(target).request(
            request.method,
            URL(f"{target.url}{request.raw_path}", encoded=True),
            headers=self._headers(request, target),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            yield answer

    async def request(self, request: web.Request, target: ForwardTarget) -> web.StreamResponse:
        """The answer of another process, for the client.

        Raises aiohttp.ClientError and TimeoutError if nothing has been sent to the client yet.
        """
        async with self.asked(request, target) as answer:
            headers = CIMultiDict(
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in _HOP_HEADERS
            )
            if answer.content_type != EVENT_STREAM:
                return web.Response(status=answer.status, headers=headers, body=await answer.read())
            stream = web.StreamResponse(status=answer.status, headers=headers)
            try:
                await stream.prepare(request)
                async for piece in answer.content.iter_any():
                    await stream.write(piece)
                await stream.write_eof()
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as exc:
                log.info("%s: the stream of another process broke off: %s", request.path, exc)
                if request.transport is not None:
                    request.transport.abort()  # an orderly end would say that it is complete
            return stream

    async def web_socket(
        self, request: web.Request, target: ForwardTarget, *, open_timeout_s: float
    ) -> web.StreamResponse:
        """Connect the client through until one side closes.

        Raises aiohttp.ClientError and TimeoutError if the other process does not open a WebSocket:
        WSServerHandshakeError if it refuses.
        """
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        headers = CIMultiDict(
            (name, value)
            for name, value in self._headers(request, target).items()
            if not name.lower().startswith("sec-websocket-")
        )
        async with asyncio.timeout(open_timeout_s):
            there = await self.session(target).ws_connect(
                URL(f"{target.url}{request.raw_path}", encoded=True),
                headers=headers,
                protocols=[name.strip() for name in offered.split(",") if name.strip()],
                autoping=False,
                heartbeat=HEARTBEAT_S,
                compress=0,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
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
        except ConnectionError as exc:
            log.info("%s: the client has gone: %s", request.path, exc)
        finally:
            await there.close()
        return here

    def session(self, target: ForwardTarget) -> aiohttp.ClientSession:
        """The connections to a process."""
        key = target.socket or target.url
        if key not in self._sessions:
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(target.socket, limit=0)
                if target.socket
                else aiohttp.TCPConnector(limit=0)
            )
            self._sessions[key] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=ANSWER_TIMEOUT_S
                ),
                auto_decompress=False,
            )
        return self._sessions[key]

    def _headers(self, request: web.Request, target: ForwardTarget) -> CIMultiDict[str]:
        """The headers of a request, with the address and the scheme of its client."""
        headers = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _HOP_HEADERS
        )
        headers["Host"] = request.host
        client = request.remote or ""
        if target.socket:
            headers[ADDRESS_HEADER] = client
        elif self._signer is not None:
            headers[HOP_HEADER] = self._signer.sign(request.method, request.raw_path, client)
        headers.setdefault("X-Forwarded-Proto", request.scheme)
        return headers


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
