"""What the processes of a cluster send each other: leases, and short messages."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

import msgspec


class ProcessLease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process of a node, as it described itself last."""

    place: str
    """Its name, which is part of the ids that it makes: n3fa9c1w0."""
    node: str
    """The name of its node."""
    address: str
    """The address at which other nodes reach it: http://10.0.0.1:8080."""
    version: str = ""
    sessions: int = 0
    max_sessions: int = 0
    overloaded: bool = False
    draining: bool = False


class TakenOver(msgspec.Struct, frozen=True, tag="taken_over"):
    """Another process has resumed a conversation."""

    key: str
    epoch: int
    """The epoch under which it is served there."""


class EndSession(msgspec.Struct, frozen=True, tag="end_session"):
    """An operator ends a session."""

    session: str


class DrainNode(msgspec.Struct, frozen=True, tag="drain_node"):
    """An operator drains a node: it takes no more sessions, and ends those that it has."""


ControlMessage: TypeAlias = TakenOver | EndSession | DrainNode


class ClusterStore(Protocol):
    """Leases and messages of the processes of a cluster. An async context manager.

    Every method raises StoreError where the store cannot be reached.
    """

    async def __aenter__(self) -> "ClusterStore": ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def renew(self, lease: ProcessLease, seconds: float) -> None:
        """Store the description of a process for this long; delete leases that have ended."""
        ...

    async def leave(self, place: str) -> None:
        """End the lease of a process."""
        ...

    async def leases(self) -> list[ProcessLease]:
        """The processes whose leases have not ended."""
        ...

    async def first(self, key: str, value: bytes, *, ttl_s: float) -> bytes:
        """Store a value unless the key has one; return the value that it has then."""
        ...

    async def publish(self, channel: str, message: ControlMessage) -> int:
        """Send a message to the processes that listen now; return how many there are."""
        ...

    def listen(
        self, channels: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[ControlMessage]]:
        """The messages of these channels from now on. The stream ends with a StoreError."""
        ...
