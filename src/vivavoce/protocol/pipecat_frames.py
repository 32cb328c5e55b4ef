"""The binary frames of Pipecat's clients: the protobuf message `pipecat.Frame`, read and written.

A frame is one of five messages (pipecat/frames/frames.proto). Five field types are too few for a
protobuf library; the encoding is https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

MAX_FRAME_BYTES = 2 * 1024 * 1024
_MAX_VARINT_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}

Value: TypeAlias = int | bytes


class FrameError(ValueError):
    """The bytes are not a `pipecat.Frame`."""


class TextFrame(NamedTuple):
    """Field 1."""

    text: str


class AudioFrame(NamedTuple):
    """Field 2: 16-bit PCM."""

    audio: bytes
    sample_rate: int
    num_channels: int


class TranscriptionFrame(NamedTuple):
    """Field 3."""

    text: str
    user_id: str = ""
    timestamp: str = ""


class MessageFrame(NamedTuple):
    """Field 4: a message of RTVI, JSON."""

    data: bytes


class InterruptionFrame(NamedTuple):
    """Field 5: the audio that was not played yet is dropped."""


PipecatFrame: TypeAlias = (
    TextFrame | AudioFrame | TranscriptionFrame | MessageFrame | InterruptionFrame
)


def read_frame(data: bytes) -> PipecatFrame:
    """The frame of a WebSocket message. Raises FrameError."""
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"the frame has {len(data)} bytes; at most {MAX_FRAME_BYTES} are accepted")
    kind, body = 0, b""
    for number, value in _fields(data):
        if 1 <= number <= 5 and isinstance(value, bytes):
            kind, body = number, value  # of a oneof, the last member counts
    fields = dict(_fields(body))
    match kind:
        case 1:
            return TextFrame(_text(fields, 3))
        case 2:
            audio = fields.get(3, b"")
            if not isinstance(audio, bytes):
                raise FrameError("field 3 of the audio holds no bytes")
            return AudioFrame(audio, _number(fields, 4), _number(fields, 5))
        case 3:
            return TranscriptionFrame(_text(fields, 3), _text(fields, 4), _text(fields, 5))
        case 4:
            return MessageFrame(_text(fields, 1).encode())
        case 5:
            return InterruptionFrame()
        case _:
            raise FrameError("the message holds no frame")


def write_text(number: int, text: str) -> bytes:
    return _member(1, _integer(1, number) + _member(2, b"text") + _member(3, text.encode()))


def write_transcription(number: int, text: str, user_id: str) -> bytes:
    body = _integer(1, number) + _member(2, b"transcription")
    return _member(3, body + _member(3, text.encode()) + _member(4, user_id.encode()))


def write_message(data: bytes) -> bytes:
    """A frame with a message of RTVI, JSON."""
    return _member(4, _member(1, data))


def write_audio(number: int, audio: bytes, sample_rate: int) -> bytes:
    """A frame with 16-bit mono PCM; `number` counts the frames."""
    body = (
        _integer(1, number)
        + _member(2, b"audio")
        + _member(3, audio)
        + _integer(4, sample_rate)
        + _integer(5, 1)
    )
    return _member(2, body)


def write_interruption(number: int) -> bytes:
    return _member(5, _integer(1, number) + _member(2, b"interruption"))


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of each field. Raises FrameError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, at = _varint(data, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise FrameError(f"there is no wire type {wire_type}")
        if size > len(data) - at:
            raise FrameError(f"field {number} is longer than the message")
        if wire_type == _BYTES:
            yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where the next field begins."""
    value = 0
    for index, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise FrameError("a number has no end")


def _text(fields: dict[int, Value], number: int) -> str:
    value = fields.get(number, b"")
    try:
        return value.decode() if isinstance(value, bytes) else ""
    except UnicodeDecodeError as exc:
        raise FrameError(f"field {number} is not UTF-8") from exc


def _number(fields: dict[int, Value], number: int) -> int:
    value = fields.get(number, 0)
    return value if isinstance(value, int) else 0


def _integer(number: int, value: int) -> bytes:
    return _written_varint(number << 3 | _VARINT) + _written_varint(value)


def _member(number: int, value: bytes) -> bytes:
    return _written_varint(number << 3 | _BYTES) + _written_varint(len(value)) + value


def _written_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
