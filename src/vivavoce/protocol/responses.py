"""A response as events show it, what a client may request of it, and its usage."""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.protocol.items import (
    MAX_INPUT_ITEMS,
    Item,
    ItemReference,
    ToolChoice,
    Tools,
)
from vivavoce.protocol.session import (
    PCMA,
    PCMU,
    AudioFormat,
    CustomVoice,
    MaxTokens,
    Modality,
    PCMPatch,
)

ResponseStatus: TypeAlias = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]
MetadataKey: TypeAlias = Annotated[str, Meta(max_length=64)]
MetadataValue: TypeAlias = Annotated[str, Meta(max_length=512)]
Metadata: TypeAlias = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)]


class CachedTokens(msgspec.Struct, frozen=True):
    text_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0


class InputTokens(msgspec.Struct, frozen=True):
    text_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    cached_tokens_details: CachedTokens = CachedTokens()


class OutputTokens(msgspec.Struct, frozen=True):
    text_tokens: int = 0
    audio_tokens: int = 0


class Usage(msgspec.Struct, frozen=True):
    """The usage of a response. User audio counts 1 token per 100 ms, assistant audio 1 per 50
    ms."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_token_details: InputTokens = InputTokens()
    output_token_details: OutputTokens = OutputTokens()


class DurationUsage(msgspec.Struct, frozen=True, tag_field="type", tag="duration"):
    """The usage of a transcription: the length of the audio in whole seconds, rounded up."""

    seconds: int


class TranscriptionTokens(msgspec.Struct, frozen=True, tag_field="type", tag="tokens"):
    """The usage of a transcription by a recogniser that counts tokens. Only from other servers."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_token_details: InputTokens = InputTokens()


class SessionUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of the session so far: the extension `x_usage` of response.done."""

    responses: int
    input_tokens: int
    output_tokens: int
    transcribed_seconds: int
    seconds: float
    """Since the session began."""
    nano_usd: int
    """The cost of the whole session, in 1e-9 USD."""
    response_nano_usd: int
    """The cost of the response that ended last."""


class ResponseError(msgspec.Struct, frozen=True):
    """Why a response failed."""

    type: str
    code: str
    message: str


class StatusDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Why a response did not complete; or, with `error`, why some of it has no audio."""

    type: Literal["completed", "cancelled", "incomplete", "failed"]
    reason: (
        Literal["turn_detected", "client_cancelled", "max_output_tokens", "content_filter"]
        | UnsetType
    ) = UNSET
    error: ResponseError | UnsetType = UNSET


class ResponseAudioOutput(msgspec.Struct, frozen=True):
    format: AudioFormat
    voice: str


class ResponseAudio(msgspec.Struct, frozen=True):
    output: ResponseAudioOutput


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """Every key is always sent: one client fails without them."""

    object: Literal["realtime.response"] = "realtime.response"
    id: str
    status: ResponseStatus
    status_details: StatusDetails | None = None
    output: tuple[Item, ...] = ()
    conversation_id: str | None
    output_modalities: tuple[Modality, ...]
    max_output_tokens: int | Literal["inf"]
    audio: ResponseAudio
    usage: Usage | None = None
    metadata: dict[str, str] | None = None


InputItems: TypeAlias = Annotated[
    tuple[Item | ItemReference, ...], Meta(max_length=MAX_INPUT_ITEMS)
]


class AudioOutputParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: PCMPatch | PCMU | PCMA | UnsetType | None = UNSET
    voice: str | CustomVoice | UnsetType | None = UNSET
    speed: Any = UNSET  # that of the session; read and ignored


class AudioParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    output: AudioOutputParams | UnsetType | None = UNSET
    input: Any = UNSET  # that of the session; read and ignored


class ResponseParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `response` of a response.create. Null means "not given"."""

    conversation: Literal["auto", "none"] | UnsetType | None = UNSET
    output_modalities: tuple[Modality, ...] | UnsetType | None = UNSET
    instructions: str | UnsetType | None = UNSET
    audio: AudioParams | UnsetType | None = UNSET
    tools: Tools | UnsetType | None = UNSET
    tool_choice: ToolChoice | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    reasoning: dict[str, Any] | UnsetType | None = UNSET
    max_output_tokens: MaxTokens | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET
    input: InputItems | UnsetType | None = UNSET
