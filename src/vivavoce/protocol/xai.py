"""Translates between xAI's Realtime protocol and OpenAI's GA protocol.

The differences, according to LiteLLM's notes: `ping` events, `usage: {}`, `role` on function calls,
missing places and parts, and an answer to every turn, whatever `create_response` says. One
translator belongs to one connection.
"""

from typing import Any

import msgspec

from vivavoce.protocol import json

_encode = msgspec.json.Encoder().encode
_IN_PARTS = ("response.content_part.", "response.output_text.", "response.output_audio")
_IN_ITEMS = ("response.output_item.", "response.function_call_arguments.")
_OWN_ID = "vivavoce_unwanted"
"""The event_id of events that are added here: errors with that id are not the client's."""
MAX_HIDDEN = 32
"""Responses that nobody requested, and their items; late events of them may follow."""


class XaiTranslation:
    """Frames of one connection in both directions."""

    def __init__(self) -> None:
        self._creates_responses = True
        self._requested = 0  # response.create events without a response so far
        self._parts: dict[str, dict[str, Any]] = {}  # the open content part, by item
        self._hidden: list[str] = []

    def sent(self, raw: bytes) -> None:
        """Note an event that goes to the server."""
        if b'"session.update"' not in raw and b'"response.create"' not in raw:
            return  # audio, mostly
        event: Any = json.decode(raw)
        if event.get("type") == "response.create":
            self._requested += 1
        elif event.get("type") == "session.update":
            heard = event["session"].get("audio", {}).get("input", {})
            vad = heard.get("turn_detection") or {}
            self._creates_responses = vad.get("create_response") is not False

    def received(self, raw: bytes) -> tuple[bytes | None, bytes | None]:
        """The frame in GA, None if GA has no such event; and the frames to send to the server."""
        try:
            event: Any = json.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return raw, None
        if not isinstance(event, dict) or not isinstance(kind := event.get("type"), str):
            return raw, None
        if kind == "ping" or _is_own_error(event, kind):
            return None, None
        if kind == "response.created" and self._is_unwanted(event):
            return None, _encode({"type": "response.cancel", "event_id": _OWN_ID})
        if self._is_hidden(event, kind):
            if kind != "response.output_item.done":
                return None, None
            fields = {"item_id": _id_of(event, "item"), "event_id": _OWN_ID}
            return None, _encode({"type": "conversation.item.delete", **fields})
        return (_encode(event) if self._mend(event, kind) else raw), None

    def _is_unwanted(self, event: dict[str, Any]) -> bool:
        """Whether a response answers a turn for which the client wants no response."""
        if self._requested:
            self._requested -= 1
            return False
        if self._creates_responses:
            return False
        self._hide(_id_of(event, "response"))
        return True

    def _hide(self, id_: str) -> None:
        self._hidden = [*self._hidden, id_][-MAX_HIDDEN:]

    def _is_hidden(self, event: dict[str, Any], kind: str) -> bool:
        if not self._hidden:
            return False
        response_id = event.get("response_id") or _id_of(event, "response")
        if response_id in self._hidden:
            if kind == "response.output_item.added":
                self._hide(_id_of(event, "item"))
            return True
        return (event.get("item_id") or _id_of(event, "item")) in self._hidden

    def _mend(self, event: dict[str, Any], kind: str) -> bool:
        """Add what is missing. Returns whether anything was."""
        changed = False
        names = ("output_index", "content_index") if kind.startswith(_IN_PARTS) else ()
        for name in ("output_index",) if kind.startswith(_IN_ITEMS) else names:
            if name not in event:
                event[name] = 0
                changed = True
        item = event.get("item")
        if isinstance(item, dict) and item.get("type") != "message" and item.pop("role", None):
            changed = True
        response = event.get("response")
        if isinstance(response, dict) and response.get("usage") == {}:
            response["usage"] = None
            changed = True
        return self._mend_part(event, kind) or changed

    def _mend_part(self, event: dict[str, Any], kind: str) -> bool:
        """The part that ended, from earlier events about it."""
        item_id, part = str(event.get("item_id")), event.get("part")
        match kind:
            case "response.content_part.added" if isinstance(part, dict):
                self._parts[item_id] = {"type": part.get("type", "audio")}
            case "response.output_audio_transcript.done" if item_id in self._parts:
                self._parts[item_id]["transcript"] = event.get("transcript", "")
            case "response.output_text.done" if item_id in self._parts:
                self._parts[item_id]["text"] = event.get("text", "")
            case "response.content_part.done":
                known = self._parts.pop(item_id, {"type": "audio"})
                if part is None:
                    event["part"] = known
                    return True
            case "response.done":
                self._parts.clear()
        return False


def _id_of(event: dict[str, Any], name: str) -> str:
    inner = event.get(name)
    return str(inner.get("id", "")) if isinstance(inner, dict) else ""


def _is_own_error(event: dict[str, Any], kind: str) -> bool:
    error = event.get("error")
    return kind == "error" and isinstance(error, dict) and error.get("event_id") == _OWN_ID
