"""What a client of the raw protocol may configure: in the query of its address, or as JSON."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, TypeAlias, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.audio.formats import G711_RATE
from vivavoce.audio.samples import ENCODINGS, RATES, Encoding, SampleFormat, default_rate
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import MAX_TOOLS, FunctionTool, ToolChoice, ToolName
from vivavoce.protocol.session import (
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    Modality,
    PCMPatch,
    RealtimePatch,
    ServerVadPatch,
    Speed,
    TranscriptionPatch,
)
from vivavoce.protocol.validation import MAX_QUOTED, refusal

RAW_RATE = 16_000
TRANSCRIPTION_MODEL = "whisper-1"
"""Requested if a client names no model; a server without that model uses its default."""
MAX_TURN_STOP_S = 60.0
_TRUE, _FALSE = {"1", "true", "on", "yes", ""}, {"0", "false", "off", "no"}
_FORMATS: dict[str, Encoding] = {
    **{name: name for name in ENCODINGS},
    **dict.fromkeys(("pcm", "s16le", "linear16", "pcm_s16le", "raw", "int16"), "pcm16"),
    **dict.fromkeys(("float32", "float", "f32le", "pcm_f32le"), "f32"),
    **dict.fromkeys(("ulaw", "mulaw", "pcmu", "audio/pcmu"), "g711_ulaw"),
    **dict.fromkeys(("alaw", "pcma", "audio/pcma"), "g711_alaw"),
    "audio/pcm": "pcm16",
}

StopSeconds: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_TURN_STOP_S)]


class SoundConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The audio of one direction, if it is given as an object."""

    format: str | UnsetType = UNSET
    encoding: str | UnsetType = UNSET
    sample_rate: int | UnsetType = UNSET
    rate: int | UnsetType = UNSET
    voice: str | UnsetType = UNSET
    language: str | UnsetType = UNSET


class RawConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration. Every field is optional; unknown fields are ignored."""

    model: str | UnsetType = UNSET
    voice: str | UnsetType = UNSET
    language: str | UnsetType = UNSET
    stt_model: str | UnsetType = UNSET
    transcription_model: str | UnsetType = UNSET
    tts_model: str | UnsetType = UNSET
    speech_model: str | UnsetType = UNSET
    instructions: str | UnsetType = UNSET
    system_prompt: str | UnsetType = UNSET
    interim: bool | UnsetType = UNSET
    allow_interruptions: bool | UnsetType = UNSET
    turn_stop_secs: StopSeconds | UnsetType = UNSET
    turn_detection: bool | UnsetType = UNSET
    speed: Speed | UnsetType = UNSET
    modalities: list[Modality] | UnsetType = UNSET
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | UnsetType = UNSET
    tool_choice: Any = UNSET
    format: str | UnsetType = UNSET
    sample_rate: int | UnsetType = UNSET
    rate: int | UnsetType = UNSET
    input_format: str | UnsetType = UNSET
    input_rate: int | UnsetType = UNSET
    audio_in_sample_rate: int | UnsetType = UNSET
    output_format: str | UnsetType = UNSET
    output_rate: int | UnsetType = UNSET
    audio_out_sample_rate: int | UnsetType = UNSET
    input: SoundConfig | UnsetType = UNSET
    output: SoundConfig | UnsetType = UNSET


class Sound(NamedTuple):
    """The formats that a configuration names; None: it does not name them."""

    input_encoding: Encoding | None
    input_rate: int | None
    output_encoding: Encoding | None
    output_rate: int | None


def config_of(fields: Mapping[str, Any]) -> RawConfig:
    """The configuration in a JSON object. Raises InvalidRequest; null means "not given"."""
    given = {name: value for name, value in fields.items() if value is not None}
    if given and given.keys().isdisjoint(RawConfig.__struct_fields__):
        raise InvalidRequest(
            f"The configuration has no known setting. There are: "
            f"{', '.join(RawConfig.__struct_fields__)}.",
            code="unknown_parameter",
        )
    try:
        return msgspec.convert(given, RawConfig)
    except msgspec.ValidationError as exc:
        raise refusal(str(exc), RawConfig, what="configuration") from exc


def config_of_query(query: Mapping[str, str]) -> RawConfig:
    """The configuration in a query: its values are text. Raises InvalidRequest."""
    fields: dict[str, Any] = {}
    for name in (
        *("model", "voice", "language", "format", "input_format"),
        *("stt_model", "transcription_model", "tts_model", "speech_model"),
    ):
        if name in query:
            fields[name] = query[name]
    if "output_format" in query:
        fields["output_format"] = query["output_format"]
    for name in ("sample_rate", "rate", "input_rate", "output_rate"):
        if name in query:
            fields[name] = _number(name, query[name])
    for name in ("interim", "allow_interruptions"):
        if name in query:
            fields[name] = switch(name, query[name])
    return config_of(fields)


def switch(name: str, text: str) -> bool:
    """A query option that is on or off. Raises InvalidRequest."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise InvalidRequest(f"Invalid '{name}': {text[:MAX_QUOTED]!r}. Say on or off.", param=name)


def sound_of(config: RawConfig) -> Sound:
    """The formats of both directions. Raises InvalidRequest for an unknown one.

    Without a direction, `sample_rate` is that of the client's audio; `format` is that of the
    client's audio, and of the other direction unless it has its own.
    """
    into, out = config.input or SoundConfig(), config.output or SoundConfig()
    both = _encoding("format", _first(config.format))
    input_encoding = _encoding(
        "input_format", _first(config.input_format, into.format, into.encoding)
    )
    output_encoding = _encoding(
        "output_format", _first(config.output_format, out.format, out.encoding)
    )
    input_rate = _first(
        *(config.input_rate, config.audio_in_sample_rate, into.sample_rate, into.rate),
        *(config.sample_rate, config.rate),
    )
    output_rate = _first(
        config.output_rate, config.audio_out_sample_rate, out.sample_rate, out.rate
    )
    return Sound(
        input_encoding or both,
        _rate("input_rate", input_rate, input_encoding or both),
        output_encoding or both,
        _rate("output_rate", output_rate, output_encoding or both),
    )


def format_of(encoding: Encoding | None, rate: int | None, old: SampleFormat) -> SampleFormat:
    """A format after a change: what is not named stays, unless the encoding has a fixed rate."""
    encoding = encoding or old.encoding
    if encoding.startswith("g711"):
        return SampleFormat(encoding, G711_RATE)
    was_g711 = old.encoding.startswith("g711")
    return SampleFormat(encoding, rate or (RAW_RATE if was_g711 else old.rate))


def patch_of(config: RawConfig, *, first: bool) -> RealtimePatch:
    """The settings of the session. `first`: with the defaults of every raw session."""
    return RealtimePatch(
        model=UNSET if first else config.model,
        instructions=_first(config.instructions, config.system_prompt, otherwise=UNSET),
        output_modalities=_modalities(config.modalities),
        tools=UNSET if config.tools is UNSET else tools_of(config.tools),
        tool_choice=UNSET if config.tool_choice is UNSET else choice_of(config.tool_choice),
        speech_model=_first(config.tts_model, config.speech_model, otherwise=UNSET),
        audio=AudioPatch(input=_input_of(config, first=first), output=_output_of(config)),
    )


def tools_of(tools: list[dict[str, Any]]) -> tuple[FunctionTool, ...]:
    """Function tools, as Realtime writes them or as chat completions do. Raises InvalidRequest."""
    found = []
    for index, tool in enumerate(tools):
        inner = tool.get("function")
        bare = inner if isinstance(inner, dict) else tool
        try:
            found.append(msgspec.convert({**bare, "type": "function"}, FunctionTool))
        except msgspec.ValidationError as exc:
            raise refusal(str(exc), FunctionTool, prefix=f"tools[{index}]") from exc
    return tuple(found)


def choice_of(choice: Any) -> ToolChoice:
    """A tool choice; chat completions write the function's name one level deeper."""
    match choice:
        case "none" | "auto" | "required" as mode:
            return cast(ToolChoice, mode)
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return ToolName(name)
    raise InvalidRequest(
        "Invalid 'tool_choice'. Supported values are: 'auto', 'none', 'required', and a function.",
        param="tool_choice",
    )


def _input_of(config: RawConfig, *, first: bool) -> AudioInputPatch:
    vad: ServerVadPatch | UnsetType | None = UNSET
    if config.turn_stop_secs is not UNSET or config.allow_interruptions is not UNSET:
        stop = config.turn_stop_secs
        vad = ServerVadPatch(
            silence_duration_ms=UNSET if stop is UNSET else round(stop * 1000),
            interrupt_response=config.allow_interruptions,
        )
    if config.turn_detection is not UNSET:
        vad = (vad or ServerVadPatch()) if config.turn_detection else None
    language = _first(config.language, (config.input or SoundConfig()).language, otherwise=UNSET)
    transcription: TranscriptionPatch | UnsetType = UNSET
    model = _first(config.stt_model, config.transcription_model, otherwise=UNSET)
    if first or language is not UNSET or model is not UNSET:
        if first and model is UNSET:
            model = TRANSCRIPTION_MODEL
        transcription = TranscriptionPatch(model=model, language=language)
    return AudioInputPatch(
        format=PCMPatch() if first else UNSET, transcription=transcription, turn_detection=vad
    )


def _output_of(config: RawConfig) -> AudioOutputPatch:
    voice = _first(config.voice, (config.output or SoundConfig()).voice, otherwise=UNSET)
    return AudioOutputPatch(voice=voice, speed=config.speed)


def _modalities(modalities: list[Modality] | UnsetType) -> tuple[Modality, ...] | UnsetType:
    """GA allows exactly one: with audio, text is always included."""
    if modalities is UNSET:
        return UNSET
    return ("audio",) if "audio" in modalities else tuple(modalities)


def _encoding(name: str, text: Any) -> Encoding | None:
    if text is None:
        return None
    if (encoding := _FORMATS.get(text.lower())) is None:
        raise InvalidRequest(
            f"Invalid '{name}': {text[:MAX_QUOTED]!r}. "
            f"Supported values are: {', '.join(map(repr, ENCODINGS))}.",
            param=name,
        )
    return encoding


def _rate(name: str, rate: Any, encoding: Encoding | None) -> int | None:
    if rate is None:
        return None
    known = (G711_RATE,) if encoding and default_rate(encoding, 0) else RATES
    if rate not in known:
        raise InvalidRequest(
            f"Invalid '{name}': {rate}. Supported values are: {', '.join(map(str, known))}.",
            param=name,
        )
    return int(rate)


def _number(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 6:
        return int(text)
    raise InvalidRequest(
        f"Invalid '{name}': {text[:MAX_QUOTED]!r}. Expected hertz, such as 16000.", param=name
    )


def _first(*values: Any, otherwise: Any = None) -> Any:
    """The first value that is given."""
    return next((value for value in values if value is not UNSET), otherwise)
