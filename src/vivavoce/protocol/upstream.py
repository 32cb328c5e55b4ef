"""Server events of an upstream Realtime server, read tolerantly.

read_upstream() reads only what a relay has to understand. Unknown events, unknown fields and fields
of an unexpected type are not errors: the frame is passed on unchanged. read_server_event() reads a
whole event, for clients of another protocol; missing values are replaced by neutral ones.
"""

import math
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from vivavoce.protocol import json
from vivavoce.protocol.server import AnyServerEvent


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
    """A response, with the fields that a relay reads."""

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
    """The text of a transcription."""


class _Envelope(msgspec.Struct):
    type: str = ""
    event_id: str = ""


_decoder = msgspec.json.Decoder(UpstreamEvent)
_envelope = msgspec.json.Decoder(_Envelope)


def read_upstream(raw: bytes) -> UpstreamEvent:
    """The event in a frame. If that is not a JSON object with a `type`, the type is ""."""
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


_events: msgspec.json.Decoder[AnyServerEvent] = msgspec.json.Decoder(AnyServerEvent)
_encode = msgspec.json.Encoder().encode
_UNKNOWN: Any = object()
"""Stands for a value that fits no type of the protocol."""
_ABSENT: Any = object()
_NEUTRAL: dict[str, Any] = {
    "output_modalities": ["audio"],
    "max_output_tokens": "inf",
    "format": {"type": "audio/pcm", "rate": 24_000},
    "part": {"type": "audio"},
    "usage": {"type": "duration"},
    "status": "in_progress",
    "conversation_id": "conv_upstream",
}
"""By field: the replacement for a value that is absent or of another type."""
_TAGS = {"output_text": "text", "output_audio": "audio"}
_LONG_TAGS = {short: long for long, short in _TAGS.items()}
"""Servers use the types of the parts of items and of part events for each other."""


def read_server_event(raw: bytes) -> AnyServerEvent | None:
    """The event in a frame; None if its type, or the type of its item, is unknown."""
    try:
        return json.decode(raw, _events)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    try:
        mended = _mended(json.decode(raw), _schema(), "")
        return None if mended is _UNKNOWN else _events.decode(_encode(mended))
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


@cache
def _schema() -> inspect.Type:
    """That of all server events. It takes 5 % of the CPU of a start, and few upstreams need it."""
    return inspect.type_info(AnyServerEvent)


def _mended(value: Any, kind: inspect.Type, name: str) -> Any:
    """A JSON value of the given type; _UNKNOWN if there is none."""
    match kind:
        case inspect.UnionType():
            return _one_of(value, kind, name)
        case inspect.StructType():
            return _struct(value, kind, name)
        case inspect.VarTupleType(item_type=of):
            given = value if isinstance(value, list) else _NEUTRAL.get(name, [])
            mended = [_mended(one, of, "") for one in given]
            return [one for one in mended if one is not _UNKNOWN]
        case inspect.LiteralType(values=values):
            return value if value in values else _NEUTRAL.get(name, values[0])
        case inspect.IntType():
            return _whole(value)
        case inspect.FloatType():
            return value if isinstance(value, int | float) else 0.0
        case inspect.StrType() | inspect.BytesType():
            return value if isinstance(value, str) else ""
    return value if value is not _ABSENT else None


def _one_of(value: Any, kind: inspect.UnionType, name: str) -> Any:
    if value in (None, _ABSENT) and kind.includes_none:
        return None if value is None else _NEUTRAL.get(name)
    structs = {one.tag: one for one in kind.types if isinstance(one, inspect.StructType)}
    if not structs:
        if isinstance(value, str | int):
            return value
        first = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
        return _NEUTRAL[name] if name in _NEUTRAL else _mended(value, first, name)
    if len(structs) == 1:
        (only,) = structs.values()
        return _mended(value, only, name)
    fields = value if isinstance(value, dict) else _NEUTRAL.get(name, {})
    tag = str(fields.get("type"))
    chosen = structs.get(tag) or structs.get(_LONG_TAGS.get(tag, ""))
    if chosen is None and name in _NEUTRAL:
        fields = {**_NEUTRAL[name], **fields, "type": _NEUTRAL[name]["type"]}
        chosen = structs[fields["type"]]
    return _UNKNOWN if chosen is None else _struct(fields, chosen, name)


def _struct(value: Any, kind: inspect.StructType, name: str) -> Any:
    given = value if isinstance(value, dict) else _NEUTRAL.get(name, {})
    mended: dict[str, Any] = {}
    if kind.tag_field is not None:
        mended[kind.tag_field] = kind.tag
    for field in kind.fields:
        one = given.get(field.encode_name, _ABSENT)
        if one in (None, _ABSENT) and not field.required:
            continue
        if field.encode_name == "type" and isinstance(one, str):
            one = _TAGS.get(one, one)
        one = _mended(one, field.type, field.encode_name)
        if one is _UNKNOWN:
            return _UNKNOWN
        mended[field.encode_name] = one
    return mended


def _whole(value: Any) -> int:
    """A count, rounded up."""
    return math.ceil(value) if isinstance(value, int | float) else 0
