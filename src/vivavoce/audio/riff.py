"""The head of a WAV file: written for a stream, and read for what it promises.

The format is Microsoft's and IBM's RIFF of 1991: chunks of a four-letter name, a 32-bit length and
that many bytes, with one more where the length is odd.
"""

import struct
from typing import IO

UNKNOWN = 0xFFFFFFFF
"""The length that a stream gives, since nobody knows it yet."""

_UNTOLD = 0x7FFFF000
"""Lengths from here on are what writers into a pipe put for "unknown", each its own."""
_MOST_CHUNKS = 64  # before the sound; a file with more is not worth the reading


def streaming_header(rate: int) -> bytes:
    """The 44 bytes before 16-bit mono PCM of unknown length."""
    return b"".join(
        (
            struct.pack("<4sI4s", b"RIFF", UNKNOWN, b"WAVE"),
            struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16),
            struct.pack("<4sI", b"data", UNKNOWN),
        )
    )


def missing_seconds(source: IO[bytes]) -> float:
    """How much shorter the sound is than a WAV file's head promises: 0.0 where nothing is missing.

    0.0 too for what is no WAV file, for one whose head does not know, and for one that has no sound
    at all. Leaves `source` anywhere.
    """
    size = source.seek(0, 2)
    source.seek(0)
    head = source.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return 0.0
    at = 12
    bytes_per_second = 0
    for _ in range(_MOST_CHUNKS):
        source.seek(at)
        chunk = source.read(24)
        if len(chunk) < 8:
            return 0.0
        name, length = chunk[:4], int.from_bytes(chunk[4:8], "little")
        at += 8
        if name == b"fmt " and len(chunk) == 24:
            bytes_per_second = int.from_bytes(chunk[16:20], "little")
        if name == b"data":
            if length >= _UNTOLD or size == at or not bytes_per_second:
                return 0.0
            return max(0, length - (size - at)) / bytes_per_second
        at += length + length % 2
    return 0.0
