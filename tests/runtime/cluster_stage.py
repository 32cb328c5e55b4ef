"""A store of a cluster in memory, which can be cut off."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from vivavoce.errors import StoreError
from vivavoce.runtime.cluster import Cluster, ClusterSettings
from vivavoce.runtime.places import Place, node_tag
from vivavoce.store.cluster import ControlMessage, ProcessLease


class MemoryCluster:
    """See store/cluster.py. Times are those of the loop."""

    def __init__(self) -> None:
        self.away = False
        self.attempts = 0
        """To use it while it is away."""
        self._leases: dict[str, tuple[ProcessLease, float]] = {}
        self._first: dict[str, bytes] = {}
        self._listening: dict[asyncio.Queue[ControlMessage | None], Sequence[str]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def cut_off(self) -> None:
        self.away = True
        for queue in self._listening:
            queue.put_nowait(None)

    async def renew(self, lease: ProcessLease, seconds: float) -> None:
        self._check()
        self._leases[lease.place] = lease, _now() + seconds

    async def leave(self, place: str) -> None:
        self._check()
        self._leases.pop(place, None)

    async def leases(self) -> list[ProcessLease]:
        self._check()
        return [lease for lease, until in self._leases.values() if until > _now()]

    async def first(self, key: str, value: bytes, *, ttl_s: float) -> bytes:
        self._check()
        return self._first.setdefault(key, value)

    async def publish(self, channel: str, message: ControlMessage) -> int:
        self._check()
        queues = [queue for queue, names in self._listening.items() if channel in names]
        for queue in queues:
            queue.put_nowait(message)
        return len(queues)

    @asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[ControlMessage]]:
        self._check()
        queue: asyncio.Queue[ControlMessage | None] = asyncio.Queue(100)
        self._listening[queue] = channels
        try:
            yield self._messages(queue)
        finally:
            del self._listening[queue]

    async def _messages(
        self, queue: asyncio.Queue[ControlMessage | None]
    ) -> AsyncIterator[ControlMessage]:
        while (message := await queue.get()) is not None:
            yield message
        raise StoreError("the connection was lost")

    def _check(self) -> None:
        if self.away:
            self.attempts += 1
            raise StoreError("the Redis server of the cluster cannot be used")


def _now() -> float:
    return asyncio.get_running_loop().time()


def a_node(
    store: MemoryCluster,
    name: str = "one",
    *,
    worker: int = 0,
    load: tuple[int, int] = (0, 10),
    draining: bool = False,
    overloaded: bool = False,
    settings: ClusterSettings | None = None,
) -> Cluster:
    """A process of a node. load: its sessions, and how many it may have."""
    place = Place(node_tag(name), worker)
    settings = settings or ClusterSettings(address=f"http://{name}:8080", node=name)
    lease = ProcessLease(
        place=place.name,
        node=name,
        address=settings.address,
        sessions=load[0],
        max_sessions=load[1],
        draining=draining,
        overloaded=overloaded,
    )
    return Cluster(store, settings, place, lambda: lease)
