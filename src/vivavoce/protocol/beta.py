"""The beta dialect ("realtime=v1"): GA events under their old names and in their old shapes.

A pure translation in both directions; it remembers nothing between two events.
"""

import msgspec

from vivavoce.protocol import beta_shapes
from vivavoce.protocol.beta_client import AnyBetaEvent
from vivavoce.protocol.beta_requests import request
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.codec import Reader, checked
from vivavoce.protocol.server import (
    AnyServerEvent,
    ConversationCreated,
    ConversationObject,
    DtmfReceived,
    ErrorEvent,
    ItemAdded,
    ItemCreated,
    ItemDone,
    ItemRetrieved,
    McpArgumentsDelta,
    McpArgumentsDone,
    McpCallEvent,
    McpListToolsEvent,
    OutputAudioDelta,
    OutputAudioDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    OutputTranscriptDelta,
    OutputTranscriptDone,
    PartEvent,
    ResponseCreated,
    ResponseDone,
    SessionCreated,
    SessionUpdated,
    TimeoutTriggered,
    TranscriptionSegment,
)
from vivavoce.protocol.session import TranscriptionSession

# GA says twice, when an item is added and when it is done, what the beta says once.
_UNSAID = (
    ItemDone,
    TimeoutTriggered,
    DtmfReceived,
    TranscriptionSegment,
    McpListToolsEvent,
    McpCallEvent,
    McpArgumentsDelta,
    McpArgumentsDone,
)

_NAMES: dict[type, str] = {
    ItemAdded: "conversation.item.created",
    OutputTextDelta: "response.text.delta",
    OutputTextDone: "response.text.done",
    OutputTranscriptDelta: "response.audio_transcript.delta",
    OutputTranscriptDone: "response.audio_transcript.done",
    OutputAudioDone: "response.audio.done",
}

_reader: Reader[AnyBetaEvent] = Reader(AnyBetaEvent)
_encoder = msgspec.json.Encoder()


class AudioDelta(PartEvent, frozen=True, kw_only=True, tag="response.audio.delta"):
    """GA's response.output_audio.delta. A struct of its own because there are so many."""

    delta: bytes  # base64 on the wire


class Beta:
    """The events of the beta."""

    name = "beta"

    def decode(self, raw: bytes | str) -> AnyClientEvent:
        return checked(request(_reader.read(raw)))

    def encode(self, event: AnyServerEvent) -> tuple[bytes, ...]:
        if isinstance(event, OutputAudioDelta):
            return (_encoder.encode(_audio_delta(event)),)
        if isinstance(event, _UNSAID):
            return ()
        frame = _frame(event)
        if isinstance(event, SessionCreated) and event.session.object == "realtime.session":
            return frame, _encoder.encode(_conversation(event))
        return (frame,)


def _audio_delta(event: OutputAudioDelta) -> AudioDelta:
    return AudioDelta(
        event_id=event.event_id,
        response_id=event.response_id,
        item_id=event.item_id,
        output_index=event.output_index,
        content_index=event.content_index,
        delta=event.delta,
    )


def _conversation(event: SessionCreated) -> ConversationCreated:
    """What the beta sends after session.created; ids follow from those of the session."""
    return ConversationCreated(
        event_id=f"{event.event_id}_conversation",
        conversation=ConversationObject("conv_" + event.session.id.removeprefix("sess_")),
    )


def _frame(event: AnyServerEvent) -> bytes:
    match event:
        case SessionCreated(session=session) | SessionUpdated(session=session):
            if isinstance(session, TranscriptionSession):
                verb = "created" if isinstance(event, SessionCreated) else "updated"
                flat = beta_shapes.transcription_session(session)
                return _renamed(event, f"transcription_session.{verb}", session=flat)
            return _renamed(event, session=beta_shapes.realtime_session(session))
        case ResponseCreated(response=response) | ResponseDone(response=response):
            return _renamed(event, response=beta_shapes.response(response))
        case ItemAdded(item=item) | ItemCreated(item=item) | ItemRetrieved(item=item):
            return _renamed(event, item=beta_shapes.item(item))
        case OutputItemAdded(item=item) | OutputItemDone(item=item):
            return _renamed(event, item=beta_shapes.item(item))
        case ErrorEvent(error=error) if error.param is not None:
            place = beta_shapes.place(error.param)
            message = error.message.replace(error.param, place)
            return _renamed(
                event, error=msgspec.structs.replace(error, param=place, message=message)
            )
        case _:
            return _renamed(event) if type(event) in _NAMES else _encoder.encode(event)


def _renamed(event: AnyServerEvent, name: str | None = None, **changed: object) -> bytes:
    tag = name or _NAMES.get(type(event)) or event.__struct_config__.tag
    fields = {field: getattr(event, field) for field in event.__struct_fields__}
    return _encoder.encode({"type": tag, **fields, **changed})
