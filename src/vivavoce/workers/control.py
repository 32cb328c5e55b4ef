"""What a worker answers to its supervisor: whether it works, and its metrics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from vivavoce.api.http_errors import json_response
from vivavoce.api.public import ready_status
from vivavoce.models import BuiltModels
from vivavoce.runtime.sessions import Sessions
from vivavoce.telemetry.metrics import Metrics
from vivavoce.workers.forwarding import WorkerPlace
from vivavoce.workers.messages import BannerModel, WorkerStatus, control_socket

STATUS_PATH = "/status"
METRICS_PATH = "/metrics"


class ControlRoutes:
    """For one worker."""

    def __init__(
        self,
        sessions: Sessions,
        metrics: Metrics,
        address: str,
        models: tuple[BannerModel, ...],
    ) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._address = address
        self._models = models

    @asynccontextmanager
    async def serving(self, place: WorkerPlace | None) -> AsyncIterator[None]:
        """Answer at the Unix socket of a worker; None: there is no supervisor."""
        if place is None:
            yield
            return
        app = web.Application()
        app.router.add_get(STATUS_PATH, self.status)
        app.router.add_get(METRICS_PATH, self.metrics)
        async with served_at(app, control_socket(place.folder, place.index)):
            yield

    async def status(self, _request: web.Request) -> web.Response:
        ready = ready_status(self._sessions)
        return json_response(WorkerStatus(ready, self._address, self._models))

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text())


def banner_of(models: BuiltModels, default: str) -> tuple[BannerModel, ...]:
    """The models of a server as they are printed at start: cascades, and then relays."""
    relays = models.catalog.relays
    return tuple(
        BannerModel(
            model,
            model == default,
            tuple(
                (engine.kind, f"{engine.name}: {engine.reason}" if engine.reason else engine.name)
                for engine in models.selected.get(model, ())
            ),
            relays[model].url if model in relays else "",
        )
        for model in (*models.selected, *relays)
    )


@asynccontextmanager
async def served_at(app: web.Application, path: str) -> AsyncIterator[None]:
    """Serve an application at a Unix socket."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        yield
    finally:
        await runner.cleanup()
