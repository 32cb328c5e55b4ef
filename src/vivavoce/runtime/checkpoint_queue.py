"""Checkpoints on their way to the store."""

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple, Protocol, Self

import msgspec

from vivavoce.errors import StoreError
from vivavoce.runtime.tasks import Signal
from vivavoce.session.checkpoint import CHECKPOINT_VERSION, Checkpoint
from vivavoce.store.base import SessionSave, SessionStore

log = logging.getLogger(__name__)

MAX_SAVES_AT_ONCE = 64
MAX_UNSAVED = 10_000
"""Conversations that are waiting for a store that cannot be reached; the oldest are dropped."""
RETRY_S = 1.0
STORE_TIMEOUT_S = 3.0
"""How long a client that comes back waits for the store."""
CLOSE_TIMEOUT_S = 5.0
"""The time at shutdown for checkpoints that are not stored yet."""
_encode = msgspec.msgpack.Encoder().encode


class StoredSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation in the store."""

    checkpoint: Checkpoint
    serving: str = ""
    """See Claim.serving."""


def decode_stored(value: bytes | None) -> StoredSession | None:
    """A stored conversation; None: there is none, or this version cannot read it."""
    if value is None:
        return None
    try:
        stored = msgspec.msgpack.decode(value, type=StoredSession)
    except msgspec.MsgspecError as exc:
        log.warning("a stored conversation cannot be read: %s", exc)
        return None
    return stored if stored.checkpoint.version == CHECKPOINT_VERSION else None


class Claim(Protocol):
    """The right of a process to store a conversation, until another process claims it."""

    key: str
    epoch: int
    """It may rise while the conversation is open."""
    serving: str
    """Tells this session from others of the same conversation; "" for the first one."""

    def supersede(self) -> None:
        """The store has refused a checkpoint: the conversation is served elsewhere."""
        ...


class Unsaved(NamedTuple):
    """A checkpoint that waits, and the claim under which it is stored."""

    claim: Claim
    checkpoint: Checkpoint


class CheckpointQueue:
    """Stores the last checkpoint of each conversation: an async context manager."""

    def __init__(self, store: SessionStore, owner: str, keep_s: float) -> None:
        """The store is entered. owner: the name of this process. keep_s: the time to live of a
        checkpoint; it is shorter where the session expires earlier."""
        self.failing = False
        """Whether the last attempt to reach the store has failed."""
        self._store = store
        self._owner = owner
        self._keep_s = keep_s
        self._unsaved: dict[str, Unsaved] = {}
        self._storing: dict[str, str] = {}  # key and session of each checkpoint being stored
        self._more = Signal()
        self._tried = Signal()
        self._ending = False
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._writing
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

    def has_session(self, session_id: str) -> bool:
        """Whether the last checkpoint of a session is not stored yet."""
        unsaved = (waiting.checkpoint.session.id for waiting in self._unsaved.values())
        return session_id in self._storing.values() or session_id in unsaved

    def is_due(self, key: str) -> bool:
        """Whether the last checkpoint of a conversation is not stored yet."""
        return key in self._unsaved or key in self._storing

    def is_storing(self, key: str) -> bool:
        """Whether the store has not answered yet."""
        return key in self._storing

    def add(self, claim: Claim, checkpoint: Checkpoint) -> None:
        """Store a checkpoint, in place of one that waits, as soon as the store takes it."""
        self._unsaved[claim.key] = Unsaved(claim, checkpoint)
        if len(self._unsaved) > MAX_UNSAVED:
            del self._unsaved[next(iter(self._unsaved))]
        self._more.set()

    def take(self, key: str) -> Unsaved | None:
        """Remove the checkpoint of a conversation that waits."""
        return self._unsaved.pop(key, None)

    async def wait_while(self, waits: Callable[[], bool]) -> bool:
        """Look again after each attempt to store; False: it takes more than STORE_TIMEOUT_S."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                while waits():
                    self._tried.clear()
                    await self._tried.wait()
        except TimeoutError:
            return False
        return True

    async def _write(self) -> None:
        while not self._ending:
            await self._more.wait()
            self._more.clear()
            while self._unsaved:
                due = islice(self._unsaved.items(), MAX_SAVES_AT_ONCE)
                self._storing = {key: waiting.checkpoint.session.id for key, waiting in due}
                try:
                    stored = await self._write_some()
                finally:
                    self._storing = {}
                    self._tried.set()
                if not stored:
                    await asyncio.sleep(RETRY_S)

    async def _write_some(self) -> bool:
        """Store the checkpoints that are due.

        False: the store cannot be reached, and they are still due.
        """
        taken = [self._unsaved.pop(key) for key in self._storing]
        saves = []
        for each in taken:
            if (save := self._save(each)) is not None:
                saves.append((each, save))
            await asyncio.sleep(0)  # encoding a long one takes a millisecond
        try:
            kept = await self._store.keep([save for _, save in saves])
        except StoreError as exc:
            if not self.failing:
                log.warning("conversations are not stored: %s", exc)
            self.failing = True
            for each, save in saves:
                self._unsaved.setdefault(save.key, each)
            return False
        self.failing = False
        for (each, save), done in zip(saves, kept, strict=True):
            if not done:
                self._refused(each, save)
        return True

    def _refused(self, refused: Unsaved, save: SessionSave) -> None:
        if refused.claim.epoch > save.epoch:  # its client has come back meanwhile
            self._unsaved.setdefault(save.key, refused)
        else:
            refused.claim.supersede()

    def _save(self, unsaved: Unsaved) -> SessionSave | None:
        """None: a bug, which must not keep the others from being stored."""
        claim, checkpoint = unsaved
        try:
            value = _encode(StoredSession(checkpoint=checkpoint, serving=claim.serving))
        except Exception:
            log.exception("%s cannot be stored", checkpoint.session.id)
            return None
        ttl_s = max(0.0, min(self._keep_s, checkpoint.expires_in))
        return SessionSave(claim.key, claim.epoch, self._owner, value, ttl_s)
