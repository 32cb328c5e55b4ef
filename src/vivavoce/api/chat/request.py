"""Reads the parts of a chat-completions request that concern speech.

All other parts stay the bytes that were received. The structs at the end describe requests and
answers for the API reference; requests are read more leniently than they say.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.bounds import MAX_DEPTH, is_too_deep
from vivavoce.protocol.json import replace_lone_surrogates

MAX_CHOICES = 128
INPUT_FORMATS = frozenset(
    ("aac", "flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "ogg", "opus", "pcm16", "wav", "webm")
)
OUTPUT_FORMATS = frozenset(("aac", "flac", "mp3", "opus", "pcm16", "wav"))
OURS = ("audio", "modalities", "speech_model", "transcription_model")
"""Parameters for this server, which the model behind it does not get."""

_ANY: type[Any] = cast("type[Any]", Any)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

T = TypeVar("T")
ErrorPlace: TypeAlias = tuple[int, int]
"""A content part: the number of its message, and its own in there."""


class _InputAudio(msgspec.Struct):
    data: str | None = None
    format: str | None = None


class _Part(msgspec.Struct):
    type: Any = None


class _AudioPart(msgspec.Struct):
    input_audio: _InputAudio | None = None


class _Earlier(msgspec.Struct):
    id: str = ""
    transcript: str | None = None


class _Message(msgspec.Struct):
    content: Raw | UnsetType = UNSET
    audio: Raw | UnsetType = UNSET


class _Voice(msgspec.Struct):
    id: str


class _Speech(msgspec.Struct):
    voice: str | _Voice = ""
    format: str = ""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Fields(msgspec.Struct):
    """The fields that are read; all others are passed on."""

    model: str | None = None
    stream: bool | None = None
    n: int | None = None
    stream_options: _StreamOptions | None = None
    modalities: list[str] | None = None
    audio: _Speech | None = None
    transcription_model: str | None = None
    speech_model: str | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None


class InputRecording(msgspec.Struct, frozen=True):
    """A recording that a user sent, undecoded."""

    param: str
    """The place in the request, such as messages[2].content[0].input_audio."""
    data: str
    """Base64."""
    format: str
    """One of INPUT_FORMATS, or "" if the client names none."""


class EarlierAnswer(msgspec.Struct, frozen=True):
    """An earlier answer with audio, by the id that it got then."""

    param: str
    id: str
    transcript: str | None
    """The words, if the client sends them as well."""


class AudioOptions(msgspec.Struct, frozen=True):
    """The voice and the format of an answer with audio."""

    voice: str
    format: str


class ChatCall(msgspec.Struct, frozen=True):
    """A request that has been read."""

    body: bytes
    model: str
    stream: bool
    include_usage: bool
    n: int
    recordings: Mapping[ErrorPlace, InputRecording]
    earlier: Mapping[int, EarlierAnswer]
    """Answers of this server to which messages refer, by the index of the message."""
    audio: AudioOptions | None
    transcription_model: str
    speech_model: str
    _top: Mapping[str, Raw]
    _messages: tuple[Raw, ...]

    @property
    def concerns_speech(self) -> bool:
        return bool(self.recordings or self.earlier or self.audio)

    def rewritten(
        self,
        transcripts: Mapping[ErrorPlace, str],
        earlier: Mapping[int, str],
        *,
        model: str | None = None,
    ) -> bytes:
        """The request as text: `transcripts` of the recordings, `earlier` answers with audio.

        `model` replaces the one that was asked for. Where nothing changes, the result is the bytes
        that came.
        """
        top: dict[str, Any] = {k: v for k, v in self._top.items() if k not in OURS}
        if model is not None and model != self.model:
            top["model"] = model
        if transcripts or earlier:
            top["messages"] = self.messages(transcripts, earlier)
        elif top == self._top:
            return self.body
        return msgspec.json.encode(top)

    def messages(
        self, transcripts: Mapping[ErrorPlace, str], earlier: Mapping[int, str]
    ) -> list[Any]:
        """All messages; unchanged ones as the bytes that came."""
        messages: list[Any] = list(self._messages)
        for number, transcript in earlier.items():
            message = _read(self._messages[number], dict[str, Any], f"messages[{number}]")
            message.pop("audio", None)
            if not message.get("content"):
                message["content"] = transcript
            messages[number] = message
        for (number, place), text in transcripts.items():
            message = messages[number]
            if isinstance(message, Raw):
                message = _read(message, dict[str, Any], f"messages[{number}]")
                messages[number] = message
            message["content"][place] = {"type": "text", "text": text}
        return messages

    def plain_messages(
        self, transcripts: Mapping[ErrorPlace, str], earlier: Mapping[int, str]
    ) -> list[Any]:
        """All messages as Python values. Raises InvalidRequest: a number is too large for them."""
        return [
            _read(message, _ANY, f"messages[{number}]") if isinstance(message, Raw) else message
            for number, message in enumerate(self.messages(transcripts, earlier))
        ]

    def fields(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of its other fields that the request has. Raises InvalidRequest, as above."""
        return {name: _read(self._top[name], _ANY, name) for name in names if name in self._top}


def parse(body: bytes) -> ChatCall:
    """Read a request. Lone surrogates are replaced by U+FFFD. Raises InvalidRequest."""
    try:
        if not body.isascii():
            body.decode()  # what is skipped below would not be checked
        if _SURROGATE.search(body):
            body = replace_lone_surrogates(body)
        top = msgspec.json.decode(body, type=dict[str, Raw])
    except RecursionError as exc:
        raise _too_deep() from exc
    except ValueError as exc:
        raise InvalidRequest(
            "The body of the request is not a JSON object: send one with model and messages.",
            code="invalid_json",
        ) from exc
    if is_too_deep(body):
        raise _too_deep()
    try:
        looked_at = {name: top[name] for name in _Fields.__struct_fields__ if name in top}
        fields = msgspec.json.decode(msgspec.json.encode(looked_at), type=_Fields)
    except msgspec.ValidationError as exc:
        raise _wrong(exc) from exc
    if "messages" not in top:
        raise InvalidRequest(
            "The request has no messages.", code="missing_required_parameter", param="messages"
        )
    n = 1 if fields.n is None else fields.n
    if not 1 <= n <= MAX_CHOICES:
        raise InvalidRequest(f"n is {n}; it must be from 1 to {MAX_CHOICES}.", param="n")
    for name in ("max_tokens", "max_completion_tokens"):
        if _is_unlimited(name, getattr(fields, name)):
            del top[name]
            body = msgspec.json.encode(top)
    messages = _read(top["messages"], list[Raw], "messages")
    recordings, earlier = _spoken(messages)
    options = fields.stream_options
    return ChatCall(
        body=body,
        model=fields.model or "",
        stream=bool(fields.stream),
        include_usage=bool(options and options.include_usage),
        n=n,
        recordings=recordings,
        earlier=earlier,
        audio=_audio_options(fields),
        transcription_model=fields.transcription_model or "",
        speech_model=fields.speech_model or "",
        _top=top,
        _messages=tuple(messages),
    )


def _too_deep() -> InvalidRequest:
    return InvalidRequest(
        f"The body of the request is nested too deeply. At most {MAX_DEPTH} levels are accepted."
    )


def _is_unlimited(name: str, tokens: Any) -> bool:
    """Whether the client asks for no limit, by -1 as local servers have it.

    Raises InvalidRequest for any other number below 1. A value that is not a number is passed on to
    the model's endpoint, which validates it.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int | float):
        return False
    if tokens == -1:
        return True
    if tokens < 1:
        raise InvalidRequest(
            f"{name} is {tokens:g}; it must be at least 1, or -1 for no limit.",
            code="integer_below_min_value",
            param=name,
        )
    return False


def _audio_options(fields: _Fields) -> AudioOptions | None:
    for place, modality in enumerate(fields.modalities or ()):
        if modality not in ("text", "audio"):
            raise InvalidRequest(
                f"Unknown modality {modality!r}; the modalities are text and audio.",
                param=f"modalities[{place}]",
            )
    if "audio" not in (fields.modalities or ()):
        return None
    if fields.audio is None:
        raise InvalidRequest(
            "An answer with audio needs the parameter audio: a voice and a format.",
            code="missing_required_parameter",
            param="audio",
        )
    voice = fields.audio.voice
    # pcm is what the speech endpoint calls the same
    format_ = {"": "pcm16" if fields.stream else "wav", "pcm": "pcm16"}.get(
        fields.audio.format, fields.audio.format
    )
    if format_ not in OUTPUT_FORMATS:
        raise InvalidRequest(
            f"Unknown audio format {format_!r}; the formats are "
            f"{', '.join(sorted(OUTPUT_FORMATS))}.",
            param="audio.format",
        )
    return AudioOptions(voice.id if isinstance(voice, _Voice) else voice, format_)


def _spoken(
    messages: list[Raw],
) -> tuple[dict[ErrorPlace, InputRecording], dict[int, EarlierAnswer]]:
    recordings: dict[ErrorPlace, InputRecording] = {}
    earlier: dict[int, EarlierAnswer] = {}
    for number, raw in enumerate(messages):
        where = f"messages[{number}]"
        message = _read(raw, _Message, where)
        if message.audio is not UNSET and bytes(message.audio) != b"null":
            said = _read(message.audio, _Earlier, f"{where}.audio")
            earlier[number] = EarlierAnswer(f"{where}.audio.id", said.id, said.transcript)
        if message.content is UNSET or memoryview(message.content)[0] != ord("["):
            continue
        for place, part in enumerate(_read(message.content, list[Raw], f"{where}.content")):
            param = f"{where}.content[{place}]"
            if _read(part, _Part, param).type == "input_audio":
                recordings[number, place] = _recording(part, f"{param}.input_audio")
    return recordings, earlier


def _recording(raw: Raw, param: str) -> InputRecording:
    audio = _read(raw, _AudioPart, param.removesuffix(".input_audio")).input_audio
    if audio is None or not audio.data:
        raise InvalidRequest(
            "The recording has no data.", code="missing_required_parameter", param=f"{param}.data"
        )
    format_ = (audio.format or "").lower()
    if format_ and format_ not in INPUT_FORMATS:
        raise InvalidRequest(
            f"Unknown audio format {audio.format!r}; the formats are "
            f"{', '.join(sorted(INPUT_FORMATS))}.",
            param=f"{param}.format",
        )
    return InputRecording(param, audio.data, format_)


def _read(raw: Raw, kind: type[T], where: str) -> T:
    """Raises InvalidRequest that names the place, also of a number that no float holds."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as exc:
        raise _wrong(exc, where) from exc


def _wrong(exc: msgspec.ValidationError, where: str = "") -> InvalidRequest:
    """msgspec gives the place as `... - at `$.a[0]``."""
    what, _, place = str(exc).partition(" - at `$")
    param = (where + place.rstrip("`")).lstrip(".")
    return InvalidRequest(f"{what} at {param}." if param else f"{what}.", param=param or None)


# For the API reference


class ChatInputAudio(msgspec.Struct):
    data: str
    """Base64."""
    format: str | None = None


class ChatContentPart(msgspec.Struct):
    type: str
    text: str | None = None
    input_audio: ChatInputAudio | None = None


class ChatEarlierAudio(msgspec.Struct):
    """The transcript of an earlier answer, until it expires."""

    id: str
    transcript: str | None = None


class ChatRequestMessage(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ChatContentPart] | None = None
    audio: ChatEarlierAudio | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatVoice(msgspec.Struct):
    id: str


class ChatAudioOptions(msgspec.Struct):
    voice: str | ChatVoice
    format: Literal["wav", "mp3", "flac", "opus", "aac", "pcm16"] | None = None


class ChatStreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatCompletionRequest(msgspec.Struct):
    """Fields that are not listed here are passed unchanged to the model behind this server."""

    messages: Annotated[list[ChatRequestMessage], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: ChatAudioOptions | None = None
    transcription_model: str | None = None
    """Ours: the model that transcribes recordings; that of `model` if it is not given."""
    speech_model: str | None = None
    """Ours: the model that speaks."""


class ChatSpokenAnswer(msgspec.Struct):
    id: str
    expires_at: int
    data: str
    """Base64, in the format that was asked for."""
    transcript: str


class ChatAnswerMessage(msgspec.Struct):
    content: str | None
    role: str = "assistant"
    refusal: str | None = None
    audio: ChatSpokenAnswer | UnsetType | None = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType | None = UNSET


class ChatChoice(msgspec.Struct):
    index: int
    message: ChatAnswerMessage
    finish_reason: str | None
    logprobs: dict[str, Any] | None = None


class ChatCompletion(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    object: Literal["chat.completion"] = "chat.completion"
    usage: dict[str, Any] | UnsetType | None = UNSET


ChatProblem: TypeAlias = Annotated[
    dict[str, Any], Meta(description="As the endpoint behind this server sends it.")
]
