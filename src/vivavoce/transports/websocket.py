"""The Realtime protocol over a WebSocket: frames <-> events, and nothing of what they mean."""

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Callable

from aiohttp import ClientConnectionError, WSMsgType, web

from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized
from vivavoce.protocol.beta import Beta
from vivavoce.protocol.codec import GA, MAX_FRAME_BYTES, Dialect
from vivavoce.protocol.server import AnyServerEvent, ErrorBody, ErrorEvent
from vivavoce.protocol.session import SessionPatch
from vivavoce.runtime.hub import Hub
from vivavoce.runtime.opening import Kind, Opening
from vivavoce.runtime.runner import Runner
from vivavoce.session.facts import Garbled, Left, Received

SUBPROTOCOL = "realtime"
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
HARD_FRAME_BYTES = 2 * MAX_FRAME_BYTES  # up to here a frame is refused, beyond it the connection
ROOM_BYTES = 1024 * 1024  # an answer waits while more than this is in the outbox
MOST_BACKLOG_BYTES = 8 * 1024 * 1024  # a client with more than this in the outbox is cut off
SLOW_SECONDS = 8.0  # so is one that takes nothing for so long
HEARTBEAT_SECONDS = 20.0
CLOSE_SECONDS = 2.0
MOST_REASON_BYTES = 123  # RFC 6455, 5.5
_EVENT_ID = re.compile(rb'"event_id"\s*:\s*"([^"\\]{1,512})"')
_LOOK_BYTES = 4096

# The settings that a request's key carries, if any. Raises Unauthorized.
Admit = Callable[[web.Request], SessionPatch | None]


class Outbox:
    """The peer of a session: what is sent goes out in order, as fast as the client reads."""

    def __init__(
        self, socket: web.WebSocketResponse, dialect: Dialect, hang_up: Callable[[], None]
    ) -> None:
        self.dialect = dialect
        self._socket = socket
        self._hang_up = hang_up
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._taken = asyncio.Event()
        self._closing: tuple[int, str] | None = None

    def send(self, event: AnyServerEvent) -> None:
        if self._closing is None:
            for frame in self.dialect.encode(event):
                self._frames.append(frame)
                self._bytes += len(frame)
            self._more.set()
            if self._bytes > MOST_BACKLOG_BYTES:
                self._cut_off()

    async def room(self) -> None:
        while self._bytes > ROOM_BYTES and self._closing is None:
            self._taken.clear()
            await self._taken.wait()

    def close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
            self._more.set()
            self._taken.set()

    async def write(self) -> None:
        """Write until the session is closed or the connection is gone."""
        try:
            while self._frames or self._closing is None:
                if not self._frames:
                    self._more.clear()
                    await self._more.wait()
                    continue
                frame = self._frames.popleft()
                async with asyncio.timeout(SLOW_SECONDS):
                    await self._socket.send_frame(frame, WSMsgType.TEXT)
                self._bytes -= len(frame)
                self._taken.set()
        except TimeoutError:
            self._cut_off()
        except (ClientConnectionError, ConnectionError):
            self.close(1006, "the connection is gone")
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """Close with the reason; who does not even take that is hung up on."""
        code, reason = self._closing or (1011, "")
        try:
            async with asyncio.timeout(2 * CLOSE_SECONDS):
                await self._socket.close(code=code, message=reason.encode()[:MOST_REASON_BYTES])
        except (TimeoutError, ConnectionError):
            self._hang_up()

    def _cut_off(self) -> None:
        waiting = self._bytes
        self._frames.clear()
        self._bytes = 0
        self.close(1008, f"the client reads too slowly: {waiting} bytes were waiting")


class RealtimeDoor:
    """GET /v1/realtime with an upgrade: one session for each connection."""

    def __init__(self, hub: Hub, admit: Admit) -> None:
        self._hub = hub
        self._admit = admit

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve a client to the end of its session."""
        socket = web.WebSocketResponse(
            compress=False,
            decode_text=False,
            heartbeat=HEARTBEAT_SECONDS,
            max_msg_size=HARD_FRAME_BYTES,
            protocols=(SUBPROTOCOL,),
            timeout=CLOSE_SECONDS,
        )
        if not socket.can_prepare(request):
            raise web.HTTPUpgradeRequired(text="This is a WebSocket: connect with ws:// or wss://.")
        if not self._hub.accepts:
            raise web.HTTPServiceUnavailable(
                text="The server takes no more sessions just now.", headers={"Retry-After": "5"}
            )
        await socket.prepare(request)
        assert request.transport is not None
        outbox = Outbox(socket, dialect_of(request), request.transport.abort)
        try:
            runner = self._hub.open(outbox, opening_of(request, self._admit(request)))
        except (Unauthorized, InvalidRequest) as exc:
            await _turn_away(outbox, exc)
            return socket
        except LimitReached as exc:
            await socket.close(code=1013, message=str(exc).encode()[:MOST_REASON_BYTES])
            return socket
        await self._serve(socket, runner, outbox)
        return socket

    async def _serve(self, socket: web.WebSocketResponse, runner: Runner, outbox: Outbox) -> None:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read(socket, runner, outbox))
            writing = tasks.create_task(outbox.write())
            await self._hub.serve(runner)
            await writing
            reading.cancel()


async def _read(socket: web.WebSocketResponse, runner: Runner, outbox: Outbox) -> None:
    """Tell the session what the client sends, until it leaves."""
    dialect = outbox.dialect
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            break
        try:
            if len(message.data) > MAX_FRAME_BYTES:
                raise _too_large(message.data)
            fact: Received | Garbled = Received(dialect.decode(message.data))
        except InvalidRequest as problem:
            fact = Garbled(problem)
        runner.tell(fact)
        await runner.room()
    runner.tell(Left())


async def _turn_away(outbox: Outbox, why: Exception) -> None:
    """Refuse as OpenAI does: the upgrade succeeds, then an error, then the close (3000)."""
    code = why.code if isinstance(why, InvalidRequest) else "invalid_api_key"
    body = ErrorBody(code=code, message=str(why))
    outbox.send(ErrorEvent(event_id=f"event_{secrets.token_hex(8)}", error=body))
    outbox.close(3000, f"{body.type}.{code}")
    await outbox.write()


def opening_of(request: web.Request, patch: SessionPatch | None) -> Opening:
    """What the address asks for, and what a short-lived key carries."""
    transcribes = request.query.get("intent") == "transcription"
    kind: Kind = "transcription" if transcribes else "realtime"
    return Opening(kind=kind, model=request.query.get("model", ""), patch=patch)


def dialect_of(request: web.Request) -> Dialect:
    """Beta where it is asked for by header or subprotocol, else GA."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    asked = request.headers.get("OpenAI-Beta", "")
    if "realtime=v1" in asked or BETA_SUBPROTOCOL in offered.replace(" ", "").split(","):
        return Beta()
    return GA()


def _too_large(frame: bytes) -> InvalidRequest:
    """A frame that nobody should have to parse; its event_id is looked for at both its ends."""
    found = _EVENT_ID.search(frame[:_LOOK_BYTES]) or _EVENT_ID.search(frame[-_LOOK_BYTES:])
    return InvalidRequest(
        f"The event is too large: {len(frame)} bytes. At most {MAX_FRAME_BYTES} are taken; "
        f"send sound in smaller pieces.",
        code="event_too_large",
        event_id=found[1].decode(errors="replace") if found else None,
    )
