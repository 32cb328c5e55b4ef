"""Client events of the beta dialect, where their shape differs from GA."""

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.protocol.client import (
    ClientEvent,
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    OutputAudioClear,
    ResponseCancel,
)
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputAudio,
    InputText,
    ItemReference,
    OutputAudio,
    OutputText,
    Status,
    ToolName,
)
from vivavoce.protocol.responses import Metadata
from vivavoce.protocol.session import (
    CustomVoice,
    MaxTokens,
    Modality,
    NoiseReductionPatch,
    SemanticVadPatch,
    ServerVadPatch,
    Speed,
    TranscriptionPatch,
)

BetaFormat: TypeAlias = Literal["pcm16", "g711_ulaw", "g711_alaw"]
BetaToolChoice: TypeAlias = ToolName | str  # a mode, or the bare name of a function


class NoTurnDetection(msgspec.Struct, frozen=True, tag_field="type", tag="none"):
    """An early way to say null."""


BetaTurnDetection: TypeAlias = ServerVadPatch | SemanticVadPatch | NoTurnDetection


class Text(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """GA's output_text."""

    text: str


class AudioPart(msgspec.Struct, frozen=True, tag_field="type", tag="audio"):
    """GA's output_audio."""

    transcript: str = ""
    audio: bytes | UnsetType = UNSET


BetaPart: TypeAlias = InputText | InputAudio | Text | AudioPart | OutputText | OutputAudio
BetaInputPart: TypeAlias = BetaPart | ItemReference


class BetaMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str = ""
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"
    role: Literal["system", "user", "assistant"]
    content: tuple[BetaPart, ...]


class BetaInputMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """A message inside `response.input`: its content may point at items of the conversation."""

    id: str = ""
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"
    role: Literal["system", "user", "assistant"]
    content: tuple[BetaInputPart, ...]


BetaItem: TypeAlias = BetaMessage | FunctionCall | FunctionCallOutput
BetaInputItem: TypeAlias = BetaInputMessage | FunctionCall | FunctionCallOutput | ItemReference


class BetaInputPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of session say of the user's audio. Read and ignored: the Any fields."""

    id: Any = UNSET
    object: Any = UNSET
    expires_at: Any = UNSET
    client_secret: Any = UNSET
    input_audio_format: BetaFormat | UnsetType = UNSET
    input_audio_transcription: TranscriptionPatch | UnsetType | None = UNSET
    input_audio_noise_reduction: NoiseReductionPatch | UnsetType | None = UNSET
    turn_detection: BetaTurnDetection | UnsetType | None = UNSET
    include: tuple[str, ...] | UnsetType | None = UNSET


class BetaSessionPatch(BetaInputPatch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flat `session` of a session.update."""

    type: Literal["realtime"] | UnsetType = UNSET
    served_by: Any = UNSET
    temperature: float | UnsetType = UNSET  # GA has none; read and dropped
    model: str | UnsetType = UNSET
    modalities: tuple[Modality, ...] | UnsetType = UNSET
    instructions: str | UnsetType | None = UNSET
    voice: str | CustomVoice | UnsetType = UNSET
    output_audio_format: BetaFormat | UnsetType = UNSET
    tools: tuple[FunctionTool, ...] | UnsetType | None = UNSET
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


class BetaResponseParams(msgspec.Struct, frozen=True, kw_only=True):
    """The `response` of a response.create. Null means "not given"; unknown fields are ignored."""

    conversation: Literal["auto", "none"] | UnsetType | None = UNSET
    modalities: tuple[Modality, ...] | UnsetType | None = UNSET
    instructions: str | UnsetType | None = UNSET
    voice: str | CustomVoice | UnsetType | None = UNSET
    output_audio_format: BetaFormat | UnsetType | None = UNSET
    tools: tuple[FunctionTool, ...] | UnsetType | None = UNSET
    tool_choice: BetaToolChoice | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET  # GA has none; read and dropped
    max_response_output_tokens: MaxTokens | UnsetType | None = UNSET  # as the SDK's types have it
    max_output_tokens: MaxTokens | UnsetType | None = UNSET  # as the schema has it
    metadata: Metadata | UnsetType | None = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET
    input: tuple[BetaInputItem, ...] | UnsetType | None = UNSET


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
