"""Realtime events as a client sees them: built to send, read with tolerance. Pure.

A server's event is not checked against our own types: other servers add fields, leave some out,
and have events that we do not know. What is absent or of another type reads as empty.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

UNREADABLE = "(not an event)"
TRANSCRIPTION_MODEL = "gpt-4o-mini-transcribe"
SHORTENED = "talk_truncate"
"""Our id of truncations: a server that refuses one, since all was heard, does no harm."""


class Event:
    """One event, sent or received."""

    __slots__ = ("fields", "type")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        kind = fields.get("type")
        self.type = kind if isinstance(kind, str) and kind else UNREADABLE
        self.fields = fields

    def get(self, *path: str) -> Any:
        """What stands at a path of keys; None where nothing does."""
        found: Any = self.fields
        for key in path:
            if not isinstance(found, Mapping):
                return None
            found = found.get(key)
        return found

    def text(self, *path: str) -> str:
        """The text at a path; "" where there is none."""
        found = self.get(*path)
        return found if isinstance(found, str) else ""

    def sound(self) -> bytes:
        """The PCM that it carries, in `audio` when sent and in `delta` when received."""
        found = self.get("audio") or self.get("delta")
        if isinstance(found, bytes):
            return found
        try:
            return msgspec.convert(found, bytes)  # base64 on the wire
        except msgspec.ValidationError:
            return b""

    def __repr__(self) -> str:
        return f"Event({self.type!r})"


_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def read(frame: bytes) -> Event:
    """A frame as an event, whatever it holds."""
    try:
        fields = _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Event({})
    return Event(fields if isinstance(fields, dict) else {})


def written(event: Event) -> bytes:
    """The frame of an event that we built."""
    return _encoder.encode(event.fields)


def session_update(
    *, voice: str, instructions: str, spoken: bool, transcription: bool
) -> Event | None:
    """The settings of the conversation; None when there is nothing to set.

    spoken: sound will be sent, and the server is to tell the turns apart. transcription: ask for
    the user's words, where the server does not write them down already.
    """
    session: dict[str, Any] = {}
    audio: dict[str, Any] = {}
    if instructions:
        session["instructions"] = instructions
    if spoken:
        audio["input"] = {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {"type": "server_vad"},
        }
        if transcription:
            audio["input"]["transcription"] = {"model": TRANSCRIPTION_MODEL}
    if voice:
        audio["output"] = {"voice": voice}
    if audio:
        session["audio"] = audio
    if not session:
        return None
    return Event({"type": "session.update", "session": {"type": "realtime", **session}})


def append(pcm24: bytes) -> Event:
    return Event({"type": "input_audio_buffer.append", "audio": pcm24})


def user_text(text: str) -> Event:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    return Event({"type": "conversation.item.create", "item": item})


def response_create() -> Event:
    return Event({"type": "response.create"})


def truncate(item_id: str, content_index: int, audio_end_ms: int) -> Event:
    return Event(
        {
            "type": "conversation.item.truncate",
            "event_id": SHORTENED,
            "item_id": item_id,
            "content_index": content_index,
            "audio_end_ms": audio_end_ms,
        }
    )
