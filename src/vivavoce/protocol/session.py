"""The session object: the settings in force, and the partial update that a client sends.

Every setting is declared twice: as in force, with its default, and in its `…Patch`, with UNSET for
"not mentioned". In a patch, absent means unchanged, null switches off, and unknown fields are
refused.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.protocol.items import FunctionTool, ToolChoice, Tools

Modality: TypeAlias = Literal["text", "audio"]
MaxTokens: TypeAlias = Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"]
Eagerness: TypeAlias = Literal["low", "medium", "high", "auto"]
Interruption: TypeAlias = Literal["immediate", "judged"]
Threshold: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=60_000)]
IdleTimeout: TypeAlias = Annotated[int, Meta(ge=5_000, le=30_000)]
Speed: TypeAlias = Annotated[float, Meta(ge=0.25, le=1.5)]


class PCM(msgspec.Struct, frozen=True, tag_field="type", tag="audio/pcm"):
    """16-bit signed little-endian mono."""

    rate: Literal[24000] = 24000


class PCMU(msgspec.Struct, frozen=True, tag_field="type", tag="audio/pcmu"):
    """G.711 mu-law, 8 kHz mono."""


class PCMA(msgspec.Struct, frozen=True, tag_field="type", tag="audio/pcma"):
    """G.711 A-law, 8 kHz mono."""


AudioFormat: TypeAlias = PCM | PCMU | PCMA


class CustomVoice(msgspec.Struct, frozen=True):
    """A voice named by its id."""

    id: str


MAX_KEYWORDS = 1_000
Keywords: TypeAlias = Annotated[tuple[str, ...], Meta(max_length=MAX_KEYWORDS)]


def hint_of(keywords: tuple[str, ...], prompt: str | None) -> str:
    """Words to expect, and a prompt, joined to one prompt for a recogniser."""
    return " ".join(part for part in (", ".join(keywords), prompt) if part)


class Transcription(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the user's speech is transcribed.

    Only the first three keys are shown to a client that sets no others: one client fails on any
    other key.
    """

    model: str
    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    """Names and words to expect; put before the prompt."""

    @property
    def hint(self) -> str:
        """The prompt for the recogniser."""
        return hint_of(self.keywords, self.prompt)


class NoiseReduction(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the microphone is from the user."""

    type: Literal["near_field", "far_field"]
    strength: float | None = None


class ServerVad(msgspec.Struct, frozen=True, tag_field="type", tag="server_vad"):
    """A turn ends after a silence of that length."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool | UnsetType = True
    interrupt_response: bool | UnsetType = True
    idle_timeout_ms: int | UnsetType | None = None
    explain: bool | UnsetType = UNSET
    """An extension: speech_stopped says why the turn was ended."""
    interruption: Interruption | UnsetType = UNSET
    """An extension: whether any speech interrupts an answer, or only speech that is judged to be an
    interruption.

    Absent: "immediate" for server_vad, "judged" for semantic_vad.
    """


class SemanticVad(msgspec.Struct, frozen=True, tag_field="type", tag="semantic_vad"):
    """A turn ends when its words are complete, or after a longer silence."""

    eagerness: Eagerness = "auto"
    create_response: bool | UnsetType = True
    interrupt_response: bool | UnsetType = True
    explain: bool | UnsetType = UNSET
    """An extension, as in ServerVad."""
    interruption: Interruption | UnsetType = UNSET
    """An extension, as in ServerVad."""


TurnDetection: TypeAlias = ServerVad | SemanticVad


class AudioInput(msgspec.Struct, frozen=True):
    """Audio from the user."""

    format: AudioFormat = PCM()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: TurnDetection | None = ServerVad()


class AudioOutput(msgspec.Struct, frozen=True):
    """Audio to the user. `voice` is always a plain name."""

    format: AudioFormat = PCM()
    voice: str = "marin"
    speed: float = 1.0


class Audio(msgspec.Struct, frozen=True):
    """Both directions."""

    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class TranscriptionAudio(msgspec.Struct, frozen=True):
    """A transcription session has no output."""

    input: AudioInput = AudioInput()


class ServedBy(msgspec.Struct, frozen=True):
    """The model and the voice that are used for the names that the client gave."""

    model: str
    voice: str
    transcription_model: str | UnsetType = UNSET
    """The recogniser or its model, if the client names one."""
    speech_model: str | UnsetType = UNSET
    """The synthesiser or its model, likewise."""
    transcription_language: str | UnsetType = UNSET
    """The language that is recognised, if the recogniser does not know the client's."""


class TranscribedBy(msgspec.Struct, frozen=True):
    """What is used for the names of a transcription session."""

    model: str
    transcription_model: str
    """The recogniser or its model."""
    transcription_language: str | UnsetType = UNSET
    """See ServedBy."""


class RealtimeSession(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="realtime"):
    """A conversation session as a whole: every key is sent, null if it is not set."""

    object: Literal["realtime.session"] = "realtime.session"
    id: str = ""
    model: str = ""
    expires_at: int = 0  # unix seconds
    output_modalities: tuple[Modality, ...] = ("audio",)
    instructions: str = ""
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    reasoning: dict[str, Any] | None = None
    max_output_tokens: int | Literal["inf"] = "inf"
    truncation: Any = "auto"
    tracing: Any = None
    prompt: dict[str, Any] | None = None
    include: tuple[str, ...] | None = None
    audio: Audio = Audio()
    speech_model: str | UnsetType = UNSET  # an extension of speaches: the model of speech synthesis
    served_by: ServedBy | UnsetType = UNSET  # an extension; unknown fields disturb no client


class TranscriptionSession(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="transcription"
):
    """A session that only transcribes."""

    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    id: str = ""
    expires_at: int = 0
    include: tuple[str, ...] | None = None
    audio: TranscriptionAudio = TranscriptionAudio()
    served_by: TranscribedBy | UnsetType = UNSET  # an extension


SessionObject: TypeAlias = RealtimeSession | TranscriptionSession


class PCMPatch(
    msgspec.Struct, frozen=True, tag_field="type", tag="audio/pcm", forbid_unknown_fields=True
):
    rate: Literal[24000] = 24000


class TranscriptionPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model` may be omitted only if a transcription model is set already."""

    model: str | UnsetType = UNSET
    language: str | UnsetType | None = UNSET
    prompt: str | UnsetType | None = UNSET
    languages: list[str] | UnsetType | None = UNSET
    keywords: Keywords | UnsetType | None = UNSET
    delay: str | UnsetType | None = UNSET


class NoiseReductionPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["near_field", "far_field"] | UnsetType = UNSET
    strength: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class ServerVadPatch(
    msgspec.Struct, frozen=True, tag_field="type", tag="server_vad", forbid_unknown_fields=True
):
    threshold: Threshold | UnsetType = UNSET
    prefix_padding_ms: Milliseconds | UnsetType = UNSET
    silence_duration_ms: Milliseconds | UnsetType = UNSET
    create_response: bool | UnsetType = UNSET
    interrupt_response: bool | UnsetType = UNSET
    idle_timeout_ms: IdleTimeout | UnsetType | None = UNSET
    explain: bool | UnsetType = UNSET
    interruption: Interruption | UnsetType = UNSET


class SemanticVadPatch(
    msgspec.Struct, frozen=True, tag_field="type", tag="semantic_vad", forbid_unknown_fields=True
):
    eagerness: Eagerness | UnsetType = UNSET
    create_response: bool | UnsetType = UNSET
    interrupt_response: bool | UnsetType = UNSET
    explain: bool | UnsetType = UNSET
    interruption: Interruption | UnsetType = UNSET


class AudioInputPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: PCMPatch | PCMU | PCMA | UnsetType = UNSET
    transcription: TranscriptionPatch | UnsetType | None = UNSET
    noise_reduction: NoiseReductionPatch | UnsetType | None = UNSET
    turn_detection: ServerVadPatch | SemanticVadPatch | UnsetType | None = UNSET


class AudioOutputPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: PCMPatch | PCMU | PCMA | UnsetType = UNSET
    voice: str | CustomVoice | UnsetType = UNSET
    speed: Speed | UnsetType = UNSET


class AudioPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input: AudioInputPatch | UnsetType = UNSET
    output: AudioOutputPatch | UnsetType = UNSET


class RealtimePatch(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag="realtime",
    forbid_unknown_fields=True,
):
    """The `session` of a session.update. `id`, `object` and `expires_at` are read and ignored."""

    id: Any = UNSET
    object: Any = UNSET
    expires_at: Any = UNSET
    served_by: Any = UNSET
    transcription_model: str | UnsetType | None = UNSET
    """Of speaches, as `speech_model`: short for audio.input.transcription.model."""
    speech_model: str | UnsetType | None = UNSET
    model: str | UnsetType = UNSET
    output_modalities: tuple[Modality, ...] | UnsetType = UNSET
    instructions: str | UnsetType | None = UNSET
    tools: Tools | UnsetType | None = UNSET
    tool_choice: ToolChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning: dict[str, Any] | UnsetType | None = UNSET
    max_output_tokens: MaxTokens | UnsetType = UNSET
    truncation: Any = UNSET
    tracing: Any = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET
    include: tuple[str, ...] | UnsetType | None = UNSET
    audio: AudioPatch | UnsetType = UNSET


class TranscriptionAudioPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input: AudioInputPatch | UnsetType = UNSET
    output: Any = UNSET  # some clients send the whole object; there is no output to configure


class TranscriptionSessionPatch(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag="transcription",
    forbid_unknown_fields=True,
):
    """The `session` of a session.update that asks for transcription only."""

    id: Any = UNSET
    object: Any = UNSET
    expires_at: Any = UNSET
    served_by: Any = UNSET
    transcription_model: str | UnsetType | None = UNSET
    model: str | UnsetType = UNSET
    include: tuple[str, ...] | UnsetType | None = UNSET
    audio: TranscriptionAudioPatch | UnsetType = UNSET


SessionPatch: TypeAlias = RealtimePatch | TranscriptionSessionPatch


def with_transcription(patch: SessionPatch) -> SessionPatch:
    """`transcription_model`, an extension of speaches, as the GA setting, which takes
    precedence."""
    if not patch.transcription_model:
        return patch
    if isinstance(patch, RealtimePatch):
        audio: AudioPatch | TranscriptionAudioPatch = patch.audio or AudioPatch()
    else:
        audio = patch.audio or TranscriptionAudioPatch()
    heard = audio.input or AudioInputPatch()
    asked = heard.transcription or TranscriptionPatch()
    asked = msgspec.structs.replace(asked, model=asked.model or patch.transcription_model)
    heard = msgspec.structs.replace(heard, transcription=asked)
    audio = msgspec.structs.replace(audio, input=heard)
    return msgspec.structs.replace(patch, audio=audio, transcription_model=UNSET)
