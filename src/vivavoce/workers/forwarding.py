"""Forwards requests that another process must answer, by the ids in them.

Each of several processes has a place, whose name is part of the ids that it makes
(runtime/places.py). A request that names such an id is forwarded to its process, with its key and
the address of its client, which checks them as it checks its own: over a Unix socket to another
worker of this machine, over HTTP to another node of the cluster, once. There it may come to any
worker, which passes it on to the right one of its machine.
"""

import asyncio
import json
import logging
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from vivavoce.api.http_errors import json_response
from vivavoce.api.public import READY, ReadyStatus
from vivavoce.runtime.cluster import Cluster
from vivavoce.runtime.places import Locations, Place, node_tag, place_of, place_of_uuid
from vivavoce.workers.forward_client import ADDRESS_HEADER, ForwardClient, ForwardTarget
from vivavoce.workers.hops import HOP_HEADER, HopError, Neighbours
from vivavoce.workers.lists import LISTS, JoinedList
from vivavoce.workers.messages import WorkerPlace, client_socket, supervisor_socket

log = logging.getLogger(__name__)

SUMMARY_TIMEOUT_S = 3.0
RESUMED_TIMEOUT_S = 10.0
"""The longest wait for the answer to a client that resumes: its conversation can continue here."""
SUMMARIES = frozenset({"/metrics", "/health", "/ready"})
"""Paths that the supervisor answers for all workers."""
VOXRAY_READY = "/api/v1/ready"
LOADED_PREFIX = "/api/ps/"
"""Models are loaded and unloaded in all workers."""
MAX_BODY_BYTES = 1 << 20
"""The part of an offer in which the id of a call is searched."""
_OFFER_PATHS = frozenset({"/api/offer"})
_START_PATHS = frozenset({"/start", "/api/v1/start"})
_SESSION_ROUTE = "/v1/sessions/{session_id}"
_RECORDING_ROUTE = "/v1/admin/recordings/{name}"
_MEANT = (401, 403, 404, 410)
"""Refusals of a WebSocket that are the same wherever its client comes to."""
_GONE = (
    "The node that had this call or session is gone. Make the call again; with its resume_token a "
    "conversation goes on."
)


def _connection_id(body: bytes) -> str:
    """The pc_id of an offer; "" without one."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):  # who answers the request says what is wrong
        return ""
    named = given.get("pc_id") if isinstance(given, dict) else None
    return named if isinstance(named, str) else ""


class Forwarder:
    """The middleware of a process."""

    def __init__(
        self,
        place: WorkerPlace,
        neighbours: Neighbours | None = None,
        locations: Locations | None = None,
        has_session: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """locations: where resumed sessions are. has_session: whether only this process has the
        state of a session; if not, its conversation continues at the process that gets the
        request."""
        self._place = place
        self._neighbours = neighbours
        self._locations = locations
        self._has_session = has_session
        self._client = ForwardClient(None if neighbours is None else neighbours.signer)

    def add_to(self, app: web.Application) -> None:
        """Runs after the authentication, so that only authenticated requests are forwarded."""

        @web.middleware
        async def forward(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self.respond(request, handler)

        app.middlewares.append(forward)

        async def close(_app: web.Application) -> None:
            await self._client.close()

        app.on_cleanup.append(close)

    async def respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if ADDRESS_HEADER in request.headers and _is_local_socket(request):
            request = request.clone(remote=request.headers[ADDRESS_HEADER])
            return await self._here(request, handler, passed=True)
        passed = self._neighbours is not None and HOP_HEADER in request.headers
        if passed:
            request = request.clone(remote=self._client_of(request))
        if self._place.folder and request.path in SUMMARIES:
            return await self._summary(request) or await handler(request)
        if self._place.folder and request.path == VOXRAY_READY:
            return await self._voxray_ready(request, handler)
        if request.method == "GET" and (joined := LISTS.get(request.path)) is not None:
            return await self._joined(request, handler, joined, passed=passed)
        if request.path.startswith(LOADED_PREFIX):
            return await self._in_all_workers(request, handler)
        owner = await self._owner(request)
        if owner is None or owner == self._place.place:
            return await self._here(request, handler, passed=passed)
        if owner.node != self._place.node:
            if passed or self._neighbours is None:
                return await self._here(request, handler, passed=passed)
            return await self._by_node(request, handler, owner, self._neighbours.cluster)
        if owner.worker >= self._place.count:
            return await self._here(request, handler, passed=passed)
        return await self._by_worker(request, handler, owner.worker, passed=passed)

    async def _owner(self, request: web.Request) -> Place | None:
        """The process that must answer a request; None: any process can."""
        resource = request.match_info.route.resource
        route = "" if resource is None else resource.canonical
        if call := request.match_info.get("call_id") or request.query.get("call_id"):
            return place_of(call)
        if session := request.query.get("session_id"):
            return await self._location(session)
        if session := request.match_info.get("session_id"):  # live, or promised by /start
            in_cluster = self._neighbours is not None
            return await self._location(session) or place_of_uuid(session, in_cluster=in_cluster)
        if route == _RECORDING_ROUTE:
            return place_of(request.match_info["name"])
        if route in _OFFER_PATHS and (request.content_length or 0) <= MAX_BODY_BYTES:
            return place_of(_connection_id(await request.read()))
        if route in _START_PATHS and (key := request.headers.get("Idempotency-Key")):
            number = zlib.crc32(key.encode(errors="replace")) % self._place.count
            return Place(self._place.node, number)
        return None

    async def _location(self, session_id: str) -> Place | None:
        if self._locations is None:
            return place_of(session_id)
        return await self._locations.find(session_id)

    async def _here(
        self, request: web.Request, handler: Handler, *, passed: bool
    ) -> web.StreamResponse:
        """passed: another process has passed the request on, and may answer it itself if this one
        refuses."""
        wanted = request.query["session_id"] if passed and _is_resumption(request) else ""
        if wanted and self._has_session is not None and not await self._has_session(wanted):
            raise web.HTTPServiceUnavailable(
                text="This process does not have that session.", headers={"Retry-After": "1"}
            )
        return await handler(request)

    async def _by_worker(
        self, request: web.Request, handler: Handler, number: int, *, passed: bool
    ) -> web.StreamResponse:
        try:
            answer = await self._forwarded(request, self._worker(number))
        except (aiohttp.ClientError, TimeoutError) as exc:
            log.warning("worker w%d does not answer: %s", number, exc)
            if not _may_be_served_here(request):
                raise web.HTTPServiceUnavailable(
                    text="The process that has this call is being restarted.",
                    headers={"Retry-After": "1"},
                ) from exc
            answer = None
        return answer or await self._here(request, handler, passed=passed)

    async def _by_node(
        self, request: web.Request, handler: Handler, owner: Place, cluster: Cluster
    ) -> web.StreamResponse:
        may_be_served_here = _may_be_served_here(request)
        if may_be_served_here and cluster.known.is_suspected(owner.node):
            return await handler(request)
        address = await cluster.address_of(owner.node)
        if address is None:
            cluster.forwarded["gone"] += 1
            if may_be_served_here:
                return await handler(request)
            raise web.HTTPGone(text=_GONE)
        try:
            answer = await self._forwarded(request, ForwardTarget(address))
        except (aiohttp.ClientError, TimeoutError) as exc:
            log.warning("the node at %s does not answer: %s", address, exc)
            cluster.forwarded["unreachable"] += 1
            cluster.known.suspect(owner.node)
            if may_be_served_here or _is_end(request):
                return await handler(request)
            if await cluster.has_left(owner.node):
                raise web.HTTPGone(text=_GONE) from exc
            raise web.HTTPServiceUnavailable(
                text="The node that has this call or session cannot be reached just now.",
                headers={"Retry-After": "1"},
            ) from exc
        cluster.forwarded["refused" if answer is None else "answered"] += 1
        return answer or await handler(request)

    async def _forwarded(
        self, request: web.Request, target: ForwardTarget
    ) -> web.StreamResponse | None:
        """The answer of another process; None: that process does not have the session, so the
        conversation continues here. Raises aiohttp.ClientError and TimeoutError if nothing has
        been sent to the client yet."""
        resumes = _is_resumption(request)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            try:
                return await self._client.web_socket(
                    request, target, open_timeout_s=RESUMED_TIMEOUT_S
                )
            except aiohttp.WSServerHandshakeError as exc:
                if exc.status not in _MEANT and resumes:
                    return None
                raise _refusal(exc.status) from exc
        async with asyncio.timeout(RESUMED_TIMEOUT_S if resumes else None):
            answer = await self._client.request(request, target)
        return None if answer.status >= 500 and resumes else answer

    def _client_of(self, request: web.Request) -> str:
        """The address of the client of another node. Raises HTTPForbidden."""
        assert self._neighbours is not None
        header, signer = request.headers[HOP_HEADER], self._neighbours.signer
        try:
            return signer.check(header, request.method, request.raw_path)
        except HopError as exc:
            raise web.HTTPForbidden(text=str(exc)) from exc

    async def _summary(self, request: web.Request) -> web.StreamResponse | None:
        """The supervisor's answer; None: it does not answer, and this process answers for
        itself."""
        try:
            async with asyncio.timeout(SUMMARY_TIMEOUT_S):
                return await self._client.request(request, self._supervisor)
        except (aiohttp.ClientError, TimeoutError) as exc:
            log.warning("the supervisor does not answer: %s", exc)
            return None

    async def _voxray_ready(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What the supervisor says of all workers, in Voxray's envelope."""
        client = self._client.session(self._supervisor)
        try:
            async with (
                asyncio.timeout(SUMMARY_TIMEOUT_S),
                client.get(f"{self._supervisor.url}/ready") as answer,
            ):
                request[READY] = msgspec.json.decode(await answer.read(), type=ReadyStatus)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as exc:
            log.warning("the supervisor does not answer: %s", exc)
        return await handler(request)

    async def _joined(
        self, request: web.Request, handler: Handler, joined: JoinedList, *, passed: bool
    ) -> web.StreamResponse:
        """Join the lists of all processes. The others check the key, too."""
        own = await handler(request)
        if own.status != 200 or not isinstance(own, web.Response):
            return own
        others = [self._worker(number) for number in self._place.others]
        if self._neighbours is not None and joined.of_all_nodes and not passed:
            nodes = self._neighbours.cluster.nodes
            away = (node for node in nodes if node_tag(node.node) != self._place.node)
            others += [ForwardTarget(node.address) for node in away]
        found = await asyncio.gather(*(self._part(request, one, joined) for one in others))
        assert isinstance(own.body, bytes)
        first = msgspec.json.decode(own.body, type=joined.type)
        parts = [part for part in found if part is not None]
        return json_response(joined.join([first, *parts]))

    async def _part(self, request: web.Request, target: ForwardTarget, joined: JoinedList) -> Any:
        """The list of another process; None: it does not answer."""
        try:
            async with (
                asyncio.timeout(SUMMARY_TIMEOUT_S),
                self._client.asked(request, target) as answer,
            ):
                if answer.status != 200:
                    raise aiohttp.ClientError(f"status {answer.status}")
                return msgspec.json.decode(await answer.read(), type=joined.type)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as exc:
            where = target.socket or target.url
            log.warning("%s: no answer from %s: %s", request.path, where, exc)
            return None

    async def _in_all_workers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Do it here, and then in the others; the first refusal is the answer."""
        own = await handler(request)
        if own.status >= 400:
            return own
        for number in self._place.others:
            try:
                answer = await self._client.request(request, self._worker(number))
            except (aiohttp.ClientError, TimeoutError) as exc:  # it loads at the first use
                log.warning("worker w%d does not answer: %s", number, exc)
                continue
            if answer.status >= 400:
                return answer
        return own

    def _worker(self, number: int) -> ForwardTarget:
        return ForwardTarget("http://localhost", client_socket(self._place.folder, number))

    @property
    def _supervisor(self) -> ForwardTarget:
        return ForwardTarget("http://localhost", supervisor_socket(self._place.folder))


def _is_resumption(request: web.Request) -> bool:
    """Whether the request resumes a conversation, here or in another process."""
    return "session_id" in request.query and "call_id" not in request.query


def _may_be_served_here(request: web.Request) -> bool:
    """Whether this process can serve the request in place of another one: it can resume a
    conversation, and make a session for /start."""
    return _is_resumption(request) or request.path in _START_PATHS


def _is_end(request: web.Request) -> bool:
    """Whether the request ends a session, for which a message is enough."""
    resource = request.match_info.route.resource
    route = "" if resource is None else resource.canonical
    return (request.method, route) == ("DELETE", _SESSION_ROUTE)


def _is_local_socket(request: web.Request) -> bool:
    """Whether a request came over a Unix socket, where only this user's processes connect."""
    transport = request.transport
    return transport is not None and not isinstance(transport.get_extra_info("sockname"), tuple)


def _refusal(status: int) -> web.HTTPException:
    match status:
        case 401:
            return web.HTTPUnauthorized()
        case 403:
            return web.HTTPForbidden()
        case 404:
            return web.HTTPNotFound()
        case 410:
            return web.HTTPGone(text=_GONE)
        case _:
            return web.HTTPServiceUnavailable(headers={"Retry-After": "1"})
