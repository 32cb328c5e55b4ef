"""Where an OpenAI-compatible server is, and the sentence for each way in which it can fail.

A sentence names the address without user, password and query, tells the remedy, and passes on
what the server said, shortened, with every secret in it masked.
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

_MOST_SAID = 300
_SHORTEST_SECRET = 4  # `x` and the like stand for a key where none is needed
_USER = re.compile(r"//[^/@]*@")


def address(base_url: str) -> URL:
    """The base URL, checked. Raises ValueError."""
    url = URL(base_url.strip())
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("base_url must begin with http:// or https:// and name a host")
    return url.with_path(url.path.rstrip("/")).with_query(url.query)


class Endpoint:
    """One server, as one user of it."""

    def __init__(self, base_url: str, api_key: str, headers: Mapping[str, str]) -> None:
        self._base = address(base_url)
        self._has_key = bool(api_key)
        self.shown = str(self._base.with_user(None).with_query(None).with_fragment(None))
        # identity: a codec would hold chunks back.
        self.headers = CIMultiDict(
            {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        )
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"
        self.headers.update(headers)
        secrets = (
            api_key,
            self._base.password or "",
            *headers.values(),
            *self._base.query.values(),
        )
        self._secrets = sorted((s for s in secrets if len(s) >= _SHORTEST_SECRET), key=len)[::-1]

    def url(self, path: str) -> URL:
        """Of a resource; the query of the base URL, if any, stays."""
        return self._base.joinpath(path).with_query(self._base.query)

    @property
    def is_openai(self) -> bool:
        return self._base.host == "api.openai.com"

    def masked(self, text: str) -> str:
        """One line of it, short, without secrets."""
        # OpenAI quotes a wrong key with stars in its middle: its ends are no one's business either.
        text = " ".join("***" if "**" in word else word for word in text.split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text if len(text) <= _MOST_SAID else text[:_MOST_SAID] + "..."

    def unreachable(self, exc: aiohttp.ClientError) -> EngineError:
        """The request got no answer."""
        return EngineError(self._why(exc))

    def late(self, seconds: float) -> EngineError:
        return EngineError(
            f"the LLM at {self.shown} did not begin to answer within {seconds:g} s; "
            "is it overloaded or still loading its model?"
        )

    def silent(self, seconds: float) -> EngineError:
        return EngineError(
            f"the LLM at {self.shown} fell silent in the middle of its answer for {seconds:g} s; "
            "try again"
        )

    def broken_off(self) -> EngineError:
        return EngineError(
            f"the LLM at {self.shown} broke off in the middle of its answer; see its log, try again"
        )

    def failed(self, failure: Any) -> EngineError:
        """The server reported an error inside its answer."""
        return EngineError(
            f"the LLM at {self.shown} failed while it answered"
            f"{self._quoted(message_of(failure))}; try again"
        )

    def nonsense(self, what: str) -> EngineError:
        """It answered something that is no chat completion."""
        return EngineError(
            f"the LLM at {self.shown} sent {what} instead of a chat completion; "
            "is base_url right? It usually ends in /v1"
        )

    def no_list(self) -> EngineError:
        return EngineError(
            f"the LLM at {self.shown} sent something else instead of a list of models; set model"
        )

    def no_model(self) -> EngineError:
        return EngineError(
            f"the LLM at {self.shown} lists no model to talk with; load one, or set model"
        )

    def refused(
        self, status: int, headers: Mapping[str, str], body: bytes, model: str
    ) -> EngineError:
        """The answer was not 200."""
        quoted = self._quoted(said(body))
        place = f"the LLM at {self.shown}"
        match status:
            case 401 | 403 if self._has_key:
                text = f"{place} refused the API key ({status}){quoted}; check api_key"
            case 401 | 403:
                text = f"{place} wants an API key ({status}){quoted}; set api_key"
            case _ if not model and status // 100 != 3:
                text = f"{place} does not list its models ({status}){quoted}; set model"
            case 404:
                text = (
                    f"{place} does not know the model {model!r} ({status}){quoted}; "
                    "check model, and that base_url is right"
                )
            case 429:
                wait = headers.get("Retry-After", "")
                remedy = f"wait {self._wait(wait)}" if wait else "wait, or use another model"
                text = f"{place} has had too many requests ({status}){quoted}; {remedy}"
            case _ if status >= 500:
                text = f"{place} failed ({status}){quoted}; see its log, try again"
            case _ if status // 100 == 3:
                there = _USER.sub("//", headers.get("Location", "").partition("?")[0])
                text = f"{place} has moved ({status}) to {self.masked(there)}; change base_url"
            case _:
                text = f"{place} rejected the request ({status}){quoted}; check model and extra"
        return EngineError(text)

    def _wait(self, retry_after: str) -> str:
        shown = self.masked(retry_after)
        return f"{shown} s" if shown.isdigit() else f"until {shown}"

    def _quoted(self, text: str) -> str:
        text = self.masked(text).rstrip(".")
        return f": {text}" if text else ""

    def _why(self, exc: aiohttp.ClientError) -> str:
        match exc:
            case aiohttp.ConnectionTimeoutError():
                why = "it accepted no connection in time; is the address right?"
            case aiohttp.ClientConnectorDNSError():
                why = f"the name {self._base.host!r} is not known to DNS; check base_url"
            case aiohttp.ClientSSLError():
                why = f"TLS failed ({self._tls(exc)}); check https in base_url, and the certificate"
            case aiohttp.ClientConnectorError() if _was_refused(exc.os_error):
                why = "connection refused; is it running?"
            case aiohttp.ClientConnectorError():
                why = f"{exc.os_error.strerror or 'no connection'}; check base_url and the network"
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                why = "the connection was closed before an answer; see its log, try again"
            case aiohttp.ClientResponseError():
                why = "what answers does not speak HTTP; check base_url"
            case _:
                why = f"the connection failed ({type(exc).__name__}); try again"
        return f"no LLM answers at {self.shown}: {why}"

    def _tls(self, exc: aiohttp.ClientSSLError) -> str:
        if isinstance(exc, aiohttp.ClientConnectorCertificateError):
            cause: Exception = exc.certificate_error
        else:
            cause = exc.os_error
        reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "")
        return self.masked(str(reason or cause.args[-1]))


def said(body: bytes) -> str:
    """What went wrong, from the body of a refusal; "" if it says nothing that one could read."""
    try:
        return message_of(msgspec.json.decode(body))
    except ValueError:
        text = body.decode(errors="replace").strip()
        return "" if text.startswith("<") else text  # a page of HTML


def message_of(value: Any) -> str:
    """The text in {"error": {"message": ...}}, {"detail": ...}, a list of those, or a string."""
    match value:
        case str():
            return value
        case {"error": inner} | {"message": inner} | {"detail": inner} | {"msg": inner}:
            return message_of(inner)
        case [first, *_]:
            return message_of(first)
        case _:
            return ""


def _was_refused(exc: OSError) -> bool:
    # A name with several addresses gives one error that only lists theirs.
    return exc.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(exc)
