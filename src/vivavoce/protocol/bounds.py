"""Bounds on what one JSON text of a client may cost: its size, its values and its depth.

They are found by passes over the bytes in C. A walk over the decoded values in Python would hold
the event loop for seconds: 19 MB of small items took 4.8 s.
"""

from vivavoce.errors import InvalidRequest

MAX_FRAME_BYTES = 24 * 1024 * 1024  # 15 MiB of audio are 20 MiB of base64
MAX_TEXT_BYTES = 1024 * 1024  # of a frame, apart from sound and pictures
MAX_VALUES = 20_000  # JSON values in a frame
MAX_DEPTH = 100  # levels of free-form JSON; what is echoed must also be encodable

_MIN_MEDIA_BYTES = 1024  # a string that is shorter counts as text
_MEDIA_HEAD = 128  # bytes in which a data URI may have its comma
_MAX_QUOTES = 10_000  # in a frame above MAX_TEXT_BYTES; each costs 0.3 µs
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def check_size(raw: bytes, what: str = "event") -> None:
    """Raise InvalidRequest where decoding the text would take too long. Cheap for plain audio."""
    size = len(raw)
    if size <= 2 * MAX_VALUES:
        return
    if size > MAX_FRAME_BYTES:
        raise InvalidRequest(
            f"The {what} is too large: {size} bytes. At most {MAX_FRAME_BYTES} are taken; "
            f"send sound in smaller pieces.",
            code="event_too_large",
        )
    if size > MAX_TEXT_BYTES:
        raw = _without_media(raw)
        if len(raw) > MAX_TEXT_BYTES:
            raise text_too_large(size, what)
    if _has_inner(raw) and _has_many_values(raw):
        raise InvalidRequest(
            f"The {what} holds too many JSON values. At most {MAX_VALUES} are taken.",
            code="event_too_large",
        )


def text_too_large(size: int, what: str = "event") -> InvalidRequest:
    """The error for a large text that does not consist of sound or pictures."""
    return InvalidRequest(
        f"The {what} is too large: {size} bytes. At most {MAX_TEXT_BYTES} are taken, apart from "
        f"sound and pictures.",
        code="event_too_large",
    )


def is_too_deep(raw: bytes) -> bool:
    """Whether a valid JSON text has more than MAX_DEPTH levels inside a member of its members."""
    if not _has_inner(raw) or raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _outside_strings(raw).translate(_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH + 2):  # each round takes the innermost level away
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _has_inner(raw: bytes) -> bool:
    """Whether it may be anything but a flat object, as the usual append of audio is."""
    return raw.find(b"[") >= 0 or raw.find(b"{", 1) >= 0


def _has_many_values(raw: bytes) -> bool:
    """Whether there are more than MAX_VALUES, counted by what separates them outside strings."""
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") <= MAX_VALUES:
        return False
    masked = _without_escapes(raw)
    if masked.count(b'"') > 4 * MAX_VALUES:  # a value has two strings at most, one of them its key
        return True
    outside = _outside_strings(masked)
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") > MAX_VALUES


def _without_escapes(raw: bytes) -> bytes:
    return raw.replace(rb"\\", b"").replace(rb"\"", b"")


def _outside_strings(raw: bytes) -> bytes:
    return b"".join(_without_escapes(raw).split(b'"')[::2])


def _without_media(raw: bytes) -> bytes:
    """The text with long strings cut that may be base64 or a data URI: no blanks, no brackets."""
    pieces: list[bytes] = []
    kept = start = 0
    while (end := raw.find(b'"', start)) >= 0:
        head = start + _MEDIA_HEAD
        media = end - start >= _MIN_MEDIA_BYTES and not any(
            raw.find(mark, head, end) >= 0 for mark in (b" ", b",", b"[", b"{")
        )
        pieces.append(raw[start : head if media else end + 1])
        kept += len(pieces[-1])
        start = end + 1
        if kept > MAX_TEXT_BYTES or len(pieces) > _MAX_QUOTES:
            return raw
    return b"".join((*pieces, raw[start:]))
