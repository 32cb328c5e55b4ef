"""The HTTP and WebSocket client of engines that speak to a server elsewhere.

One `HttpClient` is one server as one user of it: a pool of kept-alive connections, deadlines,
bounded bodies, no redirects. Failures are those of engines/remote.py.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from random import getrandbits
from typing import Annotated, Any, Self, TypeAlias

import aiohttp
import msgspec
from aiohttp._websocket.helpers import websocket_mask
from msgspec import Meta

from vivavoce.engines.remote import RemoteServer
from vivavoce.errors import EngineError
from vivavoce.protocol.ws_frames import TEXT, Pass, PassingReader, frame_head

MAX_REFUSAL_BYTES = 1 << 16
MAX_MESSAGE_BYTES = 16 << 20
"""Of a WebSocket message, where the caller sets no other bound."""
MAX_UNSENT_BYTES = 32 * 1024
"""In a connection, above which send_now() sends nothing."""
KEEP_ALIVE_TIMEOUT_S = 60.0
"""A pause in a conversation should not cost a new TLS handshake."""
SETTLE_TIMEOUT_S = 0.1
"""For the end of a body whose content is complete; then the connection is closed."""

PositiveSeconds: TypeAlias = Annotated[float, Meta(gt=0)]
RequestBody: TypeAlias = bytes | Callable[[], aiohttp.FormData]
"""JSON, or what makes a multipart form: it is made anew when the request is sent again."""
Authorize: TypeAlias = Callable[[], Awaitable[Mapping[str, str]]]
"""Headers with credentials that change over time, asked for before each request."""


class ResponseTimeouts(msgspec.Struct, frozen=True):
    """How long to wait for a response, in seconds."""

    first_s: float
    """From the request to its head, and from there to the first byte of the body."""
    gap_s: float
    """Between two parts of the body."""


class HttpResponse:
    """A response whose body is read once: by part(), parts() or read()."""

    def __init__(
        self, response: aiohttp.ClientResponse, server: RemoteServer, timeouts: ResponseTimeouts
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.content_type
        self.complete = False
        """Set when all that matters has come: then the connection is kept for the next request."""
        self._response = response
        self._server = server
        self._timeouts = timeouts

    async def part(self, deadline: float) -> bytes:
        """What has come, at least one byte; b"" at the end. deadline: in the loop's time.

        Raises TimeoutError at the deadline, EngineError where the connection breaks.
        """
        try:
            async with asyncio.timeout_at(deadline):
                part = await self._response.content.readany()
        except aiohttp.ClientError as exc:
            raise self._server.broken_off() from exc
        if not part:
            self.complete = True
        return part

    async def parts(self) -> AsyncGenerator[bytes]:
        """The body as it comes. Raises EngineError where it should have gone on."""
        clock = asyncio.get_running_loop().time
        seconds, error = self._timeouts.first_s, self._server.late
        while True:
            try:
                part = await self.part(clock() + seconds)
            except TimeoutError as exc:
                raise error(seconds) from exc
            if not part:
                return
            yield part
            seconds, error = self._timeouts.gap_s, self._server.silent

    async def read(self, max_bytes: int, deadline: float) -> bytes:
        """The whole body. Raises EngineError: it is longer, breaks off, or is late."""
        body = bytearray()
        try:
            while part := await self.part(deadline):
                body += part
                if len(body) > max_bytes:
                    raise self._server.unexpected(f"more than {max_bytes / (1 << 20):g} MiB")
        except TimeoutError as exc:
            raise self._server.late(self._timeouts.first_s) from exc
        return bytes(body)

    async def refusal(self, timeout_s: float, model: str | None = None) -> EngineError:
        """The error for a status that is not that of success, with what of the body comes soon."""
        body = await _beginning(self._response, timeout_s)
        return self._server.refused(self.status, self.headers, body, model)

    async def release(self) -> None:
        """Give the connection back if the end of the body has come or comes at once."""
        if not self.complete:
            self._response.close()
            return
        try:
            with suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(SETTLE_TIMEOUT_S):
                    while await self._response.content.readany():
                        pass
        finally:
            self._response.release()


async def _beginning(response: aiohttp.ClientResponse, timeout_s: float) -> bytes:
    """At most MAX_REFUSAL_BYTES of the body; less if no more comes in time."""
    body = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError):  # the status says enough
        async with asyncio.timeout(timeout_s):
            while len(body) < MAX_REFUSAL_BYTES and (part := await response.content.readany()):
                body += part
    return bytes(body[:MAX_REFUSAL_BYTES])


async def _note_reuse(
    session: aiohttp.ClientSession, context: Any, params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.append(True)


class FrameProtocol(asyncio.Protocol):
    """Stands before the protocol of a connection that was upgraded.

    A read that take() takes goes no further; the layers behind it would cost as much as all else.
    """

    __slots__ = ("_inner", "_take", "_taken")

    def __init__(
        self,
        inner: asyncio.Protocol,
        take: Callable[[bytes], bool],
        taken: Callable[[], None],
    ) -> None:
        """taken: called behind each read that was taken."""
        self._inner = inner
        self._take = take
        self._taken = taken

    def data_received(self, data: bytes) -> None:
        # Python 3.11 is quicker with a local variable than with self._take(data): that looks for a
        # method first
        take = self._take
        if take(data):
            taken = self._taken
            taken()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)


class DirectSocket:
    """Mixed into an aiohttp WebSocket, of a client or a server: frames in and out without a task.

    It uses private names of aiohttp; tests fail when they change.
    """

    _closed: bool
    _heartbeat: float | None
    _heartbeat_cb: asyncio.TimerHandle | None
    _heartbeat_when: float
    _pong_response_cb: asyncio.TimerHandle | None
    _passing: PassingReader | None = None
    _transport: asyncio.Transport | None = None
    _head: tuple[int, int, bytes] = (0, 0, b"")
    """The opcode, the size and the head of the last frame: those of audio are mostly alike."""
    _loop: Any

    @property
    def passes(self) -> Pass | None:
        """Gets each text as soon as it has come, where none before it waits to be received."""
        return self._passing.passes if self._passing else None

    @passes.setter
    def passes(self, passes: Pass | None) -> None:
        if self._passing is None:
            return
        self._passing.passes = passes
        transport = self._transport
        if passes is None or transport is None or transport.is_closing():
            return
        inner = transport.get_protocol()
        if isinstance(inner, asyncio.Protocol) and not isinstance(inner, FrameProtocol):
            take = self._take(self._passing)
            transport.set_protocol(FrameProtocol(inner, take, self._on_data_received))

    def _take(self, passing: PassingReader) -> Callable[[bytes], bool]:
        """What gets each read first: see PassingReader.take()."""
        return passing.take

    async def receive(self, timeout: float | None = None) -> Any:
        """The next message that has not passed."""
        passing, received = self._passing, super().receive(timeout)  # type: ignore[misc]
        if passing is None:
            return await received
        passing.idle = True
        try:
            return await received
        finally:
            passing.idle = False

    def send_now(self, message: bytes, opcode: int = TEXT) -> bool:
        """Send a frame without waiting. False: more waits already than should, or it is closed."""
        transport = self._transport
        if self._closed or transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return False
        size = len(message)
        last, last_size, head = self._head
        if size != last_size or opcode != last:
            head = frame_head(opcode, size, masked=False)
            self._head = (opcode, size, head)
        transport.write(head + message)
        return True

    def _on_data_received(self) -> None:
        """Put off the next ping. aiohttp schedules a call for each read to do that."""
        if self._pong_response_cb is not None or self._heartbeat_cb is None:
            super()._on_data_received()  # type: ignore[misc]
        elif self._heartbeat:
            self._heartbeat_when = self._loop.time() + self._heartbeat


class ClientSocket(DirectSocket, aiohttp.ClientWebSocketResponse):
    """A WebSocket to a server."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        connection = self._response.connection
        self._transport = connection.transport if connection else None
        protocol: Any = connection.protocol if connection else None
        if protocol is not None:  # 2 KiB that only further HTTP requests would use
            protocol._parser, protocol._buffer, self._response._raw_headers = None, (), ()

    def send_now(self, message: bytes, opcode: int = TEXT) -> bool:
        """See DirectSocket. Frames of a client are masked.

        All of it stands here again, because the interpreter adapts a function to one class.
        """
        transport = self._transport
        if self._closed or transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return False
        size = len(message)
        last, last_size, head = self._head
        if size != last_size or opcode != last:
            head = frame_head(opcode, size, masked=True)
            self._head = (opcode, size, head)
        mask = getrandbits(32).to_bytes(4, "big")
        masked = bytearray(message)
        websocket_mask(mask, masked)
        transport.write(head + mask + masked)
        return True

    @property
    def _parser(self) -> Any:
        """aiohttp puts its reader here, and gives the connection what it finds here."""
        return self._passing

    @_parser.setter
    def _parser(self, reader: Any) -> None:
        self._passing = None if reader is None else PassingReader(reader)


class HttpClient:
    """Requests and WebSockets to one server, on connections that are kept alive."""

    def __init__(
        self,
        server: RemoteServer,
        *,
        connect_timeout_s: float,
        authorize: Authorize | None = None,
    ) -> None:
        self.server = server
        self._authorize = authorize
        self._connect_timeout_s = connect_timeout_s
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # limit=0: concurrency is limited above, and a queue here would be unseen
        self._kept = self._session(
            aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_TIMEOUT_S)
        )
        self._fresh = self._session(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(self, *exc: object) -> None:
        kept, fresh = self._sessions()
        self._kept = self._fresh = None
        try:
            await kept.close()
        finally:  # where it is cancelled again, too
            await fresh.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        body: RequestBody | None = None,
        *,
        timeouts: ResponseTimeouts,
        deadline: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[HttpResponse]:
        """The response, whatever its status, its body unread.

        headers: of this request alone; secrets belong into those of the server, which are masked.
        Leaving the block before the end of the body closes the connection, unless `complete` is
        set. A redirect is not followed. Raises EngineError: no response comes in first_s, or by
        the deadline, in the loop's time, where one is given.
        """
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + timeouts.first_s
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._send(method, path, body, await self._headers(headers))
        except aiohttp.ClientError as exc:
            raise self.server.unreachable(exc) from exc
        except TimeoutError as exc:
            raise self.server.late(timeouts.first_s) from exc
        answer = HttpResponse(response, self.server, timeouts)
        try:
            yield answer
        finally:
            await answer.release()

    async def connect_websocket(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        protocols: Sequence[str] = (),
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        heartbeat_s: float | None = None,
        timeout_s: float,
    ) -> ClientSocket:
        """An open WebSocket, without compression; the caller closes it.

        query: added to that of the base URL. headers: as for request(). heartbeat_s: seconds
        between pings, each to be answered in half of that. Raises EngineError: not open in time.
        """
        kept, _ = self._sessions()
        try:
            async with asyncio.timeout(timeout_s):
                socket = await kept.ws_connect(
                    self.server.url(path).update_query(query or {}),
                    headers=await self._headers(headers),
                    protocols=protocols,
                    max_msg_size=max_message_bytes,
                    heartbeat=heartbeat_s,
                )
        except aiohttp.ClientError as exc:
            raise self.server.unreachable(exc) from exc
        except TimeoutError as exc:
            raise self.server.late(timeout_s) from exc
        assert isinstance(socket, ClientSocket)
        return socket

    async def _headers(self, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Those of one request, with credentials that change over time. Raises EngineError."""
        if self._authorize is None:
            return headers
        return {**(headers or {}), **await self._authorize()}

    async def _send(
        self, method: str, path: str, body: RequestBody | None, headers: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        """A kept connection may have been closed by the server meanwhile: then once more, on a
        new one. The server has not begun to answer, so nothing is answered twice."""
        kept, fresh = self._sessions()
        url = self.server.url(path)
        reused: list[bool] = []  # not empty: the connection had been used before
        if isinstance(body, bytes):
            headers = {"Content-Type": "application/json", **(headers or {})}
        try:
            return await kept.request(
                method,
                url,
                data=_payload(body),
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=reused,
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not reused:
                raise
        return await fresh.request(
            method, url, data=_payload(body), headers=headers, allow_redirects=False
        )

    def _sessions(self) -> tuple[aiohttp.ClientSession, aiohttp.ClientSession]:
        if self._kept is None or self._fresh is None:
            raise EngineError(f"{self.server.name} cannot be asked: its engine is not running")
        return self._kept, self._fresh

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        seconds = self._connect_timeout_s
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=seconds, sock_connect=seconds),
            headers=self.server.headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[tracing],
            middlewares=(self._refuse_handshake,),
            ws_response_class=ClientSocket,
        )

    async def _refuse_handshake(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """ws_connect() follows redirects and drops the body of a refusal: both are seen here."""
        response = await handler(request)
        if request.headers.get("Upgrade") != "websocket" or response.status < 300:
            return response
        try:
            body = await _beginning(response, self._connect_timeout_s)
        finally:
            response.close()
        raise self.server.refused(response.status, response.headers, body)


def _payload(body: RequestBody | None) -> Any:
    # io.BytesIO: a large body, such as one with a picture, is written in pieces
    if isinstance(body, bytes):
        return io.BytesIO(body)
    return body() if callable(body) else None
