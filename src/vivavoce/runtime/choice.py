"""Chooses the engine for a model name that a client gives, and loads it if necessary.

The first of these is used: the engine of the conversation, if it offers a model of that name;
another engine of the settings, by its own name or by a model that it offers; weights that are
installed; what the table of aliases has for the name; the engine of the conversation.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol

import msgspec

from vivavoce.engines.base import Residency, residency_of
from vivavoce.errors import EngineError, SettingsError
from vivavoce.runtime.chains import FallbackLLM, FallbackSTT, FallbackTTS
from vivavoce.runtime.fallback import Chain, FallbackSettings, Member
from vivavoce.runtime.pools import Pool
from vivavoce.session.facts import Stage

log = logging.getLogger(__name__)

DEFAULT = "default"
"""Among the aliases, it stands for the engine of the conversation."""
LOAD_TIMEOUT_S = 30.0
RETRY_S = 60.0
"""An engine that failed to load is not tried again for this long."""
IDLE_S = 900.0

_CHAINS: Mapping[Stage, type[Chain[Any]]] = {
    "stt": FallbackSTT,
    "llm": FallbackLLM,
    "tts": FallbackTTS,
}


class OnDemandEngine:
    """An engine that is loaded at its first use, and unloaded when nobody uses it.

    A task of its own enters and leaves it.
    """

    def __init__(
        self, stage: str, name: str, make: Callable[[], Any], *, idle_s: float = IDLE_S
    ) -> None:
        """stage: the kind of engine, for messages. make: builds it, in a thread; raises
        SettingsError. idle_s: it is unloaded after this time without use; 0: never."""
        self.stage = stage
        self.name = name
        self.users = 0
        self.engine: Any = None
        """None: it is not loaded."""
        self.idle_s = idle_s
        self._make = make
        self._ready: asyncio.Future[Any] | None = None
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loaded_at = self._used_at = 0.0
        self._failed_until = float("-inf")

    @property
    def usable(self) -> bool:
        """Whether it may be tried: it has not failed just now."""
        return asyncio.get_running_loop().time() >= self._failed_until

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        """The engine, loaded. Raises EngineError."""
        self.users += 1
        try:
            yield await self.load()
        finally:
            self.users -= 1
            self._used_at = asyncio.get_running_loop().time()

    @property
    def loading(self) -> bool:
        return self._ready is not None and self.engine is None

    def residency(self) -> Residency:
        """How much it keeps in memory."""
        inner = residency_of(self.engine) if self.engine is not None else None
        return Residency(
            loaded=self.engine is not None and (inner is None or inner.loaded),
            users=self.users,
            loaded_at=self._loaded_at if self.engine is not None else None,
            used_at=self._used_at or None,
            memory_bytes=inner.memory_bytes if inner else None,
        )

    async def load(self) -> Any:
        """Load it if necessary. Raises EngineError."""
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._leave = asyncio.Event()
            self._task = asyncio.create_task(self._hold(self._ready, self._leave))
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                return await asyncio.shield(self._ready)
        except TimeoutError as exc:
            raise EngineError(
                f"the {self.stage} engine {self.name} was not loaded within {LOAD_TIMEOUT_S:g} s; "
                "is the machine overloaded?"
            ) from exc

    async def unload(self) -> None:
        """Unload it, even while it is used or being loaded."""
        task, ready = self._task, self._ready
        if task is not None and ready is not None:
            self._leave.set()
            if not ready.done():
                task.cancel()
            await asyncio.wait((task,))

    async def _hold(self, ready: asyncio.Future[Any], leave: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with await asyncio.to_thread(self._make) as engine:
                self.engine, self._loaded_at, self._used_at = engine, clock(), clock()
                if not ready.done():
                    ready.set_result(engine)
                log.info("%s %s is loaded", self.stage, self.name)
                await self._wait_until_idle(leave)
                self.engine = self._ready = None
        except (EngineError, SettingsError) as exc:
            self._failed_until = clock() + RETRY_S
            if not ready.done():
                ready.set_exception(EngineError(str(exc)))
                ready.exception()  # retrieved, in case that nobody waits any more
        finally:
            ready.cancel()
            if self._ready in (ready, None):
                self.engine = self._ready = None

    async def _wait_until_idle(self, leave: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        while not leave.is_set():
            idle_at = (clock() if self.users else self._used_at) + self.idle_s
            if self.idle_s and not self.users and clock() >= idle_at:
                log.info("%s %s is given back: nobody used it", self.stage, self.name)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(idle_at if self.idle_s else None):
                    await leave.wait()


class EngineMatch(NamedTuple):
    """What serves a name: a running engine, or one that is loaded at its use."""

    name: str
    """The name of the setting, of the pack, or of the model of a service."""
    engine: Any
    demand: OnDemandEngine | None = None
    other: bool = False
    """Whether it is not the engine of the conversation."""


class EngineSource(Protocol):
    """The engines and weights that the settings and this machine offer."""

    def find(self, stage: Stage, name: str, *, alias: bool) -> EngineMatch | None:
        """What the name stands for.

        alias: the name is from the operator's table, not from a client. Never waits.
        """
        ...


class Own(msgspec.Struct, frozen=True):
    """The engine of a conversation, and the name that the settings give it."""

    stage: Stage
    name: str
    engine: Any


class EngineChoice(msgspec.Struct, frozen=True):
    """Chooses engines by the names that clients give."""

    aliases: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Names to look for, in order, if nothing has the name itself."""
    source: EngineSource | None = None
    fallback: FallbackSettings = msgspec.field(default_factory=FallbackSettings)
    _members: dict[tuple[Stage, str], Member[Any]] = msgspec.field(default_factory=dict)

    def find(self, own: Own, asked: str) -> EngineMatch:
        """What serves the name; `own` if nothing else does. Never waits."""
        for name in (asked, *self.aliases.get(asked, ())):
            if name in ("", DEFAULT, own.name):
                break
            choose = getattr(own.engine, "for_model", None)
            offered = choose(name) if choose is not None else None
            if offered is not None:
                return EngineMatch(name, offered)
            if self.source is not None:
                found = self.source.find(own.stage, name, alias=name is not asked)
                if found is not None:
                    return found
        return EngineMatch(own.name, own.engine)

    def model(self, asked: str) -> str:
        """The model name that is sent to the service of a language model."""
        return next((name for name in self.aliases.get(asked, ()) if name != DEFAULT), asked)

    @asynccontextmanager
    async def use(self, own: Own, asked: str) -> AsyncIterator[Any]:
        """The engine that serves the name, loaded. If it cannot be loaded, `own` takes its place,
        so no error is raised."""
        found = self.find(own, asked)
        engine = found.engine
        async with AsyncExitStack() as stack:
            if found.demand is not None:
                try:
                    engine = await stack.enter_async_context(found.demand.use())
                except EngineError as exc:
                    log.warning(
                        "%s %s failed: %s; %s takes over", own.stage, found.name, exc, own.name
                    )
                    found = EngineMatch(own.name, own.engine)
                    engine = own.engine
            yield self._chain(own, found.name, engine) if found.other else engine

    def _chain(self, own: Own, name: str, engine: Any) -> Any:
        """A chain of the engine and, behind it, the engine of the conversation."""
        member = self._members.get((own.stage, name))
        if member is None or member.engine is not engine:
            member = self._members[own.stage, name] = Member(name, engine)
        chained = isinstance(own.engine, Chain) and not isinstance(own.engine, Pool)
        others = own.engine.members if chained else (Member(own.name, own.engine),)
        return _CHAINS[own.stage]((member, *others), self.fallback)
