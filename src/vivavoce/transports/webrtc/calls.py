"""The calls of a server: opened, found by their id, and ended at shutdown.

aiortc is imported with the first call, so that the server starts faster.
"""

import asyncio
import importlib
import logging
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from vivavoce.errors import EngineError
from vivavoce.protocol.wire import Opening, WireProtocol
from vivavoce.runtime.resume import Resumption, Ticket
from vivavoce.runtime.sessions import Sessions
from vivavoce.runtime.upstream import NO_FALLBACK
from vivavoce.transports.webrtc.direct import DirectCall
from vivavoce.transports.webrtc.settings import WebRTCSettings

if TYPE_CHECKING:
    from vivavoce.transports.webrtc.call import Call

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 8.0
_CALL_MODULE = "vivavoce.transports.webrtc.call"


class OpenedCall(NamedTuple):
    """A call that has begun, and the SDP answer for its client."""

    call: "Call"
    answer: str


class ActiveCall(msgspec.Struct, frozen=True):
    """A call that is served, and the short-lived credential that opened it, if one did."""

    call: "Call | DirectCall"
    opened_with: str | None
    ticket: Ticket | None = None
    """The ticket with which its client can make another connection."""


class Calls:
    """Opens calls, and owns them until they are over."""

    def __init__(self, sessions: Sessions, settings: WebRTCSettings | None = None) -> None:
        self.settings = settings or WebRTCSettings()
        self._sessions = sessions
        self._calls: dict[str, ActiveCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(
        self,
        sdp: str,
        opening: Opening,
        protocol: WireProtocol,
        *,
        local: bool,
        opened_with: str | None = None,
        ticket: Ticket | None = None,
    ) -> OpenedCall:
        """Answer an offer; a session begins, or goes on. Raises InvalidRequest and LimitReached.

        protocol: spoken on the data channel. local: whether the client is on this machine.
        opened_with: the id of a credential that finds this call and no other. ticket: with which
        the client can come back; its conversation is taken over, if it has one.
        """
        self._sessions.check_room(in_place=ticket is not None and ticket.ends_another)
        module = await asyncio.to_thread(importlib.import_module, _CALL_MODULE)
        call: Call = module.Call(
            f"rtc_{self._sessions.new_id(16)}", self.settings, protocol, local=local
        )
        try:
            answer = await call.answer(sdp)
            if ticket:
                await self._sessions.take_over(ticket)
            call.runner = self._sessions.open(call, opening, call, ticket=ticket)
            if ticket:
                call.keep_for(ticket.service.settings.grace_seconds)
        except BaseException:
            await call.hang_up()
            raise
        self._begin(ActiveCall(call, opened_with, ticket))
        return OpenedCall(call, answer)

    async def open_direct(
        self, sdp: str, opening: Opening, *, opened_with: str | None = None
    ) -> tuple[str, str] | None:
        """Pass an offer on to the upstream server of a relay, where its media is direct.

        Returns the id of the call and the SDP answer. None: the media has to pass through this
        server, because the model is no such relay, or because its upstream server makes no call and
        there is a fallback. Raises what refuses a session, and UpstreamRefused without a fallback.
        """
        relay = self._sessions.direct_relay(opening)
        if relay is None:
            return None
        self._sessions.check_room()
        call = DirectCall(f"rtc_{self._sessions.new_id(16)}", sdp, relay)
        runner = call.runner = self._sessions.open(call, opening, offer=call.offer)
        self._begin(ActiveCall(call, opened_with))
        try:
            return call.id, await call.answer()
        except EngineError:
            if relay.fallback == NO_FALLBACK:
                raise
            log.warning("%s: the upstream server makes no call; its media comes here", call.id)
            return None
        except asyncio.CancelledError:  # the client does not wait for the answer
            runner.end(1000, "the client left")
            raise

    def find(self, call_id: str, credential: str | None) -> "Call | None":
        """A call whose media passes through this server: see observed()."""
        call = self.observed(call_id, credential)
        return None if isinstance(call, DirectCall) else call

    def observed(self, call_id: str, credential: str | None) -> "Call | DirectCall | None":
        """The call of that id, if it is open.

        credential: finds only calls that it opened; None: finds all.
        """
        active = self._calls.get(call_id)
        if active is None or credential not in (None, active.opened_with):
            return None
        return active.call

    @property
    def resumption(self) -> Resumption | None:
        """Lets clients come back to their conversations."""
        return self._sessions.context.resumption

    async def served(self, ticket: Ticket) -> "Call | None":
        """The call of a conversation that this process serves."""
        served = await ticket.service.still_served(ticket.key)
        for active in self._calls.values() if served else ():
            if active.ticket is served and not isinstance(active.call, DirectCall):
                return active.call
        return None

    async def close(self) -> None:
        """End every call."""
        for active in self._calls.values():
            if active.call.runner:
                active.call.runner.end(1012, "the server is shutting down", "shutdown")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=SHUTDOWN_TIMEOUT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _begin(self, active: ActiveCall) -> None:
        """Serve a call in a task of its own."""
        self._calls[active.call.id] = active
        task = asyncio.create_task(self._serve(active.call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: "Call | DirectCall") -> None:
        """Serve a call to its end. No local variable holds the session while it hangs up."""
        assert call.runner
        watch = None if isinstance(call, DirectCall) else asyncio.create_task(call.watch())
        try:
            await self._sessions.serve(call.runner)
        except Exception:
            log.exception("%s failed", call.id)
        finally:
            if watch is not None:
                watch.cancel()
            self._calls.pop(call.id, None)
            await call.hang_up()
