"""What a worker answers to its supervisor and to other workers: its state, its metrics, and
messages about conversations that another worker has resumed."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from vivavoce.api.http_errors import json_response
from vivavoce.api.public import ready_status
from vivavoce.models import BuiltModels
from vivavoce.runtime.places import place_named
from vivavoce.runtime.resume import Resumption
from vivavoce.runtime.sessions import Sessions
from vivavoce.telemetry.metrics import Metrics
from vivavoce.workers.messages import BannerModel, WorkerPlace, WorkerStatus, control_socket

log = logging.getLogger(__name__)

STATUS_PATH = "/status"
METRICS_PATH = "/metrics"
TAKEN_OVER_PATH = "/taken_over"
TELL_TIMEOUT_S = 1.0


class ControlRoutes:
    """For one worker."""

    def __init__(
        self,
        sessions: Sessions,
        metrics: Metrics,
        address: str,
        models: tuple[BannerModel, ...],
        resumption: Resumption | None = None,
    ) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._address = address
        self._models = models
        self._resumption = resumption

    @asynccontextmanager
    async def serving(self, place: WorkerPlace | None) -> AsyncIterator[None]:
        """Answer at the Unix socket of a worker; None: there is no supervisor."""
        if place is None or not place.folder:
            yield
            return
        app = web.Application()
        app.router.add_get(STATUS_PATH, self.status)
        app.router.add_get(METRICS_PATH, self.metrics)
        app.router.add_post(TAKEN_OVER_PATH, self.taken_over)
        async with served_at(app, control_socket(place.folder, place.index)):
            yield

    async def status(self, _request: web.Request) -> web.Response:
        ready = ready_status(self._sessions)
        return json_response(WorkerStatus(ready, self._address, self._models))

    async def taken_over(self, request: web.Request) -> web.Response:
        """Another worker has resumed a conversation."""
        if self._resumption is not None:
            self._resumption.fence(request.query["key"], int(request.query["epoch"]))
        return web.Response()

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text())


async def tell_taken_over(place: WorkerPlace, owner: str, key: str, epoch: int) -> None:
    """Tell the worker of this machine that had a conversation that it is served here now."""
    found = place_named(owner)
    if found is None or found.worker not in place.others:
        return
    connector = aiohttp.UnixConnector(control_socket(place.folder, found.worker))
    timeout = aiohttp.ClientTimeout(total=TELL_TIMEOUT_S)
    query = {"key": key, "epoch": str(epoch)}
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            http.post(f"http://localhost{TAKEN_OVER_PATH}", params=query),
        ):
            pass
    # that worker notices it at its next checkpoint
    except (aiohttp.ClientError, TimeoutError) as exc:
        log.debug("worker %s is not told: %s", owner, exc)


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
