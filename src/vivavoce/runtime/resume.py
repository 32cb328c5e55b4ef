"""Conversations that outlive their connection, their process and their machine.

Each conversation has a key: the hash of its owner and of a token that its client holds. Checkpoints
are stored under the key with the epoch of the process that serves the conversation. A claim gets a
higher epoch, so that earlier processes can store nothing more.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Self
from weakref import WeakValueDictionary

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.errors import InvalidRequest, StoreError
from vivavoce.protocol.server import Resume, SessionCreated
from vivavoce.runtime.places import Locations
from vivavoce.runtime.resume_request import ResumeRequest, resume_request
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.tasks import Signal
from vivavoce.secret import Secret
from vivavoce.session.checkpoint import CHECKPOINT_VERSION, Checkpoint, continued
from vivavoce.session.limits import Seconds, SecondsOrZero
from vivavoce.store.base import SessionClaim, SessionSave, SessionStore

log = logging.getLogger(__name__)

TOKEN_BYTES = 24
TAKEN_OVER_CLOSE = 4003
"""The close code of a connection whose conversation another client has resumed."""
MAX_SAVES_AT_ONCE = 64
MAX_UNSAVED = 10_000
"""Conversations that are waiting for a store that cannot be reached; the oldest are dropped."""
RETRY_S = 1.0
RENEWALS = 3
"""How often an open conversation that does not change is stored in the time that it is kept."""
MIN_RENEW_S = 1.0
CLAIM_TIMEOUT_S = 3.0
END_TIMEOUT_S = 2.0
"""For the end of a session whose conversation another client of this process takes over."""
CLOSE_TIMEOUT_S = 5.0
"""The time at shutdown for checkpoints that are not stored yet."""
_encode = msgspec.msgpack.Encoder().encode


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


class StoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation in the store."""

    checkpoint: Checkpoint


@dataclass(eq=False, slots=True)
class Ticket:
    """Entitles one client to one conversation. It is the keeper of the session."""

    service: "Resumption"
    request: ResumeRequest
    key: str
    token: Secret
    epoch: int = 1
    checkpoint: Checkpoint | None = None
    """The conversation that continues; None: a new one begins."""
    runner: Runner | None = None
    """The runner of the session, while it is open."""
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

    async def confirm(self) -> None:
        """End the session if another process has claimed its conversation meanwhile.

        That shows when a checkpoint is stored; if the store cannot be reached, return after
        CLAIM_TIMEOUT_S.
        """
        if self.runner is not None:
            self.keep(self.runner.checkpoint())
            await self.wait_kept()


class Resumption:
    """The tickets of a process, and the task that stores its checkpoints: an async context
    manager."""

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
        self._unsaved: dict[str, tuple[Ticket, Checkpoint]] = {}
        self._storing: dict[str, str] = {}  # key and session of each checkpoint being stored
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._more = Signal()
        self._stored = Signal()
        self._ended = Signal()
        self._failing = False
        self._ending = False
        self._writing: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write())
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._writing
        assert self._renewing
        self._renewing.cancel()
        await asyncio.wait((self._renewing,))
        self._ending = True
        self._more.set()
        await asyncio.wait((self._writing,), timeout=CLOSE_TIMEOUT_S)
        if self._unsaved:
            log.warning("%d conversations were not stored", len(self._unsaved))
        self._writing.cancel()
        await asyncio.wait((self._writing,))

    @property
    def idle(self) -> bool:
        """Whether all checkpoints are stored."""
        return not (self._unsaved or self._storing)

    def has_unsaved(self, session_id: str) -> bool:
        """Whether the store may not have the end of a session that has ended here."""
        unsaved = (checkpoint.session.id for _, checkpoint in self._unsaved.values())
        return session_id in self._storing.values() or session_id in unsaved

    async def wait_saved(self, session_id: str) -> bool:
        """Wait until the store has the end of a session that has ended here.

        False: it takes too long.
        """
        return await self._wait_while(lambda: self.has_unsaved(session_id))

    def ticket(self, query: Mapping[str, str], who: str) -> Ticket:
        """A ticket for a client. Raises InvalidRequest. who: the name of its key."""
        request = resume_request(query)
        token = Secret(request.token or f"rt_{secrets.token_urlsafe(TOKEN_BYTES)}")
        return Ticket(self, request, _key(who, token), token)

    def served(self, key: str) -> Ticket | None:
        """The ticket of a conversation that this process serves, as far as it knows."""
        ticket = self._served.get(key)
        return None if ticket is None or ticket.superseded else ticket

    async def still_served(self, key: str) -> Ticket | None:
        """As served(), after the store was asked whether another process has claimed it meanwhile.

        If one has, the session here ends: the store takes no checkpoint of an older claim. While
        the store cannot be reached, this process is assumed to have the only claim.
        """
        served = self.served(key)
        if served is not None and served.runner is not None:
            self.keep(served, served.runner.checkpoint())
            await self._wait_while(lambda: not self._failing and self._is_due(served))
        return self.served(key)

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
            supersede(ticket)

    def begin(self, ticket: Ticket, runner: Runner) -> None:
        """The session of this ticket begins."""
        if (other := self._served.get(ticket.key)) is not None:
            supersede(other)
        ticket.runner = runner
        if ticket.checkpoint is not None:
            ticket.kept_at = self._now
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
        if ticket.superseded:
            return
        ticket.kept_at = self._now
        self._unsaved[ticket.key] = (ticket, checkpoint)
        if len(self._unsaved) > MAX_UNSAVED:
            del self._unsaved[next(iter(self._unsaved))]
        self._more.set()

    async def wait_kept(self, ticket: Ticket) -> None:
        """Wait until the checkpoints of a ticket are stored, at most CLAIM_TIMEOUT_S."""
        await self._wait_while(lambda: self._is_due(ticket))

    async def _wait_while(self, waits: Callable[[], bool]) -> bool:
        """Look again after each attempt to store; False: it takes more than CLAIM_TIMEOUT_S."""
        try:
            async with asyncio.timeout(CLAIM_TIMEOUT_S):
                while waits():
                    self._stored.clear()
                    await self._stored.wait()
        except TimeoutError:
            return False
        return True

    def _is_due(self, ticket: Ticket) -> bool:
        """Whether the store has not taken the last checkpoint yet."""
        return ticket.key in self._unsaved or ticket.key in self._storing

    def serves(self, token: str) -> bool:
        """Whether this process serves a conversation with that token, whoever owns it."""
        return any(ticket.token.reveal() == token for ticket in self._served.values())

    async def _take_served(self, ticket: Ticket, runner: Runner, other: Ticket) -> Checkpoint:
        """From a session of this process, which ends and gives back what it has reserved."""
        checkpoint = runner.checkpoint()
        ticket.epoch = other.epoch + 1
        supersede(other)
        self.keep(ticket, checkpoint)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                while other.runner is not None:
                    self._ended.clear()
                    await self._ended.wait()
        return checkpoint

    async def _take_stored(self, ticket: Ticket) -> Checkpoint | None:
        """From the store, or from what waits for it here."""
        await self._wait_stored(ticket.key)
        # for a session that has just ended here: nothing is stored for it during a claim
        unsaved = self._unsaved.pop(ticket.key, None)
        epoch = 0
        if unsaved is not None:  # above the claim that another process may have made
            ticket.epoch, epoch = unsaved[0].epoch + 2, unsaved[0].epoch
        try:
            claim = await self._claim(ticket)
        except BaseException:
            if unsaved is not None:
                self.keep(ticket, unsaved[1])
            raise
        if claim is None:
            found = unsaved[1] if unsaved is not None else None
        else:
            ticket.epoch = max(claim.epoch, epoch + 1)
            stored = claim.epoch - 1
            newer = epoch > stored or (epoch == stored and claim.owner == self._owner)
            found = unsaved[1] if unsaved is not None and newer else _decoded(claim.value)
        if unsaved is not None and found is unsaved[1]:
            self.keep(ticket, found)  # whatever becomes of the session that begins with it
        if claim is not None and self.on_claim is not None and claim.owner != self._owner:
            await self.on_claim(claim.owner, ticket.key, ticket.epoch)
        return found

    async def _wait_stored(self, key: str) -> None:
        """Wait while a checkpoint is being stored, because a claim would miss it."""
        if not await self._wait_while(lambda: key in self._storing):
            log.warning("a conversation is resumed without its end: the store is too slow")

    async def _claim(self, ticket: Ticket) -> SessionClaim | None:
        """None: there is none, or the store cannot say. Then the epoch of the ticket is above that
        of all that was stored before: what begins now is kept, and not what is older."""
        try:
            async with asyncio.timeout(CLAIM_TIMEOUT_S):
                return await self._store.claim(ticket.key, self._owner)
        except (StoreError, TimeoutError) as exc:
            log.warning("a conversation cannot be claimed: %s", exc or "the store is too slow")
            ticket.epoch = max(ticket.epoch, int(self._wall_clock()))
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

    async def _write(self) -> None:
        while not self._ending:
            await self._more.wait()
            self._more.clear()
            while self._unsaved:
                due = islice(self._unsaved.items(), MAX_SAVES_AT_ONCE)
                self._storing = {key: checkpoint.session.id for key, (_, checkpoint) in due}
                try:
                    stored = await self._write_some()
                finally:
                    self._storing = {}
                    self._stored.set()
                if not stored:
                    await asyncio.sleep(RETRY_S)

    async def _write_some(self) -> bool:
        """Store the checkpoints that are due.

        False: the store cannot be reached, and they are still due.
        """
        taken = [self._unsaved.pop(key) for key in self._storing]
        saves = []
        for ticket, checkpoint in taken:
            if (save := self._save(ticket, checkpoint)) is not None:
                saves.append((ticket, checkpoint, save))
            await asyncio.sleep(0)  # encoding a long one takes a millisecond
        try:
            kept = await self._store.keep([save for _, _, save in saves])
        except StoreError as exc:
            if not self._failing:
                log.warning("conversations are not stored: %s", exc)
            self._failing = True
            for ticket, checkpoint, _ in saves:
                self._unsaved.setdefault(ticket.key, (ticket, checkpoint))
            return False
        self._failing = False
        for (ticket, _, _), done in zip(saves, kept, strict=True):
            if not done:
                supersede(ticket)
        return True

    def _save(self, ticket: Ticket, checkpoint: Checkpoint) -> SessionSave | None:
        """None: a bug, which must not keep the others from being stored."""
        try:
            value = _encode(StoredSession(checkpoint=checkpoint))
        except Exception:
            log.exception("%s cannot be stored", checkpoint.session.id)
            return None
        ttl_s = max(0.0, min(self.settings.keep_seconds, checkpoint.expires_in))
        return SessionSave(ticket.key, ticket.epoch, self._owner, value, ttl_s)


def _check_named(ticket: Ticket, session_id: str) -> None:
    """Raises InvalidRequest where a client names another session than that of its token."""
    if ticket.request.session_id not in ("", session_id):
        raise InvalidRequest(
            "The 'resume_token' is not that of the session 'session_id'.",
            code="resume_token_mismatch",
            param="session_id",
        )


def _decoded(value: bytes) -> Checkpoint | None:
    """A stored conversation; None: this version cannot read it."""
    try:
        checkpoint = msgspec.msgpack.decode(value, type=StoredSession).checkpoint
    except msgspec.MsgspecError as exc:
        log.warning("a stored conversation cannot be read: %s", exc)
        return None
    return checkpoint if checkpoint.version == CHECKPOINT_VERSION else None


def supersede(ticket: Ticket) -> None:
    """End the session of a ticket, because its conversation continues elsewhere."""
    if not ticket.superseded:
        ticket.superseded = True
        if ticket.runner is not None:
            ticket.runner.give_way(
                TAKEN_OVER_CLOSE,
                "session_taken_over",
                "Another client has resumed this conversation.",
            )


def _key(who: str, token: Secret) -> str:
    """The key of a conversation: the same token with another owner is another conversation."""
    return hashlib.sha256(f"{who}\0{token.reveal()}".encode()).hexdigest()
