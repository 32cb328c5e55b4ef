"""The GA protocol: bytes <-> GA events, one JSON object a frame.

What is sent is strict, what is received is read tolerantly: null means "not given" where the type
does not allow it, because clients write null into optional fields.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from vivavoce.errors import InvalidRequest, LimitReached, VoiceError
from vivavoce.protocol import bounds, json
from vivavoce.protocol.client import (
    AnyClientEvent,
    InputAudioAppend,
    ItemCreate,
    ResponseCreate,
)
from vivavoce.protocol.items import (
    InputAudio,
    InputImage,
    InputText,
    Message,
    OutputAudio,
    OutputText,
)
from vivavoce.protocol.server import (
    AnyServerEvent,
    ErrorBody,
    ErrorEvent,
    OutputAudioDelta,
    PartEvent,
)
from vivavoce.protocol.validation import not_audio, null_place, refusal
from vivavoce.protocol.wire import ConnectRequest, Frame, Opening, Refusal

MAX_EVENT_ID = 512  # characters
SUBPROTOCOL = "realtime"
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"

_EVENT_ID = re.compile(rb'"event_id"\s*:\s*"([^"\\]{1,512})"')
_LOOK = 4096  # bytes at either end

CLIENT_TYPES = tuple(sorted(str(event.__struct_config__.tag) for event in AnyClientEvent.__args__))

E_co = TypeVar("E_co", covariant=True)
T = TypeVar("T")


class Envelope(msgspec.Struct):
    """The event id of any JSON object, for the error that answers it."""

    event_id: Any = None
    type: Any = None


_envelope = msgspec.json.Decoder(Envelope)
_encoder = msgspec.json.Encoder()


class Reader(Generic[E_co]):
    """Decodes JSON of one type: returns a value or raises InvalidRequest, whatever the input.

    `events` is a struct or a union of structs; `what` names the input in error messages.
    """

    def __init__(self, events: Any, what: str = "event") -> None:
        self._events = events
        self._what = what
        self._decoder: msgspec.json.Decoder[E_co] = msgspec.json.Decoder(events)

    def read(self, raw: bytes | str) -> E_co:
        if isinstance(raw, str):
            raw = json.to_bytes(raw)
        try:
            text = bounds.check_size(raw, self._what)
        except InvalidRequest as exc:
            exc.event_id = glimpsed_id(raw)
            raise
        try:
            try:
                value = json.decode(raw, self._decoder)
            except msgspec.ValidationError as exc:
                value = self._read_without_nulls(raw, exc)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
            message = f"The {self._what} is not valid JSON: {exc}."
            event_id = glimpsed_id(raw)
            raise InvalidRequest(message, code="invalid_json", event_id=event_id) from exc
        if type(value) is not InputAudioAppend and bounds.is_too_deep(text):
            raise self._too_deep(value)
        return value

    def _read_without_nulls(self, raw: bytes, exc: msgspec.ValidationError) -> E_co:
        """Each round removes the nulls at one path of the schema, so there are few rounds."""
        tree: Any = None
        while (place := null_place(str(exc))) is not None:
            tree = json.decode(raw) if tree is None else tree
            if not _drop_nulls(tree, place):
                break
            try:
                return self._decoder.decode(_encoder.encode(tree))
            except msgspec.ValidationError as another:
                exc = another
        raise explain(exc, raw, self._events, self._what) from exc

    def _too_deep(self, value: Any) -> InvalidRequest:
        param = next((name for name in ("session", "response") if hasattr(value, name)), None)
        place = f"Invalid '{param}'" if param else f"Invalid {self._what}"
        return InvalidRequest(
            f"{place}: nested too deeply. Expected at most {bounds.MAX_DEPTH} levels.",
            param=param,
            event_id=getattr(value, "event_id", None),
        )


_reader: Reader[AnyClientEvent] = Reader(AnyClientEvent)


def decode(raw: bytes | str) -> AnyClientEvent:
    """A client event of GA. Raises InvalidRequest with code, param and the client's event_id."""
    return checked(_reader.read(raw), len(raw))


def encode(event: AnyServerEvent) -> bytes:
    """A server event in GA JSON."""
    if type(event) is OutputAudioDelta:
        return _encoder.encode(audio_delta(_EncodedAudioDelta, event))
    return _encoder.encode(event)


class _EncodedAudioDelta(PartEvent, frozen=True, kw_only=True, tag="response.output_audio.delta"):
    delta: msgspec.Raw


def audio_delta(kind: Callable[..., T], event: OutputAudioDelta) -> T:
    """The event as a struct of that kind, which has its fields and `delta` as a JSON string."""
    return kind(
        event_id=event.event_id,
        response_id=event.response_id,
        item_id=event.item_id,
        output_index=event.output_index,
        content_index=event.content_index,
        delta=json.base64_text(event.delta),
    )


class GA:
    """The GA protocol. It keeps no state."""

    subprotocols = (SUBPROTOCOL, BETA_SUBPROTOCOL)
    server_plays = False
    is_ga = True

    def opening(self, request: ConnectRequest) -> Opening:
        return realtime_opening(request)

    def decode(self, frame: Frame) -> tuple[AnyClientEvent]:
        return (decode(frame.data),)

    def encode(self, event: AnyServerEvent) -> tuple[Frame, ...]:
        return (Frame("text", encode(event)),)

    def encode_audio(self, audio: bytes) -> tuple[Frame, ...]:
        raise AssertionError("the client owns the playout")

    def refuse(self, error: VoiceError) -> Refusal:
        return realtime_refusal(error)


def realtime_opening(request: ConnectRequest) -> Opening:
    """The session that the query of a Realtime URL requests."""
    return opening_of(request.query)


def opening_of(query: Mapping[str, str]) -> Opening:
    """The session that a query requests, with the extensions of speaches.

    In a transcription session `model` is the model of transcription.
    """
    transcribes, model = query.get("intent") == "transcription", query.get("model", "")
    named = query.get("transcription_model", "")
    return Opening(
        kind="transcription" if transcribes else "realtime",
        model=model,
        transcription_model=named or (model if transcribes else ""),
        speech_model=query.get("speech_model", ""),
        voice=query.get("voice", ""),
        language=query.get("language", ""),
        segment=query.get("segment", ""),
    )


def realtime_refusal(error: VoiceError) -> Refusal:
    """As OpenAI does: accept the upgrade, send an error event, close with 3000.

    A full server sends no event and closes with 1013 (try again later).
    """
    if isinstance(error, LimitReached):
        return Refusal((), 1013, str(error))
    code = error.code if isinstance(error, InvalidRequest) else "invalid_api_key"
    param = error.param if isinstance(error, InvalidRequest) else None
    body = ErrorBody(code=code, message=str(error), param=param)
    event = ErrorEvent(event_id="event_refused", error=body)
    return Refusal((Frame("text", encode(event)),), 3000, f"{body.type}.{code}")


def checked(event: AnyClientEvent, size: int) -> AnyClientEvent:
    """Refuse what the types cannot: a long event_id, no audio, a large text without audio or
    images. `size`: the size of the frame in bytes."""
    event_id = event.event_id
    if event_id is not None and len(event_id) > MAX_EVENT_ID:
        raise InvalidRequest(
            f"Invalid 'event_id': string too long. Expected a string with maximum length "
            f"{MAX_EVENT_ID}, but got a string with length {len(event_id)} instead.",
            code="string_above_max_length",
            param="event_id",
            event_id=event_id[:MAX_EVENT_ID],
        )
    if isinstance(event, InputAudioAppend):
        if not event.audio:
            raise InvalidRequest(
                not_audio("audio", "empty bytes"), param="audio", event_id=event_id
            )
    elif size > bounds.MAX_TEXT_BYTES and not _holds_media(event):
        refused = bounds.text_too_large(size)
        refused.event_id = event_id
        raise refused
    return event


def _holds_media(event: AnyClientEvent) -> bool:
    """Whether audio or images may account for the size of an event."""
    items: Any = ()
    if isinstance(event, ItemCreate):
        items = (event.item,)
    elif isinstance(event, ResponseCreate) and event.response is not None:
        items = event.response.input or ()
    parts = [part for item in items if isinstance(item, Message) for part in item.content]
    texts = (part.text for part in parts if isinstance(part, InputText | OutputText))
    return any(isinstance(part, InputAudio | OutputAudio | InputImage) for part in parts) and all(
        len(text) <= bounds.MAX_TEXT_BYTES for text in texts
    )


def glimpsed_id(raw: bytes) -> str | None:
    """The event_id in a text that cannot or should not be parsed, searched for at both of its
    ends."""
    for end in (raw[:_LOOK], raw[-_LOOK:]):
        if found := _EVENT_ID.search(end):
            return found[1].decode(errors="replace")
    return None


def explain(
    exc: msgspec.ValidationError,
    raw: bytes,
    events: Any = AnyClientEvent,
    what: str = "event",
) -> InvalidRequest:
    """The error event for a decoder's exception: its code, its param, its event_id."""
    try:
        envelope = json.decode(raw, _envelope)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        envelope = Envelope()
    event_id = envelope.event_id[:MAX_EVENT_ID] if isinstance(envelope.event_id, str) else None
    return refusal(str(exc), events, event_id, envelope.type, what=what)


def _drop_nulls(node: Any, place: tuple[str, ...]) -> bool:
    """Delete the null keys at a path. True if any were deleted."""
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
