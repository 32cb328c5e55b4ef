"""The response that an upstream server is generating, closed here when that server is lost."""

from typing import Any, Literal

import msgspec

from vivavoce.protocol import server
from vivavoce.protocol.items import Item, OutputAudio
from vivavoce.protocol.responses import (
    Response,
    ResponseAudio,
    ResponseAudioOutput,
    ResponseError,
    StatusDetails,
)
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.brain import Shared
from vivavoce.session.conversation import Entry
from vivavoce.session.relay.items import read_item


class UpstreamGeneration:
    """Follows one response by its events, so that all that it opened can be closed."""

    def __init__(self, shared: Shared, response_id: str, conversation_id: str | None) -> None:
        self.id = response_id
        self._shared = shared
        self._conversation_id = conversation_id
        self._items: dict[str, tuple[int, Item]] = {}  # open items with their output index
        self._parts: set[str] = set()  # the items with an open content part

    def follow(self, event: UpstreamEvent) -> None:
        """Take an event of the upstream server that may belong to it."""
        match event.type:
            case "response.output_item.added" if event.item:
                if (item := read_item(event.item, "in_progress")) is not None:
                    self._items[event.item.id] = (event.output_index, item)
            case "response.output_item.done" if event.item:
                self._items.pop(event.item.id, None)
            case "response.content_part.added":
                self._parts.add(event.item_id)
            case "response.content_part.done":
                self._parts.discard(event.item_id)

    def close(self, status: Literal["failed", "cancelled"], now: float) -> None:
        """Send the events that the upstream server will not send any more."""
        output = tuple(self._close_item(item, index, now) for index, item in self._items.values())
        effects, options = self._shared.effects, self._shared.options.realtime
        details = StatusDetails(type="cancelled")
        if status == "failed":
            message = "The connection to the upstream server was lost."
            error = ResponseError(type="server_error", code="upstream_lost", message=message)
            details = StatusDetails(type="failed", error=error)
        response = Response(
            id=self.id,
            status=status,
            status_details=details,
            output=output,
            conversation_id=self._conversation_id,
            output_modalities=options.output_modalities,
            max_output_tokens=options.max_output_tokens,
            audio=ResponseAudio(
                ResponseAudioOutput(options.audio.output.format, options.audio.output.voice)
            ),
        )
        effects.send(server.ResponseDone(event_id=effects.event_id(), response=response))
        self._shared.playback.ended(self.id, now)

    def _close_item(self, item: Item, index: int, now: float) -> Item:
        effects, entry = self._shared.effects, self._shared.conversation.find(item.id)
        if entry and entry.ledger:
            item = self._close_message(item, entry, index, now)
        item = msgspec.structs.replace(item, status="incomplete")
        effects.send(
            server.OutputItemDone(
                event_id=effects.event_id(), response_id=self.id, output_index=index, item=item
            )
        )
        if entry:
            self._shared.conversation.replace(item)
            previous = self._shared.conversation.previous(item.id)
            effects.send(
                server.ItemDone(event_id=effects.event_id(), previous_item_id=previous, item=item)
            )
        return item

    def _close_message(self, item: Item, entry: Entry, index: int, now: float) -> Item:
        assert entry.ledger
        text = entry.ledger.text
        if item.id in self._parts:
            self._close_part(item.id, index, text)
        if unplayed := self._shared.playback.drop(item.id, now):
            self._shared.conversation.cut(item.id, entry.ledger.samples - unplayed)
        return msgspec.structs.replace(item, content=(OutputAudio(transcript=text),))

    def _close_part(self, item_id: str, index: int, text: str) -> None:
        effects = self._shared.effects
        place: dict[str, Any] = {
            "response_id": self.id,
            "item_id": item_id,
            "output_index": index,
            "content_index": 0,
        }
        effects.send(server.OutputAudioDone(event_id=effects.event_id(), **place))
        effects.send(
            server.OutputTranscriptDone(event_id=effects.event_id(), transcript=text, **place)
        )
        part = server.ShownPart(type="audio", transcript=text)
        effects.send(server.ContentPartDone(event_id=effects.event_id(), part=part, **place))
