"""The recordings in a file that consists of several audio files joined end to end.

WAV is RIFF (Microsoft and IBM, 1991): chunks of a four-letter name, a 32-bit length and that many
bytes, with one more if the length is odd. Writers into a pipe, crashed recorders and careless
programs write wrong lengths: here audio ends where the next chunk or the next file begins, or with
the file, whatever the header says. Ogg: RFC 3533. FLAC: RFC 9639. Matroska: RFC 9559. FFmpeg itself
reads joined MP3 and AAC as one stream.
"""

import io
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, NamedTuple

MAX_PARTS = 256
"""Recordings in one file: decoding costs a few milliseconds for each, however short it is."""
_MAX_CHUNKS = 64  # before the audio of a WAV file
_MAX_FORMAT_BYTES = 1 << 10
_SCANNED_BYTES = 1 << 20
_MAX_LENGTH = 0xFFFFFFFF
_WAV_FORMAT = b"WAVEfmt "  # from byte 8 of a WAV file on
_OGG_FIRST = b"OggS\x00\x02"  # the page with which a logical stream begins
_FLAC = b"fLaC"
_FLAC_INFO = (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22")  # the header of the block that comes first
_EBML = b"\x1aE\xdf\xa3"  # the first bytes of a Matroska or WebM file
_EBML_HEAD_BYTES = 64  # which contain the document type


class FilePart(NamedTuple):
    """One recording: `head`, followed by the bytes of the file from `start` to `end`."""

    head: bytes
    start: int
    end: int


class PartReader:
    """A recording as a file of its own, for FFmpeg: read(), seek() and tell(), and no name."""

    def __init__(self, source: IO[bytes], part: FilePart) -> None:
        self._source = source
        self._head, self._start, end = part
        self._size = len(self._head) + end - part.start
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        size = left if size < 0 else min(size, left)
        data = self._head[self._at : self._at + size]
        self._at += len(data)
        if len(data) < size:
            self._source.seek(self._start + self._at - len(self._head))
            more = self._source.read(size - len(data))
            self._at += len(more)
            data += more
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_CUR: self._at, io.SEEK_END: self._size}.get(whence, 0)
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at


def parts(source: IO[bytes]) -> list[FilePart]:
    """The recordings in a file, in order; one for a file of any other kind.

    At most MAX_PARTS + 1. Wrong lengths in WAV headers are corrected. Leaves `source` at any
    position.
    """
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    start = source.read(12)
    found: list[FilePart] = []
    if start[:4] == b"RIFF" and start[8:] == b"WAVE":
        found = _wav_parts(source, size)
    elif start[:4] == b"OggS":
        found = _parts_from(_ogg_starts(source), size)
    elif start[:4] == _FLAC:
        found = _parts_from(_flac_starts(source), size)
    elif start[:4] == _EBML:
        found = _parts_from(_matroska_starts(source), size)
    return found or [FilePart(b"", 0, size)]


def _wav_parts(source: IO[bytes], size: int) -> list[FilePart]:
    """One part for each WAV file whose format and audio are found."""
    found: list[FilePart] = []
    starts = [0]
    for at in _occurrences(source, _WAV_FORMAT, 12):
        source.seek(at - 8)
        if source.read(4) == b"RIFF":
            starts.append(at - 8)
        if len(starts) > MAX_PARTS:
            break
    for start, end in zip(starts, [*starts[1:], size], strict=True):
        if (part := _wav_part(source, start, end)) is not None:
            found.append(part)
    return found


def _wav_part(source: IO[bytes], start: int, end: int) -> FilePart | None:
    """The audio of the WAV file that begins at `start` and ends before `end`."""
    format_ = b""
    at = start + 12
    for _ in range(_MAX_CHUNKS):
        source.seek(at)
        name, length = source.read(4), int.from_bytes(source.read(4), "little")
        at += 8
        if name == b"data" and format_:
            if not _chunks_fill(source, at + length, end):
                length = max(0, end - at)
            told = struct.pack("<4sI", b"data", min(length, _MAX_LENGTH))
            head = struct.pack("<4sI4s", b"RIFF", _MAX_LENGTH, b"WAVE") + format_ + told
            return FilePart(head, at, at + length)
        if name == b"fmt " and length <= _MAX_FORMAT_BYTES:
            format_ = struct.pack("<4sI", name, length) + source.read(length + length % 2)
        at += length + length % 2
        if at >= end:
            break
    return None


def _chunks_fill(source: IO[bytes], at: int, end: int) -> bool:
    """Whether there are only whole chunks from `at`, or one byte later, up to `end`."""
    for here in (at, at + 1):
        while here + 8 <= end:
            source.seek(here)
            name, length = source.read(4), int.from_bytes(source.read(4), "little")
            if not all(0x20 <= letter < 0x7F for letter in name):
                break
            here += 8 + length + length % 2
        else:
            if here <= end + 1:
                return True
    return False


def _parts_from(starts: Iterable[int], size: int) -> list[FilePart]:
    """Parts that begin there, each of which ends where the next one begins."""
    some = [0, *islice((start for start in starts if start), MAX_PARTS)]
    return [FilePart(b"", start, end) for start, end in zip(some, [*some[1:], size], strict=True)]


def _ogg_starts(source: IO[bytes]) -> Iterator[int]:
    """The start of each link of a chained Ogg stream: the first pages of its streams come
    together."""
    expected = -1  # the position of the next page if it belongs to the same link
    for at in _occurrences(source, _OGG_FIRST, 0):
        if at != expected:
            yield at
        source.seek(at + 26)
        segments = source.read(1)
        lacing = source.read(segments[0]) if segments else b""
        expected = at + 27 + len(lacing) + sum(lacing)


def _flac_starts(source: IO[bytes]) -> Iterator[int]:
    for at in _occurrences(source, _FLAC, 0):
        source.seek(at + len(_FLAC))
        if source.read(4) in _FLAC_INFO:
            yield at


def _matroska_starts(source: IO[bytes]) -> Iterator[int]:
    for at in _occurrences(source, _EBML, 0):
        source.seek(at)
        head = source.read(_EBML_HEAD_BYTES)
        if b"webm" in head or b"matroska" in head:
            yield at


def _occurrences(source: IO[bytes], pattern: bytes, start: int) -> Iterator[int]:
    """The positions of the pattern in a file. Others may seek in it meanwhile."""
    at = start
    while True:
        source.seek(at)
        data = source.read(_SCANNED_BYTES)
        found = data.find(pattern)
        while found >= 0:
            yield at + found
            found = data.find(pattern, found + 1)
        if len(data) < _SCANNED_BYTES:
            return
        at += len(data) - len(pattern) + 1
