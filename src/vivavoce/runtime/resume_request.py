"""What a client that comes back says about its conversation, in the query of its request."""

import re
from collections.abc import Mapping

import msgspec

from vivavoce.errors import InvalidRequest

_TOKEN = re.compile(r"^[A-Za-z0-9_.~-]{24,200}$")
_MS = re.compile(r"^[0-9]{1,9}$")


class ResumeRequest(msgspec.Struct, frozen=True):
    """What a client that comes back says about its conversation, in the query."""

    token: str
    session_id: str
    last_event_id: str
    """The id of the event that it received last."""
    heard: tuple[str, int] | None
    """The id of an answer, and how many milliseconds of it the client has played."""
    items: bool
    """Whether the items are sent to the client."""
    finish: bool | None
    """Whether an answer that was cut off is finished; None: the server's setting decides."""


def resume_request(query: Mapping[str, str]) -> ResumeRequest:
    """Raises InvalidRequest."""
    token, item, ms = (query.get(name, "") for name in ("resume_token", "heard_item", "heard_ms"))
    if token and not _TOKEN.match(token):
        raise InvalidRequest(
            "Invalid 'resume_token': expected 24 to 200 letters, digits, '-', '_', '.' or '~'.",
            param="resume_token",
        )
    if ms and not _MS.match(ms):
        raise InvalidRequest(
            "Invalid 'heard_ms': expected a whole number of milliseconds.", param="heard_ms"
        )
    finish = query.get("finish", "")
    return ResumeRequest(
        token,
        query.get("session_id", ""),
        query.get("last_event_id", ""),
        (item, int(ms)) if item and ms else None,
        query.get("items", "") not in ("", "0", "false"),
        finish not in ("0", "false") if finish else None,
    )
