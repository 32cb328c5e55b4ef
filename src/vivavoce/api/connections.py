"""Bounds the connections of a server: their number, and the time in which a request must arrive.

aiohttp has a timer for idle connections between requests and none for a request that never becomes
complete. Here each connection's protocol is wrapped, which sees every byte before aiohttp does, and
the server's two public hooks say when the head of a request is complete and when its handler ends.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from vivavoce.api.paths import canonical
from vivavoce.limits.connections import ConnectionLimits

log = logging.getLogger(__name__)

RETRY_SECONDS = 5
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n"
    b"Retry-After: %d\r\n\r\n" % RETRY_SECONDS
)
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_LOG_AGAIN_SHARE = 0.9  # a full table is logged anew after it has been emptied below this


class ConnectionTable:
    """All connections of one server.

    Where the table is full, the connection that has waited longest without a complete request is
    closed for a new one; where every connection has one, the new one is answered 503.
    """

    def __init__(
        self,
        server: web.Server,
        limits: ConnectionLimits,
        max_connections: int,
    ) -> None:
        self.server = server
        self.limits = limits
        self._max = max_connections
        self._connections: dict[object, HttpConnection] = {}  # by aiohttp's protocol
        self._waiting: dict[HttpConnection, None] = {}  # those without a request, the oldest first
        self._logged_full = False
        self._make_request = server.request_factory
        self._handle_request = server.request_handler
        # these two are declared as methods, and set per server by aiohttp's own constructor
        hooks = cast(Any, server)
        hooks.request_factory = self._request_arrived
        hooks.request_handler = self._handle

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def room(self) -> int:
        """How many more connections are possible."""
        return self._max - len(self._connections)

    def __call__(self) -> "HttpConnection":
        """The protocol of a new connection, for loop.create_server()."""
        return HttpConnection(self)

    def add(self, connection: "HttpConnection") -> bool:
        """Whether there is space for a new connection."""
        if len(self._connections) >= self._max:
            if not self._logged_full:
                self._logged_full = True
                log.warning(
                    "all %d connections are in use; raise [server] max_connections or the limit "
                    "of open files, if these are clients",
                    self._max,
                )
            if not self._waiting:
                return False
            oldest = next(iter(self._waiting))
            oldest.drop()
            self.remove(oldest)
        self._connections[connection.inner] = connection
        self._waiting[connection] = None
        return True

    def remove(self, connection: "HttpConnection") -> None:
        self._connections.pop(connection.inner, None)
        self._waiting.pop(connection, None)
        if len(self._connections) < self._max * _LOG_AGAIN_SHARE:
            self._logged_full = False

    def _request_arrived(self, message: Any, payload: Any, protocol: Any, *rest: Any) -> Any:
        """Make the request of a complete head; its address takes the form that is served."""
        if (connection := self._connections.get(protocol)) is not None:
            self._waiting.pop(connection, None)
            connection.head_arrived(payload)
        url = canonical(message.url)
        if url is not message.url:
            message = message._replace(url=url, path=url.raw_path_qs)
        return self._make_request(message, payload, protocol, *rest)

    async def _handle(self, request: Any) -> web.StreamResponse:
        handle: Callable[[Any], Awaitable[web.StreamResponse]] = self._handle_request
        try:
            return await handle(request)
        finally:
            if (connection := self._connections.get(request.protocol)) is not None:
                self._waiting[connection] = None
                connection.request_ended()


class HttpConnection(asyncio.Protocol):
    """One connection: aiohttp's protocol, with deadlines."""

    __slots__ = (
        "_body",
        "_busy",
        "_limits",
        "_loop",
        "_received",
        "_table",
        "_timer",
        "_transport",
        "inner",
    )

    def __init__(self, table: ConnectionTable) -> None:
        self.inner: asyncio.Protocol = table.server()
        self._table = table
        self._limits = table.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None  # while it is in the table
        self._busy = False  # whether a request is being handled
        self._body: Any = None  # the payload of a request that is still arriving
        self._received = 0  # bytes since the timer was set
        self._timer: asyncio.TimerHandle | None = None

    # --- asyncio.Protocol

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, made)  # uvloop's is one but for its class
        if not self._table.add(self):
            transport.write(_FULL)
            transport.close()
            return
        self._transport = transport
        self.inner.connection_made(transport)
        self._set_timer(self._head_is_late)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:  # it was refused
            return
        if self._timer is None and not self._busy:
            self._set_timer(self._head_is_late)
        if self._timer is not None:
            self._received += len(data)
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        if self._transport is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self.inner.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._transport is None:
            return
        self._transport = None
        self._cancel_timer()
        self._table.remove(self)
        self.inner.connection_lost(cast(Exception, exc))

    # --- the phases of a request

    def head_arrived(self, payload: Any) -> None:
        """The head of a request is complete; its body, if it has one, is `payload`."""
        self._busy = True
        self._cancel_timer()
        if not payload.is_eof() and self._limits.min_body_bytes:
            self._body = payload
            self._set_timer(self._check_body)

    def request_ended(self) -> None:
        self._busy = False

    def drop(self) -> None:
        """Close the connection at once; a request in progress fails as after a disconnect."""
        if self._transport is not None:
            self._transport.abort()

    def _head_is_late(self) -> None:
        self._timer = None
        if self._transport is not None and not self._busy:
            if self._received:
                self._transport.write(_TOO_SLOW)
            self._transport.close()

    def _check_body(self) -> None:
        """Drop a body that arrives too slowly, unless the server itself does not read it now."""
        self._timer = None
        body, self._body = self._body, None
        if self._transport is None or body.is_eof() or body.exception() is not None:
            return
        if self._transport.is_reading() and self._received < self._limits.min_body_bytes:
            log.info("a request body that arrived too slowly was dropped")
            self.drop()
            return
        self._body = body
        self._set_timer(self._check_body)

    def _set_timer(self, action: Callable[[], None]) -> None:
        self._received = 0
        self._timer = self._loop.call_later(self._limits.head_seconds, action)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
