"""The response that an upstream server is generating.

It is ended here if the connection is lost.
"""

from typing import Any, Literal

import msgspec

from vivavoce.protocol import server
from vivavoce.protocol.items import FunctionCall, Item, Message, OutputAudio, OutputText, Part
from vivavoce.protocol.responses import (
    Response,
    ResponseAudio,
    ResponseAudioOutput,
    ResponseError,
    StatusDetails,
    Usage,
)
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.brain import Shared
from vivavoce.session.conversation import Entry
from vivavoce.session.relay.items import read_item


class _OpenItem(msgspec.Struct):
    """An output that was announced and has not ended."""

    item: Item
    index: int
    part: str | None = None
    """The type of its content part, "audio" or "text"; None: it has no part yet."""
    part_open: bool = False
    texts: list[str] = msgspec.field(default_factory=list)
    """Its text, its transcript or its arguments so far."""

    @property
    def text(self) -> str:
        return "".join(self.texts)


class UpstreamGeneration:
    """Follows one response by its events, so that everything it has opened can be ended."""

    def __init__(self, shared: Shared, response_id: str, conversation_id: str | None) -> None:
        self.id = response_id
        self._shared = shared
        self._conversation_id = conversation_id
        self._open: dict[str, _OpenItem] = {}
        self._ended: dict[int, Item] = {}  # by output index

    def follow(self, event: UpstreamEvent) -> None:
        """Take an event of the upstream server that belongs to it."""
        open_ = self._open.get(event.item_id)
        match event.type:
            case "response.output_item.added" if event.item:
                if (item := read_item(event.item, "in_progress")) is not None:
                    self._open[item.id] = _OpenItem(item, event.output_index)
            case "response.output_item.done" if event.item:
                self._open.pop(event.item.id, None)
                if (item := read_item(event.item, "completed")) is not None:
                    self._ended[event.output_index] = item
            case "response.content_part.added" if open_:
                open_.part = "text" if event.part and event.part.type == "text" else "audio"
                open_.part_open = True
            case "response.content_part.done" if open_:
                open_.part_open = False
            case (
                "response.output_text.delta"
                | "response.output_audio_transcript.delta"
                | "response.function_call_arguments.delta"
            ) if open_:
                open_.texts.append(event.delta)

    def close(self, status: Literal["failed", "cancelled"], now: float) -> None:
        """Send the events that end the response, because the upstream server will not send them."""
        for open_ in self._open.values():
            self._ended[open_.index] = self._close_item(open_, now)
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
            output=tuple(item for _, item in sorted(self._ended.items(), key=_index)),
            conversation_id=self._conversation_id,
            output_modalities=options.output_modalities,
            max_output_tokens=options.max_output_tokens,
            usage=Usage(),
            audio=ResponseAudio(
                ResponseAudioOutput(options.audio.output.format, options.audio.output.voice)
            ),
        )
        so_far = self._shared.shown_usage(now)
        effects.send(
            server.ResponseDone(event_id=effects.event_id(), response=response, x_usage=so_far)
        )
        self._shared.playback.ended(self.id, now)

    def _close_item(self, open_: _OpenItem, now: float) -> Item:
        effects, conversation = self._shared.effects, self._shared.conversation
        entry = conversation.find(open_.item.id)
        if open_.part_open:
            self._close_part(open_)
        if entry:
            self._cut(open_, entry, now)
        item = _as_ended(open_)
        effects.send(
            server.OutputItemDone(
                event_id=effects.event_id(),
                response_id=self.id,
                output_index=open_.index,
                item=item,
            )
        )
        if entry:
            conversation.replace(item)
            previous = conversation.previous(item.id)
            effects.send(
                server.ItemDone(event_id=effects.event_id(), previous_item_id=previous, item=item)
            )
        return item

    def _cut(self, open_: _OpenItem, entry: Entry, now: float) -> None:
        """What was heard: of a spoken answer only what was played, and all of a written one."""
        if open_.part == "text":
            entry.ledger = None
        unplayed = self._shared.playback.drop(open_.item.id, now)
        if unplayed and entry.ledger:
            self._shared.conversation.cut(open_.item.id, entry.ledger.samples - unplayed)

    def _close_part(self, open_: _OpenItem) -> None:
        effects = self._shared.effects
        place: dict[str, Any] = {
            "response_id": self.id,
            "item_id": open_.item.id,
            "output_index": open_.index,
            "content_index": 0,
        }
        if open_.part == "text":
            effects.send(
                server.OutputTextDone(event_id=effects.event_id(), text=open_.text, **place)
            )
            part = server.ShownPart(type="text", text=open_.text)
        else:
            effects.send(server.OutputAudioDone(event_id=effects.event_id(), **place))
            effects.send(
                server.OutputTranscriptDone(
                    event_id=effects.event_id(), transcript=open_.text, **place
                )
            )
            part = server.ShownPart(type="audio", transcript=open_.text)
        effects.send(server.ContentPartDone(event_id=effects.event_id(), part=part, **place))


def _index(ended: tuple[int, Item]) -> int:
    return ended[0]


def _as_ended(open_: _OpenItem) -> Item:
    """The item with all of it that was received, as incomplete."""
    match open_.item:
        case Message() as message if open_.part:
            part: Part = OutputAudio(transcript=open_.text)
            if open_.part == "text":
                part = OutputText(text=open_.text)
            return msgspec.structs.replace(message, status="incomplete", content=(part,))
        case FunctionCall() as call:
            return msgspec.structs.replace(call, status="incomplete", arguments=open_.text)
    return msgspec.structs.replace(open_.item, status="incomplete")
