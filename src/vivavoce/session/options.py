"""The settings of a session, and how an update changes them: whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, assert_never

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.audio.formats import Format
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import FunctionTool, ToolChoice, ToolName
from vivavoce.protocol.session import (
    PCM,
    PCMA,
    PCMU,
    AudioFormat,
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    CustomVoice,
    Interruption,
    Modality,
    NoiseReduction,
    NoiseReductionPatch,
    PCMPatch,
    RealtimePatch,
    RealtimeSession,
    SemanticVad,
    SemanticVadPatch,
    ServedBy,
    ServerVad,
    ServerVadPatch,
    SessionObject,
    SessionPatch,
    TranscribedBy,
    Transcription,
    TranscriptionAudio,
    TranscriptionAudioPatch,
    TranscriptionPatch,
    TranscriptionSession,
    TranscriptionSessionPatch,
    TurnDetection,
    with_transcription,
)
from vivavoce.session.endpointing import TurnSettings
from vivavoce.session.interruption import InterruptionSettings
from vivavoce.session.policy import Rules
from vivavoce.session.speaker_gate import SpeakerGateSettings
from vivavoce.session.usage import Costs

# what a patch starts from, if the part that it changes is absent or of another kind
_FRESH: dict[type, Any] = {
    PCMPatch: PCM(),
    ServerVadPatch: ServerVad(),
    SemanticVadPatch: SemanticVad(),
    TranscriptionPatch: Transcription(model=""),
    NoiseReductionPatch: NoiseReduction(type="near_field"),
}
_INTO = (AudioPatch, AudioInputPatch, AudioOutputPatch, TranscriptionAudioPatch)
_INTERRUPTION: dict[type, Interruption] = {ServerVad: "immediate", SemanticVad: "judged"}
_IGNORED = {"id", "object", "expires_at", "served_by"}
LOGPROBS = "item.input_audio_transcription.logprobs"
"""A value of `include` of a session."""
USAGE = "x_usage"
"""Another; it is an extension, and is not sent to an upstream server."""


class EngineNames(Protocol):
    """Finds what serves the names of speech models that a client gives."""

    def transcription_model(self, asked: str) -> str: ...
    def other_language(self, asked: str, language: str) -> str: ...
    def speech_model(self, asked: str) -> str: ...
    def voice(self, name: str, speech_model: str = "") -> str: ...


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The voices of one configured model."""

    voices: frozenset[str] | None
    """None: unknown here, because an upstream server has them: every name is passed on."""
    default_voice: str
    """Used when the client names no voice, or one that this model does not have."""
    names: EngineNames | None = None
    """None: names of models of speech are passed on."""
    turn_samples: int = 0
    """The most audio of a turn that its turn detector reads."""
    transcribes_at_end: bool = False
    """Whether its recogniser begins its work only at the end of a recording."""
    decodes_pauses: bool = False
    """Whether its recogniser decodes in a pause by itself."""

    def voice(self, name: str, speech_model: str = "") -> str:
        """The voice that speaks when `name` is asked for."""
        if self.names is not None:
            return self.names.voice(name, speech_model)
        return name if self.voices is None or name in self.voices else self.default_voice


@dataclass(frozen=True, slots=True)
class AvailableModels:
    """The models and voices that are configured, by name."""

    models: Mapping[str, ModelInfo]
    default_model: str
    lock_voice: bool = False
    """Refuse a new voice once the assistant has spoken, as OpenAI does."""
    failure_errors: bool = False
    """Whether an `error` event follows a failed response."""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The configured names that are tried in place of an unknown one."""
    interruption: InterruptionSettings = field(default_factory=InterruptionSettings)
    """What counts as an interruption where that is judged."""
    rules: Rules | None = None
    """The restrictions on one session's client; None: there are none."""
    turns: TurnSettings = field(default_factory=TurnSettings)
    speaker_gate: SpeakerGateSettings = field(default_factory=SpeakerGateSettings)
    """Whose speech is accepted."""
    costs: Costs | None = None
    """The cost of one session, for clients that request it; None: it costs nothing."""

    def name_of(self, model: str) -> str:
        """The configured model that serves this name: the default model if it is unknown."""
        names = (model, *self.aliases.get(model, ()))
        return next((each for each in names if each in self.models), self.default_model)

    def served_by(
        self, model: str, voice: str, *, heard: Transcription | None = None, speech: str = ""
    ) -> ServedBy:
        """The models and the voice that are used when these names are asked for.

        An unknown model falls back to the default model, an unknown voice to that model's own.
        """
        name = self.name_of(model)
        info = self.models[name]
        served = ServedBy(model=name, voice=info.voice(voice, speech))
        if info.names is None:
            return served
        return msgspec.structs.replace(
            served,
            transcription_model=info.names.transcription_model(heard.model)
            if heard and heard.model
            else UNSET,
            transcription_language=_other_language(info.names, heard),
            speech_model=info.names.speech_model(speech) if speech else UNSET,
        )


class Options:
    """The session object as the client sees it, and what the operator adds to it."""

    def __init__(self, session: SessionObject, models: AvailableModels) -> None:
        self.rules = models.rules or Rules()
        self._models = models
        self._served = ""  # the model that serves whatever the client names, after a fallback
        self.session = self._resolved(session)

    @property
    def transcribes_only(self) -> bool:
        return isinstance(self.session, TranscriptionSession)

    @property
    def turns(self) -> TurnSettings:
        """How the end of a turn is decided, and what begins before that."""
        return self._models.turns

    @property
    def sends_failure_errors(self) -> bool:
        """Whether an `error` event follows a failed response."""
        return self._models.failure_errors

    @property
    def conversation_id(self) -> str:
        return f"conv_{self.session.id.removeprefix('sess_')}"

    @property
    def turn_detection(self) -> TurnDetection | None:
        return self.session.audio.input.turn_detection

    @property
    def judges_interruptions(self) -> bool:
        """Whether only speech that is meant to interrupt an answer does so, and not any speech."""
        vad = self.turn_detection
        if vad is None or vad.interrupt_response is not True:
            return False
        return (vad.interruption or _INTERRUPTION[type(vad)]) == "judged"

    @property
    def interruption(self) -> InterruptionSettings:
        """What counts as an interruption."""
        return self._models.interruption

    @property
    def speaker_gate(self) -> SpeakerGateSettings:
        """Whose speech is accepted."""
        return self._models.speaker_gate

    @property
    def transcription(self) -> Transcription | None:
        return self.session.audio.input.transcription

    @property
    def includes_logprobs(self) -> bool:
        """Whether the client requested the probabilities of the user's words."""
        return LOGPROBS in (self.session.include or ())

    @property
    def includes_usage(self) -> bool:
        """Whether the client requested the usage of the session after each response."""
        return USAGE in (self.session.include or ())

    @property
    def noise_reduction(self) -> Literal["near_field", "far_field"] | None:
        """The microphone whose audio is to be cleaned, if any."""
        reduction = self.session.audio.input.noise_reduction
        return reduction.type if reduction else None

    @property
    def input_format(self) -> Format:
        """The format of the client's audio."""
        return format_name(self.session.audio.input.format)

    @property
    def in_force(self) -> SessionObject:
        """The session object with the parts that are hidden from the client."""
        hidden = self.rules.hidden_instructions
        if hidden is None or not isinstance(self.session, RealtimeSession):
            return self.session
        return msgspec.structs.replace(self.session, instructions=hidden)

    @property
    def upstream(self) -> SessionObject:
        """The settings for an upstream server, with the functions of this server."""
        session = self.in_force
        if not self.rules.tools or not isinstance(session, RealtimeSession):
            return session
        return msgspec.structs.replace(session, tools=session.tools + self.rules.tools)

    @property
    def realtime(self) -> RealtimeSession:
        """The settings of a conversation in force; a transcription session has the defaults."""
        session = self.in_force
        if isinstance(session, RealtimeSession):
            return session
        return RealtimeSession(model=self._models.default_model)

    @property
    def speech_model(self) -> str:
        """The model of speech synthesis that the client names, if any."""
        return self.realtime.speech_model or ""

    @property
    def served_by(self) -> ServedBy:
        return self._served_by(self.realtime, self.realtime.audio.output.voice)

    @property
    def turn_samples(self) -> int:
        """The most audio of a turn that the turn detector of the model reads."""
        return self._model.turn_samples

    @property
    def transcribes_at_end(self) -> bool:
        """Whether the recogniser of the model begins its work only at the end of a recording."""
        return self._model.transcribes_at_end

    @property
    def decodes_pauses(self) -> bool:
        """Whether the recogniser of the model decodes in a pause by itself."""
        return self._model.decodes_pauses

    @property
    def explains_turns(self) -> bool:
        """Whether the client wants to know why a turn was ended."""
        vad = self.turn_detection
        return vad is not None and vad.explain is True

    def voice(self, name: str) -> str:
        """The voice that speaks when this one is asked for."""
        return self._served_by(self.realtime, name).voice

    def serve_with(self, model: str) -> None:
        """Serve the session with that model from now on, whatever model the client names."""
        self._served = model
        self.session = self._resolved(self.session)

    def pin(self) -> None:
        """Apply the settings that the operator has pinned. Raises InvalidRequest."""
        pinned = self.rules.pinned
        if pinned is not None and isinstance(self.session, RealtimeSession):
            self.update(pinned, pristine=True, has_spoken=False)

    def update(self, patch: SessionPatch, *, pristine: bool, has_spoken: bool) -> None:
        """Apply a patch, or raise InvalidRequest and change nothing.

        pristine: nothing has happened in the session yet, so that it may still change its type.
        """
        current, patch = self.session, with_transcription(patch)
        if isinstance(patch, TranscriptionSessionPatch) and isinstance(current, RealtimeSession):
            if not pristine:
                raise _wrong_type("a transcription", "realtime")
            current = TranscriptionSession(
                id=current.id,
                expires_at=current.expires_at,
                audio=TranscriptionAudio(current.audio.input),
            )
        elif isinstance(patch, RealtimePatch) and isinstance(current, TranscriptionSession):
            raise _wrong_type("a realtime", "transcription")
        if isinstance(patch, RealtimePatch):
            self._check(patch, has_spoken=has_spoken)
        merged = _merged(current, patch, "session")
        if isinstance(patch, RealtimePatch):
            check_choice(patch.tool_choice, merged.tools, "session.tool_choice")
        self._check_speech_models(merged)
        self.session = self._resolved(merged)

    def _check(self, patch: RealtimePatch, *, has_spoken: bool) -> None:
        if patch.output_modalities is not UNSET:
            check_modalities(patch.output_modalities, "session.output_modalities")
        if not (self._models.lock_voice and has_spoken):
            return
        output = patch.audio.output if isinstance(patch.audio, AudioPatch) else UNSET
        voice = output.voice if isinstance(output, AudioOutputPatch) else UNSET
        if voice is not UNSET and voice_name(voice) != self.realtime.audio.output.voice:
            raise InvalidRequest(
                "Cannot update a conversation's voice if assistant audio is present.",
                code="cannot_update_voice",
            )

    def _check_speech_models(self, session: SessionObject) -> None:
        """Raise InvalidRequest for speech models that the key does not allow."""
        model, speech = "", ""
        if isinstance(session, RealtimeSession):
            model, speech = self._served_by(session, "").model, session.speech_model or ""
        names = self._models.models[model or self._models.default_model].names
        heard = session.audio.input.transcription
        self.rules.check_served(
            heard.model if heard else "",
            names.transcription_model(heard.model) if names and heard else None,
            names.transcription_model("") if names else "",
            "session.audio.input.transcription.model",
        )
        self.rules.check_served(
            speech,
            names.speech_model(speech) if names else None,
            names.speech_model("") if names else "",
            "session.speech_model",
        )

    @property
    def _model(self) -> ModelInfo:
        models = self._models
        return models.models[models.name_of(self._served or self.realtime.model)]

    def _served_by(self, session: RealtimeSession, voice: str) -> ServedBy:
        return self._models.served_by(
            self._served or session.model,
            voice,
            heard=session.audio.input.transcription,
            speech=session.speech_model or "",
        )

    def _resolved(self, session: SessionObject) -> SessionObject:
        if isinstance(session, RealtimeSession):
            served = self._served_by(session, session.audio.output.voice)
            return msgspec.structs.replace(session, served_by=served)
        asked, by = session.audio.input.transcription, session.served_by
        if asked is not None:
            served = self._models.served_by("", "", heard=asked)
            if served.transcription_model:
                by = TranscribedBy(
                    served.model, served.transcription_model, served.transcription_language
                )
        audio = _for_transcription(session.audio)
        return msgspec.structs.replace(session, audio=audio, served_by=by)


def _other_language(names: EngineNames, heard: Transcription | None) -> str | UnsetType:
    """See ServedBy.transcription_language."""
    if heard is None or not heard.language:
        return UNSET
    return names.other_language(heard.model, heard.language) or UNSET


def check_modalities(modalities: tuple[Modality, ...], param: str) -> None:
    """Refuse any number of values but one."""
    if modalities not in (("text",), ("audio",)):
        raise InvalidRequest(
            f"Invalid modalities: {list(modalities)}. "
            f"Supported combinations are: ['text'] and ['audio'].",
            param=param,
        )


def check_choice(
    choice: ToolChoice | UnsetType | None, tools: tuple[FunctionTool, ...], param: str
) -> None:
    """Refuse the name of a function that was not declared."""
    if isinstance(choice, ToolName) and choice.name not in {tool.name for tool in tools}:
        raise InvalidRequest(
            f"Invalid '{param}': there is no function named '{choice.name}' in 'tools'.",
            param=param,
        )


def format_name(format_: AudioFormat) -> Format:
    match format_:
        case PCM():
            return "audio/pcm"
        case PCMU():
            return "audio/pcmu"
        case PCMA():
            return "audio/pcma"
        case _:
            assert_never(format_)


def voice_name(voice: str | CustomVoice) -> str:
    return voice.id if isinstance(voice, CustomVoice) else voice


def _wrong_type(asked: str, have: str) -> InvalidRequest:
    return InvalidRequest(
        f"Passing {asked} session update event to a {have} session is not allowed.",
        code="invalid_parameter",
        param="session.type",
    )


def _for_transcription(audio: TranscriptionAudio) -> TranscriptionAudio:
    """These keys do not exist in a session without responses, which cannot be created or
    interrupted."""
    match audio.input.turn_detection:
        case ServerVad() as vad:
            bare: TurnDetection = msgspec.structs.replace(
                vad,
                create_response=UNSET,
                interrupt_response=UNSET,
                idle_timeout_ms=UNSET,
                interruption=UNSET,
            )
        case SemanticVad() as vad:
            bare = msgspec.structs.replace(
                vad, create_response=UNSET, interrupt_response=UNSET, interruption=UNSET
            )
        case None:
            return audio
        case other:
            assert_never(other)
    return TranscriptionAudio(msgspec.structs.replace(audio.input, turn_detection=bare))


def _merged(current: Any, patch: Any, path: str) -> Any:
    changes: dict[str, Any] = {}
    for name in patch.__struct_fields__:
        value = getattr(patch, name)
        if value is UNSET or name in _IGNORED or not hasattr(current, name):
            continue
        changes[name] = _changed(getattr(current, name), value, f"{path}.{name}")
    return msgspec.structs.replace(current, **changes)


def _changed(old: Any, new: Any, path: str) -> Any:
    """The value after a change: nested parts are merged, a part of another kind starts from its
    default."""
    match new:
        case TranscriptionPatch(model=UnsetType()) if old is None:
            raise _missing(f"{path}.model")
        case NoiseReductionPatch(type=UnsetType()) if old is None:
            raise _missing(f"{path}.type")
        case CustomVoice(id=voice):
            return voice
        case None if path == "session.speech_model":
            return UNSET
        case None if path.endswith(".transcription.keywords"):
            return ()
        case None if path in ("session.instructions", "session.tools"):
            return type(old)()
    if isinstance(new, _INTO):
        return _merged(old, new, path)
    if (fresh := _FRESH.get(type(new))) is not None:
        return _merged(old if isinstance(old, type(fresh)) else fresh, new, path)
    return new


def _missing(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param
    )
