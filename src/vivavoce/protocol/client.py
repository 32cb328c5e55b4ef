"""Client events of GA Realtime, one Struct each, and their union."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from vivavoce.protocol.items import Item
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.session import SessionPatch


class ClientEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all client events. `event_id` is returned only inside an error."""

    event_id: str | None = None


class SessionUpdate(ClientEvent, frozen=True, tag="session.update"):
    """Change settings. Answered by session.updated with the whole session."""

    session: SessionPatch


class InputAudioAppend(ClientEvent, frozen=True, tag="input_audio_buffer.append"):
    """Add audio to the input buffer. Never acknowledged."""

    audio: bytes  # base64 on the wire


class InputAudioCommit(ClientEvent, frozen=True, tag="input_audio_buffer.commit"):
    """Make the buffer a user item, without a response."""


class InputAudioClear(ClientEvent, frozen=True, tag="input_audio_buffer.clear"):
    """Empty the buffer."""


class OutputAudioClear(ClientEvent, frozen=True, tag="output_audio_buffer.clear"):
    """Drop the audio that was not played yet. Only if the server owns the playout."""


class ItemCreate(ClientEvent, frozen=True, tag="conversation.item.create"):
    """Put an item into the conversation: at its end, at its "root", or after another item."""

    item: Item
    previous_item_id: str | None = None


class ItemRetrieve(ClientEvent, frozen=True, tag="conversation.item.retrieve"):
    """Show an item with its audio."""

    item_id: str


class ItemTruncate(ClientEvent, frozen=True, tag="conversation.item.truncate"):
    """Cut an assistant item at the position up to which the user heard it."""

    item_id: str
    content_index: Annotated[int, Meta(ge=0)]
    audio_end_ms: Annotated[int, Meta(ge=0)]


class ItemDelete(ClientEvent, frozen=True, tag="conversation.item.delete"):
    """Delete an item from the conversation."""

    item_id: str


class ResponseCreate(ClientEvent, frozen=True, tag="response.create"):
    """Request a response."""

    response: ResponseParams | None = None


class ResponseCancel(ClientEvent, frozen=True, tag="response.cancel"):
    """Cancel a response; without an id, that of the default conversation."""

    response_id: str | None = None


AnyClientEvent: TypeAlias = (
    SessionUpdate
    | InputAudioAppend
    | InputAudioCommit
    | InputAudioClear
    | OutputAudioClear
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
)
