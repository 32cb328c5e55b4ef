"""The media-stream messages of telephone providers: read, identified, and written.

Documentation of each provider:
* Twilio, "Media Streams - WebSocket Messages"
* Telnyx, "Stream call media over WebSocket" (AsyncAPI), and TeXML "Stream"
* Plivo, "Audio Streaming Protocol Reference", and "The AudioStream element"
* Exotel, "WebSocket protocol" and "Working with the Stream and Voicebot Applet"
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec
import numpy as np

from vivavoce.audio.formats import G711_RATE
from vivavoce.audio.samples import RATES, Encoding, SampleFormat
from vivavoce.errors import InvalidRequest
from vivavoce.protocol import bounds, json
from vivavoce.protocol.validation import MAX_QUOTED

Provider: TypeAlias = Literal["twilio", "telnyx", "plivo", "exotel"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
MAX_PARAMETERS = 50
MAX_PARAMETER_CHARS = 8_000
_ENCODINGS: dict[str, Encoding] = {
    **dict.fromkeys(("audio/x-mulaw", "audio/mulaw", "mulaw", "pcmu"), "g711_ulaw"),
    **dict.fromkeys(("audio/x-alaw", "audio/alaw", "alaw", "pcma"), "g711_alaw"),
    **dict.fromkeys(("audio/x-l16", "audio/l16", "l16"), "pcm16"),
    **dict.fromkeys(("audio/x-raw", "raw/slin", "slin", "base64", "pcm"), "pcm16"),  # Exotel
}
_STREAM_FIELDS: dict[Provider, str] = {
    "twilio": "streamSid",
    "telnyx": "call_control_id",
    "plivo": "streamId",
    "exotel": "stream_sid",
}
"""A field of `start` that only this provider sends."""
_CALL_FIELDS: dict[Provider, str] = {
    "twilio": "callSid",
    "telnyx": "call_control_id",
    "plivo": "callId",
    "exotel": "call_sid",
}
_MIN_EXOTEL_BYTES = 3_200  # of audio in one message; Telnyx accepts 20 ms or more
_EXOTEL_STEP = 320
"""Exotel requires multiples of it: other sizes cause gaps."""


class StreamMedia(msgspec.Struct, frozen=True):
    payload: bytes = b""
    """Base64."""
    track: str = "inbound"


class StreamMark(msgspec.Struct, frozen=True):
    name: str = ""


class StreamDigit(msgspec.Struct, frozen=True):
    digit: str = ""


class StreamMessage(msgspec.Struct, frozen=True):
    """A message of any provider, with the fields that are read."""

    event: str
    start: dict[str, Any] | None = None
    media: StreamMedia | None = None
    mark: StreamMark | None = None
    dtmf: StreamDigit | None = None
    name: str = ""
    """The name of a checkpoint that was played (Plivo)."""
    stream_id: str = ""
    """Telnyx; other providers repeat the id inside `start`."""
    extra_headers: Any = None
    """The parameters of the stream (Plivo)."""
    payload: dict[str, Any] | None = None
    """The description of an error (Telnyx)."""


_decoder = msgspec.json.Decoder(StreamMessage)


def read_message(raw: bytes) -> StreamMessage:
    """Raises InvalidRequest."""
    bounds.check_size(raw, "message")
    try:
        return json.decode(raw, _decoder)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise InvalidRequest(
            f"This is not a message of a telephone provider's media stream: {exc}.",
            code="invalid_event",
        ) from exc


@dataclass(frozen=True, slots=True)
class StreamedCall:
    """A call, as the provider's start message describes it, and the messages that go back."""

    provider: Provider
    stream_id: str
    call_id: str
    input_format: SampleFormat
    output_format: SampleFormat
    parameters: Mapping[str, str] = field(repr=False)
    """The parameters of the stream; they may include a key."""

    def __str__(self) -> str:
        return f"{self.provider} call {self.call_id[:100]}, {self.input_format}"

    @property
    def piece_bytes(self) -> int:
        """The most audio in one message, and between two marks: 200 ms."""
        return max(self.min_bytes, self.output_format.bytes_per_second // 5)

    @property
    def min_bytes(self) -> int:
        if self.provider == "telnyx":
            return self.output_format.bytes_per_second // 50
        return _MIN_EXOTEL_BYTES if self.provider == "exotel" else 1

    @property
    def step_bytes(self) -> int:
        return _EXOTEL_STEP if self.provider == "exotel" else 1

    @property
    def silence(self) -> bytes:
        """One byte of silence in the output format (ITU-T G.711)."""
        return {"g711_ulaw": b"\xff", "g711_alaw": b"\xd5"}.get(self.output_format.encoding, b"\0")

    def sound_of(self, payload: bytes) -> bytes:
        """The audio of a media message, its samples little-endian."""
        return _swapped(payload) if self._swaps(self.input_format) else payload

    def media(self, sound: bytes) -> bytes:
        """A message with audio to play."""
        if self.provider == "plivo":
            law = self.output_format.encoding.startswith("g711")
            media = {
                "contentType": "audio/x-mulaw" if law else "audio/x-l16",
                "sampleRate": self.output_format.rate,
                "payload": json.base64_text(sound),
            }
            return msgspec.json.encode({"event": "playAudio", "media": media})
        if self._swaps(self.output_format):
            sound = _swapped(sound)
        return self._message("media", media={"payload": json.base64_text(sound)})

    def mark(self, name: str) -> bytes:
        """A message that the provider returns once it has played the audio before it."""
        if self.provider == "plivo":
            return self._message("checkpoint", name=name)
        return self._message("mark", mark={"name": name})

    def clear(self) -> bytes:
        """A message that drops the audio that was not played yet."""
        return self._message("clearAudio" if self.provider == "plivo" else "clear")

    def _message(self, event: str, **fields: Any) -> bytes:
        name = {"twilio": "streamSid", "plivo": "streamId", "exotel": "stream_sid"}
        # Telnyx's own examples have no id in messages to it: a socket carries one stream
        ids = {name[self.provider]: self.stream_id} if self.provider in name else {}
        return msgspec.json.encode({"event": event, **ids, **fields})

    def _swaps(self, format_: SampleFormat) -> bool:
        """Telnyx sends RTP payloads, in which L16 is big-endian (RFC 3551, 4.5.11)."""
        return self.provider == "telnyx" and format_.encoding == "pcm16"


def call_of(message: StreamMessage, provider: str, query: Mapping[str, str]) -> StreamedCall:
    """The call of a start message. Raises InvalidRequest.

    provider: its name, if it is known; "": the fields of the message tell. query: of the stream's
    address; parameters in the message take precedence.
    """
    start = message.start
    if message.event != "start" or start is None:
        raise InvalidRequest(
            f"Expected the message 'connected' or 'start' of a media stream, not "
            f"{message.event[:MAX_QUOTED]!r}.",
            code="invalid_event",
        )
    found = provider or next((p for p in PROVIDERS if _STREAM_FIELDS[p] in start), "")
    if not found:
        raise InvalidRequest(
            f"The start message is of no known provider ({', '.join(PROVIDERS)}): say which one "
            f"it is, as in ?provider=twilio.",
            param="provider",
        )
    known = cast(Provider, found)
    stream = message.stream_id if known == "telnyx" else start.get(_STREAM_FIELDS[known], "")
    parameters = {**query, **_parameters(start, message.extra_headers)}
    format_ = _input_format(known, start)
    return StreamedCall(
        provider=known,
        stream_id=str(stream),
        call_id=str(start.get(_CALL_FIELDS[known], "")),
        input_format=format_,
        output_format=_output_format(known, format_, parameters),
        parameters=parameters,
    )


def mark_of(message: StreamMessage) -> str:
    """The name of the mark whose audio was played."""
    return message.mark.name if message.mark else message.name


def _input_format(provider: Provider, start: Mapping[str, Any]) -> SampleFormat:
    given = start.get("media_format", start.get("mediaFormat"))
    format_ = given if isinstance(given, dict) else {}
    default = "slin" if provider == "exotel" else "mulaw"
    rate = format_.get("sample_rate", format_.get("sampleRate", G711_RATE))
    return _format(str(format_.get("encoding") or default), rate)


def _output_format(
    provider: Provider, input_format: SampleFormat, parameters: Mapping[str, str]
) -> SampleFormat:
    """The codec of the audio that is sent: what the provider sends itself, except for Telnyx.

    Telnyx plays the stream's `bidirectionalCodec`, by default PCMU, and sends the codec of the
    caller's network. No message names the former.
    """
    if provider != "telnyx":
        return input_format
    rate = parameters.get("output_rate", G711_RATE)
    return _format(parameters.get("output_format", "pcmu"), rate)


def _format(name: str, rate: Any) -> SampleFormat:
    encoding = _ENCODINGS.get(name.lower().partition(";")[0])
    if encoding is None:
        raise InvalidRequest(
            f"The codec {name[:MAX_QUOTED]!r} is not supported: let the provider send mu-law "
            f"(PCMU), A-law (PCMA) or 16-bit PCM (L16).",
            param="encoding",
        )
    if encoding != "pcm16":
        return SampleFormat(encoding, G711_RATE)
    text = str(rate)
    if text not in map(str, RATES):
        raise InvalidRequest(
            f"The sample rate {text[:MAX_QUOTED]!r} is not supported: "
            f"{', '.join(map(str, RATES))} are.",
            param="sample_rate",
        )
    return SampleFormat(encoding, int(text))


def _parameters(start: Mapping[str, Any], extra_headers: Any) -> dict[str, str]:
    """The parameters of the stream, by name."""
    given = start.get("customParameters", start.get("custom_parameters", extra_headers))
    if isinstance(given, str):
        given = _split(given)
    if not isinstance(given, dict):
        return {}
    texts = {str(name): str(value) for name, value in given.items()}
    if len(texts) > MAX_PARAMETERS or sum(map(len, texts.values())) > MAX_PARAMETER_CHARS:
        raise InvalidRequest(
            f"The stream has too many parameters: at most {MAX_PARAMETERS} with "
            f"{MAX_PARAMETER_CHARS} characters are accepted.",
            param="parameters",
        )
    return texts


def _split(text: str) -> dict[str, Any]:
    """Plivo's extra headers: a=1;b=2, a=1,b=2, or a JSON object."""
    if text.startswith("{"):
        try:
            tree: Any = json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return {}
        return tree if isinstance(tree, dict) else {}
    pairs = (part.partition("=") for part in text.replace(";", ",").split(","))
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def _swapped(sound: bytes) -> bytes:
    """16-bit samples with their bytes swapped; half a sample at the end is dropped."""
    return np.frombuffer(sound, np.uint16, len(sound) // 2).byteswap().tobytes()
