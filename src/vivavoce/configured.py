"""The engines of the settings and the weights on this machine, by the names that clients give."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, get_args

import msgspec
from yarl import URL

from vivavoce.engines import pulling, registry
from vivavoce.engines.base import BaseEngine, is_loading, residency_of
from vivavoce.engines.packs import Pack, cache_folder, forbids_commerce, manifest
from vivavoce.errors import EngineError, EngineNotUsable, SettingsError
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.choice import EngineMatch, OnDemandEngine
from vivavoce.runtime.fallback import Member
from vivavoce.runtime.inventory import OfferedModel, PackSummary, Report, Resident
from vivavoce.runtime.pools import (
    MAX_MEMBERS,
    Pool,
    PooledEndpoint,
    PooledLLM,
    PooledSTT,
    PooledTTS,
    PoolSettings,
)
from vivavoce.runtime.reload import EnginePool
from vivavoce.secret import Secret
from vivavoce.session.facts import Stage
from vivavoce.settings import Kind, Settings, aliases_of

log = logging.getLogger(__name__)

STAGES: tuple[Stage, ...] = get_args(Stage)
_POOLS: Mapping[Kind, type[Pool[Any]]] = {"stt": PooledSTT, "llm": PooledLLM, "tts": PooledTTS}


class MadeEngine(NamedTuple):
    """An engine that is not entered yet."""

    engine: Any
    settings: object
    """What tells it from others of its class."""
    model: str
    """Its model or folder; "": its settings name none."""


def made_engine(
    settings: Settings, kind: Kind, name: str, options: Mapping[str, object]
) -> MadeEngine:
    """The engine of a table of the settings; where its base_url is a list, a pool of its servers.

    Imports its package. Raises SettingsError.
    """
    given = dict(options)
    real = str(given.pop("engine", name))
    urls = given.get("base_url")
    if not isinstance(urls, list):
        if "pool" in given:
            raise SettingsError(
                f"[engines.{kind}.{name}] pool: base_url has to be a list of the servers"
            )
        engine = registry.create(kind, real, given, table=name)
        own = msgspec.convert(given, engine.Settings)
        return MadeEngine(engine, own, getattr(own, "model", ""))
    place = f"[engines.{kind}.{name}.pool]"
    try:
        pool = msgspec.convert(given.pop("pool", {}), PoolSettings)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"{place} {registry.mistake(exc, PoolSettings)}") from exc
    members, of_each = [], []
    for url, label in zip(urls, _labels(kind, name, urls), strict=True):
        engine = registry.create(kind, real, given | {"base_url": url}, table=name)
        members.append(Member(f"{name}@{label}", engine))
        of_each.append(msgspec.convert(given | {"base_url": url}, engine.Settings))
    make = _POOLS[kind]
    if kind == "llm" and all(hasattr(member.engine, "forward") for member in members):
        make = PooledEndpoint
    try:
        made = make(members, settings.fallback, pool)
    except ValueError as exc:
        raise SettingsError(f"{place} {exc}") from exc
    return MadeEngine(made, (of_each, pool, settings.fallback), getattr(of_each[0], "model", ""))


def _labels(kind: Kind, name: str, urls: list[Any]) -> list[str]:
    """The servers of a pool as they are shown. Raises SettingsError: the list is wrong."""
    place = f"[engines.{kind}.{name}] base_url"
    if kind not in STAGES:
        raise SettingsError(
            f"{place}: only engines of {', '.join(STAGES)} can have several servers"
        )
    if not 1 <= len(urls) <= MAX_MEMBERS or not all(isinstance(url, str) for url in urls):
        raise SettingsError(f"{place}: a list has 1 to {MAX_MEMBERS} addresses")
    labels = [server_label(url) for url in urls]
    for label, url in zip(labels, urls, strict=True):
        if not label:
            raise SettingsError(
                f"{place}: {Secret(url) if '@' in url else repr(str(url))} is no address of a "
                "server, such as http://10.0.0.2:8000/v1"
            )
        if labels.count(label) > 1:
            raise SettingsError(f"{place}: the server {label} is named twice")
    return labels


def server_label(url: str) -> str:
    """Host, port and path, without user and query, and without a path that is /v1; "": no URL."""
    try:
        parsed = URL(url.reveal() if isinstance(url, Secret) else url.strip())
    except ValueError:
        return ""
    if not parsed.host:
        return ""
    return f"{parsed.host}:{parsed.port}{parsed.path.rstrip('/').removesuffix('/v1')}"


class ConfiguredEngines:
    """The engines that names of clients may stand for; those of no model are loaded on demand."""

    def __init__(self, settings: Settings, pool: EnginePool) -> None:
        """pool: of the engines that are loaded on demand, too."""
        self._settings = settings
        self._pool = pool
        self._aliases = aliases_of(settings)
        self._running: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
        self._models: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
        self._entered: list[Resident] = []
        self._speakers: dict[str, OnDemandEngine] = {}
        self.on_demand: dict[tuple[Stage, str], OnDemandEngine] = {}

    def add(self, kind: str, name: str, engine: Any, model: str) -> None:
        """An engine that runs, under the name of its settings, and its model or folder."""
        idle_s = self._idle_s(kind, name, 0.0)
        self._entered.append(Resident(f"{kind}:{name}", kind, model, engine, False, idle_s))
        if kind in self._running:
            self._running[kind][name] = engine
            if model:
                self._models[kind].setdefault(model, engine)

    def add_model(self, name: str, cascade: Cascade) -> None:
        """The engines of a configured model, under its name."""
        for stage, engine in (("stt", cascade.stt), ("llm", cascade.llm), ("tts", cascade.tts)):
            self._models[stage].setdefault(name, engine)

    async def close(self) -> None:
        """Give back what was loaded."""
        for demand in (*self.on_demand.values(), *self._speakers.values()):
            await demand.unload()

    def speaker(self, name: str) -> OnDemandEngine:
        """The speaker model of that name in the settings. Raises SettingsError: a bad option."""
        make = partial(self._make, "speaker", name, {})
        if name not in self._speakers:
            make()
            self._speakers[name] = OnDemandEngine(
                "speaker", name, make, idle_s=self._settings.server.unload_seconds
            )
        return self._speakers[name]

    def find(self, stage: Stage, name: str, *, alias: bool) -> EngineMatch | None:
        """See EngineSource. An alias may name every installed engine, and ENGINE:MODEL."""
        running = self._running[stage]
        if (engine := running.get(name) or self._models[stage].get(name)) is not None:
            return EngineMatch(name, engine, other=True)
        for engine in running.values():
            choose = getattr(engine, "for_model", None)
            if choose is not None and (offered := choose(name)) is not None:
                return EngineMatch(name, offered, other=True)
        demand = self._demand(stage, name, alias=alias)
        if demand is None or not demand.usable:
            return None
        return EngineMatch(name, demand.engine, demand, other=True)

    def _demand(self, stage: Stage, name: str, *, alias: bool) -> OnDemandEngine | None:
        if (stage, name) in self.on_demand:
            return self.on_demand[stage, name]
        engine = name
        options: dict[str, object] = {}
        if name in manifest() and (cache_folder() / name).is_dir():
            kind, _, engine = manifest()[name].engine.partition(":")
            if kind != stage or self.problem_of(name) is not None:
                return None
            options = {"model": name}
        elif alias:
            engine, colon, model = name.partition(":")
            options = {"model": model} if colon else {}
            if engine not in (*registry.names(stage), *self._settings.engines.get(stage, {})):
                return None
        elif name not in self._settings.engines.get(stage, {}):
            return None
        self.on_demand[stage, name] = OnDemandEngine(
            stage,
            name,
            partial(self._make, stage, engine, options),
            idle_s=self._idle_s(stage, engine, self._settings.server.unload_seconds),
        )
        return self.on_demand[stage, name]

    def _make(
        self, stage: Kind, name: str, options: dict[str, object]
    ) -> AbstractAsyncContextManager[Any]:
        """Gives the engine when it is entered. Raises SettingsError."""
        given = dict(self._settings.engines.get(stage, {}).get(name, {}))
        made = made_engine(self._settings, stage, name, given | options)
        return self._pool.use(stage, name, made.engine, made.settings)

    def _idle_s(self, kind: Any, name: str, default: float) -> float:
        """The `idle_unload_seconds` of an engine; it is checked when the engine is made."""
        given = self._settings.engines.get(kind, {}).get(name, {}).get("idle_unload_seconds")
        return float(given) if isinstance(given, int | float) else default

    def offered(self, kind: str) -> Iterator[OfferedModel]:
        """See Inventory: names of engines and their models, installed packs, their aliases."""
        found: dict[str, Any] = {}
        for each in self._entered:
            if each.kind == kind:
                for name in filter(None, (each.id.partition(":")[2], each.model)):
                    found.setdefault(name, each.engine)
        for (stage, name), demand in self.on_demand.items():
            if stage == kind:
                found.setdefault(name, demand.engine)
        for known, tables in self._settings.engines.items():
            if known == kind:
                found |= {name: found.get(name) for name in tables}
        for pack in self.packs():
            if pack.installed and pack.kind == kind and self.problem_of(pack.id) is None:
                found.setdefault(pack.id, None)
        for alias, targets in self._aliases.items():
            if (target := next((each for each in targets if each in found), None)) is not None:
                found.setdefault(alias, found[target])
        return (OfferedModel(name, engine) for name, engine in found.items())

    def residents(self) -> Iterator[Resident]:
        """See Inventory."""
        for each in self._entered:
            if residency_of(each.engine) is not None:
                yield each
        for (stage, name), demand in self.on_demand.items():
            yield self._on_demand(stage, name, demand)
        for name, demand in self._speakers.items():
            model = self._settings.engines.get("speaker", {}).get(name, {}).get("model", name)
            yield Resident(f"speaker:{name}", "speaker", model, demand, True, demand.idle_s)

    def resident(self, asked: str) -> Resident | None:
        """See Inventory."""
        for name in (asked, *self._aliases.get(asked, ())):
            for each in self.residents():
                if each.is_named(name):
                    return each
            for stage in STAGES:
                demand = self._demand(stage, name, alias=name != asked)
                if demand is not None:
                    return self._on_demand(stage, name, demand)
        return None

    def _on_demand(self, stage: Stage, name: str, demand: OnDemandEngine) -> Resident:
        return Resident(name, stage, name, demand, True, demand.idle_s)

    async def preload(self) -> list[str]:
        """Load what the settings name for the start; why something was not loaded."""
        return [
            problem
            for name in self._settings.server.preload
            if (problem := await self._preload(name)) is not None
        ]

    async def _preload(self, name: str) -> str | None:
        place, found = "[server] preload", self.resident(name)
        if found is None:
            return f"{place}: no engine and no installed model is called {name!r}"
        try:
            await found.engine.load()
        except EngineError as exc:
            return f"{place}: {name}: {exc}"
        return None

    def packs(self) -> list[PackSummary]:
        """See Inventory."""
        return [_summary(name, pack) for name, pack in manifest().items()]

    def pack_named(self, asked: str) -> str | None:
        """See Inventory."""
        names = (asked, *self._aliases.get(asked, ()))
        return next((name for name in names if name in manifest()), None)

    def problem_of(self, name: str) -> str | None:
        """Why a pack may not or cannot be used, whether it is installed or not; None: it can."""
        kind, _, engine = manifest()[name].engine.partition(":")
        return licence_problem(self._settings, name) or registry.problem_of(kind, engine)

    async def fetch(self, name: str, report: Report) -> None:
        """See Inventory. Raises EngineError."""
        if (problem := licence_problem(self._settings, name)) is not None:
            raise EngineError(problem)
        await pulling.pull(name, report)

    async def remove(self, name: str) -> None:
        """See Inventory. Raises EngineError: it is in use, or not here."""
        for each in self._entered:
            if name in (each.model, getattr(each.engine, "pack", "")):
                raise EngineError(
                    f"the model {name} is that of {each.id}; take it out of the settings first"
                )
        for each in self.residents():
            if name != each.model:
                continue
            if each.engine.users:
                raise EngineError(f"the model {name} is in use; try again later")
            await each.engine.unload()
        for key in [key for key in self.on_demand if key[1] == name]:
            del self.on_demand[key]
        await asyncio.to_thread(pulling.remove, name)


async def load_all(engines: Mapping[str, object]) -> None:
    """Wait until all models are loaded. Raises EngineNotUsable."""
    for id_, engine in engines.items():
        try:
            if isinstance(engine, BaseEngine):
                await engine.load()
        except EngineError as exc:
            raise EngineNotUsable(registry.with_place(_place(id_), exc)) from exc


async def load_new(engines: Mapping[str, object]) -> None:
    """Wait until those are loaded that are loading; what fails is logged."""
    for id_, engine in engines.items():
        try:
            if isinstance(engine, BaseEngine) and is_loading(engine):
                await engine.load()
        except EngineError as exc:
            log.warning("%s", registry.with_place(_place(id_), exc))


async def load_preloaded(inventory: ConfiguredEngines, *, strict: bool) -> None:
    """Load what the settings name for the start. What fails is logged, or raised as SettingsError:
    `strict`."""
    for problem in await inventory.preload():
        if strict:
            raise SettingsError(problem)
        log.warning("%s", problem)


@asynccontextmanager
async def preloading(inventory: ConfiguredEngines, *, strict: bool = False) -> AsyncIterator[None]:
    """Load meanwhile what the settings name for the start; `strict`: before. See above."""
    if strict:
        await load_preloaded(inventory, strict=True)
        yield
        return
    task = asyncio.create_task(load_preloaded(inventory, strict=False))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def _place(id_: str) -> str:
    return f"[engines.{id_.replace(':', '.')}]"


def licence_problem(settings: Settings, model: str) -> str | None:
    """Why the licence of a pack forbids the use that the settings name; None: it does not."""
    pack = manifest().get(model)
    if pack is None or settings.server.use != "commercial" or not forbids_commerce(pack.licence):
        return None
    return (
        f"the model {model} has the licence {pack.licence}, which forbids commercial use; choose "
        f'another model, or set [server] use = "any"'
    )


def _summary(name: str, pack: Pack) -> PackSummary:
    kind, _, engine = pack.engine.partition(":")
    installed = (cache_folder() / name).is_dir()
    return PackSummary(
        name,
        kind,
        engine,
        pack.description,
        pack.licence,
        pack.download_bytes,
        pack.size,
        installed,
    )


def check_engine_tables(settings: Settings) -> None:
    """Raise SettingsError for options of an engine that is not installed: a misspelt name."""
    for kind, named in settings.engines.items():
        for name, options in named.items():
            check_installed(kind, options.get("engine", name), f"[engines.{kind}.{name}]")


def check_installed(kind: Kind, name: object, place: str) -> None:
    """Raise SettingsError, which begins with `place`, for an engine that is not installed."""
    installed = registry.names(kind)
    if name not in installed:
        raise SettingsError(f"{place} no {kind} engine {name!r}; installed: {', '.join(installed)}")
