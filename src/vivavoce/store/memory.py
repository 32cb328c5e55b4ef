"""A store in the memory of one process, also for tests."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Self


class MemoryStore:
    """See store/base.py.

    When there are too many bytes, the values that were stored first are dropped.
    """

    def __init__(
        self, *, max_bytes: int = 64 * 1024 * 1024, clock: Callable[[], float] = monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._values.clear()
        self._bytes = 0

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        await self.delete(key)
        self._values[key] = (value, self._clock() + ttl_s)
        self._bytes += len(value)
        while self._bytes > self._max_bytes:
            _, (dropped, _) = self._values.popitem(last=False)
            self._bytes -= len(dropped)

    async def get(self, key: str) -> bytes | None:
        value, expires_at = self._values.get(key, (None, 0.0))
        if value is not None and expires_at <= self._clock():
            await self.delete(key)
            return None
        return value

    async def delete(self, key: str) -> None:
        value, _ = self._values.pop(key, (b"", 0.0))
        self._bytes -= len(value)
