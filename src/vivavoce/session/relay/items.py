"""Converts items and settings between this conversation and that of an upstream server."""

from typing import Any

import msgspec

from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
    Status,
)
from vivavoce.protocol.session import SessionObject
from vivavoce.protocol.upstream import UpstreamItem
from vivavoce.session.options import USAGE

_OURS = ("id", "object", "expires_at", "served_by", "speech_model", "model")
"""Fields of a session object that are no settings of an upstream server."""


def read_item(item: UpstreamItem, status: Status) -> Item | None:
    """The item as this conversation keeps it; None: its type is unknown here."""
    match item.type:
        case "message" if item.role in ("user", "assistant", "system"):
            parts = tuple(
                part
                for given in item.content
                if (part := _PARTS.get(given.type, lambda _: None)(given)) is not None
            )
            role: Any = item.role
            return Message(id=item.id, status=status, role=role, content=parts)
        case "function_call":
            return FunctionCall(
                id=item.id,
                status=status,
                call_id=item.call_id or "",
                name=item.name or "",
                arguments=item.arguments or "",
            )
        case "function_call_output":
            return FunctionCallOutput(
                id=item.id, call_id=item.call_id or "", output=item.output or ""
            )
    return None


_PARTS: dict[str, Any] = {
    "input_text": lambda part: InputText(text=part.text or ""),
    "input_audio": lambda part: InputAudio(transcript=part.transcript),
    "output_text": lambda part: OutputText(text=part.text or ""),
    "output_audio": lambda part: OutputAudio(transcript=part.transcript or ""),
}


def is_text(item: Message) -> bool:
    return any(isinstance(part, OutputText) for part in item.content)


def as_history(item: Item) -> Item:
    """The item as history. Only the words of speech can be sent to another server."""
    if not isinstance(item, Message):
        return item
    content = tuple(
        InputText(text=part.transcript or "")
        if isinstance(part, InputAudio)
        else OutputText(text=part.transcript)
        if isinstance(part, OutputAudio)
        else part
        for part in item.content
    )
    return msgspec.structs.replace(item, content=content)


def without_nulls(value: Any) -> Any:
    """JSON without fields that are null where null means "not set".

    Nulls that turn something off stay.
    """
    if isinstance(value, list | tuple):
        return [without_nulls(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: without_nulls(inner)
        for key, inner in value.items()
        if inner is not None or key in ("turn_detection", "transcription", "noise_reduction")
    }


def upstream_settings(session: SessionObject) -> dict[str, Any]:
    """The settings of a session as an upstream server accepts them, without the model."""
    kept = msgspec.to_builtins(session)
    for name in _OURS:
        kept.pop(name, None)
    if (turn_detection := kept["audio"]["input"].get("turn_detection")) is not None:
        turn_detection.pop("explain", None)
        turn_detection.pop("interruption", None)
    kept["include"] = [name for name in kept["include"] or () if name != USAGE] or None
    settings: dict[str, Any] = without_nulls(kept)
    return settings


def with_fields(raw: bytes, **fields: Any) -> bytes:
    """A frame, a JSON object, with these fields."""
    return msgspec.json.encode({**msgspec.json.decode(raw), **fields})
