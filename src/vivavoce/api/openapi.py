"""The OpenAPI 3.1 description of the HTTP API, made of the types that read and write it.

What an operation takes and gives is told with msgspec types; their schemas are msgspec's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from vivavoce.api.http_errors import Problem

Schema: TypeAlias = dict[str, Any]
Content: TypeAlias = Mapping[str, Any]
"""Media types, and what comes as each: a type, several in a tuple, a schema, or None where it is
not described."""

_REF = "#/components/schemas/{name}"
_SECURITY: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "api_key"},
}
_REQUEST_ID: Schema = {
    "x-request-id": {"description": "Stands in the log, too.", "schema": {"type": "string"}}
}
_RETRY: Schema = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
_PROBLEMS = {
    400: "The request is wrong; `param` says where.",
    401: "No key, or one that does not open this.",
    403: "A page of another origin asked, which the settings do not list.",
    404: "There is no such thing.",
    405: "That method is not allowed here.",
    408: "The request did not come to its end in time.",
    413: "The request is too large.",
    415: "The body is of a type that is not taken here.",
    422: "The model behind this server does not take that.",
    426: "This is a WebSocket.",
    429: "Too many requests: the endpoint behind this server says so.",
    500: "The server is at fault; its log says more.",
    503: "An engine cannot do its work just now, or the server is full.",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the path or the query."""

    name: str
    place: Literal["path", "query"]
    about: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes where all is well."""

    about: str
    content: Content = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One route."""

    method: Literal["get", "post"]
    path: str
    id: str
    tag: str
    summary: str
    about: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Content = field(default_factory=dict)
    body_required: bool = True
    answers: Mapping[int, Answer] = field(default_factory=dict)
    problems: tuple[int, ...] = ()
    """Statuses besides those that any request may be answered with."""
    needs_key: bool = True


def document(operations: Iterable[Operation], *, title: str, version: str, about: str) -> Schema:
    """The whole description, ready to be encoded as JSON."""
    operations = tuple(operations)
    types = list(dict.fromkeys(_types(operations)))
    refs, components = msgspec.json.schema_components(types, ref_template=_REF)
    known = dict(zip(types, refs, strict=True))
    paths: dict[str, Schema] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method] = _operation(one, known)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": about},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }


def _types(operations: Iterable[Operation]) -> Iterator[Any]:
    yield Problem
    for one in operations:
        for content in (one.body, *(answer.content for answer in one.answers.values())):
            for what in content.values():
                if isinstance(what, tuple):
                    yield from what
                elif what is not None and not isinstance(what, dict):
                    yield what


def _operation(one: Operation, known: Mapping[Any, Schema]) -> Schema:
    made: Schema = {"operationId": one.id, "tags": [one.tag], "summary": one.summary}
    if one.about:
        made["description"] = one.about
    if one.parameters:
        made["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.place == "path",
                "description": parameter.about,
                "schema": parameter.schema,
            }
            for parameter in one.parameters
        ]
    if one.body:
        made["requestBody"] = {
            "required": one.body_required,
            "content": _content(one.body, known),
        }
    made["responses"] = _responses(one, known)
    # Without keys in the settings none is asked for.
    made["security"] = [{}, *({name: []} for name in _SECURITY)] if one.needs_key else []
    return made


def _responses(one: Operation, known: Mapping[Any, Schema]) -> Schema:
    answers: Schema = {
        str(status): {
            "description": answer.about,
            "headers": _REQUEST_ID,
            **({"content": _content(answer.content, known)} if answer.content else {}),
        }
        for status, answer in sorted(one.answers.items())
    }
    usual = (400, 403, 405, 500, *((401,) if one.needs_key else ()))
    for status in sorted({*usual, *one.problems} - set(one.answers)):
        answers[str(status)] = {
            "description": _PROBLEMS[status],
            "headers": _REQUEST_ID | (_RETRY if status == 503 else {}),
            "content": {"application/json": {"schema": known[Problem]}},
        }
    return answers


def _content(content: Content, known: Mapping[Any, Schema]) -> Schema:
    return {media_type: _media(what, known) for media_type, what in content.items()}


def _media(what: Any, known: Mapping[Any, Schema]) -> Schema:
    match what:
        case None:
            return {}
        case dict():
            return {"schema": what}
        case tuple():
            return {"schema": {"anyOf": [known[one] for one in what]}}
        case _:
            return {"schema": known[what]}
