"""All sessions of a server: who comes in, what they begin with, and how they are let go."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import UNSET

from vivavoce.errors import LimitReached
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.runner import Peer, Player, Runner
from vivavoce.runtime.session_defaults import begin
from vivavoce.session.facts import DrainStarted
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels
from vivavoce.session.shell import Session

log = logging.getLogger(__name__)

GOODBYE_SECONDS = 5.0  # for what was told to end


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What every session of a server shares."""

    brains: ModelCatalog
    offer: AvailableModels
    limits: SessionLimits
    template: RealtimeSession
    """What a session begins with, but for its id, its model and its end."""
    max_sessions: int = 1000
    max_upload_bytes: int = 25 * 1024 * 1024
    """Of the body of one HTTP request."""


class Sessions:
    """Opens sessions, counts them, and ends them all at shutdown."""

    def __init__(
        self, house: ServerContext, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.house = house
        self._wall_clock = wall_clock
        self._runners: set[Runner] = set()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def sessions(self) -> int:
        return len(self._runners)

    @property
    def accepts(self) -> bool:
        """Whether one more session would be let in."""
        return not self._draining and len(self._runners) < self.house.max_sessions

    def open(self, peer: Peer, opening: Opening, player: Player | None = None) -> Runner:
        """Make a session for a client that has come. Raises LimitReached.

        player: what plays its answers, where the client does not. The caller runs the session with
        serve().
        """
        if not self.accepts:
            why = "is shutting down" if self._draining else "has no room for one more session"
            raise LimitReached(f"the server {why}")
        now = asyncio.get_running_loop().time()
        salt = secrets.token_hex(6)
        begun = self.begin(opening, salt)
        _log_opened(begun, opening.model)
        session = Session(
            begun,
            self.house.offer,
            self.house.limits,
            salt=salt,
            now=now,
            owns_playout=player is not None,
        )
        brains = self.house.brains
        runner = Runner(session, peer, brains, model=opening.model, player=player)
        self._runners.add(runner)
        self._empty.clear()
        return runner

    async def serve(self, runner: Runner) -> None:
        """Run a session to its end."""
        try:
            await runner.run()
        finally:
            self._runners.discard(runner)
            if not self._runners:
                self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Let what is under way end, for so long at the most; then everybody goes."""
        self._draining = True
        for runner in tuple(self._runners):
            runner.post(DrainStarted())
        await self._wait_until_empty(seconds)
        for runner in tuple(self._runners):
            runner.dismiss(1012, "the server is shutting down")
        await self._wait_until_empty(GOODBYE_SECONDS)
        if self._runners:
            log.warning("%d sessions did not end: an engine does not let go", self.sessions)

    async def _wait_until_empty(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    def begin(self, opening: Opening, salt: str = "") -> SessionObject:
        """What a session of that opening begins with. Raises InvalidRequest."""
        house = self.house
        expires_at = int(self._wall_clock() + house.limits.max_seconds)
        salt = salt or secrets.token_hex(6)
        return begin(opening, house.template, house.offer, salt=salt, expires_at=expires_at)


def _log_opened(session: SessionObject, asked: str) -> None:
    """Names that there are not are served by the defaults; an operator wants to know."""
    if not isinstance(session, RealtimeSession) or session.served_by is UNSET:
        log.info("%s opened, for transcription", session.id)
    elif asked in ("", session.served_by.model):
        log.info("%s opened, model %s", session.id, session.served_by.model)
    else:
        log.info(
            "%s opened, model %s in place of %.100r", session.id, session.served_by.model, asked
        )
