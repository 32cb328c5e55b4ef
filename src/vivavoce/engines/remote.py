"""A server elsewhere that engines speak to: its address, its credentials, and its failures.

Every failure is an EngineError in one sentence, which names the address without user, password and
query, names the remedy, and quotes what the server said, shortened, with every secret in it masked.
`retry_after_s` is set where the same request may succeed later.
"""

import errno
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from vivavoce.errors import EngineError
from vivavoce.protocol import json

MAX_QUOTED_CHARACTERS = 300
MAX_SECRETS = 64
MIN_SECRET_CHARACTERS = 4  # `x` and the like stand for a key where none is needed

_USER = re.compile(r"//[^/@]*@")


def parse_base_url(text: str) -> URL:
    """The base URL without a slash at its end. Raises ValueError: no http(s) URL with a host."""
    url = URL(text.strip())
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("base_url must begin with http:// or https:// and name a host")
    return url.with_path(url.path.rstrip("/")).with_query(url.query)


class ServerKind(msgspec.Struct, frozen=True):
    """The words in which errors name a server and what it should have sent."""

    name: str
    """Such as "LLM": "the LLM at ..."."""
    product: str
    """What it sends, with its article: "a chat completion"."""
    options: str = "model and extra"
    """Settings to check when it rejects a request."""


class RemoteServer:
    """Address and credentials of one server, and the EngineError for each way it can fail."""

    def __init__(
        self,
        base_url: str,
        kind: ServerKind,
        *,
        api_key: str = "",
        headers: Mapping[str, str],
        key_header: str = "Authorization",
        has_key: bool = False,
    ) -> None:
        """key_header: where the API key is sent; in Authorization it is a bearer token.

        has_key: the key is among the headers.
        """
        self._base = parse_base_url(base_url)
        self._kind = kind
        self._has_key = has_key or bool(api_key)
        self.address = str(self._base.with_user(None).with_query(None).with_fragment(None))
        """To be shown: without user, password and query."""
        self.name = f"the {kind.name} at {self.address}"
        # identity: a codec would hold chunks back
        self.headers = CIMultiDict({"Accept-Encoding": "identity"})
        if api_key:
            bearer = key_header == "Authorization"
            self.headers[key_header] = f"Bearer {api_key}" if bearer else api_key
        self.headers.update(headers)
        secrets = (
            api_key,
            self._base.password or "",
            *headers.values(),
            *(value for name, value in self._base.query.items() if name != "api-version"),
        )
        self._secrets: list[str] = []
        self.hide(*secrets)

    def hide(self, *secrets: str) -> None:
        """Mask these as well in what is quoted. The last MAX_SECRETS are kept."""
        long = [secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS]
        known = [secret for secret in self._secrets if secret not in long]
        self._secrets = (long + known)[:MAX_SECRETS]

    def url(self, path: str) -> URL:
        """Of a resource; the query of the base URL, if any, stays.

        path: below that of the base URL; of the host where it begins with a slash.
        """
        if path.startswith("/"):
            url = self._base.with_path(path)
        else:
            url = self._base.joinpath(path) if path else self._base
        return url.with_query(self._base.query)

    @property
    def host(self) -> str | None:
        return self._base.host

    def masked(self, text: str) -> str:
        """One line of the text, at most MAX_QUOTED_CHARACTERS, without secrets."""
        # header values are decoded with surrogateescape: no lone surrogate may reach a client
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        # OpenAI quotes a wrong key with stars in its middle: its ends are secret as well
        text = " ".join("***" if "**" in word else word for word in text.split())
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        shown = text[:MAX_QUOTED_CHARACTERS]
        return shown if shown == text else shown + "..."

    def unreachable(self, exc: aiohttp.ClientError) -> EngineError:
        """The request got no answer."""
        closed = isinstance(exc, aiohttp.ServerDisconnectedError) or type(exc) is (
            aiohttp.ClientOSError
        )
        return EngineError(
            f"no {self._kind.name} answers at {self.address}: {self._why(exc)}",
            retry_after_s=0.0 if closed else None,
        )

    def late(self, seconds: float) -> EngineError:
        """Nothing came in the time that is set for the first of it."""
        return EngineError(
            f"{self.name} did not begin to answer within {seconds:g} s; "
            "is it overloaded or still loading its model?"
        )

    def silent(self, seconds: float) -> EngineError:
        """The answer began and did not go on in time."""
        return EngineError(
            f"{self.name} fell silent in the middle of its answer for {seconds:g} s; try again"
        )

    def broken_off(self) -> EngineError:
        """The connection was closed within the answer."""
        return EngineError(
            f"{self.name} broke off in the middle of its answer; see its log, try again",
            retry_after_s=0.0,
        )

    def failed(self, failure: Any) -> EngineError:
        """The server reported an error inside its answer."""
        return EngineError(
            f"{self.name} failed while it answered{self._quoted(message_of(failure))}; try again"
        )

    def unexpected(self, what: str) -> EngineError:
        """The answer is not what was requested."""
        return EngineError(
            f"{self.name} sent {what} instead of {self._kind.product}; "
            "is base_url right? It usually ends in /v1"
        )

    def refused(
        self, status: int, headers: Mapping[str, str], body: bytes, model: str | None = None
    ) -> EngineError:
        """The status was not that of success.

        model: the one that was asked for; "" where the list of models was; None where neither.
        """
        quoted = self._quoted(refusal_text(body))
        retry_after_s: float | None = None
        match status:
            case 401 | 403 if self._has_key:
                text = f"refused the API key ({status}){quoted}; check api_key"
            case 401 | 403:
                text = f"wants an API key ({status}){quoted}; set api_key"
            case _ if model == "" and status // 100 != 3:
                text = f"does not list its models ({status}){quoted}; set model"
            case 404 if model is None:
                text = f"has nothing at this address ({status}){quoted}; check base_url"
            case 404:
                text = (
                    f"does not know the model {model!r} ({status}){quoted}; "
                    "check model, and that base_url is right"
                )
            case 429:
                wait = headers.get("Retry-After", "")
                remedy = f"wait {self._wait(wait)}" if wait else "wait, or use another model"
                text = f"has had too many requests ({status}){quoted}; {remedy}"
                retry_after_s = float(wait) if wait.isdecimal() and wait.isascii() else 1.0
            case _ if status >= 500:
                retry_after_s = 0.0
                text = f"failed ({status}){quoted}; see its log, try again"
            case _ if status // 100 == 3:
                there = _USER.sub("//", headers.get("Location", "").partition("?")[0])
                text = f"has moved ({status}) to {self.masked(there)}; change base_url"
            case _:
                text = f"rejected the request ({status}){quoted}; check {self._kind.options}"
        return EngineError(f"{self.name} {text}", retry_after_s=retry_after_s)

    def _wait(self, retry_after: str) -> str:
        shown = self.masked(retry_after)
        return f"{shown} s" if shown.isdigit() else f"until {shown}"

    def _quoted(self, text: str) -> str:
        text = self.masked(text).rstrip(".")
        return f": {text}" if text else ""

    def _why(self, exc: aiohttp.ClientError) -> str:
        match exc:
            case aiohttp.ConnectionTimeoutError():
                return "it accepted no connection in time; is the address right?"
            case aiohttp.ClientConnectorDNSError():
                return f"the name {self._base.host!r} is not known to DNS; check base_url"
            case aiohttp.ClientSSLError():
                return (
                    f"TLS failed ({self._tls(exc)}); check https in base_url, and the certificate"
                )
            case aiohttp.ClientConnectorError() if _is_refusal(exc.os_error):
                return "connection refused; is it running?"
            case aiohttp.ClientConnectorError():
                reason = exc.os_error.strerror or "no connection"
                return f"{reason}; check base_url and the network"
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                return "the connection was closed before an answer; see its log, try again"
            case aiohttp.WSServerHandshakeError():
                return "what answers does not speak WebSocket; check base_url"
            case aiohttp.ClientResponseError():
                return "what answers does not speak HTTP; check base_url"
            case _:
                return f"the connection failed ({type(exc).__name__}); try again"

    def _tls(self, exc: aiohttp.ClientSSLError) -> str:
        if isinstance(exc, aiohttp.ClientConnectorCertificateError):
            cause: Exception = exc.certificate_error
        else:
            cause = exc.os_error
        reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "")
        return self.masked(str(reason or cause.args[-1]))


def _is_refusal(exc: OSError) -> bool:
    # A name with several addresses gives one error that only lists theirs.
    return exc.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(exc)


def refusal_text(body: bytes) -> str:
    """The reason in the body of a refusal; "" for none that a person could read."""
    try:
        return message_of(json.decode(body))
    except (ValueError, RecursionError):
        text = body.decode(errors="replace").strip()
        return "" if text.startswith("<") else text  # a page of HTML


def message_of(value: Any) -> str:
    """The text in {"error": {"message": ...}}, {"detail": ...}, a list of those, or a string."""
    while True:
        match value:
            case str():
                return value
            case {"error": inner} | {"message": inner} | {"detail": inner} | {"msg": inner}:
                value = inner
            case [first, *_]:
                value = first
            case _:
                return ""
