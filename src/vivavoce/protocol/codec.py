"""Bytes <-> GA events. The only place that knows the wire is JSON."""

import re
from typing import Any, Protocol

import msgspec

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.server import AnyServerEvent

MAX_FRAME_BYTES = 24 * 1024 * 1024  # 15 MiB of audio are 20 MiB of base64
MAX_EVENT_ID = 512  # characters

CLIENT_TYPES = tuple(sorted(str(event.__struct_config__.tag) for event in AnyClientEvent.__args__))


class Dialect(Protocol):
    """One way to say the events of a session on a wire."""

    name: str

    def decode(self, raw: bytes | str) -> AnyClientEvent:
        """Raises InvalidRequest with code, param and the client's event_id."""
        ...

    def encode(self, event: AnyServerEvent) -> tuple[bytes, ...]:
        """The frames that say it: usually one; none where the dialect has no word for it."""
        ...


class Envelope(msgspec.Struct):
    """What can be read of any JSON object, to answer a bad event by its id."""

    event_id: Any = None
    type: Any = None


_decoder: msgspec.json.Decoder[AnyClientEvent] = msgspec.json.Decoder(AnyClientEvent)
_envelope = msgspec.json.Decoder(Envelope)
_encoder = msgspec.json.Encoder()


class GA:
    """The events as they are."""

    name = "ga"

    def decode(self, raw: bytes | str) -> AnyClientEvent:
        try:
            event = _decoder.decode(raw)
        except msgspec.ValidationError as exc:
            raise explain(exc, raw) from exc
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
            raise InvalidRequest(
                f"The event is not valid JSON: {exc}.", code="invalid_json"
            ) from exc
        return checked(event)

    def encode(self, event: AnyServerEvent) -> tuple[bytes, ...]:
        return (_encoder.encode(event),)


def checked(event: AnyClientEvent) -> AnyClientEvent:
    """Refuse what the types cannot: an event_id that is too long."""
    if event.event_id is not None and len(event.event_id) > MAX_EVENT_ID:
        raise InvalidRequest(
            f"Invalid 'event_id': string too long. Expected a string with maximum length "
            f"{MAX_EVENT_ID}, but got a string with length {len(event.event_id)} instead.",
            code="string_above_max_length",
            param="event_id",
            event_id=event.event_id[:MAX_EVENT_ID],
        )
    return event


_AT = re.compile(r" - at `(?:key in )?\$\.?(?P<path>.*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`$")
_VALUE = re.compile(r"^Invalid (?:enum )?value (?P<value>.*)$", re.DOTALL)


def explain(exc: msgspec.ValidationError, raw: bytes | str) -> InvalidRequest:
    """Turn a decoder's complaint into the wire's error: its code, its param, its event_id."""
    envelope = _read_envelope(raw)
    event_id = envelope.event_id if isinstance(envelope.event_id, str) else None
    message, code, param = _translate(str(exc))
    if param == "type":
        message = _wrong_type(envelope.type)
    return InvalidRequest(message, code=code, param=param, event_id=event_id)


def _read_envelope(raw: bytes | str) -> Envelope:
    try:
        return _envelope.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return Envelope()


def _translate(complaint: str) -> tuple[str, str, str | None]:
    at = _AT.search(complaint)
    path = at["path"] if at else ""
    reason = complaint[: at.start()] if at else complaint
    if found := _MISSING.match(reason):
        param = f"{path}.{found['field']}".lstrip(".")
        if param == "type":
            return "The 'type' field is missing.", "invalid_event", None
        return f"Missing required parameter: '{param}'.", "missing_required_parameter", param
    if found := _UNKNOWN.match(reason):
        param = f"{path}.{found['field']}".lstrip(".")
        return f"Unknown parameter: '{param}'.", "unknown_parameter", param
    if not path:
        return f"The event is not a JSON object: {reason}.", "invalid_event", None
    if found := _VALUE.match(reason):
        return f"Invalid value: {found['value']}. See the type of '{path}'.", "invalid_value", path
    if reason == "Invalid base64 encoded string":
        return (
            f"Invalid '{path}'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) "
            f"but got an invalid value.",
            "invalid_value",
            path,
        )
    code = "invalid_type" if ", got " in reason else "invalid_value"
    return f"Invalid '{path}': {reason[0].lower()}{reason[1:]}.", code, path


def _wrong_type(given: object) -> str:
    *most, last = (f"'{name}'" for name in CLIENT_TYPES)
    return f"Invalid value: '{given}'. Supported values are: {', '.join(most)}, and {last}."
