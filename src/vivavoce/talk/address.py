"""Where a Realtime server listens, from whatever the user typed. Pure."""

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from vivavoce.errors import SettingsError
from vivavoce.talk.options import DEFAULT_MODEL

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_DOOR = "/realtime"


def endpoint(url: str, model: str = "") -> str:
    """The WebSocket address. `model` wins over the one in the address. Raises SettingsError.

    A base such as http://localhost:8080 or https://api.openai.com/v1 is completed, and a host
    without a scheme is spoken to as ws://.
    """
    typed = url.strip()
    try:
        parts = urlsplit(typed if "://" in typed else f"ws://{typed}")
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise _wrong(url, str(exc)) from exc
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise _wrong(url, f"{parts.scheme}:// is none of {', '.join(_SCHEMES)}")
    if not host:
        raise _wrong(url, "it names no host")
    if "@" in parts.netloc:
        raise _wrong(url, "it holds a user or password; give a key with --api-key")
    path = parts.path.rstrip("/")
    if not path.endswith(_DOOR):
        path += _DOOR if path.endswith("/v1") else f"/v1{_DOOR}"
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query["model"] = model or query.get("model") or DEFAULT_MODEL
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


def shown(address: str) -> str:
    """An address without its query, for messages."""
    return urlunsplit((*urlsplit(address)[:3], "", ""))


def _wrong(url: str, reason: str) -> SettingsError:
    place = url.split("@")[-1]  # a password does not belong into a message
    return SettingsError(
        f"{place!r} is not the address of a Realtime server: {reason}; "
        f"write it like ws://localhost:8080/v1/realtime"
    )
