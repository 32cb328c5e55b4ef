"""Recognises errors of an upstream server after which it cannot continue, and how long no session
connects to it then. Reasons are in our own words, because the texts of a server name its account,
its host and its limits.
"""

import re
from typing import Any

import msgspec

from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.facts import FaultKind

MAX_RETRY_WAIT_S = 2.0
"""After a longer wait the user would notice: another brain answers in the meantime."""
MAX_HOLD_S = 3600.0
_CONFIG_HOLD_S = 60.0
_QUOTA_HOLD_S = 600.0
_RATE_HOLD_S = 5.0
_OVERLOAD_HOLD_S = 5.0


class Fault(msgspec.Struct, frozen=True):
    """Why an upstream server cannot continue."""

    kind: FaultKind
    reason: str
    hold_s: float = 0.0
    """For this long no session connects to it."""
    retry_s: float | None = None
    """The same request may succeed after this time; None: it will not succeed."""
    close_code: int = 1011
    """The close code of the client's connection, if there is no fallback."""


_WAIT = re.compile(r"try again in (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:(\d+)ms)?", re.I)


def wait_in(text: str) -> float | None:
    """The seconds in "Please try again in 1m2.5s."; None: the text names none."""
    if (found := _WAIT.search(text)) is None or not any(found.groups()):
        return None
    try:
        hours, minutes, seconds, ms = (float(part or 0) for part in found.groups())
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds + ms / 1000


def fault_of(error: Any) -> Fault | None:
    """The fault that the `error` of an event or of a failed response means.

    None: it answers an event of the client, and the server can continue.
    """
    if not isinstance(error, dict):
        return None
    kind, code = str(error.get("type") or ""), str(error.get("code") or "")
    if "insufficient_quota" in (kind, code):
        return Fault("quota", "the upstream server's quota is used up", hold_s=_QUOTA_HOLD_S)
    match code:
        case "rate_limit_exceeded":
            wait = wait_in(str(error.get("message") or ""))
            hold = _RATE_HOLD_S if wait is None else min(wait, MAX_HOLD_S)
            return Fault(
                "rate_limited", "the upstream server limits the rate of requests", hold, wait
            )
        case "session_expired":
            return Fault("expired", "the upstream server's session has expired")
        case "server_is_overloaded" | "slow_down":
            return Fault("overloaded", "the upstream server is overloaded", hold_s=_OVERLOAD_HOLD_S)
        case "invalid_api_key" | "inference_not_authorized_error":
            return Fault("refused", "the upstream server refuses the key", hold_s=_CONFIG_HOLD_S)
        case "beta_api_shape_disabled" | "invalid_model" | "model_not_found":
            return Fault("refused", "the upstream server refuses the model", hold_s=_CONFIG_HOLD_S)
    if kind == "server_error" or code == "server_error":
        return Fault("error", "the upstream server had an error", retry_s=0.0)
    return None


def fault_of_status(status: int, retry_after: str) -> Fault:
    """The fault that the answer to a WebSocket handshake means; `retry_after`: its header, or
    ""."""
    match status:
        case 401 | 403:
            return Fault("refused", "the upstream server refuses the key", hold_s=_CONFIG_HOLD_S)
        case 429:
            hold = float(retry_after) if retry_after.isdecimal() else _RATE_HOLD_S
            reason = "the upstream server limits the rate of requests"
            return Fault("rate_limited", reason, hold_s=min(hold, MAX_HOLD_S))
        case _ if status >= 500:
            return Fault("overloaded", "the upstream server is overloaded", hold_s=_OVERLOAD_HOLD_S)
    return Fault("refused", "the upstream server refuses the model", hold_s=_CONFIG_HOLD_S)


# an account, a project, a key, an address of a private network, a deployment's host
# these begin a word, or follow an escape of JSON such as \n
_PRIVATE = re.compile(
    rb"(?:\b|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))(?:"
    rb"(?:org|proj|sk|ek|req)[-_][A-Za-z0-9_-]{6,}"
    rb"|(?:10|127|192\.168|172\.(?:1[6-9]|2\d|3[01])|169\.254)(?:\.\d{1,3}){2,3}\b(?::\d+)?"
    rb"|[A-Za-z0-9.-]+\.(?:openai\.com|azure\.com|x\.ai|internal|local)\b)"
)


def masked(raw: bytes) -> bytes:
    """A JSON frame without the names of its sender's account, key or host."""
    return _PRIVATE.sub(b"***", raw)


def is_failure(event: UpstreamEvent) -> bool:
    """Whether an event gives the reason for a failure."""
    failed = event.response is not None and event.response.status == "failed"
    return failed or event.type == "error" or event.type.endswith(".failed")
