"""The models of a server for its operators: offered, in memory, on disk, and being pulled."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeAlias

from vivavoce.errors import EngineError

log = logging.getLogger(__name__)


class OfferedModel(NamedTuple):
    """A name that clients may give for a kind of engine."""

    name: str
    engine: Any = None
    """None: it is loaded at its first use."""


class Resident(NamedTuple):
    """An engine that has a model in memory, or loads it at its next use."""

    id: str
    """kind:name of an engine of the settings; for one loaded on demand, the name of what is
    loaded."""
    kind: str
    model: str
    """The pack or folder that it loads, if it has one."""
    engine: Any
    """Has residency(), load(), unload() and `loading`."""
    on_demand: bool = False
    idle_unload_seconds: float = 0.0
    """It is unloaded after this time without use; 0: never."""

    def is_named(self, name: str) -> bool:
        """Whether a client's name means this engine."""
        return name in (self.id, self.id.partition(":")[2], self.model)


class PackSummary(NamedTuple):
    """A model pack, installed or not."""

    id: str
    kind: str
    engine: str
    description: str
    licence: str
    download_bytes: int
    size: int
    """Bytes of its files."""
    installed: bool


class Progress(NamedTuple):
    """How far a pull is, in bytes of the download."""

    state: str
    """downloading, unpacking or installed."""
    done: int
    total: int


Report: TypeAlias = Callable[[str, int, int], None]
"""Called with the fields of a Progress."""


class Inventory(Protocol):
    """The engines of the settings, and the packs of this machine."""

    def offered(self, kind: str) -> Iterable[OfferedModel]:
        """The names that clients may use for a kind of engine."""
        ...

    def residents(self) -> Iterable[Resident]:
        """The engines that have, or had, a model in memory."""
        ...

    def resident(self, asked: str) -> Resident | None:
        """The engine of that name or model, which may not be loaded yet; None: there is none."""
        ...

    def packs(self) -> list[PackSummary]:
        """All packs that can be pulled."""
        ...

    def pack_named(self, asked: str) -> str | None:
        """The pack that a client means, by its name or an alias; None: there is none."""
        ...

    async def fetch(self, name: str, report: Report) -> None:
        """Pull a pack. `report` is called from any thread. Raises EngineError."""
        ...

    async def remove(self, name: str) -> None:
        """Delete a pack. Raises EngineError: it is in use, or not here."""
        ...


class Pull:
    """One pull, and the requests that follow it."""

    def __init__(self, fetch: Callable[[Report], Awaitable[None]]) -> None:
        self.progress = Progress("downloading", 0, 0)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._run(fetch))

    async def follow(self) -> AsyncIterator[Progress]:
        """The progress until the end; only the newest is reported.

        Raises EngineError if the pull fails.
        """
        shown: Progress | None = None
        while not self.task.done():
            if self.progress != shown:
                shown = self.progress
                yield shown
            else:
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait((news, self.task), return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        if self.task.cancelled():
            raise EngineError("the pull was ended: the server is shutting down")
        self.task.result()
        if self.progress != shown:
            yield self.progress

    async def _run(self, fetch: Callable[[Report], Awaitable[None]]) -> None:
        await fetch(self._report)

    def _report(self, state: str, done: int, total: int) -> None:
        self._loop.call_soon_threadsafe(self._note, Progress(state, done, total))

    def _note(self, progress: Progress) -> None:
        self.progress = progress
        self._news.set()
        self._news = asyncio.Event()


class Pulls:
    """Runs one pull of a pack at a time. It continues when the requests that follow it end."""

    def __init__(self) -> None:
        self._running: dict[str, Pull] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def start(self, name: str, inventory: Inventory) -> Pull:
        """The pull of that pack; it is begun if none is running."""
        if name not in self._running:
            pull = Pull(lambda report: inventory.fetch(name, report))
            self._running[name] = pull
            pull.task.add_done_callback(lambda task: self._ended(name, task))
        return self._running[name]

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        del self._running[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s was not pulled: %s", name, error)

    async def close(self) -> None:
        """End all pulls."""
        tasks = [pull.task for pull in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
