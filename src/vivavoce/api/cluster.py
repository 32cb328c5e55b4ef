"""/v1/cluster: the nodes that serve together and their load, for admin keys."""

from typing import Literal

import msgspec
from aiohttp import web

from vivavoce.api.admin import AdminCheck
from vivavoce.api.http_errors import Problem, ProblemBody, json_response
from vivavoce.runtime.cluster import Cluster
from vivavoce.runtime.known_nodes import ClusterNode
from vivavoce.runtime.sessions import Sessions

TRY_HEADER = "X-Vivavoce-Try"
"""The header of a refusal because this node is full: the name of the node with the most room."""


class ClusterNodeList(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes by name."""

    data: list[ClusterNode]
    node: str
    """The node that answers."""
    redis: Literal["reached", "away"]
    """Whether Redis cannot be reached: then these are the nodes that were known last."""
    object: Literal["list"] = "list"


class NodeDrain(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to draining a node."""

    node: str
    object: Literal["cluster.node.drain"] = "cluster.node.drain"
    processes: int
    """How many processes of the node received the message."""


class ClusterRoutes:
    """Lists nodes and drains them. cluster: None: this server is in none."""

    def __init__(self, cluster: Cluster | None, node: str, check: AdminCheck) -> None:
        """node: the name of this one."""
        self._cluster = cluster
        self._node = node
        self._check = check

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/cluster", self.nodes)
        app.router.add_post("/v1/cluster/nodes/{node}/drain", self.drain)

    async def nodes(self, request: web.Request) -> web.Response:
        self._check(request)
        cluster = self._cluster
        if cluster is None:
            return _no_cluster()
        found = await cluster.fresh_nodes()
        redis: Literal["reached", "away"] = "away" if cluster.away else "reached"
        return json_response(ClusterNodeList(data=found, node=self._node, redis=redis))

    async def drain(self, request: web.Request) -> web.Response:
        """202: it takes no more sessions, and ends those that it has, until it is restarted."""
        self._check(request)
        cluster, node = self._cluster, request.match_info["node"]
        if cluster is None:
            return _no_cluster()
        known = [each.node for each in await cluster.fresh_nodes()]
        if node not in known:
            return _not_found(f"There is no node {node[:64]!r}; known: {', '.join(known)}.")
        if not (told := await cluster.drain(node)):
            raise web.HTTPServiceUnavailable(
                text=f"The node {node} does not listen just now: try again, or send it SIGTERM.",
                headers={"Retry-After": "5"},
            )
        return json_response(NodeDrain(node=node, processes=told), 202)


def add_hint(app: web.Application, cluster: Cluster, sessions: Sessions) -> None:
    """Name another node in each refusal for lack of room."""

    async def name_another(_request: web.Request, response: web.StreamResponse) -> None:
        if (
            response.status == 503
            and not sessions.accepts
            and (node := cluster.known.least_loaded())
        ):
            response.headers[TRY_HEADER] = node

    app.on_response_prepare.append(name_another)


def _no_cluster() -> web.Response:
    return _not_found("This server is in no cluster: set [cluster] address.")


def _not_found(message: str) -> web.Response:
    body = ProblemBody(message=message, type="invalid_request_error", code="not_found")
    return json_response(Problem(body), 404)
