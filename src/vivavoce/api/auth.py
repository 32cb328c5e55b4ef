"""What every request passes: an id, its origin, its key, and errors in one shape."""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from vivavoce.api.http_errors import response_of, unexpected
from vivavoce.errors import Unauthorized, VoiceError
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import PREFIX, Grant, TokenError, TokenMint

log = logging.getLogger(__name__)


OPEN_PATHS = frozenset({"/", "/client.js", "/health", "/ready", "/docs", "/openapi.json"})
OPEN_FOLDERS = ("/console/", "/docs/")
# these ask for the key themselves
DOORS = frozenset(
    {("GET", "/v1/realtime"), ("POST", "/v1/realtime"), ("POST", "/v1/realtime/calls")}
)
CALLS = "/v1/realtime/calls/"  # so does whatever ends one
REQUEST_ID = web.RequestKey("request_id", str)
KEY_SUBPROTOCOL = "openai-insecure-api-key."
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class _NoHTTP(logging.Filter):
    """Drops the log of what is no HTTP: anybody can send that, and it quotes keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


logging.getLogger("aiohttp.server").addFilter(_NoHTTP())


@dataclass(frozen=True, slots=True)
class Identity:
    """Whoever asks."""

    name: str
    """The name of the API key; "" where none is needed."""
    grant: Grant | None = None
    """What a short-lived key allows; None with a real one."""


@dataclass(frozen=True, slots=True)
class Auth:
    """Lets requests in."""

    keys: KeyRing
    mint: TokenMint
    origins: frozenset[str] = frozenset()
    """Pages elsewhere that may ask, such as https://app.example.com; "*" is all of them."""
    trusts_loopback: bool = True
    """Whether any page that this machine serves may ask, too."""
    wall_clock: Callable[[], float] = time.time

    def admit(self, request: web.Request) -> Identity:
        """Who asks. Raises Unauthorized."""
        key = presented_key(request)
        if key.startswith(PREFIX):
            try:
                grant = self.mint.check(key, self.wall_clock())
            except TokenError as exc:
                raise Unauthorized(f"Incorrect API key provided: {exc}.") from exc
            return Identity(grant.key, grant)
        if not self.keys:
            return Identity("")
        if not key:
            raise Unauthorized(
                "You didn't provide an API key. Send it as: Authorization: Bearer KEY."
            )
        name = self.keys.name_of(key)
        if name is None:
            raise Unauthorized("Incorrect API key provided: this server knows no such key.")
        return Identity(name)

    def welcomes(self, request: web.Request) -> bool:
        """Whether the page that asks, if it is one, may."""
        origin = request.headers.get("Origin")
        if origin is None or "*" in self.origins or origin in self.origins:
            return True
        page = urlsplit(origin)
        if page.netloc == request.host:
            return True
        return self.trusts_loopback and page.hostname in LOOPBACK_NAMES

    def stand_before(self, app: web.Application) -> None:
        """Have every request of the application pass."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self.guard(request, handler)

        app.middlewares.append(guard)
        app.on_response_prepare.append(self.sign)

    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request pass, and see to it that it is answered."""
        request[REQUEST_ID] = f"req_{secrets.token_hex(12)}"
        try:
            return await self._answer(request, handler)
        except (VoiceError, web.HTTPException) as exc:
            return response_of(exc, request)
        except ConnectionError:  # whoever asked has gone: this goes nowhere
            return web.Response(status=499)
        except Exception:  # where a request's task ends: a bug is logged and answered
            log.exception("%s failed: %s %s", request[REQUEST_ID], request.method, request.path)
            return unexpected()

    async def sign(self, request: web.Request, response: web.StreamResponse) -> None:
        """The headers of every answer, also of one that is streamed: its id, and CORS."""
        response.headers["x-request-id"] = request.get(REQUEST_ID, "")
        origin = request.headers.get("Origin")
        if origin is None or not self.welcomes(request):
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

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self.welcomes(request):
            raise web.HTTPForbidden(
                text=f"Pages of {request.headers['Origin']} may not use this server; list the "
                f"origin in [server] origins."
            )
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204)
        if not is_open(request.method, request.path):
            visitor = self.admit(request)
            if visitor.grant is not None:
                raise Unauthorized("A short-lived key opens Realtime sessions and nothing else.")
        return await handler(request)


def is_open(method: str, path: str) -> bool:
    """Whether nobody is asked for a key here, or somebody further in asks for it."""
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS) or (method, path) in DOORS:
        return True
    return method == "POST" and path.startswith(CALLS) and path.endswith("/hangup")


def presented_key(request: web.Request) -> str:
    """The key of a request, wherever clients put it; "" if there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for name in ("X-API-Key", "api-key"):
        if key := request.headers.get(name):
            return key
    for offered in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if offered.strip().startswith(KEY_SUBPROTOCOL):
            return offered.strip().removeprefix(KEY_SUBPROTOCOL)
    return request.query.get("api_key", "") or request.query.get("api-key", "")
