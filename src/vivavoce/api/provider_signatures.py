"""The signatures by which telephone providers prove that a request is theirs, and [telephony].

Documentation: Twilio, "Secure webhooks" (HMAC-SHA-1 of the URL and the sorted parameters); Telnyx,
"Webhook signing" (Ed25519 of the time, `|` and the body); Plivo, "Signature validation", V3
(HMAC-SHA-256 of the URL with its sorted query, the sorted parameters and a nonce). Exotel does not
sign.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from vivavoce.errors import Unauthorized
from vivavoce.protocol.telephony_messages import Provider
from vivavoce.secret import Secret, conceal

MAX_AGE_S = 300
"""Of a request that is signed with its time."""
_ED25519_BYTES = 32


class TelephonySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[telephony]: calls that a telephone provider passes on."""

    public_url: Annotated[str, Meta(pattern=r"^$|^https?://[^?#@]+$")] = ""
    """The address at which providers reach the server, https://voice.example.com. Empty: that of
    each request, by its Host and X-Forwarded-Proto."""
    twilio_auth_token: str = ""
    """With it Twilio's requests must be signed; so the following two."""
    telnyx_public_key: str = ""
    plivo_auth_token: str = ""
    key: str = ""
    """The name of the API key on which calls are booked that a signature lets in."""

    def __post_init__(self) -> None:
        if self.telnyx_public_key and len(_decoded(self.telnyx_public_key)) != _ED25519_BYTES:
            raise ValueError(
                "telnyx_public_key is not the base64 of an Ed25519 key: copy it from Account "
                "Settings, Keys & Credentials"
            )
        conceal(self, "twilio_auth_token", "plivo_auth_token")

    def secret_of(self, provider: Provider) -> str:
        """What the requests of a provider are checked with; "": they are not."""
        return {
            "twilio": self.twilio_auth_token,
            "telnyx": self.telnyx_public_key,
            "plivo": self.plivo_auth_token,
        }.get(provider, "")


class SignedRequest(msgspec.Struct, frozen=True):
    """A request, as its sender signed it."""

    method: str
    url: str
    """With the query, as the provider was told it."""
    headers: Mapping[str, str]
    body: bytes
    form: tuple[tuple[str, str], ...]


def check_signature(provider: Provider, secret: str, request: SignedRequest, now: float) -> None:
    """Raises Unauthorized: the request is not signed, or not with that secret."""
    if isinstance(secret, Secret):
        secret = secret.reveal()
    if provider == "twilio":
        name, setting = "X-Twilio-Signature", "twilio_auth_token"
        valid = _matches(request.headers.get(name, ""), _twilio_signatures(secret, request))
    elif provider == "plivo":
        name, setting = "X-Plivo-Signature-V3", "plivo_auth_token"
        nonce = request.headers.get(f"{name}-Nonce", "")
        given = (
            f"{request.headers.get(name, '')},{request.headers.get('X-Plivo-Signature-Ma-V3', '')}"
        )
        valid = any(
            _matches(one.strip(), (_plivo_signature(secret, request, nonce),))
            for one in given.split(",")
        )
    else:
        name, setting = "telnyx-signature-ed25519", "telnyx_public_key"
        valid = _telnyx_valid(secret, request, now)
    if not valid:
        missing = "" if request.headers.get(name) else f"there is no header {name}; "
        raise Unauthorized(
            f"The request is not signed by {provider.capitalize()}: {missing}expected a signature "
            f"of {request.url.partition('?')[0]} by the key in [telephony] {setting}. Where "
            f"{provider.capitalize()} calls another address, set [telephony] public_url."
        )


def _twilio_signatures(secret: str, request: SignedRequest) -> Iterator[str]:
    """Of the URL, with and without its port: Twilio signs one or the other."""
    form = "".join(name + value for name, value in sorted(set(request.form)))
    for url in _port_variants(request.url):
        digest = hmac.new(secret.encode(), (url + form).encode(), hashlib.sha1)
        yield base64.b64encode(digest.digest()).decode()


def _plivo_signature(secret: str, request: SignedRequest, nonce: str) -> str:
    """Of URL?query.parameters.nonce, where the query and the parameters are sorted."""
    split = urlsplit(request.url)
    query = parse_qsl(split.query, keep_blank_values=True)
    pairs = "&".join(f"{name}={value}" for name, value in sorted(query))
    text = urlunsplit((split.scheme, split.netloc, split.path, "", ""))
    if pairs or request.form:
        text += f"?{pairs}"
    if pairs and request.form:
        text += "."
    text += "".join(name + value for name, value in sorted(request.form))
    digest = hmac.new(secret.encode(), f"{text}.{nonce}".encode(), hashlib.sha256)
    return base64.b64encode(digest.digest()).decode()


def _telnyx_valid(key: str, request: SignedRequest, now: float) -> bool:
    # an import of 30 ms that no other command needs
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    timestamp = request.headers.get("telnyx-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        return False
    if abs(now - int(timestamp)) > MAX_AGE_S:
        return False
    signature = _decoded(request.headers.get("telnyx-signature-ed25519", ""))
    try:
        public = Ed25519PublicKey.from_public_bytes(_decoded(key))
        public.verify(signature, timestamp.encode() + b"|" + request.body)
    except InvalidSignature:
        return False
    return True


def _matches(given: str, signatures: Iterable[str]) -> bool:
    """Whether a signature is one of these; all are compared."""
    encoded = given.encode(errors="replace")
    return any([hmac.compare_digest(encoded, one.encode()) for one in signatures])


def _port_variants(url: str) -> tuple[str, str]:
    split = urlsplit(url)
    standard = {"https": ":443", "http": ":80"}.get(split.scheme, "")
    host = split.netloc
    named = host.rpartition(":")[2].isdigit()
    other = host.rpartition(":")[0] if named else host + standard
    return url, url.replace(f"//{host}", f"//{other}", 1)


def _decoded(text: str) -> bytes:
    """Base64; what is not base64 is empty."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
