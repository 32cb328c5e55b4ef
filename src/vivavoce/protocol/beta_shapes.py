"""The objects that server events carry, as the beta dialect shows them."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.protocol.beta_client import AudioPart, BetaFormat, BetaMessage, BetaPart, Text
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputImage,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
    Part,
    ToolName,
)
from vivavoce.protocol.responses import Response, ResponseStatus, StatusDetails, Usage
from vivavoce.protocol.session import (
    PCM,
    PCMA,
    PCMU,
    AudioFormat,
    Modality,
    NoiseReduction,
    RealtimeSession,
    ServedBy,
    ServerVad,
    Transcription,
    TranscriptionSession,
    TurnDetection,
)

TEMPERATURE = 0.8  # the beta's default; GA has none
PICTURE = "[image]"  # the beta has no pictures; a stand-in keeps the indexes of the other parts

_FORMATS: dict[type[AudioFormat], BetaFormat] = {
    PCM: "pcm16",
    PCMU: "g711_ulaw",
    PCMA: "g711_alaw",
}

# A place in the GA settings -> the same place in the flat ones.
_PLACES = {
    "session.output_modalities": "session.modalities",
    "session.max_output_tokens": "session.max_response_output_tokens",
    "session.audio.input.format": "session.input_audio_format",
    "session.audio.input.transcription": "session.input_audio_transcription",
    "session.audio.input.noise_reduction": "session.input_audio_noise_reduction",
    "session.audio.input.turn_detection": "session.turn_detection",
    "session.audio.output.format": "session.output_audio_format",
    "session.audio.output.voice": "session.voice",
    "session.audio.output.speed": "session.speed",
    "response.output_modalities": "response.modalities",
    "response.audio.output.format": "response.output_audio_format",
    "response.audio.output.voice": "response.voice",
}


class BetaSession(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation session: flat, every key sent."""

    object: Literal["realtime.session"] = "realtime.session"
    id: str
    model: str
    expires_at: int
    modalities: tuple[Modality, ...]
    instructions: str
    voice: str
    input_audio_format: BetaFormat
    output_audio_format: BetaFormat
    input_audio_transcription: Transcription | None
    input_audio_noise_reduction: NoiseReduction | None
    turn_detection: TurnDetection | None
    tools: tuple[FunctionTool, ...]
    tool_choice: str
    temperature: float = TEMPERATURE
    max_response_output_tokens: int | Literal["inf"]
    speed: float
    tracing: Any
    prompt: dict[str, Any] | None
    include: tuple[str, ...] | None
    client_secret: None = None
    served_by: ServedBy | UnsetType


class BetaTranscriptionSession(msgspec.Struct, frozen=True, kw_only=True):
    """A transcription session: flat, every key sent."""

    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    id: str
    expires_at: int
    input_audio_format: BetaFormat
    input_audio_transcription: Transcription | None
    input_audio_noise_reduction: NoiseReduction | None
    turn_detection: TurnDetection | None
    include: tuple[str, ...] | None
    client_secret: None = None


class BetaResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response: every key sent."""

    object: Literal["realtime.response"] = "realtime.response"
    id: str
    status: ResponseStatus
    status_details: StatusDetails | None
    output: tuple[BetaMessage | FunctionCall | FunctionCallOutput, ...]
    conversation_id: str | None
    modalities: tuple[Modality, ...]
    voice: str
    output_audio_format: BetaFormat
    temperature: float = TEMPERATURE
    max_output_tokens: int | Literal["inf"]
    usage: dict[str, Any] | None
    metadata: dict[str, str] | None


def realtime_session(session: RealtimeSession) -> BetaSession:
    heard, spoken = session.audio.input, session.audio.output
    choice = session.tool_choice
    return BetaSession(
        id=session.id,
        model=session.model,
        expires_at=session.expires_at,
        modalities=_modalities(session.output_modalities),
        instructions=session.instructions,
        voice=spoken.voice,
        input_audio_format=_FORMATS[type(heard.format)],
        output_audio_format=_FORMATS[type(spoken.format)],
        input_audio_transcription=heard.transcription,
        input_audio_noise_reduction=heard.noise_reduction,
        turn_detection=_turn_detection(heard.turn_detection),
        tools=session.tools,
        tool_choice=choice.name if isinstance(choice, ToolName) else choice,
        max_response_output_tokens=session.max_output_tokens,
        speed=spoken.speed,
        tracing=session.tracing,
        prompt=session.prompt,
        include=session.include,
        served_by=session.served_by,
    )


def transcription_session(session: TranscriptionSession) -> BetaTranscriptionSession:
    heard = session.audio.input
    return BetaTranscriptionSession(
        id=session.id,
        expires_at=session.expires_at,
        input_audio_format=_FORMATS[type(heard.format)],
        input_audio_transcription=heard.transcription,
        input_audio_noise_reduction=heard.noise_reduction,
        turn_detection=_turn_detection(heard.turn_detection),
        include=session.include,
    )


def response(ga: Response) -> BetaResponse:
    return BetaResponse(
        id=ga.id,
        status=ga.status,
        status_details=ga.status_details,
        output=tuple(item(one) for one in ga.output),
        conversation_id=ga.conversation_id,
        modalities=_modalities(ga.output_modalities),
        voice=ga.audio.output.voice,
        output_audio_format=_FORMATS[type(ga.audio.output.format)],
        max_output_tokens=ga.max_output_tokens,
        usage=None if ga.usage is None else _usage(ga.usage),
        metadata=ga.metadata,
    )


def item(ga: Item) -> BetaMessage | FunctionCall | FunctionCallOutput:
    if not isinstance(ga, Message):
        return ga
    content = tuple(_part(part) for part in ga.content)
    return BetaMessage(id=ga.id, status=ga.status, role=ga.role, content=content)


def place(param: str) -> str:
    """Where a beta client finds the setting that GA calls `param`."""
    for ga, beta in _PLACES.items():
        if param == ga or param.startswith((f"{ga}.", f"{ga}[")):
            return beta + param.removeprefix(ga)
    return param


def _modalities(ga: tuple[Modality, ...]) -> tuple[Modality, ...]:
    return ("text", "audio") if "audio" in ga else ("text",)


def _turn_detection(ga: TurnDetection | None) -> TurnDetection | None:
    """The beta knows no idle timeout."""
    if not isinstance(ga, ServerVad):
        return ga
    return msgspec.structs.replace(ga, idle_timeout_ms=UNSET)


def _part(part: Part) -> BetaPart:
    match part:
        case OutputText(text=text):
            return Text(text)
        case OutputAudio(transcript=words, audio=audio):
            return AudioPart(transcript=words, audio=audio)
        case InputImage():
            return InputText(PICTURE)
        case _:
            return part


def _usage(ga: Usage) -> dict[str, Any]:
    """The beta counts no pictures."""
    usage: dict[str, Any] = msgspec.to_builtins(ga)
    heard = usage["input_token_details"]
    del heard["image_tokens"], heard["cached_tokens_details"]["image_tokens"]
    return usage
