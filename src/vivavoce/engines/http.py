"""The HTTP and WebSocket client of engines that speak to a server elsewhere.

One `HttpClient` is one server as one user of it: a pool of kept-alive connections, deadlines,
bounded bodies, no redirects. Every failure is an EngineError in one sentence, which names the
address without user, password and query, names the remedy, and quotes what the server said,
shortened, with every secret in it masked.
"""

import asyncio
import errno
import io
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeAlias

import aiohttp
from msgspec import Meta
from multidict import CIMultiDict
from yarl import URL

from vivavoce.errors import EngineError
from vivavoce.protocol import json

MAX_REFUSAL_BYTES = 1 << 16
MAX_MESSAGE_BYTES = 16 << 20
"""Of a WebSocket message, where the caller sets no other bound."""
MAX_QUOTED_CHARACTERS = 300
MIN_SECRET_CHARACTERS = 4  # `x` and the like stand for a key where none is needed
KEEP_ALIVE_TIMEOUT_S = 60.0
"""A pause in a conversation should not cost a new TLS handshake."""
SETTLE_TIMEOUT_S = 0.1
"""For the end of a body whose content is complete; then the connection is closed."""

PositiveSeconds: TypeAlias = Annotated[float, Meta(gt=0)]
RequestBody: TypeAlias = bytes | Callable[[], aiohttp.FormData]
"""JSON, or what makes a multipart form: it is made anew when the request is sent again."""

_USER = re.compile(r"//[^/@]*@")


def parse_base_url(text: str) -> URL:
    """The base URL without a slash at its end. Raises ValueError: no http(s) URL with a host."""
    url = URL(text.strip())
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("base_url must begin with http:// or https:// and name a host")
    return url.with_path(url.path.rstrip("/")).with_query(url.query)


@dataclass(frozen=True, slots=True)
class ServerKind:
    """The words in which errors name a server and what it should have sent."""

    name: str
    """Such as "LLM": "the LLM at ..."."""
    product: str
    """What it sends, with its article: "a chat completion"."""
    options: str = "model and extra"
    """Settings to check when it rejects a request."""


class RemoteServer:
    """Address and credentials of one server, and the EngineError for each way it can fail."""

    def __init__(
        self, base_url: str, kind: ServerKind, *, api_key: str = "", headers: Mapping[str, str]
    ) -> None:
        self._base = parse_base_url(base_url)
        self._kind = kind
        self._has_key = bool(api_key)
        self.address = str(self._base.with_user(None).with_query(None).with_fragment(None))
        """To be shown: without user, password and query."""
        self.name = f"the {kind.name} at {self.address}"
        # identity: a codec would hold chunks back
        self.headers = CIMultiDict({"Accept-Encoding": "identity"})
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"
        self.headers.update(headers)
        secrets = (
            api_key,
            self._base.password or "",
            *headers.values(),
            *self._base.query.values(),
        )
        long = (secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS)
        self._secrets = sorted(long, key=len, reverse=True)

    def url(self, path: str) -> URL:
        """Of a resource; the query of the base URL, if any, stays."""
        url = self._base.joinpath(path) if path else self._base
        return url.with_query(self._base.query)

    @property
    def host(self) -> str | None:
        return self._base.host

    def masked(self, text: str) -> str:
        """One line of the text, at most MAX_QUOTED_CHARACTERS, without secrets."""
        # header values are decoded with surrogateescape: no lone surrogate may reach a client
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        # OpenAI quotes a wrong key with stars in its middle: its ends are secret as well
        text = " ".join("***" if "**" in word else word for word in text.split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        shown = text[:MAX_QUOTED_CHARACTERS]
        return shown if shown == text else shown + "..."

    def unreachable(self, exc: aiohttp.ClientError) -> EngineError:
        """The request got no answer."""
        return EngineError(f"no {self._kind.name} answers at {self.address}: {self._why(exc)}")

    def late(self, seconds: float) -> EngineError:
        """Nothing came in the time that is set for the first of it."""
        return EngineError(
            f"{self.name} did not begin to answer within {seconds:g} s; "
            "is it overloaded or still loading its model?"
        )

    def silent(self, seconds: float) -> EngineError:
        """The answer began and did not go on in time."""
        return EngineError(
            f"{self.name} fell silent in the middle of its answer for {seconds:g} s; try again"
        )

    def broken_off(self) -> EngineError:
        """The connection was closed within the answer."""
        return EngineError(
            f"{self.name} broke off in the middle of its answer; see its log, try again"
        )

    def failed(self, failure: Any) -> EngineError:
        """The server reported an error inside its answer."""
        return EngineError(
            f"{self.name} failed while it answered{self._quoted(message_of(failure))}; try again"
        )

    def unexpected(self, what: str) -> EngineError:
        """The answer is not what was asked for."""
        return EngineError(
            f"{self.name} sent {what} instead of {self._kind.product}; "
            "is base_url right? It usually ends in /v1"
        )

    def refused(
        self, status: int, headers: Mapping[str, str], body: bytes, model: str | None = None
    ) -> EngineError:
        """The status was not that of success.

        model: the one that was asked for; "" where the list of models was; None where neither.
        """
        quoted = self._quoted(refusal_text(body))
        match status:
            case 401 | 403 if self._has_key:
                text = f"refused the API key ({status}){quoted}; check api_key"
            case 401 | 403:
                text = f"wants an API key ({status}){quoted}; set api_key"
            case _ if model == "" and status // 100 != 3:
                text = f"does not list its models ({status}){quoted}; set model"
            case 404 if model is None:
                text = f"has nothing at this address ({status}){quoted}; check base_url"
            case 404:
                text = (
                    f"does not know the model {model!r} ({status}){quoted}; "
                    "check model, and that base_url is right"
                )
            case 429:
                wait = headers.get("Retry-After", "")
                remedy = f"wait {self._wait(wait)}" if wait else "wait, or use another model"
                text = f"has had too many requests ({status}){quoted}; {remedy}"
            case _ if status >= 500:
                text = f"failed ({status}){quoted}; see its log, try again"
            case _ if status // 100 == 3:
                there = _USER.sub("//", headers.get("Location", "").partition("?")[0])
                text = f"has moved ({status}) to {self.masked(there)}; change base_url"
            case _:
                text = f"rejected the request ({status}){quoted}; check {self._kind.options}"
        return EngineError(f"{self.name} {text}")

    def _wait(self, retry_after: str) -> str:
        shown = self.masked(retry_after)
        return f"{shown} s" if shown.isdigit() else f"until {shown}"

    def _quoted(self, text: str) -> str:
        text = self.masked(text).rstrip(".")
        return f": {text}" if text else ""

    def _why(self, exc: aiohttp.ClientError) -> str:
        match exc:
            case aiohttp.ConnectionTimeoutError():
                return "it accepted no connection in time; is the address right?"
            case aiohttp.ClientConnectorDNSError():
                return f"the name {self._base.host!r} is not known to DNS; check base_url"
            case aiohttp.ClientSSLError():
                return (
                    f"TLS failed ({self._tls(exc)}); check https in base_url, and the certificate"
                )
            case aiohttp.ClientConnectorError() if _is_refusal(exc.os_error):
                return "connection refused; is it running?"
            case aiohttp.ClientConnectorError():
                reason = exc.os_error.strerror or "no connection"
                return f"{reason}; check base_url and the network"
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                return "the connection was closed before an answer; see its log, try again"
            case aiohttp.WSServerHandshakeError():
                return "what answers does not speak WebSocket; check base_url"
            case aiohttp.ClientResponseError():
                return "what answers does not speak HTTP; check base_url"
            case _:
                return f"the connection failed ({type(exc).__name__}); try again"

    def _tls(self, exc: aiohttp.ClientSSLError) -> str:
        if isinstance(exc, aiohttp.ClientConnectorCertificateError):
            cause: Exception = exc.certificate_error
        else:
            cause = exc.os_error
        reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "")
        return self.masked(str(reason or cause.args[-1]))


def _is_refusal(exc: OSError) -> bool:
    # A name with several addresses gives one error that only lists theirs.
    return exc.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(exc)


def refusal_text(body: bytes) -> str:
    """The reason in the body of a refusal; "" for none that a person could read."""
    try:
        return message_of(json.decode(body))
    except (ValueError, RecursionError):
        text = body.decode(errors="replace").strip()
        return "" if text.startswith("<") else text  # a page of HTML


def message_of(value: Any) -> str:
    """The text in {"error": {"message": ...}}, {"detail": ...}, a list of those, or a string."""
    while True:
        match value:
            case str():
                return value
            case {"error": inner} | {"message": inner} | {"detail": inner} | {"msg": inner}:
                value = inner
            case [first, *_]:
                value = first
            case _:
                return ""


@dataclass(frozen=True, slots=True)
class ResponseTimeouts:
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


class HttpClient:
    """Requests and WebSockets to one server, on connections that are kept alive."""

    def __init__(self, server: RemoteServer, *, connect_timeout_s: float) -> None:
        self.server = server
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
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()
        self._kept = self._fresh = None

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
                response = await self._send(method, path, body, headers)
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
    ) -> aiohttp.ClientWebSocketResponse:
        """An open WebSocket, without compression; the caller closes it.

        query: added to that of the base URL. headers: as for request(). heartbeat_s: seconds
        between pings, each to be answered in half of that. Raises EngineError: not open in time.
        """
        kept, _ = self._sessions()
        try:
            async with asyncio.timeout(timeout_s):
                return await kept.ws_connect(
                    self.server.url(path).update_query(query or {}),
                    headers=headers,
                    protocols=protocols,
                    max_msg_size=max_message_bytes,
                    heartbeat=heartbeat_s,
                )
        except aiohttp.ClientError as exc:
            raise self.server.unreachable(exc) from exc
        except TimeoutError as exc:
            raise self.server.late(timeout_s) from exc

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
