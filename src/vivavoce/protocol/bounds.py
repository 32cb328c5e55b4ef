"""Limits of what decoding one JSON text of a client may cost: its size, values and depth.

They are checked by passes over the bytes in C. Walking the decoded values in Python would block the
event loop for seconds: 4.8 s for 19 MB of small items.
"""

import re

from vivavoce.errors import InvalidRequest

MAX_FRAME_BYTES = 24 * 1024 * 1024  # 15 MiB of audio are 20 MiB of base64
MAX_TEXT_BYTES = 384 * 1024  # of a frame, without its audio and images
MAX_VALUES = 10_000  # JSON values in a frame
MAX_DEPTH = 100  # levels of free-form JSON; what is echoed must also be encodable

_MAX_QUOTES = 10_000  # in a frame above MAX_TEXT_BYTES; each costs 0.3 µs
_MEDIA_KEY = re.compile(rb'"(?:audio|image_url)"\s{0,8}:\s{0,8}"$')
_KEY_BYTES = 32  # that contain one of those keys
_AS_PAIRS = bytes.maketrans(b"[{]}", b"(())")


def check_size(raw: bytes, what: str = "event") -> bytes:
    """Raise InvalidRequest if decoding the text would take too long. Cheap for plain audio.

    Returns the text, without its audio and images if it is larger than MAX_TEXT_BYTES.
    """
    size = len(raw)
    if size <= 2 * MAX_VALUES:
        return raw
    if size > MAX_FRAME_BYTES:
        raise InvalidRequest(
            f"The {what} is too large: {size} bytes. At most {MAX_FRAME_BYTES} are accepted; "
            f"send audio in smaller chunks.",
            code="event_too_large",
        )
    text = raw if size <= MAX_TEXT_BYTES else _without_media(raw)
    if len(text) > MAX_TEXT_BYTES:
        raise text_too_large(size, what)
    if _has_inner(text) and _has_many_values(text):
        raise InvalidRequest(
            f"The {what} holds too many JSON values. At most {MAX_VALUES} are accepted.",
            code="event_too_large",
        )
    return text


def text_too_large(size: int, what: str = "event") -> InvalidRequest:
    """The error for a text that is too large without its audio and images."""
    return InvalidRequest(
        f"The {what} is too large: {size} bytes. At most {MAX_TEXT_BYTES} are accepted, apart from "
        f"audio and images.",
        code="event_too_large",
    )


def is_too_deep(text: bytes) -> bool:
    """Whether a member of valid JSON has more than MAX_DEPTH levels.

    Each round removes the innermost pairs of brackets, and so one level.
    """
    if not _has_inner(text) or text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    pairs = _outside_strings(_without_escapes(text), b"[]{}").translate(_AS_PAIRS)
    for _ in range(MAX_DEPTH + 2):
        pairs = pairs.replace(b"()", b"")
        if not pairs:
            return False
    return True


def _has_inner(text: bytes) -> bool:
    """Whether it may be something else than a flat object, such as the usual append of audio."""
    return text.find(b"[") >= 0 or text.find(b"{", 1) >= 0


def _has_many_values(text: bytes) -> bool:
    """Whether there are more than MAX_VALUES values, by the separators outside strings."""
    if text.count(b",") + text.count(b"[") + text.count(b"{") <= MAX_VALUES:
        return False
    masked = _without_escapes(text)
    if masked.count(b'"') > 4 * MAX_VALUES:  # a value has at most two strings, one of them its key
        return True
    outside = _outside_strings(masked, b",[{")
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") > MAX_VALUES


def _without_escapes(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    return text.replace(rb"\\", b"").replace(rb"\"", b"")


def _outside_strings(text: bytes, wanted: bytes) -> bytes:
    """Those bytes of a text without escapes that are outside strings.

    Two quotes without a wanted byte between them are removed: what follows stays inside a string,
    or outside. Few quotes are left, and each piece of text costs 0.1 µs.
    """
    left = text.translate(None, bytes(set(range(256)) - {*wanted, *b'"'})).replace(b'""', b"")
    return b"".join(left.split(b'"')[::2])


def _without_media(raw: bytes) -> bytes:
    """The text without the strings under the keys `audio` and `image_url`.

    Unchanged if it has too many quotes.
    """
    pieces: list[bytes] = []
    kept = start = 0
    while (end := raw.find(b'"', start)) >= 0:
        media = _MEDIA_KEY.search(raw, max(0, start - _KEY_BYTES), start)
        if not media:
            pieces.append(raw[start:end])
            kept += end - start
        pieces.append(b'"')
        start = end + 1
        if kept > MAX_TEXT_BYTES or len(pieces) > 2 * _MAX_QUOTES:
            return raw
    return b"".join((*pieces, raw[start:]))
