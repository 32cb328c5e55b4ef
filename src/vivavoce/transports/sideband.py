"""The sideband of a call: a WebSocket that is told every event and may send any.

It comes and goes; the call does not mind. When the call is over, so is it.
"""

import asyncio
import secrets
from typing import Protocol

from aiohttp import WSMsgType, web

from vivavoce.protocol.server import SessionCreated
from vivavoce.runtime.runner import Runner
from vivavoce.transports.send_queue import SendQueue
from vivavoce.transports.websocket import dialect_of, fact_of, socket_for


class Listened(Protocol):
    """A call, as far as one listens in."""

    runner: Runner | None

    def join(self, listener: SendQueue) -> None: ...

    def part(self, listener: SendQueue) -> None: ...


async def listen_in(request: web.Request, call: Listened) -> web.StreamResponse:
    """Serve whoever listens in, to the end of the call or until they leave."""
    socket = socket_for(request)
    wire, runner = request.transport, call.runner
    await socket.prepare(request)
    if wire is None or runner is None:
        raise ConnectionResetError("the client has gone")
    outbox = SendQueue(socket, wire, dialect_of(request))
    event_id = f"event_{secrets.token_hex(8)}"
    outbox.send(SessionCreated(event_id=event_id, session=runner.settings))
    call.join(outbox)
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read(socket, runner, outbox))
            await outbox.write()
            await outbox.say_goodbye()
            reading.cancel()
    finally:
        call.part(outbox)
    return socket


async def _read(socket: web.WebSocketResponse, runner: Runner, outbox: SendQueue) -> None:
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            break
        runner.post(fact_of(message.data, outbox.dialect))
        await runner.wait_caught_up()
    outbox.close(1000, "")
