"""State that outlives a process, by key. Implementations live one per file in this package."""

from typing import Protocol, Self


class Store(Protocol):
    """Values by key, each with a time to live. An async context manager.

    Every method raises StoreError where the store cannot be reached.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Store a value in place of the last one, for so many seconds."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value; None if it is absent or expired."""
        ...

    async def delete(self, key: str) -> None:
        """Forget the value, if there is one."""
        ...
