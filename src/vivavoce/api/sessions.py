"""GET /v1/sessions: the open sessions, for operators, who may watch and end them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from aiohttp import web

from vivavoce.api.admin import AdminCheck
from vivavoce.api.http_errors import json_response
from vivavoce.api.sse import EventStream
from vivavoce.limits.connections import is_loopback
from vivavoce.runtime.live_sessions import LiveSession, LiveSessionObject
from vivavoce.runtime.sessions import Sessions

KEEP_ALIVE_S = 15.0


class LiveSessionList(msgspec.Struct, frozen=True, kw_only=True):
    """The open sessions, the oldest first, and how busy the server is."""

    data: list[LiveSessionObject]
    max_sessions: int
    cpu: float
    """The share of one core used since the last request for this list: 0.5 is half of it."""
    failures: int
    """Failed answers and errors of the server in the last hour."""
    watch: Literal["state", "captions"]
    """What is shown of a session that is watched: see [server] watch."""
    object: Literal["list"] = "list"


class SessionRoutes:
    """Lists, shows and ends sessions. Keys of the store that are not an admin's are refused."""

    def __init__(
        self,
        sessions: Sessions,
        check: AdminCheck,
        *,
        end_elsewhere: Callable[[str], Awaitable[bool]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        process_clock: Callable[[], float] = time.process_time,
    ) -> None:
        """end_elsewhere: lets another process end a session that is not here; whether it was told
        to."""
        self._sessions = sessions
        self._check = check
        self._end_elsewhere = end_elsewhere
        self._clock = clock
        self._process_clock = process_clock
        self._measured = (clock(), process_clock())

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/sessions", self.list)
        app.router.add_get("/v1/sessions/{session_id}/events", self.watch)
        app.router.add_delete("/v1/sessions/{session_id}", self.end)

    async def list(self, request: web.Request) -> web.Response:
        self._admit(request)
        live = self._sessions.live
        shown = LiveSessionList(
            data=live.shown(),
            max_sessions=self._sessions.context.max_sessions,
            cpu=self._cpu(),
            failures=live.recent_failures,
            watch="captions" if live.captions else "state",
        )
        return json_response(shown)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events of one session until it ends: states, speech, and captions where the
        settings allow them."""
        self._admit(request)
        session = self._find(request)
        events = session.watch()
        try:
            async with EventStream(request) as stream:
                while True:
                    try:
                        async with asyncio.timeout(KEEP_ALIVE_S):
                            event = await events.get()
                    except TimeoutError:
                        event = session.state_event  # a client that has left is noticed
                    await stream.send(event)
                    if event["type"] == "ended":
                        break
        finally:
            session.unwatch(events)
        return stream.response

    async def end(self, request: web.Request) -> web.Response:
        """204: it ends. 202: the process that has it was told to end it."""
        self._admit(request)
        id_ = request.match_info["session_id"]
        if self._sessions.live.end(id_):
            return web.Response(status=204)
        if self._end_elsewhere is not None and await self._end_elsewhere(id_):
            return web.Response(status=202)
        raise _not_found(id_)

    def _find(self, request: web.Request) -> LiveSession:
        id_ = request.match_info["session_id"]
        session = self._sessions.live.find(id_)
        if session is None:
            raise _not_found(id_)
        return session

    def _admit(self, request: web.Request) -> None:
        """Raises HTTPForbidden. Without keys only this machine may see sessions."""
        self._check(request)
        if self._check.is_open and not is_loopback(request.remote or ""):
            raise web.HTTPForbidden(
                text="Without keys, sessions are shown to this machine only; make an admin key "
                "with: vivavoce keys add NAME --admin"
            )

    def _cpu(self) -> float:
        now, used = self._clock(), self._process_clock()
        then, used_then = self._measured
        self._measured = (now, used)
        return round((used - used_then) / (now - then), 3) if now > then else 0.0


def _not_found(session_id: str) -> web.HTTPNotFound:
    return web.HTTPNotFound(text=f"There is no open session {session_id[:64]!r}.")
