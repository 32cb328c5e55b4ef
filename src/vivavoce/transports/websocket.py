"""The WebSocket endpoint: one session for each connection, in the protocol of its address."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Protocol

import msgspec
from aiohttp import web

from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized
from vivavoce.protocol.client import SessionUpdate
from vivavoce.protocol.server import SessionCreated
from vivavoce.protocol.wire import (
    CarriesKey,
    ConnectRequest,
    Opening,
    ShowsText,
    WireProtocol,
)
from vivavoce.runtime.resume import Ticket
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.sessions import Sessions
from vivavoce.session.effects import Effect
from vivavoce.session.facts import Disconnected, Fact, TextGenerated
from vivavoce.transports import sideband
from vivavoce.transports.connection import Connection
from vivavoce.transports.frame_guard import MAX_MESSAGE_BYTES, GuardedSocket, MemoryBudget
from vivavoce.transports.paced import PacedPeer
from vivavoce.transports.protocols import WIRE_TABLE, WireTable, paths, protocol_for
from vivavoce.transports.resumable import ResumableLink
from vivavoce.transports.send_queue import SendQueue

log = logging.getLogger(__name__)

HEARTBEAT_S = 20.0
CLOSE_TIMEOUT_S = 2.0
NO_SOUND_S = 5.0  # after connecting, for protocols whose clients usually send audio

FindCall = Callable[[web.Request], sideband.ObservedCall]
"""The call of a sideband request. Raises Unauthorized and HTTPNotFound."""


class Admit(Protocol):
    """Authenticates a request: returns the name of the key, and the settings that it carries."""

    def __call__(self, request: web.Request, key: str = "") -> Opening:
        """`key`: one that was in the first frames. Raises Unauthorized."""
        ...


class TextObserver:
    """Sends the text of answers to a client whose protocol shows it before it is spoken."""

    skips_audio = True

    def __init__(self, queue: SendQueue, protocol: ShowsText) -> None:
        self._queue = queue
        self._protocol = protocol

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        if isinstance(fact, TextGenerated):
            frames = self._protocol.generated_text(fact.response_id, fact.text)
            self._queue.send_frames(frames)


class WebSocketEndpoint:
    """Upgrades requests, each to a session of its own or to the sideband of a call."""

    def __init__(
        self,
        sessions: Sessions,
        admit: Admit,
        find_call: FindCall | None = None,
        table: WireTable = WIRE_TABLE,
    ) -> None:
        """`find_call` serves requests with `?call_id=`."""
        self._sessions = sessions
        self._admit = admit
        self._find_call = find_call
        self._table = table
        self._budget = MemoryBudget()
        self._links: dict[Ticket, ResumableLink] = {}
        self._serving: set[asyncio.Task[None]] = set()  # sessions that may outlive their connection

    @property
    def paths(self) -> frozenset[str]:
        return paths(self._table)

    def add_to(self, app: web.Application) -> None:
        for path in sorted(self.paths):
            app.router.add_get(path, self.connect)
        app.on_cleanup.append(self._finish)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve a client to the end of its session. Keys are checked after the upgrade."""
        wanted = connect_request(request)
        protocol = protocol_for(wanted, self._table)
        socket = self._socket(request, protocol)
        if self._find_call and "call_id" in wanted.query:
            call = self._find_call(request)
            if connection := await _upgrade(request, socket, protocol):
                await connection.run(sideband.serve(connection, call))
            return socket
        try:
            if not self._serves(wanted):
                self._sessions.check_room()
        except LimitReached as exc:
            raise web.HTTPServiceUnavailable(
                text="The server takes no more sessions just now.", headers={"Retry-After": "5"}
            ) from exc
        if connection := await _upgrade(request, socket, protocol):
            await connection.run(self._serve(connection, request, wanted))
        return socket

    def _serves(self, wanted: ConnectRequest) -> bool:
        """Whether the session of a client that comes back may be open in this process."""
        token, resumption = wanted.query.get("resume_token"), self._sessions.context.resumption
        if not token or resumption is None:
            return False
        return self._sessions.accepts or resumption.serves(token)

    def _socket(self, request: web.Request, protocol: WireProtocol) -> GuardedSocket:
        """A socket that is not prepared yet. Raises HTTPUpgradeRequired."""
        socket = GuardedSocket(
            self._budget,
            autoping=False,
            compress=False,
            decode_text=False,
            heartbeat=HEARTBEAT_S,
            max_msg_size=MAX_MESSAGE_BYTES,
            protocols=protocol.subprotocols,
            timeout=CLOSE_TIMEOUT_S,
        )
        if not socket.can_prepare(request):
            raise web.HTTPUpgradeRequired(text="This is a WebSocket: connect with ws:// or wss://.")
        return socket

    async def _serve(
        self, connection: Connection, request: web.Request, wanted: ConnectRequest
    ) -> None:
        """Open a session and serve it, or refuse."""
        queue, protocol = connection.queue, connection.protocol
        try:
            opening = await self._opening(connection, request, wanted)
            if opening is None:
                return
            ticket = self._ticket(connection, wanted, opening.who)
            if ticket:
                if link := await self._attached(ticket, connection):
                    await self._follow(connection, link)
                    return
                await self._sessions.take_over(ticket)
            paced = PacedPeer(queue, protocol) if protocol.server_plays else None
            link = ResumableLink(ticket, queue) if ticket and protocol.is_ga else None
            texts = [TextObserver(queue, protocol)] if isinstance(protocol, ShowsText) else []
            runner = self._sessions.open(
                link or paced or queue,
                opening,
                paced,
                observers=texts,
                ticket=ticket,
            )
        except (Unauthorized, InvalidRequest, LimitReached) as exc:
            log.info("a client at %s was refused: %s", wanted.path, exc)
            connection.refuse(exc)
            return
        if ticket and link:
            self._serve_apart(ticket, link, runner)
            await self._follow(connection, link)
        else:
            await self._serve_connected(connection, runner, paced)

    async def _opening(
        self, connection: Connection, request: web.Request, wanted: ConnectRequest
    ) -> Opening | None:
        """The session that a client asks for; None: it asked for none in time, or has disconnected.

        Raises Unauthorized, and InvalidRequest if its frames are not valid.
        """
        protocol = connection.protocol
        if not isinstance(protocol, CarriesKey):
            admitted = self._admit(request)
        opening = await connection.opening(wanted)
        if opening is None:
            return None
        if isinstance(protocol, CarriesKey):
            admitted = self._admit(request, opening.key)
        # the settings of the key take precedence over those of the protocol
        if opening.patch and admitted.patch:
            connection.put_first(SessionUpdate(session=admitted.patch))
        return msgspec.structs.replace(
            opening,
            who=admitted.who,
            patch=opening.patch or admitted.patch,
            transport=f"websocket {wanted.path}",
            client=request.remote or "",
        )

    async def _serve_connected(
        self, connection: Connection, runner: Runner, paced: PacedPeer | None
    ) -> None:
        """Serve a session that ends with its connection."""
        silence = asyncio.get_running_loop().call_later(NO_SOUND_S, connection.note_silence)

        def gone() -> None:
            runner.post(Disconnected(connection.close_code))

        beside = [connection.start(_read(connection, runner, gone))]
        if paced:
            paced.post = runner.post
            beside.append(connection.start(paced.run()))
        # a client that was cut off counts as gone, however long the close takes
        connection.on_gone = gone
        try:
            await self._sessions.serve(runner)
            await connection.gone.wait()
        finally:
            silence.cancel()
            for task in beside:
                task.cancel()

    def _ticket(self, connection: Connection, wanted: ConnectRequest, who: str) -> Ticket | None:
        """For a client that can come back: one that reads the token, or that brings its own."""
        resumption = self._sessions.context.resumption
        if resumption is None:
            return None
        if connection.protocol.is_ga or "resume_token" in wanted.query:
            return resumption.ticket(wanted.query, who)
        return None

    async def _attached(self, ticket: Ticket, connection: Connection) -> ResumableLink | None:
        """The link of a session that is still served here, with this connection from now on."""
        served = await ticket.service.still_served(ticket.key)
        link = self._links.get(served) if served else None
        if served is None or link is None or served.runner is None:
            return None
        settings = served.runner.settings
        if not connection.protocol.is_ga or ticket.request.session_id not in ("", settings.id):
            return None
        created = SessionCreated(event_id=f"event_{secrets.token_hex(8)}", session=settings)
        created = ticket.service.announced(ticket, created, resumed=True)
        if not link.attach(connection.queue, created, ticket.request.last_event_id):
            return None
        ticket.service.claim_again(ticket.key)
        if ticket.request.items:
            served.runner.repeat_items()
        log.info("%s: its client is connected again", settings.id)
        return link

    def _serve_apart(self, ticket: Ticket, link: ResumableLink, runner: Runner) -> None:
        """Serve a session in a task of its own, because it may outlive the connection."""
        self._links[ticket] = link
        task = asyncio.create_task(self._sessions.serve(runner))
        self._serving.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._serving.discard(task)
            self._links.pop(ticket, None)
            if not task.cancelled() and (problem := task.exception()) is not None:
                log.error("a session failed", exc_info=problem)
                link.close(1011, "the server had an error")

        task.add_done_callback(ended)

    async def _follow(self, connection: Connection, link: ResumableLink) -> None:
        """Read what the client of a session sends, until one of them ends."""
        queue = connection.queue
        runner = link.runner
        if runner is None:
            return
        connection.on_gone = lambda: link.lost(queue, connection.close_code)
        reading = connection.start(_read(connection, runner, connection.on_gone))
        try:
            await connection.gone.wait()
        finally:
            reading.cancel()

    async def _finish(self, app: web.Application) -> None:
        """Called when the server ends, after its sessions were ended."""
        if self._serving:
            _, late = await asyncio.wait(tuple(self._serving), timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


async def _upgrade(
    request: web.Request, socket: GuardedSocket, protocol: WireProtocol
) -> Connection | None:
    """None: the client has disconnected."""
    transport = request.transport
    if transport is None:
        return None
    await socket.prepare(request)
    return Connection(socket, transport, protocol)


async def _read(connection: Connection, runner: Runner, gone: Callable[[], None]) -> None:
    try:
        await connection.read(runner)
    except Exception as exc:  # noqa: BLE001  a bug: it ends this session and no other
        runner.fail(exc)
    gone()


def connect_request(request: web.Request) -> ConnectRequest:
    """The parts of a request that protocols may read; the path is that of the route."""
    resource = request.match_info.route.resource
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    return ConnectRequest(
        path=request.path if resource is None else resource.canonical,
        query=request.query,
        headers=request.headers,
        subprotocols=tuple(name.strip() for name in offered.split(",") if name.strip()),
    )
