"""The nodes of a cluster, as they were when their leases were last read. No I/O."""

import asyncio
from typing import Literal

import msgspec

from vivavoce.runtime.places import node_tag
from vivavoce.store.cluster import ProcessLease

SUSPECTED_S = 5.0


class ClusterNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node: all its processes together."""

    node: str
    object: Literal["cluster.node"] = "cluster.node"
    address: str
    version: str
    workers: int
    sessions: int
    max_sessions: int
    load: float
    """The used share of its sessions: 1 is full."""
    overloaded: bool
    """Whether all its workers are overloaded."""
    draining: bool

    @property
    def has_room(self) -> bool:
        return not self.draining and not self.overloaded and self.sessions < self.max_sessions


class KnownNodes:
    """Nodes by name, or by the tag that ids contain."""

    def __init__(self, own_tag: str) -> None:
        """own_tag: of the node of this process."""
        self.leases: list[ProcessLease] = []
        """Of all processes, those of this node included; replaced when they are read."""
        self._own_tag = own_tag
        self._suspected: dict[str, float] = {}  # by tag, until when

    @property
    def nodes(self) -> list[ClusterNode]:
        """The nodes by name."""
        by_name: dict[str, list[ProcessLease]] = {}
        for lease in self.leases:
            by_name.setdefault(lease.node, []).append(lease)
        return [_node(leases) for _, leases in sorted(by_name.items())]

    def address_of(self, tag: str) -> str | None:
        """None: there is no such node."""
        return next((one.address for one in self.leases if node_tag(one.node) == tag), None)

    def suspect(self, tag: str) -> None:
        """Note that a node could not be reached."""
        self._suspected[tag] = self._now + SUSPECTED_S

    def is_suspected(self, tag: str) -> bool:
        """Whether that happened within SUSPECTED_S: clients that come back do not wait for such a
        node."""
        return self._suspected.get(tag, 0.0) > self._now

    def least_loaded(self) -> str:
        """The name of the other node with the most free sessions; "": none has any."""
        others = (node for node in self.nodes if node_tag(node.node) != self._own_tag)
        free = [node for node in others if node.has_room]
        return min(free, key=lambda node: node.load).node if free else ""

    def namesake(self, address: str) -> ProcessLease | None:
        """A process of a node with the same tag as this one, and another address than its own."""
        for lease in self.leases:
            if node_tag(lease.node) == self._own_tag and lease.address != address:
                return lease
        return None

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _node(leases: list[ProcessLease]) -> ClusterNode:
    first = leases[0]
    sessions = sum(lease.sessions for lease in leases)
    most = sum(lease.max_sessions for lease in leases)
    return ClusterNode(
        node=first.node,
        address=first.address,
        version=first.version,
        workers=len(leases),
        sessions=sessions,
        max_sessions=most,
        load=round(sessions / most, 3) if most else 1.0,
        overloaded=all(lease.overloaded for lease in leases),
        draining=all(lease.draining for lease in leases),
    )
