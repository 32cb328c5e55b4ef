"""Conversations that outlive their connection, their process and their machine.

Each conversation has a key: the hash of its owner and of a token that its client holds. Checkpoints
are stored under the key with the epoch of the process that serves the conversation: the time at
which it was claimed, by the clock of the store. The store takes no checkpoint of a lower epoch than
that of the last one or of a claim, so the newest claim wins, and earlier processes can store
nothing more.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self
from weakref import WeakValueDictionary

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.errors import InvalidRequest, StoreError
from vivavoce.protocol.server import Resume, SessionCreated
from vivavoce.runtime.checkpoint_queue import STORE_TIMEOUT_S, CheckpointQueue, decode_stored
from vivavoce.runtime.places import Locations
from vivavoce.runtime.resume_request import ResumeRequest, resume_request
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.store_clock import StoreClock
from vivavoce.runtime.tasks import Signal
from vivavoce.secret import Secret
from vivavoce.session.checkpoint import Checkpoint, continued
from vivavoce.session.limits import Seconds, SecondsOrZero
from vivavoce.store.base import SessionClaim, SessionStore

log = logging.getLogger(__name__)

TOKEN_BYTES = 24
SERVING_BYTES = 4
RENEWALS = 3
"""How often an open conversation that does not change is stored in the time that it is kept."""
MIN_RENEW_S = 1.0
END_TIMEOUT_S = 2.0
"""For the end of a session whose conversation another client of this process takes over."""


class ResumeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[resume]: conversations that continue after their connection is lost.

    Durations in seconds.
    """

    enabled: bool = True
    """Whether clients get a token with which they can come back to their conversation."""
    grace_seconds: SecondsOrZero = 15.0
    """How long a session continues without its client after the connection was lost; 0: it ends at
    once."""
    keep_seconds: Seconds = 600.0
    """How long the words of a conversation are stored after the end of its session, or after its
    process was lost."""
    finish_answers: bool = True
    """Whether an answer that was cut off with the connection is finished when the client comes
    back."""


@dataclass(eq=False, slots=True)
class Ticket:
    """Entitles one client to one conversation. It is the keeper of the session."""

    service: "Resumption"
    request: ResumeRequest
    key: str
    token: Secret
    epoch: int = 1
    serving: str = ""
    """Tells this session from others of the same conversation; "" for the first one."""
    former: str = ""
    """`serving` of the session before, where there was one."""
    checkpoint: Checkpoint | None = None
    """The conversation that continues; None: a new one begins."""
    runner: Runner | None = None
    """The runner of the session, while it is open."""
    client_away: bool = False
    """Whether the client of the open session has lost its connection, and may come back."""
    superseded: bool = False
    """Whether another client has taken over the conversation."""
    kept_at: float | None = None
    """When a checkpoint was made last, in seconds of the loop; None: nothing is stored yet."""

    @property
    def ends_another(self) -> bool:
        """Whether a session of this process ends where that of this ticket begins."""
        return self.service.served(self.key) is not None

    @property
    def repeats_items(self) -> bool:
        return self.checkpoint is not None and self.request.items

    def announced(self, event: SessionCreated) -> SessionCreated:
        return self.service.announced(self, event, resumed=self.checkpoint is not None)

    def keep(self, checkpoint: Checkpoint) -> None:
        self.service.keep(self, checkpoint)

    async def wait_kept(self) -> None:
        await self.service.wait_kept(self)

    def follow(self, former: str) -> None:
        """The session continues a conversation. former: `serving` of the session before."""
        self.serving, self.former = secrets.token_hex(SERVING_BYTES), former

    def supersede(self) -> None:
        """End the session, because its conversation continues elsewhere."""
        if not self.superseded:
            self.superseded = True
            if self.runner is not None:
                self.runner.give_way()


class Resumption:
    """The tickets of a process: an async context manager."""

    def __init__(
        self,
        store: SessionStore,
        settings: ResumeSettings,
        *,
        owner: str = "",
        locations: Locations | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """owner: the name of this process for the others.

        The store is entered. locations: records which sessions this process has taken over.
        """
        self.settings = settings
        self.on_claim: Callable[[str, str, int], Awaitable[None]] | None = None
        """Called with the former owner of a conversation, its key, and its new epoch."""
        self._store = store
        self._owner = owner
        self._locations = locations
        self._wall_clock = wall_clock
        self._served: dict[str, Ticket] = {}
        self._checkpoints = CheckpointQueue(store, owner, settings.keep_seconds)
        self._clock = StoreClock(store, wall_clock)
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._ended = Signal()
        self._tasks = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._tasks.enter_async_context(self._clock)
        await self._tasks.enter_async_context(self._checkpoints)
        renewing = asyncio.create_task(self._renew())
        self._tasks.push_async_callback(asyncio.wait, (renewing,))
        self._tasks.callback(renewing.cancel)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._tasks.aclose()

    @property
    def idle(self) -> bool:
        """Whether all checkpoints are stored."""
        return self._checkpoints.idle

    def has_unsaved(self, session_id: str) -> bool:
        """Whether the store may not have the end of a session that has ended here."""
        return self._checkpoints.has_session(session_id)

    async def wait_saved(self, session_id: str) -> bool:
        """Wait until the store has the end of a session that has ended here.

        False: it takes too long.
        """
        return await self._checkpoints.wait_while(lambda: self.has_unsaved(session_id))

    def ticket(self, query: Mapping[str, str], who: str) -> Ticket:
        """A ticket for a client. Raises InvalidRequest. who: the name of its key."""
        request = resume_request(query)
        token = Secret(request.token or f"rt_{secrets.token_urlsafe(TOKEN_BYTES)}")
        return Ticket(self, request, _key(who, token), token)

    def served(self, key: str) -> Ticket | None:
        """The ticket of a conversation that this process serves, as far as it knows."""
        ticket = self._served.get(key)
        return None if ticket is None or ticket.superseded else ticket

    async def still_served(self, key: str, *, retries: bool = False) -> Ticket | None:
        """As served(), after the store was asked whether another process has claimed it meanwhile.

        If one has, the session here ends: the store takes no checkpoint of an older claim. While
        the store cannot be reached, this process is assumed to have the only claim: at once,
        because a client waits; or, with `retries`, after STORE_TIMEOUT_S of further attempts.
        """
        served, queue = self.served(key), self._checkpoints
        if served is not None and served.runner is not None:
            self.keep(served, served.runner.checkpoint())
            await queue.wait_while(lambda: queue.is_due(key) and (retries or not queue.failing))
        return self.served(key)

    def claim_again(self, key: str) -> None:
        """The client of an open session has come back to it, after still_served().

        That is the newest claim. The store learns it with the next checkpoint, because a process
        that is cut off may have made one meanwhile that the store does not know.
        """
        served = self.served(key)
        if served is not None:
            served.epoch = self._clock.epoch(above=served.epoch)

    async def load(self, ticket: Ticket) -> None:
        """Find the conversation of a ticket, and claim it: begin() must follow without a wait.

        If it cannot be found, a new one begins. Clients that come at once are served one after
        another. Raises InvalidRequest if the client names another session; the conversation of the
        token is unchanged.
        """
        if not ticket.request.token:
            return
        alone = self._loading.setdefault(ticket.key, asyncio.Lock())
        async with alone:
            here = await self.still_served(ticket.key)
            if here is not None and here.runner is not None:
                _check_named(ticket, here.runner.settings.id)
                found: Checkpoint | None = await self._take_served(ticket, here.runner, here)
            else:
                found = await self._take_stored(ticket)
            if found is None:
                return
            _check_named(ticket, found.session.id)
            expires_in = found.session.expires_at - self._wall_clock()
            if expires_in <= 0:
                return
            self.keep(ticket, found)  # for a while again, whatever becomes of its session
            if here is None and self._locations is not None:
                await self._locations.note(found.session.id, expires_in)
        finish = ticket.request.finish
        ticket.checkpoint = continued(
            found,
            expires_in=expires_in,
            heard=ticket.request.heard,
            finish=self.settings.finish_answers if finish is None else finish,
        )

    def fence(self, key: str, epoch: int) -> None:
        """Another process has claimed a conversation: end it here, if its epoch here is lower."""
        ticket = self._served.get(key)
        if ticket is not None and ticket.epoch < epoch:
            ticket.supersede()

    def begin(self, ticket: Ticket, runner: Runner) -> None:
        """The session of this ticket begins."""
        if (other := self._served.get(ticket.key)) is not None:
            other.supersede()
        ticket.runner = runner
        self._served[ticket.key] = ticket

    def end(self, ticket: Ticket) -> None:
        """The session of this ticket has ended."""
        ticket.runner = None
        self._ended.set()
        if self._served.get(ticket.key) is ticket:
            del self._served[ticket.key]

    def announced(self, ticket: Ticket, event: SessionCreated, *, resumed: bool) -> SessionCreated:
        """The event, with what a client needs to come back."""
        last_item_id: str | UnsetType | None = UNSET
        if ticket.checkpoint is not None:
            entries = ticket.checkpoint.entries
            last_item_id = entries[-1].item.id if entries else None
        token, grace_s = ticket.token.reveal(), self.settings.grace_seconds
        resume = Resume(token, grace_s, last_item_id)
        return msgspec.structs.replace(event, resumed=resumed or UNSET, resume=resume)

    def keep(self, ticket: Ticket, checkpoint: Checkpoint) -> None:
        """Store a checkpoint as soon as the store takes it. Never waits."""
        if not ticket.superseded:
            ticket.kept_at = self._now
            self._checkpoints.add(ticket, checkpoint)

    async def wait_kept(self, ticket: Ticket) -> None:
        """Wait until the checkpoints of a ticket are stored, at most STORE_TIMEOUT_S."""
        await self._checkpoints.wait_while(lambda: self._checkpoints.is_due(ticket.key))

    def serves(self, token: str) -> bool:
        """Whether this process serves a conversation with that token, whoever owns it."""
        return any(ticket.token.reveal() == token for ticket in self._served.values())

    async def _take_served(self, ticket: Ticket, runner: Runner, other: Ticket) -> Checkpoint:
        """From a session of this process, which ends and gives back what it has reserved."""
        checkpoint = runner.checkpoint()
        ticket.epoch = self._clock.epoch(above=other.epoch)
        ticket.follow(other.serving)
        other.supersede()
        self.keep(ticket, checkpoint)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                while other.runner is not None:
                    self._ended.clear()
                    await self._ended.wait()
        return checkpoint

    async def _take_stored(self, ticket: Ticket) -> Checkpoint | None:
        """From the store, or from what waits for it here.

        If the client goes meanwhile, it is done to its end first: the store may have done the
        claim, and what waited is stored under its epoch.
        """
        taking = asyncio.create_task(self._take_unserved(ticket))
        try:
            return await asyncio.shield(taking)
        finally:
            await asyncio.wait((taking,))

    async def _take_unserved(self, ticket: Ticket) -> Checkpoint | None:
        await self._wait_stored(ticket.key)
        # for a session that has just ended here: nothing is stored for it during a claim
        unsaved = self._checkpoints.take(ticket.key)
        epoch = 0 if unsaved is None else unsaved.claim.epoch
        claim = await self._claim(ticket)
        if claim is None:
            ticket.epoch = self._clock.epoch(above=epoch)
        else:
            ticket.epoch = max(claim.epoch, epoch + 1)
        found: Checkpoint | None = None
        if unsaved is not None and (claim is None or self._is_newer(epoch, claim)):
            found = unsaved.checkpoint
            ticket.follow(unsaved.claim.serving)
            self.keep(ticket, unsaved.checkpoint)
        elif claim is not None and (stored := decode_stored(claim.value)) is not None:
            found = stored.checkpoint
            ticket.follow(stored.serving)
        if claim is not None and self.on_claim is not None and claim.owner not in ("", self._owner):
            await self.on_claim(claim.owner, ticket.key, ticket.epoch)
        return found

    def _is_newer(self, epoch: int, claim: SessionClaim) -> bool:
        """Whether a checkpoint of this process is newer than what was stored before a claim."""
        stored = claim.former_epoch
        return epoch > stored or (epoch == stored and claim.owner == self._owner)

    async def _wait_stored(self, key: str) -> None:
        """Wait while a checkpoint is being stored, because a claim would miss it."""
        if not await self._checkpoints.wait_while(lambda: self._checkpoints.is_storing(key)):
            log.warning("a conversation is resumed without its end: the store is too slow")

    async def _claim(self, ticket: Ticket) -> SessionClaim | None:
        """None: the store does not answer.

        What begins now is kept, and not what is older.
        """
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                return await self._store.claim(ticket.key, self._owner)
        except (StoreError, TimeoutError) as exc:
            log.warning("a conversation cannot be claimed: %s", exc or "the store is too slow")
            return None

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _renew(self) -> None:
        """Store open conversations that have not changed for a while, so that they stay stored."""
        every_s = max(MIN_RENEW_S, self.settings.keep_seconds / RENEWALS)
        while True:
            await asyncio.sleep(every_s)
            for ticket in tuple(self._served.values()):
                is_old = ticket.kept_at is not None and self._now >= ticket.kept_at + every_s
                if is_old and ticket.runner is not None:
                    self.keep(ticket, ticket.runner.checkpoint())
                    await asyncio.sleep(0)  # making a long one takes a while


def _check_named(ticket: Ticket, session_id: str) -> None:
    """Raises InvalidRequest where a client names another session than that of its token."""
    if ticket.request.session_id not in ("", session_id):
        raise InvalidRequest(
            "The 'resume_token' is not that of the session 'session_id'.",
            code="resume_token_mismatch",
            param="session_id",
        )


def _key(who: str, token: Secret) -> str:
    """The key of a conversation: the same token with another owner is another conversation."""
    return hashlib.sha256(f"{who}\0{token.reveal()}".encode()).hexdigest()
