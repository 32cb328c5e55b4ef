"""The Realtime protocol over a WebSocket: frames <-> events, and nothing of what they mean."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace

from aiohttp import WSMsgType, web

from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized
from vivavoce.protocol.beta import Beta
from vivavoce.protocol.codec import GA, MAX_FRAME_BYTES, Dialect, glimpsed_id
from vivavoce.protocol.server import ErrorBody, ErrorEvent
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.session_defaults import Kind, Opening
from vivavoce.runtime.sessions import Sessions
from vivavoce.session.facts import Disconnected, InvalidFrame, Received
from vivavoce.transports.send_queue import SendQueue

SUBPROTOCOL = "realtime"
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
HARD_FRAME_BYTES = 2 * MAX_FRAME_BYTES  # up to here a frame is refused, beyond it the connection
HEARTBEAT_SECONDS = 20.0
CLOSE_SECONDS = 2.0
BREATH = 16  # frames taken before others may run: many may have come at once


# Authenticates a request: the name of its key, and the settings that the key carries. Raises
# Unauthorized.
Admit = Callable[[web.Request], Opening]
ListenIn = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RealtimeEndpoint:
    """GET /v1/realtime with an upgrade: one session for each connection."""

    def __init__(self, hub: Sessions, admit: Admit, listen_in: ListenIn | None = None) -> None:
        """`listen_in` serves those who come for a call that there is: `?call_id=`."""
        self._hub = hub
        self._admit = admit
        self._listen_in = listen_in

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve a client to the end of its session."""
        if self._listen_in and "call_id" in request.query:
            return await self._listen_in(request)
        socket = socket_for(request)
        if not self._hub.accepts:
            raise web.HTTPServiceUnavailable(
                text="The server takes no more sessions just now.", headers={"Retry-After": "5"}
            )
        wire = request.transport
        await socket.prepare(request)
        if wire is None:
            raise ConnectionResetError("the client has gone")
        outbox = SendQueue(socket, wire, dialect_of(request))
        try:
            runner = self._hub.open(outbox, opening_of(request, self._admit(request)))
        except (Unauthorized, InvalidRequest) as exc:
            _refuse(outbox, exc)
            await _write(outbox)
        except LimitReached as exc:
            outbox.close(1013, str(exc))
            await _write(outbox)
        else:
            await self._serve(socket, runner, outbox)
        return socket

    async def _serve(
        self, socket: web.WebSocketResponse, runner: Runner, outbox: SendQueue
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read(socket, runner, outbox.dialect))
            writing = tasks.create_task(_write(outbox, runner))
            await self._hub.serve(runner)
            await writing
            reading.cancel()


async def _read(socket: web.WebSocketResponse, runner: Runner, dialect: Dialect) -> None:
    """Tell the session what the client sends, until it leaves."""
    taken = 0
    try:
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                break
            runner.post(fact_of(message.data, dialect))
            await runner.wait_caught_up()
            taken += 1
            if taken % BREATH == 0:
                await asyncio.sleep(0)
    except ConnectionError:  # it vanished while a ping of its was being answered
        pass
    except Exception as exc:  # noqa: BLE001  a bug: it ends this session and no other
        runner.fail(exc)
    runner.post(Disconnected())


async def _write(outbox: SendQueue, runner: Runner | None = None) -> None:
    """Write to the end. Who is cut off has left, however long the goodbye takes."""
    await outbox.write()
    if runner:
        runner.post(Disconnected())
    await outbox.say_goodbye()


def socket_for(request: web.Request) -> web.WebSocketResponse:
    """A socket as this protocol wants it. Raises HTTPUpgradeRequired."""
    socket = web.WebSocketResponse(
        compress=False,
        decode_text=False,
        heartbeat=HEARTBEAT_SECONDS,
        max_msg_size=HARD_FRAME_BYTES,
        protocols=(SUBPROTOCOL, BETA_SUBPROTOCOL),
        timeout=CLOSE_SECONDS,
    )
    if not socket.can_prepare(request):
        raise web.HTTPUpgradeRequired(text="This is a WebSocket: connect with ws:// or wss://.")
    return socket


def fact_of(frame: bytes, dialect: Dialect) -> Received | InvalidFrame:
    """What a client says with a frame."""
    try:
        if len(frame) > MAX_FRAME_BYTES:
            raise _too_large(frame)
        return Received(dialect.decode(frame))
    except InvalidRequest as problem:
        return InvalidFrame(problem)


def _refuse(outbox: SendQueue, why: Exception) -> None:
    """Turn away as OpenAI does: the upgrade succeeds, then an error, then the close (3000)."""
    code = why.code if isinstance(why, InvalidRequest) else "invalid_api_key"
    body = ErrorBody(code=code, message=str(why))
    outbox.send(ErrorEvent(event_id=f"event_{secrets.token_hex(8)}", error=body))
    outbox.close(3000, f"{body.type}.{code}")


def opening_of(request: web.Request, admitted: Opening) -> Opening:
    """What the address asks for, with the identity and the settings that the key decides."""
    transcribes = request.query.get("intent") == "transcription"
    kind: Kind = "transcription" if transcribes else "realtime"
    return replace(admitted, kind=kind, model=request.query.get("model", ""))


def dialect_of(request: web.Request) -> Dialect:
    """Beta where it is asked for by header or subprotocol, else GA."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    asked = request.headers.get("OpenAI-Beta", "")
    if "realtime=v1" in asked or BETA_SUBPROTOCOL in offered.replace(" ", "").split(","):
        return Beta()
    return GA()


def _too_large(frame: bytes) -> InvalidRequest:
    """A frame that nobody should have to parse; its event_id is looked for at both its ends."""
    return InvalidRequest(
        f"The event is too large: {len(frame)} bytes. At most {MAX_FRAME_BYTES} are taken; "
        f"send sound in smaller pieces.",
        code="event_too_large",
        event_id=glimpsed_id(frame),
    )
