"""What a client of the beta ("realtime=v1") sends: its types, and their translation into GA.

An absent field stays absent and null stays null. Only one error is found here and not by the types:
a choice of modalities that the beta does not have.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import (
    AnyClientEvent,
    ClientEvent,
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    OutputAudioClear,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)
from vivavoce.protocol.items import (
    MAX_INPUT_ITEMS,
    MAX_PARTS,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Item,
    ItemReference,
    Message,
    OutputAudio,
    OutputText,
    Part,
    Status,
    ToolChoice,
    ToolName,
    Tools,
)
from vivavoce.protocol.responses import AudioOutputParams, AudioParams, Metadata, ResponseParams
from vivavoce.protocol.session import (
    PCMA,
    PCMU,
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    CustomVoice,
    MaxTokens,
    Modality,
    NoiseReductionPatch,
    PCMPatch,
    RealtimePatch,
    SemanticVadPatch,
    ServerVadPatch,
    Speed,
    TranscriptionAudioPatch,
    TranscriptionPatch,
    TranscriptionSessionPatch,
)

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

BetaFormat: TypeAlias = Literal["pcm16", "g711_ulaw", "g711_alaw"]
BetaToolChoice: TypeAlias = ToolName | str  # a mode, or only the name of a function


class NoTurnDetection(msgspec.Struct, frozen=True, tag_field="type", tag="none"):
    """The early form of null."""


BetaTurnDetection: TypeAlias = ServerVadPatch | SemanticVadPatch | NoTurnDetection


class BetaText(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """GA's output_text."""

    text: str


class BetaAudio(msgspec.Struct, frozen=True, tag_field="type", tag="audio"):
    """GA's output_audio."""

    transcript: str = ""
    audio: bytes | UnsetType = UNSET


BetaPart: TypeAlias = InputText | InputAudio | BetaText | BetaAudio | OutputText | OutputAudio
BetaInputPart: TypeAlias = BetaPart | ItemReference


class BetaMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str = ""
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"
    role: Literal["system", "user", "assistant"]
    content: Annotated[tuple[BetaPart, ...], Meta(max_length=MAX_PARTS)]


class BetaInputMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """A message inside `response.input`: its content may refer to items of the conversation."""

    id: str = ""
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"
    role: Literal["system", "user", "assistant"]
    content: Annotated[tuple[BetaInputPart, ...], Meta(max_length=MAX_PARTS)]


BetaItem: TypeAlias = BetaMessage | FunctionCall | FunctionCallOutput
BetaInputItem: TypeAlias = BetaInputMessage | FunctionCall | FunctionCallOutput | ItemReference
BetaInputItems: TypeAlias = Annotated[tuple[BetaInputItem, ...], Meta(max_length=MAX_INPUT_ITEMS)]


class BetaInputPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the user's audio in both kinds of session. Fields of type Any are ignored."""

    id: Any = UNSET
    object: Any = UNSET
    expires_at: Any = UNSET
    client_secret: Any = UNSET
    input_audio_format: BetaFormat | UnsetType = UNSET
    input_audio_transcription: TranscriptionPatch | UnsetType | None = UNSET
    input_audio_noise_reduction: NoiseReductionPatch | UnsetType | None = UNSET
    turn_detection: BetaTurnDetection | UnsetType | None = UNSET
    include: tuple[str, ...] | UnsetType | None = UNSET
    served_by: Any = UNSET
    transcription_model: str | UnsetType | None = UNSET  # of speaches, as speech_model


class BetaSessionPatch(BetaInputPatch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flat `session` of a session.update."""

    type: Literal["realtime"] | UnsetType = UNSET
    speech_model: str | UnsetType | None = UNSET
    temperature: float | UnsetType = UNSET  # not in GA; read and ignored
    model: str | UnsetType = UNSET
    modalities: tuple[Modality, ...] | UnsetType = UNSET
    instructions: str | UnsetType | None = UNSET
    voice: str | CustomVoice | UnsetType = UNSET
    output_audio_format: BetaFormat | UnsetType = UNSET
    tools: Tools | UnsetType | None = UNSET
    tool_choice: BetaToolChoice | UnsetType = UNSET
    max_response_output_tokens: MaxTokens | UnsetType = UNSET
    speed: Speed | UnsetType = UNSET
    tracing: Any = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET


class BetaTranscriptionSessionPatch(
    BetaInputPatch, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The flat `session` of a transcription_session.update."""

    type: Literal["transcription"] | UnsetType = UNSET
    modalities: Any = UNSET
    model: str | UnsetType = UNSET


class BetaResponseParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `response` of a response.create. Null means "not given"."""

    conversation: Literal["auto", "none"] | UnsetType | None = UNSET
    modalities: tuple[Modality, ...] | UnsetType | None = UNSET
    instructions: str | UnsetType | None = UNSET
    voice: str | CustomVoice | UnsetType | None = UNSET
    output_audio_format: BetaFormat | UnsetType | None = UNSET
    tools: Tools | UnsetType | None = UNSET
    tool_choice: BetaToolChoice | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET  # not in GA; read and ignored
    max_response_output_tokens: MaxTokens | UnsetType | None = UNSET  # in the types of the SDK
    max_output_tokens: MaxTokens | UnsetType | None = UNSET  # in the schema
    metadata: Metadata | UnsetType | None = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET
    input: BetaInputItems | UnsetType | None = UNSET


class BetaSessionUpdate(ClientEvent, frozen=True, tag="session.update"):
    session: BetaSessionPatch


class TranscriptionSessionUpdate(ClientEvent, frozen=True, tag="transcription_session.update"):
    session: BetaTranscriptionSessionPatch


class BetaItemCreate(ClientEvent, frozen=True, tag="conversation.item.create"):
    item: BetaItem
    previous_item_id: str | None = None


class BetaResponseCreate(ClientEvent, frozen=True, tag="response.create"):
    response: BetaResponseParams | None = None


AnyBetaEvent: TypeAlias = (
    BetaSessionUpdate
    | TranscriptionSessionUpdate
    | InputAudioAppend
    | InputAudioCommit
    | InputAudioClear
    | OutputAudioClear
    | BetaItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | BetaResponseCreate
    | ResponseCancel
)

_FORMATS: dict[BetaFormat, PCMPatch | PCMU | PCMA] = {
    "pcm16": PCMPatch(),
    "g711_ulaw": PCMU(),
    "g711_alaw": PCMA(),
}


def to_ga(event: AnyBetaEvent) -> AnyClientEvent:
    """The same request in GA. Raises InvalidRequest with the beta's path."""
    match event:
        case BetaSessionUpdate(session=settings, event_id=event_id):
            return SessionUpdate(session=realtime_patch(settings, event_id), event_id=event_id)
        case TranscriptionSessionUpdate(session=settings, event_id=event_id):
            return SessionUpdate(session=transcription_patch(settings), event_id=event_id)
        case BetaItemCreate(item=item, previous_item_id=after, event_id=event_id):
            return ItemCreate(item=_item(item), previous_item_id=after, event_id=event_id)
        case BetaResponseCreate(response=params, event_id=event_id):
            asked = None if params is None else _response(params, event_id)
            return ResponseCreate(response=asked, event_id=event_id)
        case _:
            return event


def realtime_patch(flat: BetaSessionPatch, event_id: str | None = None) -> RealtimePatch:
    """The nested settings. Raises InvalidRequest."""
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
        transcription_model=flat.transcription_model,
        speech_model=flat.speech_model,
    )


def transcription_patch(flat: BetaTranscriptionSessionPatch) -> TranscriptionSessionPatch:
    """The nested settings of a transcription session."""
    audio = TranscriptionAudioPatch(input=_unless_empty(_input(flat)))
    return TranscriptionSessionPatch(
        model=flat.model,
        include=flat.include,
        audio=_unless_empty(audio),
        transcription_model=flat.transcription_model,
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
    """In a response.create null means "not given"."""
    return UNSET if value is None else value


def _unless_empty(patch: S) -> S | UnsetType:
    """UNSET for a patch without a field that is set."""
    given = any(getattr(patch, field) is not UNSET for field in patch.__struct_fields__)
    return patch if given else UNSET


def _format(name: BetaFormat | UnsetType) -> PCMPatch | PCMU | PCMA | UnsetType:
    return UNSET if name is UNSET else _FORMATS[name]


def _modalities(
    asked: tuple[Modality, ...] | UnsetType, param: str, event_id: str | None
) -> tuple[Modality, ...] | UnsetType:
    """The beta lists text beside audio; in GA audio always has its transcript."""
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
    """In GA a reference is an item of its own: the message is split around it."""
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
    """`text` and `audio` are the assistant's; in other messages they count as input."""
    match part:
        case BetaText(text=text):
            return OutputText(text) if role == "assistant" else InputText(text)
        case BetaAudio(transcript=words, audio=audio) if role == "assistant":
            return OutputAudio(transcript=words, audio=audio)
        case BetaAudio(transcript=words, audio=audio):
            return InputAudio(audio=audio, transcript=words or None)
        case _:
            return part
