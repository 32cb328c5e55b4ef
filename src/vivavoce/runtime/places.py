"""Finds the process that made an id, and the process that serves a session now.

Each of several processes has a place, whose name is part of the ids that it makes: w1 is the second
worker of a machine (sess_w1_…, rtc_w1_…), n3fa9c1w1 is that of a node in a cluster. The id that
/start returns for a session is a UUID: its last byte is the number of the worker, and in a cluster
the three bytes before it are the tag of the node.
"""

import asyncio
import hashlib
import logging
import re
import uuid
from typing import NamedTuple

from vivavoce.errors import StoreError
from vivavoce.store.base import Store

log = logging.getLogger(__name__)

TAG_BYTES = 3
FIND_TIMEOUT_S = 1.0
_NAME = r"(?:n([0-9a-f]{6}))?w(\d{1,3})"
_PLACE = re.compile(_NAME)
_ID = re.compile(rf"(?:rtc|sess)_{_NAME}_")


class Place(NamedTuple):
    """A process among several."""

    node: str
    """The tag of its node, six hexadecimal digits; "" without a cluster."""
    worker: int

    @property
    def name(self) -> str:
        """The name of the place in the ids that its process makes."""
        return f"n{self.node}w{self.worker}" if self.node else f"w{self.worker}"


def node_tag(name: str) -> str:
    """The tag of a node, by which ids name it."""
    return hashlib.sha256(name.encode()).hexdigest()[: 2 * TAG_BYTES]


def place_named(name: str) -> Place | None:
    """The place of that name; None: it is not the name of a place."""
    found = _PLACE.fullmatch(name)
    return Place(found[1] or "", int(found[2])) if found else None


def place_of(id_: str) -> Place | None:
    """The place that made the id of a call or a session; None: the id names none."""
    found = _ID.match(id_)
    return Place(found[1] or "", int(found[2])) if found else None


def place_of_uuid(text: str, *, in_cluster: bool) -> Place | None:
    """The place whose /start returned the id of a session; None: the text is not a UUID."""
    try:
        made = uuid.UUID(text).bytes
    except ValueError:
        return None
    return Place(made[-1 - TAG_BYTES : -1].hex() if in_cluster else "", made[-1])


def uuid_of(place: Place) -> uuid.UUID:
    """A new id for a session of /start, made by that place."""
    made = uuid.uuid4().bytes
    end = bytes.fromhex(place.node) + bytes((place.worker,))
    return uuid.UUID(bytes=made[: -len(end)] + end)


class Locations:
    """Records where sessions are that were resumed, because they may not be where their ids say.

    Each time that a process takes over a session, one value is written.
    """

    def __init__(self, store: Store, place: Place) -> None:
        """place: of this process. The store is entered."""
        self._store = store
        self._place = place

    async def find(self, session_id: str) -> Place | None:
        """The place that has a session, as far as it is recorded."""
        made_by = place_of(session_id)
        if made_by is None:
            return None
        try:
            async with asyncio.timeout(FIND_TIMEOUT_S):
                found = await self._store.get(_key(session_id))
        except (StoreError, TimeoutError) as exc:
            log.debug("where %s is cannot be looked up: %s", session_id, exc)
            return made_by
        return (place_named(found.decode(errors="replace")) if found else None) or made_by

    async def note(self, session_id: str, ttl_s: float) -> None:
        """Record that this process has taken over a session."""
        try:
            async with asyncio.timeout(FIND_TIMEOUT_S):
                await self._store.put(_key(session_id), self._place.name.encode(), ttl_s=ttl_s)
        except (StoreError, TimeoutError) as exc:
            log.debug("where %s is cannot be stored: %s", session_id, exc)


def _key(session_id: str) -> str:
    return f"location:{session_id}"
