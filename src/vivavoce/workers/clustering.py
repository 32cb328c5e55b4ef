"""Composes the cluster of a server from its settings."""

import re
import socket
from functools import partial
from typing import NamedTuple

import msgspec

from vivavoce import __version__
from vivavoce.accounting import redis_client
from vivavoce.errors import SettingsError
from vivavoce.runtime.cluster import Cluster
from vivavoce.runtime.places import Locations, node_tag
from vivavoce.runtime.resume import Resumption
from vivavoce.runtime.sessions import Sessions
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.store.base import Store
from vivavoce.store.cluster import ClusterStore, ProcessLease
from vivavoce.workers.control import tell_taken_over
from vivavoce.workers.hops import HopSigner, Neighbours
from vivavoce.workers.messages import WorkerPlace

_REDIS = ("redis://", "rediss://", "unix://")


class Membership(NamedTuple):
    """The parts with which a process serves together with others."""

    place: WorkerPlace
    locations: Locations
    neighbours: Neighbours | None = None
    """None: the machine is in no cluster."""
    node: str = ""
    """The name of its node."""

    @property
    def cluster(self) -> Cluster | None:
        return self.neighbours.cluster if self.neighbours else None

    async def end_session(self, session_id: str) -> bool:
        """Send a message to the process that has a session, to end it; return whether it was
        reached."""
        place, cluster = await self.locations.find(session_id), self.cluster
        if place is None or cluster is None or place == self.place.place:
            return False
        return await cluster.end_session(place, session_id)


def node_name(settings: Settings) -> str:
    """The name of this node; "" where it is in no cluster."""
    if not settings.cluster.address:
        return ""
    name = settings.cluster.node or re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()).strip("-.")
    return name[:63] or "node"


def placed(settings: Settings, place: WorkerPlace | None) -> WorkerPlace | None:
    """The place of this process, with its node; None: it serves alone.

    place: among the workers of the machine. Raises SettingsError.
    """
    if not (name := node_name(settings)):
        return place
    check_cluster(settings)
    return msgspec.structs.replace(place or WorkerPlace(0, 1, ""), node=node_tag(name))


def check_cluster(settings: Settings) -> None:
    """Raises SettingsError for a cluster that cannot work."""
    if not settings.server.secret:
        raise SettingsError(
            "[cluster] nodes pass requests on under [server] secret, which is empty: set it to the "
            "same long random text on all nodes"
        )
    if not _url(settings).reveal().startswith(_REDIS):
        raise SettingsError(
            "[cluster] redis: there is no Redis server; set it, or [store] url, to "
            "redis://HOST:PORT, rediss://HOST:PORT or unix://PATH"
        )


def cluster_store(settings: Settings) -> ClusterStore:
    """Raises SettingsError."""

    def made() -> ClusterStore:
        from vivavoce.store.redis_cluster import RedisCluster

        return RedisCluster(_url(settings))

    return redis_client(made, "[cluster] redis")


def joined(
    settings: Settings,
    place: WorkerPlace | None,
    store: Store,
    sessions: Sessions,
    resumption: Resumption | None,
) -> Membership | None:
    """The membership of this process, whose cluster is not entered yet; None: it serves alone.

    place: see placed(). store: where conversations are; it is entered. Raises SettingsError.
    """
    if place is None:
        return None
    locations = Locations(store, place.place)
    if not (name := node_name(settings)):
        if resumption is not None:
            resumption.on_claim = partial(tell_taken_over, place)
        return Membership(place, locations)

    def describe() -> ProcessLease:
        admission = sessions.admission
        return ProcessLease(
            place=place.name,
            node=name,
            address=settings.cluster.address,
            version=__version__,
            sessions=len(sessions),
            max_sessions=sessions.context.max_sessions,
            overloaded=admission is not None and admission.overloaded,
            draining=sessions.draining,
        )

    cluster = Cluster(cluster_store(settings), settings.cluster, place.place, describe)
    sessions.is_cut_off = lambda: cluster.refuses_sessions
    cluster.on_end_session = sessions.live.end
    cluster.on_drain = lambda: sessions.drain(settings.server.drain_seconds)
    if resumption is not None:
        cluster.on_taken_over = resumption.fence
        resumption.on_claim = cluster.tell_taken_over
    signer = HopSigner(Secret(settings.server.secret))
    return Membership(place, locations, Neighbours(cluster, signer), name)


def _url(settings: Settings) -> Secret:
    return Secret(settings.cluster.redis or settings.store.url)
