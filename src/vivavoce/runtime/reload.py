"""Engines and settings that several users share, and that are released after the last of them.

When the settings are read again, open sessions keep the old ones, so both are in use for a while.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Counted(Generic[T]):
    """A value, and the number of its users."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def take(self) -> None:
        """Add a user; give_back() ends that."""
        self._users += 1
        self._unused.clear()

    def give_back(self) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()

    @contextmanager
    def hold(self) -> Iterator[T]:
        """The value, in use until the block ends."""
        self.take()
        try:
            yield self.value
        finally:
            self.give_back()

    async def wait_unused(self) -> None:
        """Wait until it has no users."""
        await self._unused.wait()


class _Shared(msgspec.Struct, eq=False):
    """An engine in a pool, and the options that distinguish it."""

    kind: str
    name: str
    made: Any
    """The engine as it was made, entered or not."""
    options: object
    users: int = 0
    engine: Any = None
    """The result of entering it; None: it is not entered."""
    entering: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)


class EnginePool:
    """Running engines: one for each class and set of options, however many models use it."""

    def __init__(self) -> None:
        self._running: list[_Shared] = []

    @asynccontextmanager
    async def use(self, kind: str, name: str, made: Any, options: object) -> AsyncIterator[Any]:
        """The engine of that kind and name, entered.

        made: a new engine, used if none with these options is running. options: its settings, which
        are compared. The engine is left when nobody uses it. Raises what entering raises.
        """
        shared = self._find(kind, name, type(made), options)
        if shared is None:
            shared = _Shared(kind, name, made, options)
            self._running.append(shared)
        shared.users += 1
        try:
            async with shared.entering:
                if shared.engine is None:
                    shared.made = made
                    shared.engine = await made.__aenter__()
            yield shared.engine
        finally:
            shared.users -= 1
            if not shared.users:
                self._running.remove(shared)
                if shared.engine is not None:
                    await shared.made.__aexit__(None, None, None)

    def _find(self, kind: str, name: str, type_: type, options: object) -> _Shared | None:
        for shared in self._running:
            same = (shared.kind, shared.name, type(shared.made)) == (kind, name, type_)
            if same and shared.options == options:
                return shared
        return None
