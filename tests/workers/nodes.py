"""Nodes of a cluster in this process and loop, which share a Redis server."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import aiohttp
import msgspec

from tests.server import HOST, Server, scripted
from vivavoce.accounting import resuming
from vivavoce.app import build
from vivavoce.routes import application, auth_of
from vivavoce.runtime.cluster import Cluster, ClusterSettings
from vivavoce.runtime.resume import Resumption
from vivavoce.runtime.sessions import Sessions
from vivavoce.secret import Secret
from vivavoce.server import serve_app
from vivavoce.settings import Settings
from vivavoce.store.base import SessionStore
from vivavoce.workers.clustering import joined, placed

SECRET = "the same on all nodes"


@dataclass(frozen=True, slots=True)
class Node(Server):
    """A node, and a client of it."""

    cluster: Cluster | None = None
    resumption: Resumption | None = None
    client: aiohttp.ClientSession | None = None

    @property
    def saved(self) -> bool:
        """Whether all checkpoints are stored."""
        return self.resumption is not None and self.resumption.idle

    async def ask(self, method: str, path: str, **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        assert self.client
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(method, self.http + path, headers=named) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def node(
    name: str,
    redis: str,
    store: SessionStore,
    *,
    secret: str = SECRET,
    settings: Settings | None = None,
) -> AsyncIterator[Node]:
    """A node of that name; its sessions are ended when it is left."""
    with socket.create_server((HOST, 0)) as listening:
        listening.setblocking(False)
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        settings = settings or scripted()
        server = msgspec.structs.replace(settings.server, host=HOST, secret=Secret(secret))
        cluster = ClusterSettings(address=address, node=name, redis=redis, lease_seconds=100.0)
        settings = msgspec.structs.replace(settings, server=server, cluster=cluster)
        place = placed(settings, None)
        assert place
        async with (
            build(settings, local_servers=()) as built,
            resuming(settings, store, place.place) as resumption,
            aiohttp.ClientSession() as client,
        ):
            sessions = Sessions(replace(built.context, resumption=resumption, place=place.name))
            membership = joined(settings, place, store, sessions, resumption)
            assert membership
            assert membership.cluster
            app = application(sessions, auth_of(settings), membership=membership)
            async with (
                serve_app(app, settings.server, bound=[listening]) as port,
                membership.cluster,
            ):
                yield Node(
                    port,
                    sessions,
                    built.models.catalog.cascades,
                    app=app,
                    cluster=membership.cluster,
                    resumption=resumption,
                    client=client,
                )
                await sessions.drain(0)
