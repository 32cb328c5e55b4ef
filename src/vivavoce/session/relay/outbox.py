"""What goes to the upstream server, kept in order until a connection is open."""

from typing import Any

import msgspec

from vivavoce.protocol.client import ClientEvent
from vivavoce.session.effects import EffectBuffer, SendUpstream
from vivavoce.session.relay.items import without_nulls

MAX_QUEUED_BYTES = 4 * 1024 * 1024  # while the upstream server is being connected to
_json = msgspec.json.Encoder()


class Outbox:
    """Sends, or keeps until the connection is open; what is beyond the bound is dropped."""

    def __init__(self, effects: EffectBuffer) -> None:
        self._effects = effects
        self._prefix = effects.ids.next("relay")  # of the ids of our own events
        self._sent = 0
        self._connected = False
        self._queued: list[bytes] = []
        self._queued_bytes = 0

    def open(self) -> None:
        """Send what was kept."""
        self._connected = True
        for data in self._queued:
            self._effects.add(SendUpstream(data))
        self._queued.clear()
        self._queued_bytes = 0

    def shut(self) -> None:
        """The connection is replaced: keep what follows for the next one."""
        self._connected = False

    def queue(self, event: ClientEvent) -> None:
        """Send an event of our own, and know its errors from those of the client's events."""
        self.send_own(_fields(event))

    def send_own(self, fields: dict[str, Any]) -> None:
        self._sent += 1
        self.send(_json.encode({**fields, "event_id": f"{self._prefix}.{self._sent}"}))

    def is_own(self, event_id: Any) -> bool:
        """Whether an event of our own has that id."""
        return isinstance(event_id, str) and event_id.startswith(f"{self._prefix}.")

    def send(self, data: bytes) -> None:
        """Send a client event, JSON, as it is."""
        if self._connected:
            self._effects.add(SendUpstream(data))
        elif self._queued_bytes + len(data) <= MAX_QUEUED_BYTES:
            self._queued.append(data)
            self._queued_bytes += len(data)


def encoded(event: ClientEvent) -> bytes:
    """An event that came in no frame of this protocol."""
    return _json.encode(_fields(event))


def _fields(event: ClientEvent) -> dict[str, Any]:
    fields: dict[str, Any] = without_nulls(msgspec.to_builtins(event))
    return fields
