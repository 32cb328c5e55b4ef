"""The console, GET / and /console/…, and /client.js for other people's pages: static files.

They are read once, when the server starts, so that no answer waits for a disk.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

FOLDER: Final = Path(__file__).parent.parent / "console"
TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# Nothing but what this server sends, and no page around it: a key is typed into this one.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
OPENING: Final = b'<html lang="en">'
KEYED: Final = b'<html lang="en" data-keyed>'
CLIENT: Final = b'export * from "./console/client.js";\n'


@dataclass(frozen=True, slots=True)
class Page:
    """A file as it goes out."""

    body: bytes
    type: str
    tag: str
    """Of its content: a browser asks with it whether the file is still the same."""

    def answer(self, request: web.Request) -> web.Response:
        """The file, or 304 to whoever has it."""
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
            "ETag": f'"{self.tag}"',
            "Permissions-Policy": "microphone=(self)",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        known = request.if_none_match or ()
        if any(tag.value in (self.tag, "*") for tag in known):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=self.body, content_type=self.type, charset="utf-8", headers=headers
        )


class Pages:
    """What a browser may fetch without a key."""

    def __init__(self, folder: Path = FOLDER, *, keyed: bool = False) -> None:
        """keyed: the server has keys; the console asks for one before anything is refused."""
        self._pages = {
            path.name: page(path.read_bytes(), TYPES[path.suffix])
            for path in folder.iterdir()
            if path.suffix in TYPES
        }
        if keyed:
            index = self._pages["index.html"]
            self._pages["index.html"] = page(index.body.replace(OPENING, KEYED), index.type)
        self._client = page(CLIENT, TYPES[".js"])

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/", self.index)
        app.router.add_get("/client.js", self.client)
        app.router.add_get("/console/{name}", self.file)

    async def index(self, request: web.Request) -> web.Response:
        return self._pages["index.html"].answer(request)

    async def client(self, request: web.Request) -> web.Response:
        return self._client.answer(request)

    async def file(self, request: web.Request) -> web.Response:
        found = self._pages.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound(text="The console has no such file.")
        return found.answer(request)


def page(body: bytes, type_: str) -> Page:
    """The page of these bytes."""
    return Page(body, type_, hashlib.sha256(body).hexdigest()[:32])
