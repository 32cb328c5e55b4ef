"""Base64 of audio, strict: the alphabet of RFC 4648, section 4, and padding.

pybase64 takes a fifth of the instructions of msgspec, and a ninth of those of the standard library.
"""

from pybase64 import b64decode


def decode(text: bytes) -> bytes:
    """Raises ValueError if that is not base64."""
    decoded: bytes = b64decode(text, validate=True)
    return decoded
