"""Routes that need no key: health, readiness, the console, and the modules for web pages."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
from aiohttp import web

from vivavoce.api.http_errors import json_response
from vivavoce.engines.base import health_of, is_loading
from vivavoce.runtime.pools import pools_of
from vivavoce.runtime.sessions import Sessions

CONSOLE: Final = Path(__file__).parent.parent / "console"
TESTING: Final = Path(__file__).parent.parent / "testing" / "javascript"
CONTENT_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".ts": "text/plain",
}
CONSOLE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The console loads from this server only, and no other page may frame it: it asks for a key."""
HTML_TAG: Final = b'<html lang="en">'
HTML_TAG_WITH_KEYS: Final = b'<html lang="en" data-keyed>'
CLIENT_MODULE: Final = b'export * from "./console/client.js";\n'
TESTING_MODULE: Final = b'export * from "./testing/index.js";\n'


class StaticFile:
    """A file in memory, as it is sent. `policy` is its Content-Security-Policy."""

    def __init__(self, body: bytes, content_type: str, policy: str) -> None:
        self._body = body
        self._content_type = content_type
        self._tag = hashlib.sha256(body).hexdigest()[:32]
        self._headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": policy,
            "ETag": f'"{self._tag}"',
            "Permissions-Policy": "microphone=(self)",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    def response(self, request: web.Request) -> web.Response:
        """The file, or 304 when `If-None-Match` has its tag."""
        cached = request.if_none_match or ()
        if any(tag.value in (self._tag, "*") for tag in cached):
            return web.Response(status=304, headers=self._headers)
        return web.Response(
            body=self._body,
            content_type=self._content_type,
            charset="utf-8",
            headers=self._headers,
        )


class FilesOnDemand:
    """Static files that are made in a thread, each when it is first asked for."""

    def __init__(self, make: Callable[[str], StaticFile]) -> None:
        """make: gives the file of a name."""
        self._make = make
        self._files: dict[str, StaticFile] = {}
        self._lock = asyncio.Lock()

    async def response(self, request: web.Request, name: str) -> web.Response:
        async with self._lock:
            if name not in self._files:
                self._files[name] = await asyncio.to_thread(self._make, name)
        return self._files[name].response(request)


class ConsoleRoutes:
    """GET /, /console/{name}, /client.js and its types. All files are read when it is made."""

    def __init__(
        self, folder: Path = CONSOLE, *, has_keys: Callable[[], bool] = lambda: False
    ) -> None:
        """has_keys: the server requires a key; the console asks for it before it connects."""
        self._has_keys = has_keys
        bodies = {
            path.name: path.read_bytes()
            for path in folder.iterdir()
            if path.suffix in CONTENT_TYPES
        }
        index = bodies["index.html"]
        self._files = {
            name: StaticFile(body, CONTENT_TYPES[Path(name).suffix], CONSOLE_POLICY)
            for name, body in bodies.items()
        }
        asks_for_key = index.replace(HTML_TAG, HTML_TAG_WITH_KEYS)
        self._with_keys = StaticFile(asks_for_key, CONTENT_TYPES[".html"], CONSOLE_POLICY)
        self._client = StaticFile(CLIENT_MODULE, CONTENT_TYPES[".js"], CONSOLE_POLICY)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/", self.index)
        app.router.add_get("/client.js", self.client)
        app.router.add_get("/client.d.ts", self.client_types)
        app.router.add_get("/console/{name}", self.file)

    async def index(self, request: web.Request) -> web.Response:
        index = self._with_keys if self._has_keys() else self._files["index.html"]
        return index.response(request)

    async def client(self, request: web.Request) -> web.Response:
        return self._client.response(request)

    async def client_types(self, request: web.Request) -> web.Response:
        return self._files["client.d.ts"].response(request)

    async def file(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return found.response(request)


class TestingModuleRoutes:
    """GET /testing.js and /testing/{name}: the mocked server for tests of web pages."""

    def __init__(self, folder: Path = TESTING) -> None:
        self._files = {
            path.name: StaticFile(path.read_bytes(), CONTENT_TYPES[".js"], CONSOLE_POLICY)
            for path in folder.glob("*.js")
        }
        self._module = StaticFile(TESTING_MODULE, CONTENT_TYPES[".js"], CONSOLE_POLICY)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/testing.js", self.module)
        app.router.add_get("/testing/{name}", self.file)

    async def module(self, request: web.Request) -> web.Response:
        return self._module.response(request)

    async def file(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return found.response(request)


class HealthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /health."""

    status: Literal["ok"] = "ok"
    version: str
    sessions: int


class ReadyStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of GET /ready."""

    status: Literal["ready", "not ready"]
    sessions: int
    engines: dict[str, str] = {}
    """The engines that are down, such as `stt:pocketsphinx`, and why."""
    loading: tuple[str, ...] = ()
    """The engines whose models are still being loaded: work for them waits."""
    members: dict[str, dict[str, str]] = {}
    """The servers of each pool, such as `llm:openai`: "ok", or why one gets no new work."""


READY: Final = web.RequestKey("ready", ReadyStatus)
"""What is known of all processes that serve together, in a request that another one answers."""


class HealthRoutes:
    """GET /health: 200 while the process is alive. GET /ready: 200 while it accepts sessions, all
    models are loaded and no engine is down, otherwise 503."""

    def __init__(self, sessions: Sessions, version: str) -> None:
        self._sessions = sessions
        self._version = version

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/health", self.health)
        app.router.add_get("/ready", self.ready)

    async def health(self, _request: web.Request) -> web.Response:
        return json_response(HealthStatus(version=self._version, sessions=len(self._sessions)))

    async def ready(self, _request: web.Request) -> web.Response:
        status = ready_status(self._sessions)
        return json_response(status, 200 if status.status == "ready" else 503)


def ready_status(sessions: Sessions) -> ReadyStatus:
    """Whether one more session would be accepted, and which engines are down or not loaded yet."""
    down: dict[str, str] = {}
    engines = sessions.context.engines
    loading = tuple(name for name, engine in engines.items() if is_loading(engine))
    for name, engine in engines.items():
        if (reason := health_of(engine)) is not None:
            down[name] = reason
    members = {
        name: {member: status.problem or "ok" for member, status in pool.statuses.items()}
        for name, pool in pools_of(engines).items()
    }
    ready = sessions.accepts and not down and not loading
    return ReadyStatus(
        status="ready" if ready else "not ready",
        sessions=len(sessions),
        engines=down,
        loading=loading,
        members=members,
    )
