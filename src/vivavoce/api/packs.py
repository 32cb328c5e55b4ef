"""Model packs and loaded models over HTTP, for admin keys.

POST and DELETE /v1/models/{model}, GET /v1/registry, and /api/ps with what is in memory. The paths
and the lists of names are those of speaches.
"""

import asyncio
from typing import Literal

import msgspec
from aiohttp import web

from vivavoce.api.admin import AdminCheck
from vivavoce.api.http_errors import Problem, ProblemBody, json_response
from vivavoce.api.requests import CONTEXT
from vivavoce.api.sse import EventStream
from vivavoce.engines.base import Residency
from vivavoce.errors import EngineError
from vivavoce.runtime.inventory import Inventory, Progress, Pulls, Resident


class PackObject(msgspec.Struct, frozen=True, kw_only=True):
    """A model pack that can be pulled."""

    id: str
    object: Literal["model"] = "model"
    engine: str
    """kind:name of the engine that loads it."""
    description: str
    licence: str
    """SPDX expression."""
    download_bytes: int
    size_bytes: int
    installed: bool


class PackList(msgspec.Struct, frozen=True):
    data: list[PackObject]
    object: Literal["list"] = "list"


class PulledModel(msgspec.Struct, frozen=True, kw_only=True):
    """A pull, under way or done; the event of a stream, and the answer without one."""

    type: Literal["model.pull.progress", "model.pull.completed"]
    id: str
    """The name in the request."""
    pack: str
    state: str
    """downloading, unpacking or installed."""
    done_bytes: int
    total_bytes: int


class DeletedModel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that keeps a model in memory, or loads it at its next use."""

    id: str
    kind: str
    model: str
    """The pack or folder; "" if the engine has no choice."""
    state: Literal["loaded", "loading", "unloaded"]
    users: int
    """Requests in progress and waiting."""
    loaded_seconds: float | None
    """Since it was loaded."""
    idle_seconds: float | None
    """Since its last work; null: it has done none."""
    idle_unload_seconds: float
    """The engine is unloaded after this time without use; 0: never."""
    memory_bytes: int | None
    """Memory of its processes; null: unknown."""


class LoadedModels(msgspec.Struct, frozen=True):
    models: list[str]
    """The ids of what is loaded, as clients of speaches read them."""
    data: list[LoadedModel]
    object: Literal["list"] = "list"


class PackRoutes:
    """Pulls, deletes, loads and unloads models."""

    def __init__(self, check: AdminCheck) -> None:
        self._check = check
        self._pulls = Pulls()

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/v1/registry", self.registry)
        router.add_post("/v1/models/{model:.+}", self.pull)
        router.add_delete("/v1/models/{model:.+}", self.delete)
        router.add_get("/api/ps", self.loaded)
        router.add_post("/api/ps/{model:.+}", self.load)
        router.add_delete("/api/ps/{model:.+}", self.unload)
        app.on_shutdown.append(self._close)

    async def registry(self, request: web.Request) -> web.Response:
        found = [
            PackObject(
                id=pack.id,
                engine=f"{pack.kind}:{pack.engine}",
                description=pack.description,
                licence=pack.licence,
                download_bytes=pack.download_bytes,
                size_bytes=pack.size,
                installed=pack.installed,
            )
            for pack in _inventory(request).packs()
        ]
        return json_response(PackList(found))

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Answer when the pack is installed, or send its progress as server-sent events."""
        self._check(request)
        asked, inventory = request.match_info["model"], _inventory(request)
        pack = inventory.pack_named(asked)
        if pack is None:
            return _no_pack(inventory, asked)
        pull = self._pulls.start(pack, inventory)
        if _wants_events(request):
            async with EventStream(request) as events:
                async for progress in pull.follow():
                    await events.send(_pulled(asked, pack, progress))
            return events.response
        async for progress in pull.follow():
            last = progress
        return json_response(_pulled(asked, pack, last))

    async def delete(self, request: web.Request) -> web.Response:
        self._check(request)
        asked, inventory = request.match_info["model"], _inventory(request)
        pack = inventory.pack_named(asked)
        if pack is None:
            return _no_pack(inventory, asked)
        if pack in self._pulls:
            raise web.HTTPConflict(text=f"The model {pack} is being pulled.")
        if not any(each.id == pack and each.installed for each in inventory.packs()):
            return _not_found(f"The model {pack} is not installed.")
        try:
            await inventory.remove(pack)
        except EngineError as exc:
            raise web.HTTPConflict(text=f"{exc}") from exc
        return json_response(DeletedModel(id=asked))

    async def loaded(self, request: web.Request) -> web.Response:
        """What is in memory, since when, and how much of it."""
        self._check(request)
        now = asyncio.get_running_loop().time()
        found = [_shown(each, now) for each in _inventory(request).residents()]
        names = [each.id for each in found if each.state == "loaded"]
        return json_response(LoadedModels(names, found))

    async def load(self, request: web.Request) -> web.Response:
        """201 when it is loaded, 200 where it was. Raises EngineError."""
        self._check(request)
        asked, inventory = request.match_info["model"], _inventory(request)
        found = inventory.resident(asked)
        if found is None:
            return _unknown(inventory, asked)
        was_loaded = found.engine.residency().loaded
        await found.engine.load()
        shown = _shown(found, asyncio.get_running_loop().time())
        return json_response(shown, 200 if was_loaded else 201)

    async def unload(self, request: web.Request) -> web.Response:
        self._check(request)
        asked, inventory = request.match_info["model"], _inventory(request)
        found = inventory.resident(asked)
        if found is None:
            return _unknown(inventory, asked)
        if found.engine.residency().users:
            raise web.HTTPConflict(text=f"{found.id} is in use; try again later.")
        try:
            await found.engine.unload()
        except EngineError as exc:  # a request began in the meantime
            raise web.HTTPConflict(text=f"{exc}") from exc
        return web.Response(status=204)

    async def _close(self, _app: web.Application) -> None:
        await self._pulls.close()


def _inventory(request: web.Request) -> Inventory:
    inventory = request[CONTEXT].inventory
    assert inventory is not None  # without one these routes are not added
    return inventory


def _no_pack(inventory: Inventory, asked: str) -> web.Response:
    known = ", ".join(each.id for each in inventory.packs())
    return _not_found(f"There is no model pack {asked[:100]!r}; known: {known}.")


def _unknown(inventory: Inventory, asked: str) -> web.Response:
    known = ", ".join(each.id for each in inventory.residents())
    return _not_found(f"No engine or model here is called {asked[:100]!r}; known: {known}.")


def _wants_events(request: web.Request) -> bool:
    asked = request.query.get("stream", "").lower() in ("1", "true")
    return asked or "text/event-stream" in request.headers.get("Accept", "")


def _pulled(asked: str, pack: str, progress: Progress) -> PulledModel:
    installed = progress.state == "installed"
    return PulledModel(
        type="model.pull.completed" if installed else "model.pull.progress",
        id=asked,
        pack=pack,
        state=progress.state,
        done_bytes=progress.done,
        total_bytes=progress.total,
    )


def _shown(model: Resident, now: float) -> LoadedModel:
    residency: Residency = model.engine.residency()
    loading = getattr(model.engine, "loading", False)
    state: Literal["loaded", "loading"] = "loaded" if residency.loaded else "loading"
    return LoadedModel(
        id=model.id,
        kind=model.kind,
        model=model.model,
        state=state if residency.loaded or loading else "unloaded",
        users=residency.users,
        loaded_seconds=None if residency.loaded_at is None else now - residency.loaded_at,
        idle_seconds=None if residency.used_at is None else now - residency.used_at,
        idle_unload_seconds=model.idle_unload_seconds,
        memory_bytes=residency.memory_bytes,
    )


def _not_found(message: str) -> web.Response:
    body = ProblemBody(
        message=message, type="invalid_request_error", param="model", code="model_not_found"
    )
    return json_response(Problem(body), 404)
