"""The nodes of a cluster, as known to one process.

Each process renews a lease that describes its load, and reads the leases of the others. Messages
between processes only save time: correctness depends on the epochs of claims (resume.py), not on
them. While Redis cannot be reached, calls continue, and the last known nodes are used.
"""

import asyncio
import contextlib
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from vivavoce.errors import StoreError
from vivavoce.runtime.known_nodes import ClusterNode, KnownNodes
from vivavoce.runtime.places import Place, node_tag, place_named
from vivavoce.secret import conceal
from vivavoce.store.cluster import (
    ClusterStore,
    ControlMessage,
    DrainNode,
    EndSession,
    ProcessLease,
    TakenOver,
)

log = logging.getLogger(__name__)

RENEWALS = 3
"""How often a lease is renewed in the time that it lasts."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 5.0
"""Bounds of the pause between two attempts to reach Redis; a part of it is random."""
LOOK_AGAIN_S = 1.0
"""Leases are read at most this often to find a node that is not known."""
LEAVE_TIMEOUT_S = 2.0

Drain: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class ClusterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[cluster]: several machines that serve together."""

    address: str = ""
    """The address at which the other nodes reach this one: http://10.0.0.1:8080.

    Empty: there is no cluster.
    """
    node: str = ""
    """The unique name of this node. Empty: the name of the machine."""
    redis: str = ""
    """redis://…, rediss://… or unix://…, for leases and messages. Empty: [store] url."""
    lease_seconds: Annotated[float, Meta(ge=1, le=300)] = 10.0
    """A node without a sign of life for this long counts as dead."""
    when_away: Literal["serve", "refuse"] = "serve"
    """Whether new sessions are served while Redis cannot be reached; open sessions continue."""

    def __post_init__(self) -> None:
        conceal(self, "redis")  # it may hold a password
        if self.address and not _is_address(self.address):
            raise ValueError("address is http://HOST:PORT or https://HOST:PORT, without a path")
        if (self.node or self.redis) and not self.address:
            raise ValueError(
                "address is missing: set it to where the other nodes reach this one, such as "
                "http://10.0.0.1:8080"
            )
        if self.node and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", self.node):
            raise ValueError("node is a name of letters, digits, '.' and '-', at most 63")


class Cluster:
    """An async context manager. Set the callbacks before entering it."""

    def __init__(
        self,
        store: ClusterStore,
        settings: ClusterSettings,
        place: Place,
        describe: Callable[[], ProcessLease],
    ) -> None:
        """place: of this process.

        describe: returns the present state of this process. The store is entered and left with the
        cluster.
        """
        self.settings = settings
        self.place = place
        self.away = False
        """Whether Redis cannot be reached."""
        self.known = KnownNodes(place.node)
        """The nodes as they were when leases were last read."""
        self.forwarded: Counter[str] = Counter()
        """How many requests were passed to another node, by their outcome."""
        self.received: Counter[str] = Counter()
        """How many messages came from other processes, by their kind."""
        self.on_taken_over: Callable[[str, int], None] = lambda *_: None
        """Called with the key and the epoch of a conversation that another process has claimed."""
        self.on_end_session: Callable[[str], object] = lambda _: None
        """Called with the id of a session that an operator ends."""
        self.on_drain: Drain | None = None
        """Called to drain this process: it ends all sessions, and takes no more."""
        self._store = store
        self._describe = describe
        self._read_at = -LOOK_AGAIN_S
        self._away_since = 0.0
        self._is_back = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        await self._renew()
        self._warn_of_namesake()
        for work in (self._keep_lease(), self._listen()):
            self._tasks.add(asyncio.create_task(work))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._store.leave(self.place.name)
        await self._store.__aexit__(*exc)

    @property
    def refuses_sessions(self) -> bool:
        """Whether new sessions are refused because Redis cannot be reached."""
        return self.away and self.settings.when_away == "refuse"

    @property
    def nodes(self) -> list[ClusterNode]:
        """The nodes by name, as they were when leases were last read."""
        return self.known.nodes

    async def fresh_nodes(self) -> list[ClusterNode]:
        """The nodes as they are now; as last known while Redis cannot be reached."""
        await self._read()
        return self.nodes

    async def address_of(self, tag: str) -> str | None:
        """The address of a node, by its tag in ids; None: it is gone."""
        known = self.known.address_of(tag)
        if known is None and self._now - self._read_at >= LOOK_AGAIN_S:
            await self._read()
            known = self.known.address_of(tag)
        return known

    async def has_left(self, tag: str) -> bool:
        """Whether the lease of a node that was known has ended."""
        await self._read()
        return self.known.address_of(tag) is None

    async def first(self, key: str, value: str, ttl_s: float) -> str:
        """The value that the key was first given in the whole cluster.

        It is `value` if this call was the first, or if Redis cannot be reached.
        """
        try:
            return (await self._store.first(key, value.encode(), ttl_s=ttl_s)).decode()
        except StoreError as exc:
            log.debug("%s", exc)
            return value

    async def tell_taken_over(self, owner: str, key: str, epoch: int) -> None:
        """Tell the process that had a conversation that it is served here now."""
        if place_named(owner) is not None and owner != self.place.name:
            await self._send(owner, TakenOver(key, epoch))

    async def end_session(self, place: Place, session_id: str) -> bool:
        """Send the process of a session a message to end it; return whether the process was
        reached."""
        return await self._send(place.name, EndSession(session_id)) > 0

    async def drain(self, node: str) -> int:
        """Send the processes of a node a message to drain; return how many were reached.

        Raises StoreError.
        """
        return await self._store.publish(node_tag(node), DrainNode())

    async def _send(self, channel: str, message: ControlMessage) -> int:
        """Send a message; return how many processes received it."""
        try:
            return await self._store.publish(channel, message)
        except StoreError as exc:
            log.debug("%s", exc)
            return 0

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _read(self) -> None:
        self._read_at = self._now
        try:
            self.known.leases = await self._store.leases()
        except StoreError as exc:
            self._lost(exc)

    async def _renew(self) -> bool:
        self._read_at = self._now
        try:
            await self._store.renew(self._describe(), self.settings.lease_seconds)
            self.known.leases = await self._store.leases()
        except StoreError as exc:
            self._lost(exc)
            return False
        if self.away:
            self.away = False
            self._is_back.set()
            log.info(
                "Redis of the cluster answers again after %.0f s", self._now - self._away_since
            )
        return True

    def _lost(self, exc: StoreError) -> None:
        if self.away:
            return
        self.away, self._away_since = True, self._now
        self._is_back.clear()
        served = "served" if self.settings.when_away == "serve" else "refused"
        log.warning("%s; calls go on, new sessions are %s", exc, served)

    def _warn_of_namesake(self) -> None:
        """Warn about two nodes of one name: each would be sent requests for calls of the other."""
        if (lease := self.known.namesake(self.settings.address)) is not None:
            log.warning(
                "[cluster] node: the node at %s is called %s, too; if it is not this one "
                "before its restart, give one of them another name",
                lease.address,
                lease.node,
            )

    async def _keep_lease(self) -> None:
        every_s, pause = self.settings.lease_seconds / RENEWALS, MIN_PAUSE_S
        while True:
            await asyncio.sleep(_part_of(pause) if self.away else every_s)
            pause = MIN_PAUSE_S if await self._renew() else min(2 * pause, MAX_PAUSE_S)

    async def _listen(self) -> None:
        """Receive messages for ever; after an error try again, soon once Redis is back."""
        pause = MIN_PAUSE_S
        while True:
            try:
                async with self._store.listen((self.place.name, self.place.node)) as messages:
                    pause = MIN_PAUSE_S
                    async for message in messages:
                        self._take(message)
            except StoreError as exc:
                log.debug("%s", exc)
            if self.away:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_part_of(pause)):
                        await self._is_back.wait()
            else:
                await asyncio.sleep(_part_of(pause))
            pause = min(2 * pause, MAX_PAUSE_S)

    def _take(self, message: ControlMessage) -> None:
        match message:
            case TakenOver(key=key, epoch=epoch):
                self.received["taken_over"] += 1
                self.on_taken_over(key, epoch)
            case EndSession(session=session_id):
                self.received["end_session"] += 1
                self.on_end_session(session_id)
            case DrainNode():
                self.received["drain_node"] += 1
                self._begin_drain()

    def _begin_drain(self) -> None:
        if self.on_drain is None:
            return
        log.info("an operator drains this node: it takes no more sessions until it is restarted")
        task = asyncio.create_task(self._drained(self.on_drain))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drained(self, drain: Drain) -> None:
        ending = asyncio.create_task(drain())
        try:
            await asyncio.sleep(0)  # so that the others know that it takes no more sessions
            await self._renew()
            await ending
        finally:
            ending.cancel()


def _is_address(text: str) -> bool:
    if not re.fullmatch(r"https?://[^/?#@\s]+", text):
        return False
    try:
        return bool(urlsplit(text).hostname) and urlsplit(text).port != 0
    except ValueError:  # the port, or an IPv6 address
        return False


def _part_of(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.0)
