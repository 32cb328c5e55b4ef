"""The addresses of Voxray's HTTP API that clients read: /config, and its twins under /api/v1.

Bodies are in its envelope: {"data": …, "meta": {"requestId"}} or {"error": {"code", "message",
"requestId", "details"}}.
"""

from typing import Any

import msgspec
from aiohttp import web

from vivavoce.api.http_errors import (
    VoxrayError,
    VoxrayErrorBody,
    json_response,
    request_id_of,
)
from vivavoce.api.public import READY, ready_status
from vivavoce.api.requests import CONTEXT
from vivavoce.runtime.sessions import Sessions


class VoxrayMeta(msgspec.Struct, frozen=True, rename="camel"):
    request_id: str


class VoxrayData(msgspec.Struct, frozen=True):
    """The data of a successful answer."""

    data: dict[str, Any]
    meta: VoxrayMeta


class VoxrayRoutes:
    """GET /config, /api/v1/config, /api/v1/health and /api/v1/ready."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def add_to(self, app: web.Application) -> None:
        for path in ("/config", "/api/v1/config"):
            app.router.add_get(path, self.config)
        app.router.add_get("/api/v1/health", self.health)
        app.router.add_get("/api/v1/ready", self.ready)

    async def config(self, request: web.Request) -> web.Response:
        """What serves the default model, without secrets."""
        context = request[CONTEXT]
        cascade = context.catalog.of(context.models.default_model)
        vads = (name for name in context.engines if name.startswith("vad:"))
        data = {
            "stt_provider": cascade.names.get("stt", ""),
            "llm_provider": cascade.names.get("llm", ""),
            "tts_provider": cascade.names.get("tts", ""),
            "tts_voice": cascade.voice(""),
            "vad_type": next(vads, "").removeprefix("vad:"),
            "transport": "both",
        }
        return _enveloped(request, data)

    async def health(self, request: web.Request) -> web.Response:
        return _enveloped(request, {"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        status = request.get(READY) or ready_status(self._sessions)
        if status.status == "ready":
            return _enveloped(request, {"status": "ok"})
        down = tuple(f"{name}: {reason}" for name, reason in status.engines.items())
        message = "An engine is down." if down else "The server takes no more sessions just now."
        problem = VoxrayErrorBody("SERVICE_UNAVAILABLE", message, request_id_of(request), down)
        return json_response(VoxrayError(problem), 503)


def _enveloped(request: web.Request, data: dict[str, Any]) -> web.Response:
    return json_response(VoxrayData(data, VoxrayMeta(request_id_of(request))))
