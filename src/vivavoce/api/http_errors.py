"""Errors of the HTTP API in the shape of OpenAI, and on some routes in that of Voxray or Pipecat.

OpenAI's shape is {"error": {"message", "type", "param", "code"}}; the statuses and codes are those
of its guide to error codes. Routes under /api/v1 answer in Voxray's envelope. On the routes of
Pipecat's clients the field `detail` is added, which these clients show.
"""

import errno
import logging
from collections.abc import Iterable
from difflib import SequenceMatcher

import msgspec
from aiohttp import web

from vivavoce.errors import (
    AudioError,
    EngineError,
    InvalidRequest,
    LimitReached,
    QuotaExceeded,
    StorageFull,
    StoreError,
    Unauthorized,
)

log = logging.getLogger(__name__)

RETRY_SECONDS = 5
REQUEST_ID = web.RequestKey("request_id", str)
MAX_REQUEST_ID = 128  # characters of X-Request-ID that are repeated in the answer
VOXRAY_PREFIXES = ("/api/v1/", "/webrtc/offer")
PIPECAT_ROUTES = frozenset({"/start", "/connect", "/api/offer", "/sessions/{session_id}/api/offer"})
STORE_AWAY = "The store of this server cannot be reached. Try again in a few seconds."
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OVERLOADED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN})
MAX_COMPARED_CHARS = 200
"""A longer path is not compared with the routes."""
MIN_SIMILARITY = 0.85
"""The least similarity of a path and the route that is suggested for it; 1: they are equal."""


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Problem(msgspec.Struct, frozen=True):
    error: ProblemBody


class VoxrayErrorBody(msgspec.Struct, frozen=True, rename="camel"):
    code: str
    message: str
    request_id: str
    details: tuple[str, ...] = ()


class VoxrayError(msgspec.Struct, frozen=True):
    """An error in Voxray's envelope."""

    error: VoxrayErrorBody


class PipecatProblem(msgspec.Struct, frozen=True):
    """An error with its message in `detail` as well, where Pipecat's clients read it."""

    error: ProblemBody
    detail: str


def json_response(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )


def response_of(exc: Exception, request: web.Request) -> web.Response:
    """The answer to a request that ended in that error. Re-raises an error that is a bug."""
    response = _openai_response(exc, request)
    resource = request.match_info.route.resource
    route = "" if resource is None else resource.canonical
    if route in PIPECAT_ROUTES:
        problem = _problem_of(response)
        response.body = msgspec.json.encode(PipecatProblem(problem, problem.message))
    elif route.startswith(VOXRAY_PREFIXES):
        problem = _problem_of(response)
        if problem.code == "missing_required_parameter":
            response.set_status(422)
        code = _VOXRAY_CODES.get(response.status)
        code = code or ("INTERNAL_ERROR" if response.status >= 500 else "BAD_REQUEST")
        body = VoxrayErrorBody(code, problem.message, request_id_of(request))
        response.body = msgspec.json.encode(VoxrayError(body))
    return response


_VOXRAY_CODES = {
    401: "UNAUTHORIZED",
    404: "NOT_FOUND",
    422: "VALIDATION_ERROR",
    503: "SERVICE_UNAVAILABLE",
}


def request_id_of(request: web.Request) -> str:
    """The id of a request: the client's, or the server's own."""
    given = request.headers.get("X-Request-ID", "")[:MAX_REQUEST_ID]
    return given if given.isascii() and given.isprintable() and given else request[REQUEST_ID]


def _problem_of(response: web.Response) -> ProblemBody:
    assert isinstance(response.body, bytes)
    return msgspec.json.decode(response.body, type=Problem).error


def _openai_response(exc: Exception, request: web.Request) -> web.Response:
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
        case QuotaExceeded():
            return _problem(429, str(exc), "insufficient_quota", code="insufficient_quota")
        case StorageFull():
            message = "The server has no disk space left to count what this request uses."
            return _problem(507, message, "server_error", code="insufficient_storage")
        case StoreError():
            log.error(
                "%s failed: %s", request_id_of(request), exc
            )  # it names the place of the store
            return _retry(_problem(503, STORE_AWAY, "server_error", code="store_unavailable"))
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
    404: ("There is nothing at {path}.", "not_found"),
    405: ("{method} is not allowed at {path}.", "method_not_allowed"),
    413: ("The request is too large.", "request_too_large"),
}


def _of_status(exc: web.HTTPException, request: web.Request) -> web.Response:
    """The answer for an HTTP error that aiohttp or a handler raised.

    A text that the handler gave is the message. aiohttp gives none of its own but for 413.
    """
    message, code = _OF_STATUS.get(exc.status, (exc.reason, None))
    message = message.replace("{path}", request.path).replace("{method}", request.method)
    if exc.status != 413 and exc.text and exc.text != f"{exc.status}: {exc.reason}":
        message = exc.text
    if exc.status == 404 and request.match_info.http_exception is exc:  # no route has the path
        routes = request.app.router.routes()
        known = [(one.method, one.resource.canonical) for one in routes if one.resource]
        if (route := nearest_route(request.method, request.path, known)) is not None:
            message = f"{message} Did you mean {route}?"
    kind = "server_error" if exc.status >= 500 else "invalid_request_error"
    response = _problem(exc.status, message, kind, code=code)
    for name in ("Retry-After", "Allow", "Upgrade"):
        if name in exc.headers:
            response.headers[name] = exc.headers[name]
    return response


def _problem(
    status: int, message: str, kind: str, *, code: str | None, param: str | None = None
) -> web.Response:
    message = message.encode(errors="replace").decode()  # a path may hold surrogates
    body = ProblemBody(message=message, type=kind, param=param, code=code)
    return json_response(Problem(body), status)


def _retry(response: web.Response) -> web.Response:
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def nearest_route(method: str, path: str, routes: Iterable[tuple[str, str]]) -> str | None:
    """The route that a request to an unknown path may have meant; None: no route is similar.

    routes: methods and paths such as ("GET", "/v1/models/{model}"). A path is similar
    if it lacks the beginning of a route (/audio/speech), has something before it (/api/v1/models)
    or is misspelt. A route of another method is returned if none of the same method is similar.
    """
    if len(path) > MAX_COMPARED_CHARS:
        return None
    segments = path.strip("/").split("/")
    best: tuple[bool, float, str] | None = None
    for route_method, route in routes:
        similarity = _similarity(segments, route.strip("/").split("/"))
        candidate = (route_method == method, similarity, route)
        if similarity >= MIN_SIMILARITY and (best is None or candidate > best):
            best = candidate
    return None if best is None else best[2]


def _similarity(path: list[str], route: list[str]) -> float:
    """0..1, of the last segments, as many as both have. A {parameter} matches any segment, so it is
    left out."""
    shared = min(len(path), len(route))
    pairs = [
        pair
        for pair in zip(path[-shared:], route[-shared:], strict=True)
        if not pair[1].startswith("{")
    ]
    ours, theirs = ("/".join(one) for one in zip(*pairs, strict=True)) if pairs else ("", "")
    return SequenceMatcher(None, ours, theirs).ratio() if theirs else 0.0
