"""The client's events about items of the conversation: create, retrieve, truncate, delete."""

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import ItemCreate, ItemDelete, ItemRetrieve, ItemTruncate
from vivavoce.protocol.items import FunctionCallOutput
from vivavoce.protocol.server import (
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
)
from vivavoce.session.brain import Brain, Shared
from vivavoce.session.item_validation import entry_of, in_format


class ClientItems:
    """Carries out these events.

    Each method raises InvalidRequest, in which case nothing was changed. `brain`: the attached
    brain, which is notified of every change.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def create(self, event: ItemCreate, brain: Brain, now: float) -> None:
        shared = self._shared
        conversation, effects = shared.conversation, shared.effects
        shared.options.rules.check_item(event.item)
        entry = entry_of(event.item, shared.options.input_format, effects.ids, "item")
        item = entry.item
        if isinstance(item, FunctionCallOutput) and not conversation.has_call(item.call_id):
            raise InvalidRequest(
                f"Tool call ID '{item.call_id}' not found in conversation.",
                code="invalid_tool_call_id",
            )
        if item.id == brain.reserved_id:
            raise InvalidRequest(
                f"Error adding item: an item with id '{item.id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        conversation.check_room()
        before = conversation.add(entry, event.previous_item_id)
        for sent in (ItemAdded, ItemDone):
            effects.send(sent(event_id=effects.event_id(), previous_item_id=before, item=item))
        brain.on_item_added(entry, event.previous_item_id, now)

    def retrieve(self, event: ItemRetrieve) -> None:
        shared = self._shared
        kept = shared.conversation.retrieve(event.item_id)
        item = in_format(kept, shared.options.input_format)
        shared.effects.send(ItemRetrieved(event_id=shared.effects.event_id(), item=item))

    def truncate(self, event: ItemTruncate, brain: Brain, now: float) -> None:
        shared = self._shared
        shared.conversation.truncate(event.item_id, event.content_index, event.audio_end_ms)
        shared.playback.drop(event.item_id, now)
        brain.on_item_truncated(event.item_id, event.audio_end_ms, now)
        shared.effects.truncated(event.item_id, event.audio_end_ms, event.content_index)

    def delete(self, event: ItemDelete, brain: Brain, now: float) -> None:
        shared = self._shared
        shared.conversation.delete(event.item_id)
        event_id = shared.effects.event_id()
        shared.effects.send(ItemDeleted(event_id=event_id, item_id=event.item_id))
        brain.on_item_deleted(event.item_id, now)
