"""The sideband of a call: a WebSocket that receives every event and may send any.

It connects and disconnects without effect on the call, and is closed when the call ends.
"""

import secrets
from typing import Protocol

from vivavoce.protocol.server import SessionCreated
from vivavoce.runtime.runner import Runner
from vivavoce.transports.connection import Connection
from vivavoce.transports.send_queue import SendQueue


class ObservedCall(Protocol):
    """A call with the queues to which its events are copied."""

    runner: Runner | None

    def join(self, listener: SendQueue) -> None: ...

    def part(self, listener: SendQueue) -> None: ...


async def serve(connection: Connection, call: ObservedCall) -> None:
    """Serve a client to the end of the call, or until it leaves."""
    runner = call.runner
    if runner is None:
        connection.queue.close(1000, "the call has ended")
        return
    event_id = f"event_{secrets.token_hex(8)}"
    connection.queue.send(SessionCreated(event_id=event_id, session=runner.settings))
    call.join(connection.queue)
    try:
        reading = connection.start(_read(connection, runner))
        await connection.gone.wait()
        reading.cancel()
    finally:
        call.part(connection.queue)


async def _read(connection: Connection, runner: Runner) -> None:
    await connection.read(runner)
    connection.queue.close(1000, "")
