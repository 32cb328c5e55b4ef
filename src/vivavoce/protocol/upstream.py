"""Server events of an upstream Realtime server, read tolerantly.

Only what a relay has to understand is read. Unknown events, unknown fields and fields of an
unexpected type are no error: the frame is passed on as it came.
"""

from typing import Any

import msgspec


class UpstreamPart(msgspec.Struct, frozen=True):
    """A content part of an item."""

    type: str = ""
    text: str | None = None
    transcript: str | None = None


class UpstreamItem(msgspec.Struct, frozen=True):
    """A conversation item of any type."""

    id: str = ""
    type: str = ""
    role: str | None = None
    status: str | None = None
    content: tuple[UpstreamPart, ...] = ()
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    output: str | None = None


class UpstreamResponse(msgspec.Struct, frozen=True):
    """A response, as far as a relay reads it."""

    id: str = ""
    status: str = ""
    conversation_id: str | None = None
    status_details: Any = None
    usage: Any = None


class UpstreamEvent(msgspec.Struct, frozen=True):
    """Any server event. Fields that its type does not have keep their defaults."""

    type: str = ""
    event_id: str = ""
    error: Any = None
    item: UpstreamItem | None = None
    previous_item_id: str | None = None
    item_id: str = ""
    part: UpstreamPart | None = None
    response: UpstreamResponse | None = None
    response_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    """Text, or base64 audio."""
    transcript: str | None = None
    usage: Any = None
    """Of a transcription."""


class _Envelope(msgspec.Struct):
    type: str = ""
    event_id: str = ""


_decoder = msgspec.json.Decoder(UpstreamEvent)
_envelope = msgspec.json.Decoder(_Envelope)


def read_upstream(raw: bytes) -> UpstreamEvent:
    """The event in a frame. What is no JSON object with a `type` has the type ""."""
    try:
        return _decoder.decode(raw)
    except msgspec.ValidationError:
        try:
            envelope = _envelope.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return UpstreamEvent()
        return UpstreamEvent(type=envelope.type, event_id=envelope.event_id)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return UpstreamEvent()
