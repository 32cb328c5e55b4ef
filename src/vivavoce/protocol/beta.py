"""The beta protocol ("realtime=v1"): GA events under their old names and in their old shapes."""

from collections import deque
from collections.abc import Container
from typing import Any, Literal, TypeAlias, assert_never

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.errors import InvalidRequest, VoiceError
from vivavoce.protocol import server
from vivavoce.protocol.beta_client import (
    AnyBetaEvent,
    BetaAudio,
    BetaFormat,
    BetaMessage,
    BetaPart,
    BetaSessionPatch,
    BetaText,
    realtime_patch,
    to_ga,
)
from vivavoce.protocol.client import AnyClientEvent, ResponseCreate, SessionUpdate
from vivavoce.protocol.codec import (
    BETA_SUBPROTOCOL,
    SUBPROTOCOL,
    Reader,
    audio_delta,
    checked,
    realtime_opening,
    realtime_refusal,
)
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
from vivavoce.protocol.server import AnyServerEvent, PartEvent
from vivavoce.protocol.session import (
    PCM,
    PCMA,
    PCMU,
    AudioFormat,
    CustomVoice,
    Modality,
    NoiseReduction,
    RealtimePatch,
    RealtimeSession,
    ServedBy,
    ServerVad,
    SessionObject,
    TranscribedBy,
    Transcription,
    TranscriptionSession,
    TurnDetection,
)
from vivavoce.protocol.wire import ConnectRequest, Frame, Opening, Refusal

MAX_NAMED_VOICES = 32  # that a connection remembers
MAX_REFUSED_PARAMS = 32

TEMPERATURE = 0.8  # the beta's default; GA has none
PICTURE = "[image]"  # the beta has no images; a placeholder keeps the indexes of other parts
VOICES = frozenset({"alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"})
DEFAULT_VOICE = "alloy"

_FORMATS: dict[type[AudioFormat], BetaFormat] = {
    PCM: "pcm16",
    PCMU: "g711_ulaw",
    PCMA: "g711_alaw",
}

# A path in the GA settings -> the same path in the flat ones.
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


SameInBeta: TypeAlias = (
    server.ConversationCreated
    | server.ItemTruncated
    | server.ItemDeleted
    | server.TranscriptionDelta
    | server.TranscriptionCompleted
    | server.TranscriptionFailed
    | server.InputAudioCommitted
    | server.InputAudioCleared
    | server.SpeechStarted
    | server.SpeechStopped
    | server.OutputAudioStarted
    | server.OutputAudioStopped
    | server.OutputAudioCleared
    | server.RateLimitsUpdated
    | server.ContentPartAdded
    | server.ContentPartDone
    | server.FunctionArgumentsDelta
    | server.FunctionArgumentsDone
)
# GA has one event for an added item and one for a finished item, the beta has only one
NotInBeta: TypeAlias = (
    server.ItemDone
    | server.TimeoutTriggered
    | server.DtmfReceived
    | server.InputTranscriptionSegment
    | server.McpListToolsInProgress
    | server.McpListToolsCompleted
    | server.McpListToolsFailed
    | server.McpArgumentsDelta
    | server.McpArgumentsDone
    | server.McpCallInProgress
    | server.McpCallCompleted
    | server.McpCallFailed
)


_NAMES: dict[type, str] = {
    server.OutputTextDelta: "response.text.delta",
    server.OutputTextDone: "response.text.done",
    server.OutputTranscriptDelta: "response.audio_transcript.delta",
    server.OutputTranscriptDone: "response.audio_transcript.done",
    server.OutputAudioDone: "response.audio.done",
}


class SessionField(msgspec.Struct, frozen=True):
    """Flat settings, wrapped so that errors name the path session.…"""

    session: BetaSessionPatch


class SessionType(msgspec.Struct, frozen=True):
    """The fields that distinguish GA settings from beta settings."""

    type: Any = None


_reader: Reader[AnyBetaEvent] = Reader(AnyBetaEvent)
_session_reader: Reader[SessionField] = Reader(SessionField, "session")
_type_reader: Reader[SessionType] = Reader(SessionType, "session")
_encoder = msgspec.json.Encoder()


def is_beta_session(raw: bytes) -> bool:
    """Whether the settings in a form field (JSON) are those of the beta: GA settings have a `type`.
    Raises InvalidRequest."""
    return _type_reader.read(raw).type is None


class BetaAudioDelta(PartEvent, frozen=True, kw_only=True, tag="response.audio.delta"):
    """GA's response.output_audio.delta: a struct of its own, because it is by far the most
    frequent."""

    delta: msgspec.Raw  # a string of base64


class Beta:
    """The beta protocol on one connection.

    It remembers which voices the client has named, and which paths of its frames were refused.
    """

    subprotocols = (SUBPROTOCOL, BETA_SUBPROTOCOL)
    server_plays = False
    is_ga = False

    def __init__(self) -> None:
        self._voices: deque[str] = deque(maxlen=MAX_NAMED_VOICES)
        self._refused: deque[tuple[str | None, str]] = deque(maxlen=MAX_REFUSED_PARAMS)

    def opening(self, request: ConnectRequest) -> Opening:
        return realtime_opening(request)

    def read_session(self, raw: bytes) -> RealtimePatch:
        """Flat settings that come with a connection, as GA settings. Raises InvalidRequest."""
        flat = _session_reader.read(b'{"session":' + raw + b"}").session
        patch = realtime_patch(flat)
        self._note_voice(patch)
        return patch

    def decode(self, frame: Frame) -> tuple[AnyClientEvent]:
        try:
            event = checked(to_ga(_reader.read(frame.data)), len(frame.data))
        except InvalidRequest as problem:
            if problem.param is not None and place(problem.param) != problem.param:
                self._refused.append((problem.event_id, problem.param))
            raise
        if isinstance(event, SessionUpdate):
            self._note_voice(event.session)
        elif isinstance(event, ResponseCreate) and event.response is not None:
            self._note_voice(event.response)
        return (event,)

    def encode(self, event: AnyServerEvent) -> tuple[Frame, ...]:
        return tuple(Frame("text", data) for data in self._encoded(event))

    def encode_audio(self, audio: bytes) -> tuple[Frame, ...]:
        raise AssertionError("the client owns the playout")

    def refuse(self, error: VoiceError) -> Refusal:
        return realtime_refusal(error)

    def _note_voice(self, settings: object) -> None:
        audio = getattr(settings, "audio", None)
        voice = getattr(getattr(audio, "output", None), "voice", None)
        name = voice.id if isinstance(voice, CustomVoice) else voice
        if isinstance(name, str) and name not in self._voices:
            self._voices.append(name)

    def _encoded(self, event: AnyServerEvent) -> tuple[bytes, ...]:
        if isinstance(event, server.OutputAudioDelta):
            return (_encoder.encode(audio_delta(BetaAudioDelta, event)),)
        if isinstance(event, NotInBeta):
            return ()
        if isinstance(event, SameInBeta):
            return (_encoder.encode(event),)
        match event:
            case server.SessionCreated(session=session):
                shown = self._session(event, session, "created")
                if isinstance(session, TranscriptionSession):
                    return (shown,)
                return shown, _encoder.encode(_conversation(event))
            case server.SessionUpdated(session=session):
                return (self._session(event, session, "updated"),)
            case server.ResponseCreated(response=ga) | server.ResponseDone(response=ga):
                return (_renamed(event, response=response(ga, self._voices)),)
            case server.ItemAdded():
                return (_renamed(event, "conversation.item.created", item=item(event.item)),)
            case server.ItemCreated() | server.ItemRetrieved():
                return (_renamed(event, item=item(event.item)),)
            case server.OutputItemAdded() | server.OutputItemDone():
                return (_renamed(event, item=item(event.item)),)
            case (
                server.OutputTextDelta()
                | server.OutputTextDone()
                | server.OutputTranscriptDelta()
                | server.OutputTranscriptDone()
                | server.OutputAudioDone()
            ):
                return (_renamed(event, _NAMES[type(event)]),)
            case server.ErrorEvent():
                return (_encoder.encode(self._error(event)),)
            case _:
                assert_never(event)

    def _session(self, event: AnyServerEvent, session: SessionObject, verb: str) -> bytes:
        if isinstance(session, TranscriptionSession):
            flat = transcription_session(session)
            return _renamed(event, f"transcription_session.{verb}", session=flat)
        return _renamed(event, session=realtime_session(session, self._voices))

    def _error(self, event: server.ErrorEvent) -> server.ErrorEvent:
        """An error with the path in the beta: the path that was sent, or that of the GA setting."""
        error = event.error
        if error.param is None:
            return event
        sent = (error.event_id, error.param)
        if sent in self._refused:
            self._refused.remove(sent)
            return event
        param = place(error.param)
        message = error.message.replace(error.param, param)
        error = msgspec.structs.replace(error, param=param, message=message)
        return msgspec.structs.replace(event, error=error)


def _conversation(event: server.SessionCreated) -> server.ConversationCreated:
    """The beta events after session.created; their ids follow from those of the session."""
    return server.ConversationCreated(
        event_id=f"{event.event_id}_conversation",
        conversation=server.ConversationObject("conv_" + event.session.id.removeprefix("sess_")),
    )


def _renamed(event: AnyServerEvent, name: str | None = None, **changed: object) -> bytes:
    tag = name or event.__struct_config__.tag
    fields = {field: getattr(event, field) for field in event.__struct_fields__}
    given = {field: value for field, value in fields.items() if value is not UNSET}
    return _encoder.encode({"type": tag, **given, **changed})


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
    speech_model: str | UnsetType = UNSET
    served_by: ServedBy | UnsetType = UNSET


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
    served_by: TranscribedBy | UnsetType = UNSET


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


def realtime_session(session: RealtimeSession, named: Container[str] = ()) -> BetaSession:
    """A session in beta shape. `named`: the voices that the client itself has named."""
    heard, spoken = session.audio.input, session.audio.output
    choice = session.tool_choice
    return BetaSession(
        id=session.id,
        model=session.model,
        expires_at=session.expires_at,
        modalities=_modalities(session.output_modalities),
        instructions=session.instructions,
        voice=shown_voice(spoken.voice, named),
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
        speech_model=session.speech_model,
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
        served_by=session.served_by,
    )


def response(ga: Response, named: Container[str] = ()) -> BetaResponse:
    return BetaResponse(
        id=ga.id,
        status=ga.status,
        status_details=ga.status_details,
        output=tuple(item(one) for one in ga.output),
        conversation_id=ga.conversation_id,
        modalities=_modalities(ga.output_modalities),
        voice=shown_voice(ga.audio.output.voice, named),
        output_audio_format=_FORMATS[type(ga.audio.output.format)],
        max_output_tokens=ga.max_output_tokens,
        usage=None if ga.usage is None else _usage(ga.usage),
        metadata=ga.metadata,
    )


def shown_voice(voice: str, named: Container[str]) -> str:
    """The types of the beta allow no other voices: a voice that the client did not name is not
    shown."""
    return voice if voice in VOICES or voice in named else DEFAULT_VOICE


def item(ga: Item) -> BetaMessage | FunctionCall | FunctionCallOutput:
    if not isinstance(ga, Message):
        return ga
    content = tuple(_part(part) for part in ga.content)
    return BetaMessage(id=ga.id, status=ga.status, role=ga.role, content=content)


def place(param: str) -> str:
    """The beta's path of the setting that GA calls `param`."""
    for ga, beta in _PLACES.items():
        if param == ga or param.startswith((f"{ga}.", f"{ga}[")):
            return beta + param.removeprefix(ga)
    return param


def _modalities(ga: tuple[Modality, ...]) -> tuple[Modality, ...]:
    return ("text", "audio") if "audio" in ga else ("text",)


def _turn_detection(ga: TurnDetection | None) -> TurnDetection | None:
    """The beta has no idle timeout."""
    if not isinstance(ga, ServerVad):
        return ga
    return msgspec.structs.replace(ga, idle_timeout_ms=UNSET)


def _part(part: Part) -> BetaPart:
    match part:
        case OutputText(text=text):
            return BetaText(text)
        case OutputAudio(transcript=words, audio=audio):
            return BetaAudio(transcript=words, audio=audio)
        case InputImage():
            return InputText(PICTURE)
        case _:
            return part


def _usage(ga: Usage) -> dict[str, Any]:
    """The beta has no count of image tokens."""
    usage: dict[str, Any] = msgspec.to_builtins(ga)
    heard = usage["input_token_details"]
    del heard["image_tokens"], heard["cached_tokens_details"]["image_tokens"]
    return usage
