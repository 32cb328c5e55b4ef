"""What a beta client asks for, said in GA.

Absent stays absent and null stays null. The one thing refused here, because no type says it, is a
choice of modalities that the beta does not have.
"""

from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.beta_client import (
    AnyBetaEvent,
    AudioPart,
    BetaFormat,
    BetaInputItem,
    BetaInputMessage,
    BetaInputPatch,
    BetaItem,
    BetaItemCreate,
    BetaMessage,
    BetaPart,
    BetaResponseCreate,
    BetaResponseParams,
    BetaSessionPatch,
    BetaSessionUpdate,
    BetaToolChoice,
    BetaTranscriptionSessionPatch,
    NoTurnDetection,
    Text,
    TranscriptionSessionUpdate,
)
from vivavoce.protocol.client import AnyClientEvent, ItemCreate, ResponseCreate, SessionUpdate
from vivavoce.protocol.items import (
    InputAudio,
    InputText,
    Item,
    ItemReference,
    Message,
    OutputAudio,
    OutputText,
    Part,
    ToolChoice,
    ToolName,
)
from vivavoce.protocol.responses import AudioOutputParams, AudioParams, ResponseParams
from vivavoce.protocol.session import (
    PCMA,
    PCMU,
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    Modality,
    PCMPatch,
    RealtimePatch,
    TranscriptionAudioPatch,
    TranscriptionSessionPatch,
)

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

_FORMATS: dict[BetaFormat, PCMPatch | PCMU | PCMA] = {
    "pcm16": PCMPatch(),
    "g711_ulaw": PCMU(),
    "g711_alaw": PCMA(),
}


def request(event: AnyBetaEvent) -> AnyClientEvent:
    """The same wish in GA. Raises InvalidRequest with the beta's path."""
    match event:
        case BetaSessionUpdate(session=settings, event_id=event_id):
            return SessionUpdate(session=_realtime(settings, event_id), event_id=event_id)
        case TranscriptionSessionUpdate(session=settings, event_id=event_id):
            return SessionUpdate(session=_transcription(settings), event_id=event_id)
        case BetaItemCreate(item=item, previous_item_id=after, event_id=event_id):
            return ItemCreate(item=_item(item), previous_item_id=after, event_id=event_id)
        case BetaResponseCreate(response=params, event_id=event_id):
            asked = None if params is None else _response(params, event_id)
            return ResponseCreate(response=asked, event_id=event_id)
        case _:
            return event


def _realtime(flat: BetaSessionPatch, event_id: str | None) -> RealtimePatch:
    output = AudioOutputPatch(
        format=_format(flat.output_audio_format), voice=flat.voice, speed=flat.speed
    )
    audio = AudioPatch(input=_unless_empty(_input(flat)), output=_unless_empty(output))
    return RealtimePatch(
        model=flat.model,
        output_modalities=_modalities(flat.modalities, "session.modalities", event_id),
        instructions=flat.instructions,
        tools=flat.tools,
        tool_choice=_tool_choice(flat.tool_choice),
        max_output_tokens=flat.max_response_output_tokens,
        tracing=flat.tracing,
        prompt=flat.prompt,
        include=flat.include,
        audio=_unless_empty(audio),
    )


def _transcription(flat: BetaTranscriptionSessionPatch) -> TranscriptionSessionPatch:
    audio = TranscriptionAudioPatch(input=_unless_empty(_input(flat)))
    return TranscriptionSessionPatch(
        model=flat.model, include=flat.include, audio=_unless_empty(audio)
    )


def _input(flat: BetaInputPatch) -> AudioInputPatch:
    turns = flat.turn_detection
    return AudioInputPatch(
        format=_format(flat.input_audio_format),
        transcription=flat.input_audio_transcription,
        noise_reduction=flat.input_audio_noise_reduction,
        turn_detection=None if isinstance(turns, NoTurnDetection) else turns,
    )


def _response(flat: BetaResponseParams, event_id: str | None) -> ResponseParams:
    output = AudioOutputParams(format=_format(_given(flat.output_audio_format)), voice=flat.voice)
    limits = (flat.max_response_output_tokens, flat.max_output_tokens)
    context = _given(flat.input)
    return ResponseParams(
        conversation=flat.conversation,
        output_modalities=_modalities(_given(flat.modalities), "response.modalities", event_id),
        instructions=flat.instructions,
        audio=_unless_empty(AudioParams(output=_unless_empty(output))),
        tools=flat.tools,
        tool_choice=_tool_choice(_given(flat.tool_choice)),
        max_output_tokens=next((limit for limit in limits if limit), UNSET),
        metadata=flat.metadata,
        prompt=flat.prompt,
        input=UNSET if context is UNSET else tuple(_input_items(context)),
    )


def _given(value: T | UnsetType | None) -> T | UnsetType:
    """In a response.create null says nothing."""
    return UNSET if value is None else value


def _unless_empty(patch: S) -> S | UnsetType:
    """A patch that mentions nothing is better not mentioned."""
    given = any(getattr(patch, field) is not UNSET for field in patch.__struct_fields__)
    return patch if given else UNSET


def _format(name: BetaFormat | UnsetType) -> PCMPatch | PCMU | PCMA | UnsetType:
    return UNSET if name is UNSET else _FORMATS[name]


def _modalities(
    asked: tuple[Modality, ...] | UnsetType, param: str, event_id: str | None
) -> tuple[Modality, ...] | UnsetType:
    """The beta says text where GA says nothing: audio always comes with its transcript."""
    if asked is UNSET:
        return UNSET
    if set(asked) == {"audio", "text"}:
        return ("audio",)
    if set(asked) == {"text"}:
        return ("text",)
    raise InvalidRequest(
        f"Invalid modalities: {list(asked)}. "
        f"Supported combinations are: ['text'] and ['audio', 'text'].",
        param=param,
        event_id=event_id,
    )


def _tool_choice(choice: BetaToolChoice | UnsetType) -> ToolChoice | UnsetType:
    match choice:
        case "none" | "auto" | "required" | ToolName() | UnsetType():
            return choice
        case _:
            return ToolName(choice)


def _item(item: BetaItem) -> Item:
    if not isinstance(item, BetaMessage):
        return item
    return Message(
        id=item.id,
        status=item.status,
        role=item.role,
        content=tuple(_part(part, item.role) for part in item.content),
    )


def _input_items(items: tuple[BetaInputItem, ...]) -> Iterator[Item | ItemReference]:
    for item in items:
        if isinstance(item, BetaInputMessage):
            yield from _pieces(item)
        else:
            yield item


def _pieces(message: BetaInputMessage) -> Iterator[Item | ItemReference]:
    """A reference among the parts is an item of its own in GA: the message is cut around it."""
    parts: list[Part] = []
    for part in message.content:
        if not isinstance(part, ItemReference):
            parts.append(_part(part, message.role))
            continue
        if parts:
            yield Message(role=message.role, content=tuple(parts))
        yield part
        parts = []
    if parts or not message.content:
        yield Message(id=message.id, status=message.status, role=message.role, content=tuple(parts))


def _part(part: BetaPart, role: str) -> Part:
    """`text` and `audio` are the assistant's; from others they are taken for input."""
    match part:
        case Text(text=text):
            return OutputText(text) if role == "assistant" else InputText(text)
        case AudioPart(transcript=words, audio=audio) if role == "assistant":
            return OutputAudio(transcript=words, audio=audio)
        case AudioPart(transcript=words, audio=audio):
            return InputAudio(audio=audio, transcript=words or None)
        case _:
            return part
