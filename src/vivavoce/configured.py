"""The engines of the settings and the weights on this machine, by the names that clients give."""

from functools import partial
from typing import Any, get_args

from vivavoce.engines import registry
from vivavoce.engines.packs import cache_folder, manifest
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.choice import EngineMatch, OnDemandEngine
from vivavoce.session.facts import Stage
from vivavoce.settings import Kind, Settings

STAGES: tuple[Stage, ...] = get_args(Stage)


class ConfiguredEngines:
    """The engines that names of clients may stand for; those of no model are loaded on demand."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
        self._models: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
        self.on_demand: dict[tuple[str, str], OnDemandEngine] = {}

    def add(self, kind: str, name: str, engine: Any, model: str) -> None:
        """An engine that runs, under the name of its settings, and its model or folder."""
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
        for demand in self.on_demand.values():
            await demand.unload()

    def speaker(self, name: str) -> OnDemandEngine:
        """The speaker model of that name in the settings. Raises SettingsError: a bad option."""
        make = partial(self._make, "speaker", name, {})
        if ("speaker", name) not in self.on_demand:
            make()
            self.on_demand["speaker", name] = OnDemandEngine(
                "speaker", name, make, idle_s=self._settings.server.unload_seconds
            )
        return self.on_demand["speaker", name]

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
        if (stage, name) not in self.on_demand:
            engine = name
            options: dict[str, object] = {}
            pack = manifest().get(name)
            if pack is not None and (cache_folder() / name).is_dir():
                kind, _, engine = pack.engine.partition(":")
                if kind != stage:
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
                idle_s=self._settings.server.unload_seconds,
            )
        return self.on_demand[stage, name]

    def _make(self, stage: Kind, name: str, options: dict[str, object]) -> Any:
        """Raises SettingsError."""
        given = dict(self._settings.engines.get(stage, {}).get(name, {}))
        real = given.pop("engine", name)
        return registry.create(stage, real, given | options, table=name)
