"""A relay whose media does not pass through this server: WebRTC calls with the upstream server.

The client has the call, and its sideband here carries all events except audio. Rules:
1. Events that the client sends over its own data channel cannot be blocked. A change that its
   policy forbids is undone the first time; the second time the call is ended.
2. Events are not repeated that were sent while the sideband was disconnected, so the usage of a
   response that was open then is unknown.
3. The upstream server plays the answers, and cuts them to what was heard.
"""

from typing import Any

import msgspec

from vivavoce.protocol.client import ItemDelete, OutputAudioClear
from vivavoce.protocol.upstream import UpstreamEvent, UpstreamItem
from vivavoce.session.brain import BrainEvent, Shared
from vivavoce.session.effects import ConnectUpstream, RecordRefusal, RequestEnd
from vivavoce.session.facts import AccessEnded, BrainFact, UpstreamConnected
from vivavoce.session.relay.brain import RelayBrain, ResponseRequest
from vivavoce.session.relay.items import upstream_settings
from vivavoce.session.relay.outbox import encoded

BREACH_CLOSE = 1008


class DirectBrain(RelayBrain):
    """See session/brain.py for what a brain is."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._attached = False  # the sideband was open before
        self._warned = False  # the client has violated the policy before

    def _connection(self) -> ConnectUpstream:
        options = self._shared.options
        settings = msgspec.json.encode(upstream_settings(options.upstream))
        return ConnectUpstream(options.served_by.model, settings=settings)

    def on_client(self, event: BrainEvent, raw: bytes | None, now: float) -> None:
        if isinstance(event, OutputAudioClear):  # the upstream server plays the answers
            self._outbox.send(raw if raw is not None else encoded(event))
            return
        super().on_client(event, raw, now)

    def on_fact(self, fact: BrainFact, now: float) -> None:
        if isinstance(fact, UpstreamConnected):
            if self._attached:
                self._close_responses("failed", now)
                self._request = ResponseRequest()
                self._queue_settings()
            self._attached = True
        super().on_fact(fact, now)

    def _take(self, event: UpstreamEvent, raw: bytes, now: float) -> bool:
        item = event.item
        match event.type:
            case "session.updated":
                self._check_settings(raw)
            case "conversation.item.added" | "conversation.item.created" if item and (
                item.id not in self._shared.conversation and self._is_forbidden(item)
            ):
                self._outbox.queue(ItemDelete(item_id=item.id))
                self._note_breach("conversation.item.create", "items", "the messages of a session")
                return False
            case "conversation.item.deleted" if event.item_id in self._shared.conversation:
                self._shared.conversation.delete(event.item_id)
        return super()._take(event, raw, now)

    def _is_forbidden(self, item: UpstreamItem) -> bool:
        """Whether a client has added an item that its policy forbids."""
        if item.type != "message" or (item.role == "assistant" and item.status != "completed"):
            return False  # an answer is in progress when it is added
        images = any(part.type == "input_image" for part in item.content)
        return not self._shared.options.rules.allows_message(item.role or "", images=images)

    def _check_settings(self, raw: bytes) -> None:
        """Undo a change that the policy forbids."""
        options = self._shared.options
        session: Any = msgspec.json.decode(raw).get("session")
        if not isinstance(session, dict):
            return
        in_force = upstream_settings(options.upstream)
        if place := options.rules.breach(session, in_force):
            self._queue_settings()
            self._note_breach("session.update", "pinned", f"'session.{place}'")

    def _note_breach(self, event: str, rule: str, what: str) -> None:
        effects = self._shared.effects
        effects.add(RecordRefusal(event, rule))
        if self._warned:
            message = f"The call was ended: its client has changed {what} against the policy."
            effects.add(RequestEnd(AccessEnded("policy_violation", message, BREACH_CLOSE)))
        self._warned = True
