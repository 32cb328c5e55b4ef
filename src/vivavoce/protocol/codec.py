"""Bytes <-> GA events. The only place that knows the wire is JSON.

Strict in what we send, tolerant in what we take: a null where the type allows none means "not
given", since clients spell out optional fields they have nothing for.
"""

import re
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import AnyClientEvent, InputAudioAppend, ResponseCreate, SessionUpdate
from vivavoce.protocol.refusals import not_audio, null_place, refusal
from vivavoce.protocol.server import AnyServerEvent

MAX_FRAME_BYTES = 24 * 1024 * 1024  # 15 MiB of audio are 20 MiB of base64
MAX_EVENT_ID = 512  # characters
MAX_DEPTH = 100  # levels of free-form JSON; what is echoed must also be encodable

_EVENT_ID = re.compile(rb'"event_id"\s*:\s*"([^"\\]{1,512})"')
_LOOK = 4096  # bytes at either end

CLIENT_TYPES = tuple(sorted(str(event.__struct_config__.tag) for event in AnyClientEvent.__args__))

E_co = TypeVar("E_co", covariant=True)


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


_envelope = msgspec.json.Decoder(Envelope)
_encoder = msgspec.json.Encoder()


class Reader(Generic[E_co]):
    """Reads the events of one union: returns one, or raises InvalidRequest, whatever it is given.

    `events` is that union of structs.
    """

    def __init__(self, events: Any) -> None:
        self._events = events
        self._decoder: msgspec.json.Decoder[E_co] = msgspec.json.Decoder(events)

    def read(self, raw: bytes | str) -> E_co:
        try:
            try:
                return self._decoder.decode(raw)
            except msgspec.ValidationError as exc:
                return self._read_without_nulls(raw, exc)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
            message = f"The event is not valid JSON: {exc}."
            event_id = glimpsed_id(raw)
            raise InvalidRequest(message, code="invalid_json", event_id=event_id) from exc

    def _read_without_nulls(self, raw: bytes | str, exc: msgspec.ValidationError) -> E_co:
        """Each round clears one place of the schema of its nulls, so the rounds are few."""
        tree: Any = None
        while (place := null_place(str(exc))) is not None:
            tree = msgspec.json.decode(raw) if tree is None else tree
            if not _drop_nulls(tree, place):
                break
            try:
                return self._decoder.decode(_encoder.encode(tree))
            except msgspec.ValidationError as another:
                exc = another
        raise explain(exc, raw, self._events) from exc


_reader: Reader[AnyClientEvent] = Reader(AnyClientEvent)


class GA:
    """The events as they are."""

    name = "ga"

    def decode(self, raw: bytes | str) -> AnyClientEvent:
        return checked(_reader.read(raw))

    def encode(self, event: AnyServerEvent) -> tuple[bytes, ...]:
        return (_encoder.encode(event),)


def checked(event: AnyClientEvent) -> AnyClientEvent:
    """Refuse what the types cannot: a long event_id, no audio, JSON nested out of all reason."""
    event_id = event.event_id
    if event_id is not None and len(event_id) > MAX_EVENT_ID:
        raise InvalidRequest(
            f"Invalid 'event_id': string too long. Expected a string with maximum length "
            f"{MAX_EVENT_ID}, but got a string with length {len(event_id)} instead.",
            code="string_above_max_length",
            param="event_id",
            event_id=event_id[:MAX_EVENT_ID],
        )
    match event:
        case InputAudioAppend(audio=b""):
            raise InvalidRequest(
                not_audio("audio", "empty bytes"), param="audio", event_id=event_id
            )
        case SessionUpdate(session=settings) if _nested(settings, MAX_DEPTH):
            raise _too_deep("session", event_id)
        case ResponseCreate(response=params) if params is not None and _nested(params, MAX_DEPTH):
            raise _too_deep("response", event_id)
    return event


def glimpsed_id(raw: bytes | str) -> str | None:
    """The event_id in what cannot be parsed, or should not be, looked for at both its ends."""
    for end in (raw[:_LOOK], raw[-_LOOK:]):
        glimpse = end.encode(errors="replace") if isinstance(end, str) else end
        if found := _EVENT_ID.search(glimpse):
            return found[1].decode(errors="replace")
    return None


def explain(
    exc: msgspec.ValidationError, raw: bytes | str, events: Any = AnyClientEvent
) -> InvalidRequest:
    """Turn a decoder's complaint into the wire's error: its code, its param, its event_id."""
    try:
        envelope = _envelope.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        envelope = Envelope()
    event_id = envelope.event_id[:MAX_EVENT_ID] if isinstance(envelope.event_id, str) else None
    return refusal(str(exc), events, event_id, envelope.type)


def _drop_nulls(node: Any, place: tuple[str, ...]) -> bool:
    """Delete the null keys at a place; say whether there were any."""
    step, *rest = place
    if not rest:
        if not isinstance(node, dict) or node.get(step, ...) is not None:
            return False
        del node[step]
        return True
    if step != "[]":
        return isinstance(node, dict) and _drop_nulls(node.get(step), tuple(rest))
    members = node if isinstance(node, list) else ()
    return any([_drop_nulls(member, tuple(rest)) for member in members])


_CONTAINERS = (dict, list, tuple, msgspec.Struct)


def _nested(value: Any, levels: int) -> bool:
    """Whether there are values deeper than so many levels inside."""
    if isinstance(value, dict):
        inner: Any = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    else:
        inner = (getattr(value, field) for field in value.__struct_fields__)
    inside = (one for one in inner if isinstance(one, _CONTAINERS))
    return any(levels == 0 or _nested(one, levels - 1) for one in inside)


def _too_deep(param: str, event_id: str | None) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{param}': nested too deeply. Expected at most {MAX_DEPTH} levels.",
        param=param,
        event_id=event_id,
    )
