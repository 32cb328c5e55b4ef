"""What the server and a recogniser process say to each other: length-prefixed msgpack frames.

Orders go to the process, reports come back. No clock, no I/O: bytes and data only.
"""

import struct
from typing import TypeAlias

import msgspec

HEADER_BYTES = 4
"""A frame is its length, 32 bits, big-endian, and that many bytes of msgpack."""


class Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of every order and report."""


class Open(Frame, frozen=True):
    """A new utterance. The number is never used again."""

    stream: int


class Feed(Frame, frozen=True):
    """16-bit mono PCM at 16 kHz, whole samples. At most WINDOW_BYTES are not yet Taken."""

    stream: int
    audio: bytes


class End(Frame, frozen=True):
    """All audio of the utterance has been fed: its last Heard is owed."""

    stream: int


class Cancel(Frame, frozen=True):
    """Nobody listens any more: forget the utterance at once. It overtakes the audio."""

    stream: int


class Ready(Frame, frozen=True):
    """The model is loaded. Sent once, first."""


class Taken(Frame, frozen=True):
    """So much audio has left the queue; as much again may be fed."""

    stream: int
    size: int


class HeardWord(msgspec.Struct, frozen=True, array_like=True):
    """A word and when it was said, in milliseconds from the start of the utterance."""

    text: str
    start_ms: int
    end_ms: int


class Heard(Frame, frozen=True):
    """All words of an utterance so far. The first `stable` words will not change any more."""

    stream: int
    words: tuple[HeardWord, ...]
    stable: int
    final: bool


Order: TypeAlias = Open | Feed | End | Cancel
Report: TypeAlias = Ready | Taken | Heard

WINDOW_BYTES = 64_000
"""Two seconds: audio of one utterance that may wait in the process."""

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def packed(frame: Order | Report) -> bytes:
    """The frame as it goes over a pipe."""
    body = _encoder.encode(frame)
    return struct.pack(">I", len(body)) + body


def body_bytes(header: bytes) -> int:
    """How many bytes follow the header of a frame."""
    size: int = struct.unpack(">I", header)[0]
    return size


def order(body: bytes) -> Order:
    return _orders.decode(body)


def report(body: bytes) -> Report:
    return _reports.decode(body)
