"""What a client is told where its session cannot begin, has failed, or goes on elsewhere."""

import secrets

from vivavoce.errors import QuotaExceeded, StoreError, Unauthorized
from vivavoce.protocol.server import ErrorBody, ErrorEvent

TAKEN_OVER = "session_taken_over"
TAKEN_OVER_CLOSE = 4003
"""The close code of a connection whose conversation another client has resumed."""


def error_event(code: str, message: str, kind: str = "invalid_request_error") -> ErrorEvent:
    """An error whose id is none of the ids of a session. kind: its type."""
    body = ErrorBody(type=kind, code=code, message=message)
    return ErrorEvent(event_id=f"event_{secrets.token_hex(8)}", error=body)


def taken_over() -> ErrorEvent:
    """The connection is closed with TAKEN_OVER_CLOSE after it."""
    return error_event(TAKEN_OVER, "Another client has resumed this conversation.")


def refusal_of(exc: QuotaExceeded | Unauthorized | StoreError) -> tuple[ErrorEvent, int]:
    """Why a session cannot begin, and the code with which its connection is closed."""
    match exc:
        case QuotaExceeded():
            return error_event("insufficient_quota", str(exc), "insufficient_quota"), 4002
        case Unauthorized():
            return error_event("invalid_api_key", str(exc)), 3000
        case _:
            message = "The budget store cannot be reached."
            return error_event("store_unavailable", message, "server_error"), 1013
