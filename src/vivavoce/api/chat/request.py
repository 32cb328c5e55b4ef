"""A request for a chat completion: what of it concerns speech, and the request without that.

Everything else in it stays as the bytes that came.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from vivavoce.errors import InvalidRequest

MOST_CHOICES = 128
INPUT_FORMATS = frozenset(
    ("aac", "flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "ogg", "opus", "pcm16", "wav", "webm")
)
OUTPUT_FORMATS = frozenset(("aac", "flac", "mp3", "opus", "pcm16", "wav"))
OURS = ("audio", "modalities", "speech_model", "transcription_model")
"""What is meant for this server and not for the model behind it."""

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
    """Those that are looked at; the others pass."""

    model: str | None = None
    stream: bool | None = None
    n: int | None = None
    stream_options: _StreamOptions | None = None
    modalities: list[str] | None = None
    audio: _Speech | None = None
    transcription_model: str | None = None
    speech_model: str | None = None


@dataclass(frozen=True, slots=True)
class InputRecording:
    """What a user said, as it came."""

    param: str
    """Where it stands, such as messages[2].content[0].input_audio."""
    data: str
    """Base64."""
    format: str
    """One of INPUT_FORMATS; "": not told."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the assistant said aloud, by the id that it was given then."""

    param: str
    id: str
    transcript: str | None
    """The words, from a client that sends them along."""


@dataclass(frozen=True, slots=True)
class AudioOptions:
    """Speech that is wanted along with the text."""

    voice: str
    format: str


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A request that has been read."""

    body: bytes
    model: str
    stream: bool
    include_usage: bool
    n: int
    recordings: Mapping[ErrorPlace, InputRecording]
    earlier: Mapping[int, Earlier]
    """By the number of the message."""
    wish: AudioOptions | None
    transcription_model: str
    speech_model: str
    _top: Mapping[str, Raw]
    _messages: tuple[Raw, ...]

    @property
    def concerns_speech(self) -> bool:
        return bool(self.recordings or self.earlier or self.wish)

    def rewritten(
        self,
        heard: Mapping[ErrorPlace, str],
        said: Mapping[int, str],
        *,
        model: str | None = None,
    ) -> bytes:
        """The request in words: `heard` for the recordings, `said` for earlier answers.

        `model` takes the place of the one that was asked for. Where nothing is to be changed these
        are the bytes that came.
        """
        top: dict[str, Any] = {k: v for k, v in self._top.items() if k not in OURS}
        if model is not None and model != self.model:
            top["model"] = model
        if heard or said:
            top["messages"] = self.messages(heard, said)
        elif top == self._top:
            return self.body
        return msgspec.json.encode(top)

    def messages(self, heard: Mapping[ErrorPlace, str], said: Mapping[int, str]) -> list[Any]:
        """All messages; those that are unchanged as the bytes that came."""
        messages: list[Any] = list(self._messages)
        for number, transcript in said.items():
            message = _object(self._messages[number])
            message.pop("audio", None)
            if not message.get("content"):
                message["content"] = transcript
            messages[number] = message
        for (number, place), text in heard.items():
            message = messages[number]
            if isinstance(message, Raw):
                message = messages[number] = _object(message)
            message["content"][place] = {"type": "text", "text": text}
        return messages

    def plain_messages(self, heard: Mapping[ErrorPlace, str], said: Mapping[int, str]) -> list[Any]:
        """All messages, as Python has them."""
        return [
            msgspec.json.decode(message) if isinstance(message, Raw) else message
            for message in self.messages(heard, said)
        ]

    def fields(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of its other fields that are there."""
        return {name: msgspec.json.decode(self._top[name]) for name in names if name in self._top}


def parse(body: bytes) -> ChatCall:
    """Raises InvalidRequest."""
    try:
        if not body.isascii():
            body.decode()  # what is skipped below would not be checked
        top = msgspec.json.decode(body, type=dict[str, Raw])
    except ValueError as exc:
        raise InvalidRequest(
            "The body of the request is no JSON object: send one with model and messages.",
            code="invalid_json",
        ) from exc
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
    if not 1 <= n <= MOST_CHOICES:
        raise InvalidRequest(f"n is {n}; it must be from 1 to {MOST_CHOICES}.", param="n")
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
        wish=_wish(fields),
        transcription_model=fields.transcription_model or "",
        speech_model=fields.speech_model or "",
        _top=top,
        _messages=tuple(messages),
    )


def _wish(fields: _Fields) -> AudioOptions | None:
    for place, modality in enumerate(fields.modalities or ()):
        if modality not in ("text", "audio"):
            raise InvalidRequest(
                f"There is no modality {modality!r}; there are text and audio.",
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
            f"There is no audio format {format_!r}; there are {', '.join(sorted(OUTPUT_FORMATS))}.",
            param="audio.format",
        )
    return AudioOptions(voice.id if isinstance(voice, _Voice) else voice, format_)


def _spoken(messages: list[Raw]) -> tuple[dict[ErrorPlace, InputRecording], dict[int, Earlier]]:
    recordings: dict[ErrorPlace, InputRecording] = {}
    earlier: dict[int, Earlier] = {}
    for number, raw in enumerate(messages):
        where = f"messages[{number}]"
        message = _read(raw, _Message, where)
        if message.audio is not UNSET and bytes(message.audio) != b"null":
            said = _read(message.audio, _Earlier, f"{where}.audio")
            earlier[number] = Earlier(f"{where}.audio.id", said.id, said.transcript)
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
            f"There is no audio format {audio.format!r}; there are "
            f"{', '.join(sorted(INPUT_FORMATS))}.",
            param=f"{param}.format",
        )
    return InputRecording(param, audio.data, format_)


def _object(raw: Raw) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
    return found


def _read(raw: Raw, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as exc:
        raise _wrong(exc, where) from exc


def _wrong(exc: msgspec.ValidationError, where: str = "") -> InvalidRequest:
    """msgspec tells the place as `... - at `$.a[0]``."""
    what, _, place = str(exc).partition(" - at `$")
    param = (where + place.rstrip("`")).lstrip(".")
    return InvalidRequest(f"{what} at {param}." if param else f"{what}.", param=param or None)
