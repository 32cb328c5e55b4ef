"""Reads the settings again while the server runs: new sessions get them, others keep theirs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Generic, NamedTuple, Self, TypeVar

import msgspec

from vivavoce.engines import registry
from vivavoce.errors import SettingsError
from vivavoce.runtime.reload import Counted
from vivavoce.runtime.sessions import ServerContext, Sessions
from vivavoce.settings import Settings

log = logging.getLogger(__name__)
B = TypeVar("B")

RELOADED_SERVER = frozenset(
    {
        *("max_sessions", "drain_seconds", "hosts", "origins", "no_auth", "log_level"),
        *("unload_seconds", "preload", "use", "strict", "watch"),
    }
)
"""The settings of [server] that take effect when they are read again."""
FIXED_TABLES = ("webrtc", "telephony", "recorder", "store", "cluster")
"""The tables that do not."""


def not_reloaded(started: Settings, new: Settings) -> list[str]:
    """The settings that differ from those of the start, and take effect at the next one only."""
    fields = msgspec.structs.fields(type(new.server))
    changed = [
        f"[server] {field.name}"
        for field in fields
        if field.name not in RELOADED_SERVER
        and getattr(started.server, field.name) != getattr(new.server, field.name)
    ]
    tables = [name for name in FIXED_TABLES if getattr(started, name) != getattr(new, name)]
    return changed + [f"[{name}]" for name in tables]


@dataclass(frozen=True, slots=True)
class Generation(Generic[B]):
    """What was built from one reading of the settings, until `stack` is closed."""

    built: B
    stack: AsyncExitStack


class Generations(Generic[B]):
    """What was built from the settings, and from earlier ones that are still used.

    An async context manager, which leaves them all.
    """

    def __init__(
        self, build: Callable[[Settings], AbstractAsyncContextManager[B]], settings: Settings
    ) -> None:
        self._build = build
        self._settings = settings
        self._current: Generation[B] | None = None
        self._retiring: dict[asyncio.Task[None], Generation[B]] = {}

    @property
    def current(self) -> B:
        assert self._current is not None
        return self._current.built

    async def __aenter__(self) -> Self:
        """Build what the settings say. Raises SettingsError."""
        self._current = await self.start(self._settings)
        return self

    async def __aexit__(self, *exc: object) -> None:
        retiring, self._retiring = self._retiring, {}
        for task in retiring:
            task.cancel()
        if retiring:
            await asyncio.wait(retiring)
        for generation in (*retiring.values(), self._current):
            if generation is not None:
                await generation.stack.aclose()

    async def start(self, settings: Settings) -> Generation[B]:
        """Build what other settings say. Raises SettingsError."""
        async with AsyncExitStack() as stack:
            built = await stack.enter_async_context(self._build(settings))
            return Generation(built, stack.pop_all())

    def replace(self, new: Generation[B], earlier: Counted[ServerContext]) -> None:
        """Go on with `new`. What was before it is left when nobody uses its context."""
        assert self._current is not None
        task = asyncio.create_task(self._retire(self._current, earlier))
        self._retiring[task] = self._current
        self._current = new

    async def _retire(self, generation: Generation[B], context: Counted[ServerContext]) -> None:
        await context.wait_unused()
        task = asyncio.current_task()
        if task is not None and self._retiring.pop(task, None) is not None:
            await asyncio.shield(generation.stack.aclose())


class Replacement(NamedTuple):
    """What other settings lead to, with its models loaded."""

    context: ServerContext
    apply: Callable[[], Awaitable[None]]
    """Replaces what is no part of the context: keys, prices, allowed origins."""


class Reloader(Generic[B]):
    """Replaces the settings of a running server."""

    def __init__(
        self,
        settings: Settings,
        generations: Generations[B],
        sessions: Sessions,
        *,
        reread: Callable[[], Settings],
        check: Callable[[Settings], None],
        prepare: Callable[[Settings, B], Awaitable[Replacement]],
    ) -> None:
        """All three raise SettingsError.

        reread: called in a thread. check: what can be seen to be wrong before anything is built.
        """
        self.settings = settings
        """Those in force."""
        self._started = settings
        self._generations = generations
        self._sessions = sessions
        self._reread = reread
        self._check = check
        self._prepare = prepare

    async def reload(self) -> None:
        """Read the settings again. Where they cannot be used, the log says why, and the earlier
        ones stay."""
        registry.refresh()
        try:
            settings = await asyncio.to_thread(self._reread)
            self._check(settings)
            async with AsyncExitStack() as unless_prepared:
                generation = await self._generations.start(settings)
                unless_prepared.push_async_callback(generation.stack.aclose)
                replacement = await self._prepare(settings, generation.built)
                unless_prepared.pop_all()
        except SettingsError as exc:
            log.error("the settings were not reloaded, the earlier ones stay: %s", exc)
            return
        earlier = self._sessions.replace_context(replacement.context)
        self._generations.replace(generation, earlier)
        self.settings = settings
        await replacement.apply()
        log.info(
            "the settings were reloaded; %d sessions keep the earlier ones", len(self._sessions)
        )
        if fixed := not_reloaded(self._started, settings):
            log.warning(
                "%s: changed, but not reloaded; restart the server for that", ", ".join(fixed)
            )

    async def serve(self, asked: asyncio.Event, end: asyncio.Event) -> None:
        """Reload whenever `asked` is set, until `end` is."""
        reloading = asyncio.create_task(self._reload_when(asked))
        try:
            await end.wait()
        finally:
            reloading.cancel()
            await asyncio.wait((reloading,))

    async def _reload_when(self, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            try:
                await self.reload()
            except Exception:
                log.exception("the settings were not reloaded")
