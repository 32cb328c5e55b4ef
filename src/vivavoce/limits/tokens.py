"""Short-lived keys: signed tokens, which any process with the same secret can check.

A token is `ek_`, the payload and its signature, both base64url without padding, which is what
fits into a header, a query and a subprotocol alike (RFC 6455 names must be RFC 9110 tokens).
The payload is compressed JSON: it is signed, not hidden.
"""

import base64
import binascii
import hashlib
import hmac
import zlib
from typing import Any, Literal

import msgspec

from vivavoce.secret import Secret

PREFIX = "ek_"
PURPOSE = "realtime"
MAX_TOKEN_CHARS = 48 * 1024
MAX_PAYLOAD_BYTES = 256 * 1024


class Grant(msgspec.Struct, frozen=True):
    """What a token allows: sessions that begin with these settings, until it expires."""

    id: str
    expires_at: int
    """Unix seconds."""
    session: dict[str, Any] | None = None
    """The `session` of a session.update, as this server has checked it."""
    key: str = ""
    """The name of the API key with which the token was made."""
    purpose: Literal["realtime"] = "realtime"


class TokenError(Exception):
    """A token is not valid; the message says why without repeating it."""


class TokenMint:
    """Signs tokens with a secret (HMAC-SHA-256), and checks them."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret.reveal().encode()

    def issue(self, grant: Grant) -> Secret:
        payload = _base64(zlib.compress(msgspec.json.encode(grant), 9))
        return Secret(f"{PREFIX}{payload}.{self._signature(payload)}")

    def check(self, token: str, now: float) -> Grant:
        """The grant of a token. Raises TokenError: forged, not a token, or expired."""
        text = Secret(token).reveal()
        payload, _, signature = text.removeprefix(PREFIX).partition(".")
        if (
            len(text) > MAX_TOKEN_CHARS
            or not text.isascii()
            or not hmac.compare_digest(signature, self._signature(payload))
        ):
            raise TokenError("the short-lived key is not one of this server's")
        grant = _unpacked(payload)
        if grant.expires_at <= now:
            raise TokenError("the short-lived key has expired")
        return grant

    def _signature(self, payload: str) -> str:
        digest = hmac.new(self._secret, f"{PURPOSE}.{payload}".encode(), hashlib.sha256)
        return _base64(digest.digest())


def _unpacked(payload: str) -> Grant:
    try:
        packed = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        plain = zlib.decompressobj().decompress(packed, MAX_PAYLOAD_BYTES)
        return msgspec.json.decode(plain, type=Grant)
    except (binascii.Error, zlib.error, msgspec.MsgspecError) as exc:
        raise TokenError("the short-lived key is not one of this server's") from exc


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
