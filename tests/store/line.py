"""A store in virtual time, and the ways of several processes to it, which can be cut."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from vivavoce.errors import StoreError
from vivavoce.store.base import AccountStore
from vivavoce.store.sqlite import SQLiteStore

T = TypeVar("T")


class InlineSQLite(SQLiteStore):
    """Without a thread, as virtual time has none."""

    async def _run(self, work: Callable[[Any], T]) -> T:
        await asyncio.sleep(0)
        return work(self._connection)


class Line:
    """The way of one process to the store. It can be cut."""

    def __init__(self, store: AccountStore) -> None:
        self._store = store
        self.cut = False
        self.hangs = False
        self.loses_answer = False
        """The next operation is done, and its answer lost; from then on the line is cut."""
        self.delay: Callable[[], Awaitable[None]] | None = None
        """Waited for on the way to the store, and on the way back."""
        self.operations: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def operation(*args: Any, **options: Any) -> Any:
            self.operations.append(name)
            if self.hangs:
                await asyncio.Event().wait()
            if self.delay is not None:
                await self.delay()
            if self.cut:
                raise StoreError("the line is cut")
            result = await method(*args, **options)
            if self.delay is not None:
                await self.delay()
            if self.loses_answer:
                self.loses_answer, self.cut = False, True
                raise StoreError("the answer is lost")
            return result

        return operation
