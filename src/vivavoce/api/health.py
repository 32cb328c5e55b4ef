"""Is it alive, and does it take work: two answers for whoever watches over the server."""

import msgspec
from aiohttp import web

from vivavoce.runtime.sessions import Sessions


class Health:
    """GET /health answers as long as the process lives; GET /ready while it takes sessions."""

    def __init__(self, hub: Sessions, version: str) -> None:
        self._hub = hub
        self._version = version

    async def health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok", "version": self._version, "sessions": len(self._hub)})

    async def ready(self, _request: web.Request) -> web.Response:
        if self._hub.accepts:
            return _json({"status": "ready", "sessions": len(self._hub)})
        return _json({"status": "not ready", "sessions": len(self._hub)}, status=503)


def _json(body: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )
