"""The middleware of every request: it checks host, origin and key, and gives all errors one
shape."""

import logging
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from aiohttp import WSCloseCode, web
from aiohttp.typedefs import Handler
from yarl import URL

from vivavoce.api.http_errors import REQUEST_ID, overload_of, response_of, unexpected
from vivavoce.errors import Unauthorized, VoiceError
from vivavoce.limits.connections import is_loopback
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import PREFIX, Grant, TokenError, TokenMint

log = logging.getLogger(__name__)

# Routes that need no key, and those that check it themselves, by method and pattern. HEAD follows
# GET. Every other route needs a key, and so does a path without a route.
OPEN_ROUTES = frozenset(
    {
        ("GET", "/"),
        ("GET", "/api/v1/health"),
        ("GET", "/api/v1/ready"),
        ("GET", "/client.d.ts"),
        ("GET", "/client.js"),
        ("GET", "/console/{name}"),
        ("GET", "/docs"),
        ("GET", "/docs/guides"),
        ("GET", "/docs/guides/images/{name}"),
        ("GET", "/docs/guides/{name}"),
        ("GET", "/docs/{name}"),
        ("GET", "/health"),
        ("GET", "/openapi.json"),
        ("GET", "/ready"),
        ("GET", "/testing.js"),
        ("GET", "/testing/{name}"),
        ("PATCH", "/api/offer"),
        ("PATCH", "/api/v1/sessions/{session_id}/offer"),
        ("PATCH", "/sessions/{session_id}/api/offer"),
        ("POST", "/api/offer"),
        ("POST", "/api/v1/sessions/{session_id}/offer"),
        ("POST", "/api/v1/start"),
        ("POST", "/api/v1/webrtc/offer"),
        ("POST", "/connect"),
        ("POST", "/sessions/{session_id}/api/offer"),
        ("POST", "/start"),
        ("POST", "/webrtc/offer"),
        ("GET", "/telephony/{provider}"),
        ("POST", "/"),
        ("POST", "/telephony/{provider}"),
        ("POST", "/v1/realtime"),
        ("POST", "/v1/realtime/calls"),
        ("POST", "/v1/realtime/calls/{call_id}/hangup"),
    }
)
WHO = web.RequestKey("who", str)
"""The name of the API key with which a request was authenticated."""
WEBSOCKET_PATHS = web.AppKey("websocket_paths", frozenset[str])
"""Paths of an application at which the key is checked after the upgrade."""
STARTED = web.RequestKey("started", web.StreamResponse)
KEY_SUBPROTOCOL = "openai-insecure-api-key."
UNAUTHORIZED_CLOSE = 3000  # OpenAI's close code for every refusal
ANY = "*"


class Origin(NamedTuple):
    """Scheme, host and port of a web page (RFC 6454), in lower case, the port always known."""

    scheme: str
    host: str
    port: int | None


class Identity(msgspec.Struct, frozen=True):
    """The authenticated sender of a request."""

    name: str
    """The name of the API key; "" where none is needed."""
    grant: Grant | None = None
    """What a short-lived key allows; None with an API key."""


class Auth:
    """Checks requests.

    origins: web pages of other origins that may use the server; "*" is all of them.
    loopback_pages: pages that this machine serves may use it, too.
    hosts: the names in `Host` that are answered, besides those of the loopback; None: any.
    """

    def __init__(
        self,
        keys: KeyRing,
        mint: TokenMint,
        *,
        origins: tuple[str, ...] = (),
        loopback_pages: bool = True,
        hosts: tuple[str, ...] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys
        self.mint = mint
        self.wall_clock = wall_clock
        self.key_problem: Callable[[str], str | None] = lambda _: None
        """Says why the API key of that name may not be used any more; None: it may."""
        self._texts = frozenset(origins)
        self._origins = {origin_of(text) for text in origins} - {None}
        self._loopback_pages = loopback_pages
        self._hosts = None if hosts is None else {host_and_port(host)[0] for host in hosts}

    def replace_origins(self, other: "Auth") -> None:
        """Accept the pages and host names that `other` accepts; the keys stay."""
        self._texts, self._origins = other._texts, other._origins
        self._loopback_pages, self._hosts = other._loopback_pages, other._hosts

    def add_to(self, app: web.Application) -> None:
        """Check every request of the application."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self.respond(request, handler)

        app.middlewares.append(check)
        app.on_response_prepare.append(self.add_headers)

    def identify(self, request: web.Request, key: str = "") -> Identity:
        """The authenticated sender of a request, by the given key or by the one in the request.

        Raises Unauthorized.
        """
        key = key or presented_key(request)
        if key.startswith(PREFIX):
            try:
                grant = self.mint.check(key, self.wall_clock())
            except TokenError as exc:
                raise Unauthorized(f"Incorrect API key provided: {exc}.") from exc
            if (problem := self.key_problem(grant.key)) is not None:
                raise Unauthorized(f"Incorrect API key provided: {problem}.")
            return Identity(grant.key, grant)
        if not self.keys:
            return Identity("")
        if not key:
            raise Unauthorized(
                f"You didn't provide an API key. {request.method} {request.path} needs one: send "
                f"it in the header Authorization: Bearer KEY, or in X-API-Key or api-key."
            )
        name = self.keys.name_of(key)
        if name is None:
            raise Unauthorized("Incorrect API key provided: this server knows no such key.")
        if (problem := self.key_problem(name)) is not None:
            raise Unauthorized(f"Incorrect API key provided: {problem}.")
        return Identity(name)

    def allows_host(self, request: web.Request) -> bool:
        """Whether the name by which the client reached the server is one of its own.

        A web page whose name was re-bound to this machine by DNS still sends its own name.
        """
        if self._hosts is None:
            return True
        header = request.headers.get("Host")
        if header is None:  # HTTP/1.0: no browser
            return True
        host = host_and_port(header)[0]
        return is_loopback(host) or host in self._hosts

    def allows_origin(self, request: web.Request) -> bool:
        """Whether the web page that sent a request, if one did, may use the server."""
        text = request.headers.get("Origin")
        if text is None:
            return True
        if not text.isascii():
            return False
        if ANY in self._texts or text in self._texts:
            return True
        page = origin_of(text)
        if page is None:
            return False
        host, port = host_and_port(request.headers.get("Host", ""))
        # the public scheme is not known behind a proxy that terminates TLS: the page's is assumed
        if (page.host, page.port) == (host, port or default_port(page.scheme)):
            return True
        return page in self._origins or (self._loopback_pages and is_loopback(page.host))

    async def respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check a request, run its handler, and turn every exception into an answer."""
        request[REQUEST_ID] = f"req_{secrets.token_hex(12)}"
        try:
            return await self._checked(request, handler)
        except ConnectionError:  # the client has disconnected: this response goes nowhere
            return web.Response(status=499)
        except Exception as exc:  # noqa: BLE001  a bug in a handler is logged and answered
            if (started := request.get(STARTED)) is not None:
                return await self._cut_off(request, started, exc)
            return self._refusal(request, exc)

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the request's id and the CORS headers before a response is sent."""
        request[STARTED] = response
        response.headers["x-request-id"] = request.get(REQUEST_ID, "")
        origin = request.headers.get("Origin")
        if origin is None or not self.allows_origin(request):
            return
        headers = response.headers
        headers["Access-Control-Allow-Origin"] = origin
        headers["Vary"] = "Origin"
        headers["Access-Control-Expose-Headers"] = "Location, x-request-id, Retry-After"
        if wanted := request.headers.get("Access-Control-Request-Method"):
            headers["Access-Control-Allow-Methods"] = wanted
            asked = request.headers.get("Access-Control-Request-Headers", "")
            headers["Access-Control-Allow-Headers"] = asked
            headers["Access-Control-Max-Age"] = "600"

    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self.allows_host(request):
            raise web.HTTPForbidden(
                text=f"This server does not answer to the host name {request.host[:100]!r}: list "
                f"it in [server] hosts, or use keys."
            )
        if not self.allows_origin(request):
            raise web.HTTPForbidden(
                text=f"Pages of {request.headers['Origin'][:100]!r} may not use this server; list "
                f"the origin in [server] origins."
            )
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204)
        if not is_open(request):
            identity = self.identify(request)
            if identity.grant is not None:
                raise Unauthorized("A short-lived key opens Realtime sessions and nothing else.")
            request[WHO] = identity.name
        return await handler(request)

    def _refusal(self, request: web.Request, exc: Exception) -> web.Response:
        """The answer to a request that failed before a response was started."""
        if isinstance(exc, VoiceError | web.HTTPException | web.RequestPayloadError):
            return response_of(exc, request)
        if (response := overload_of(exc)) is not None:
            log.error("%s failed: %s", request[REQUEST_ID], exc)
            return response
        _log_bug(request, exc)
        return unexpected()

    async def _cut_off(
        self, request: web.Request, started: web.StreamResponse, exc: Exception
    ) -> web.StreamResponse:
        """End a response that was started: with a close frame, or by aborting the body."""
        if not isinstance(exc, VoiceError | web.HTTPException):
            _log_bug(request, exc)
        if isinstance(started, web.WebSocketResponse):
            if isinstance(exc, Unauthorized):
                reason = b"invalid_request_error.invalid_api_key"
                await started.close(code=UNAUTHORIZED_CLOSE, message=reason)
            else:
                await started.close(code=WSCloseCode.INTERNAL_ERROR, message=b"server_error")
        elif request.transport is not None:
            request.transport.abort()
        return started


def _log_bug(request: web.Request, exc: Exception) -> None:
    log.error("%s failed: %s %s", request[REQUEST_ID], request.method, request.path, exc_info=exc)


def is_open(request: web.Request) -> bool:
    """Whether the route of a request needs no key, or checks it itself."""
    resource = request.match_info.route.resource
    method = "GET" if request.method == "HEAD" else request.method
    if resource is None:
        return False
    upgrades = request.app.get(WEBSOCKET_PATHS, frozenset[str]())
    return (method, resource.canonical) in OPEN_ROUTES or (
        method == "GET" and resource.canonical in upgrades
    )


def presented_key(request: web.Request) -> str:
    """The key of a request, from any place that clients use; "" without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for name in ("X-API-Key", "api-key"):
        if key := request.headers.get(name):
            return key
    for offered in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if offered.strip().startswith(KEY_SUBPROTOCOL):
            return offered.strip().removeprefix(KEY_SUBPROTOCOL)
    given = (request.query.get(name, "") for name in ("api_key", "api-key", "token"))
    return next(filter(None, given), "")


def origin_of(text: str) -> Origin | None:
    """An `Origin` header, compared without regard to letter case; None: it cannot be parsed."""
    try:
        url = URL(text)
        host, port, scheme = url.host, url.explicit_port, url.scheme.lower()
    except ValueError:
        return None
    if not host or not scheme:
        return None
    return Origin(scheme, _plain(host), port or default_port(scheme))


def host_and_port(header: str) -> tuple[str, int | None]:
    """A `Host` header in lower case; the port is None where it is not given or not a number."""
    host, colon, port = header.rpartition(":")
    if not colon or header.endswith("]"):  # no port, or an IPv6 address without one
        return _plain(header), None
    return _plain(host), int(port) if port.isascii() and port.isdigit() else None


def default_port(scheme: str) -> int | None:
    return {"http": 80, "https": 443, "ws": 80, "wss": 443}.get(scheme)


def _plain(host: str) -> str:
    return host.strip().removeprefix("[").removesuffix("]").rstrip(".").lower()
