"""Decodes JSON of clients and other servers, and encodes audio in it.

While decoding, a lone surrogate becomes U+FFFD.

JavaScript strings are UTF-16: `JSON.stringify(text.slice(0, 7))` may split an emoji and write the
escape of a lone surrogate, such as "\ud83d". RFC 8259, 8.2, leaves its meaning to the reader;
msgspec refuses it. A text without lone surrogates is decoded once, at no extra cost.
"""

import re
from typing import Any, TypeVar

import msgspec
from pybase64 import b64encode

T = TypeVar("T")

# Escapes of surrogates (and of U+D000 to U+D7FF) that are looked at, 0.7 µs each. A text with more
# of them and a lone one among them is refused as no JSON.
MAX_SURROGATE_ESCAPES = 4_000
MAX_ESCAPED_BYTES = 1024 * 1024  # from the first escape of a text to its last

_HIGH = re.compile(rb"[89abAB][0-9a-fA-F]{2}")  # what follows \\ud
_LOW = re.compile(rb"[c-fC-F][0-9a-fA-F]{2}")
_any: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def decode(raw: bytes | str, decoder: msgspec.json.Decoder[T] = _any) -> T:
    """Decode a JSON text; escapes of lone surrogates become U+FFFD.

    Raises msgspec.ValidationError where the text is not of the decoder's type, msgspec.DecodeError
    where it is not JSON, UnicodeDecodeError where it is not UTF-8, and RecursionError where it is
    nested more deeply than the interpreter's recursion limit.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeEncodeError):
        replaced = replace_lone_surrogates(raw)
        if replaced == raw:
            raise
        return decoder.decode(replaced)


def replace_lone_surrogates(raw: bytes | str) -> bytes:
    """The same JSON text with every lone surrogate, escaped or not, replaced by U+FFFD.

    A text whose escapes lie further apart than MAX_ESCAPED_BYTES is returned as it is.
    """
    if isinstance(raw, str):
        raw = to_bytes(raw)
    start, end = raw.find(b"\\"), raw.rfind(b"\\") + len(rb"\u0000")
    escaped = raw[start:end]
    # no JSON text holds a zero byte, and it is the placeholder below
    if start < 0 or end - start > MAX_ESCAPED_BYTES or b"\0" in escaped:
        return raw
    # without escaped backslashes every backslash that is left begins an escape
    masked = escaped.replace(rb"\\", b"\0\0").replace(rb"\uD", rb"\ud")
    first, *rest = masked.split(rb"\ud", MAX_SURROGATE_ESCAPES)
    parts = [raw[:start], first]
    paired = False  # whether the part before was a high surrogate that this one completes
    for part, following in zip(rest, [*rest, b""][1:], strict=True):
        high, low = _HIGH.match(part), _LOW.match(part)
        completed = high is not None and len(part) == 3 and _LOW.match(following) is not None
        lone = (high and not completed) or (low and not paired)
        parts.append(rb"\ufffd" + part[3:] if lone else rb"\ud" + part)
        paired = completed
    return b"".join(parts).replace(b"\0\0", rb"\\") + raw[end:]


def base64_text(audio: bytes) -> msgspec.Raw:
    """A JSON string of base64, as msgspec encodes bytes, in a third of its instructions."""
    return msgspec.Raw(b'"' + b64encode(audio) + b'"')


def to_bytes(text: str) -> bytes:
    """UTF-8; surrogates without their other half become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
