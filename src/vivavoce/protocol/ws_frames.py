"""Passes on whole text frames of a WebSocket (RFC 6455, 5.2) before a reader makes messages.

A message costs a queue and a wake-up of the task that reads it. A frame that can be passed on
unchanged needs neither.
"""

import struct
from collections.abc import Callable
from typing import Protocol, TypeAlias

MAX_PASSED_AT_ONCE = 64
"""The most frames of one read; then other tasks may run."""
MAX_JOINED_BYTES = 1 << 16
"""Longer frames are given to the reader in the pieces in which they arrive."""
TEXT, BINARY = 1, 2
"""The opcode of a frame."""
_TEXT = 0x81  # final, of no extension
_MASKED = 0x80
_MEDIUM = bytes((_TEXT, 126))  # begins a frame of 126 to 65,535 bytes
_MEDIUM_MASKED = bytes((_TEXT, 126 | _MASKED))
_pack_medium = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack

Pass: TypeAlias = Callable[[bytes], bool]
"""Gets the text of a message. False: it was not used."""


class MessageReader(Protocol):
    """aiohttp's WebSocketReader: makes messages, and queues them for the task that reads."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Bytes of the connection. Returns whether it has failed, and the bytes that are left."""
        ...

    def feed_eof(self) -> None:
        """No more bytes come."""
        ...


class PassingReader:
    """Takes the place of a reader, and gives it all whole frames except those that are passed on.

    No frame is passed on while an earlier message waits to be read: set `idle` while the task that
    reads the messages waits for one.
    """

    __slots__ = (
        "_begin",
        "_head",
        "_left",
        "_medium",
        "_reader",
        "_rest",
        "_size",
        "_unmask",
        "idle",
        "passes",
    )

    def __init__(
        self, reader: MessageReader, unmask: Callable[[bytes, bytearray], None] | None = None
    ) -> None:
        """unmask: XORs data in place with the four bytes of a mask; None: no frame is masked."""
        self._reader = reader
        self._unmask = unmask
        self._medium = _MEDIUM if unmask is None else _MEDIUM_MASKED
        self._head, self._size = b"", 0  # of the last frame that was taken
        self._begin = 4 if unmask is None else 8  # of the payload of such a frame
        self._rest = b""  # the beginning of a frame
        self._left = 0  # bytes of a long frame that have not arrived
        self.idle = False
        self.passes: Pass | None = None
        """Called with each text, in order; None: no frame is passed on."""

    def take(self, data: bytes) -> bool:
        """Whether these bytes are exactly one text frame of medium length, and it was passed on.

        A shorter way for most reads. False: nothing was done, and feed_data() must get the bytes.
        """
        passes = self.passes
        if passes is None or not self.idle or self._rest or self._left:
            return False
        if (len(data) != self._size or data[:4] != self._head) and not self._measure(data):
            return False
        if (unmask := self._unmask) is None:
            return passes(data[4:])
        text = bytearray(data)
        del text[:8]  # moves nothing
        unmask(data[4:8], text)
        return passes(bytes(text))

    def _measure(self, data: bytes) -> bool:
        """Note the head and the size of a frame of medium length. False: it is another."""
        size, begin = len(data), self._begin
        if data[:2] != self._medium or size < begin:
            return False
        if (data[2] << 8 | data[3]) + begin != size:
            return False
        self._head, self._size = data[:4], size
        return True

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Bytes of the connection; returns what the reader returns."""
        if self._left:
            piece = data[: self._left]
            self._left -= len(piece)
            failed, rest = self._reader.feed_data(piece)
            data = data[len(piece) :]
            if failed or not data:
                return failed, rest
        if self._rest:
            data, self._rest = self._rest + data, b""
        begin = self._pass(data) if self.idle and self.passes else 0
        end = self._end_of_frames(data, begin)
        if begin == end:
            return False, b""
        self.idle = False
        return self._reader.feed_data(data if end - begin == len(data) else data[begin:end])

    def feed_eof(self) -> None:
        self._reader.feed_eof()

    def _pass(self, data: bytes) -> int:
        """Pass frames on; return the start of the first one that is not."""
        at, size, unmask = 0, len(data), self._unmask
        for _ in range(MAX_PASSED_AT_ONCE):
            start, end = _payload(data, at)
            if not start or end > size or data[at] != _TEXT or self.passes is None:
                break
            if bool(data[at + 1] & _MASKED) is (unmask is None):
                break
            text = data[start:end]
            if unmask is not None:
                unmasked = bytearray(text)
                unmask(data[start - 4 : start], unmasked)
                text = bytes(unmasked)
            if not self.passes(text):
                break
            at = end
        return at

    def _end_of_frames(self, data: bytes, at: int) -> int:
        """The end of the bytes for the reader; the beginning of an incomplete frame is kept."""
        size = len(data)
        while at < size:
            start, end = _payload(data, at)
            if start and end <= size:
                at = end
            elif start and end - at > MAX_JOINED_BYTES:
                self._left = end - size
                return size
            else:
                self._rest = data[at:]
                break
        return at


def frame_head(opcode: int, size: int, *, masked: bool) -> bytes:
    """The header of a final frame with a payload of so many bytes, up to its mask."""
    bit = _MASKED if masked else 0
    if size < 126:
        return bytes((0x80 | opcode, size | bit))
    if size < 1 << 16:
        return _pack_medium(0x80 | opcode, 126 | bit, size)
    return _pack_long(0x80 | opcode, 127 | bit, size)


def _payload(data: bytes, at: int) -> tuple[int, int]:
    """The start and end of the payload of a frame; (0, 0): its header is incomplete."""
    size = len(data) - at
    if size < 2:
        return 0, 0
    length = data[at + 1]
    header = 2
    if length >= _MASKED:
        header, length = 6, length - _MASKED
    if length >= 126:
        wide = 2 if length == 126 else 8
        header += wide
        if size < header:
            return 0, 0
        length = int.from_bytes(data[at + 2 : at + 2 + wide], "big")
    elif size < header:
        return 0, 0
    start = at + header
    return start, start + length
