"""Errors of the HTTP API, all in OpenAI's shape.

{"error": {"message", "type", "param", "code"}}; the statuses and codes are those of OpenAI's guide
to error codes.
"""

import errno

import msgspec
from aiohttp import web

from vivavoce.errors import AudioError, EngineError, InvalidRequest, LimitReached, Unauthorized

RETRY_SECONDS = 5
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OVERLOADED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN})


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Problem(msgspec.Struct, frozen=True):
    error: ProblemBody


def json_response(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )


def response_of(exc: Exception, request: web.Request) -> web.Response:
    """The answer to a request that ended in that error. Re-raises an error that is a bug."""
    match exc:
        case Unauthorized():
            return _problem(401, str(exc), "invalid_request_error", code="invalid_api_key")
        case InvalidRequest(message=message, code=code, param=param):
            return _problem(400, message, "invalid_request_error", code=code, param=param)
        case AudioError():
            return _problem(400, str(exc), "invalid_request_error", code="invalid_audio")
        case web.RequestPayloadError():
            message = (
                "The body of the request cannot be read: it is not encoded as its headers say."
            )
            return _problem(400, message, "invalid_request_error", code="invalid_body")
        case LimitReached():
            return _retry(_problem(503, str(exc), "server_error", code="server_is_overloaded"))
        case EngineError():
            return _retry(_problem(503, str(exc), "server_error", code="engine_error"))
        case web.HTTPException():
            return _of_status(exc, request)
        case _:
            raise exc


def overload_of(exc: Exception) -> web.Response | None:
    """The answer where the machine lacks disk space, memory or descriptors; None: another error."""
    number = exc.errno if isinstance(exc, OSError) else None
    if number in _DISK_FULL:
        message = "The server has no disk space left for this request."
        return _problem(507, message, "server_error", code="insufficient_storage")
    if number in _OVERLOADED or isinstance(exc, MemoryError):
        message = "The server has no memory or file descriptors left for this request."
        return _retry(_problem(503, message, "server_error", code="server_is_overloaded"))
    return None


def unexpected() -> web.Response:
    """The answer to a request that met a bug, which the log describes."""
    return _problem(
        500, "The server had an error while processing your request.", "server_error", code=None
    )


_OF_STATUS = {
    404: ("There is nothing at {path}{hint}.", "not_found"),
    405: ("{method} is not allowed at {path}.", "method_not_allowed"),
    413: ("The request is too large.", "request_too_large"),
}


def _of_status(exc: web.HTTPException, request: web.Request) -> web.Response:
    """The answer for aiohttp's own refusals, and for ours that are raised as such."""
    message, code = _OF_STATUS.get(exc.status, (exc.text or exc.reason, None))
    if exc.status in _OF_STATUS:
        message = message.format(path=request.path, method=request.method, hint=_hint(request))
    kind = "server_error" if exc.status >= 500 else "invalid_request_error"
    response = _problem(exc.status, message, kind, code=code)
    for name in ("Retry-After", "Allow", "Upgrade"):
        if name in exc.headers:
            response.headers[name] = exc.headers[name]
    return response


def _hint(request: web.Request) -> str:
    """The path that was probably meant: one that ends as this does, as /v1/models for /models."""
    known = {resource.canonical for resource in request.app.router.resources()}
    parts = request.path.strip("/").split("/")
    for start in range(len(parts)):
        for prefix in ("/v1/", "/"):
            meant = prefix + "/".join(parts[start:])
            if meant in known and meant not in ("/", request.path):
                return f"; did you mean {meant}?"
    return ""


def _problem(
    status: int, message: str, kind: str, *, code: str | None, param: str | None = None
) -> web.Response:
    message = message.encode(errors="replace").decode()  # a path may hold surrogates
    body = ProblemBody(message=message, type=kind, param=param, code=code)
    return json_response(Problem(body), status)


def _retry(response: web.Response) -> web.Response:
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response
