"""What a decoder complains of, said as the wire's errors: message, code and param.

The decoder names the place of the first mistake (`$.session.audio.output.speed`); that place is
the error's `param`. Where it allows only a few values, the message lists them.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from vivavoce.errors import InvalidRequest

SHOWN = 100  # characters of a client's own words that come back in a message
NO_MCP = (
    "This server does not run MCP tools: define function tools and run them in the client "
    "instead (type 'function')."
)

# A name that a client invents may hold anything, so the path is read from the very end.
_AT = re.compile(r" - at `(?:key` in `)?\$\.?(?P<path>[\w.\[\]]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<field>\w+)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_VALUE = re.compile(r"^Invalid (?:enum )?value (?P<value>.*)$", re.DOTALL)
_TYPE = re.compile(r"^Expected `(?P<wanted>[a-z |]+)`(?:, got `(?P<given>\w+)`)?$")
_BOUND = re.compile(r"^Expected `\w+` (?P<bound>[<>]=? .*)$")
_LENGTH = re.compile(r"^Expected `(?P<what>\w+)` of length (?P<bound>.*)$")
_STEP = re.compile(r"[^.\[\]]+|\[(?:\d+|\.\.\.)\]")

_WORDS = {
    "str": "a string",
    "bytes": "a base64 string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def refusal(complaint: str, events: Any, event_id: str | None, kind: object) -> InvalidRequest:
    """The error for a complaint about one of `events`, a union of structs.

    `kind` is the event's `type` as it came: a complaint about it does not always quote it.
    """
    at = _AT.search(complaint)
    path = "" if at is None else at["path"].partition("[...]")[0]
    reason = complaint if at is None else complaint[: at.start()]
    if path == "type" and not isinstance(kind, str):
        reason = "Invalid value " + msgspec.json.encode(kind).decode()
    message, code, param = _said(reason, path, events)
    return InvalidRequest(message, code=code, param=param, event_id=event_id)


def null_place(complaint: str) -> tuple[str, ...] | None:
    """The keys that lead to a null where none may stand; "[]" for each member of a list or dict."""
    at = _AT.search(complaint)
    if at is None or not complaint.endswith("got `null`" + at[0]):
        return None
    return steps(at["path"])


def steps(path: str) -> tuple[str, ...]:
    """`session.tools[0].name` -> ("session", "tools", "[]", "name")."""
    return tuple("[]" if step[0] == "[" else step for step in _STEP.findall(path))


def _said(reason: str, path: str, events: Any) -> tuple[str, str, str | None]:
    if found := _MISSING.match(reason):
        param = f"{path}.{found['field']}".lstrip(".")
        if param == "type":
            return "The 'type' field is missing.", "invalid_event", None
        return f"Missing required parameter: '{param}'.", "missing_required_parameter", param
    if found := _UNKNOWN.match(reason):
        param = f"{path}.{found['field'][:SHOWN]}".lstrip(".")
        return f"Unknown parameter: '{param}'.", "unknown_parameter", param
    if not path:
        return "The event is not a JSON object.", "invalid_event", None
    if found := _VALUE.match(reason):
        return _not_among(found["value"], path, events), "invalid_value", path
    if found := _TYPE.match(reason):
        return _wrong_type(path, found["wanted"], found["given"]), "invalid_type", path
    if found := _BOUND.match(reason):
        return f"Invalid '{path}': expected a value {found['bound']}.", "invalid_value", path
    if found := _LENGTH.match(reason):
        code = "string_above_max_length" if found["what"] == "str" else "invalid_value"
        what = _WORDS[found["what"]]
        return f"Invalid '{path}': expected {what} of length {found['bound']}.", code, path
    if reason == "Invalid base64 encoded string":
        return not_audio(path, "an invalid value"), "invalid_value", path
    return f"Invalid '{path}': {reason[0].lower()}{reason[1:]}.", "invalid_value", path


def not_audio(param: str, got: str) -> str:
    """The sentence for audio that is none."""
    return (
        f"Invalid '{param}'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) "
        f"but got {got}."
    )


def _wrong_type(path: str, wanted: str, given: str | None) -> str:
    words = " or ".join(_WORDS[name] for name in wanted.split(" | "))
    got = "" if given is None else f", but got {_WORDS[given]} instead"
    return f"Invalid type for '{path}': expected {words}{got}."


def _not_among(value: str, path: str, events: Any) -> str:
    shown = value if len(value) <= SHOWN else value[:SHOWN] + "…"
    if value.startswith(("'mcp'", "'mcp_")):
        return f"Invalid value: {shown}. {NO_MCP}"
    *most, last = supported(events, steps(path))
    if not most:
        return f"Invalid value: {shown}. Supported values are: {last}."
    comma = "," if len(most) > 1 else ""
    return f"Invalid value: {shown}. Supported values are: {', '.join(most)}{comma} and {last}."


@cache
def supported(events: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """All that some event of the union allows at a place, in words and in alphabetical order."""
    types = [inspect.type_info(events)]
    for step in path[:-1]:
        types = [below for one in types for below in _below(one, step)]
    return tuple(sorted({value for one in types for value in _allowed(one, path[-1])}))


def _members(one: inspect.Type) -> tuple[inspect.Type, ...]:
    return one.types if isinstance(one, inspect.UnionType) else (one,)


def _below(one: inspect.Type, step: str) -> Iterator[inspect.Type]:
    for member in _members(one):
        if isinstance(member, inspect.StructType):
            yield from (field.type for field in member.fields if field.encode_name == step)
        elif step == "[]" and isinstance(member, inspect.VarTupleType | inspect.ListType):
            yield member.item_type


def _allowed(one: inspect.Type, step: str) -> Iterator[str]:
    for member in _members(one):
        if isinstance(member, inspect.StructType) and member.tag_field == step:
            yield repr(member.tag)
    for below in _below(one, step):
        for member in _members(below):
            if isinstance(member, inspect.LiteralType):
                yield from map(repr, member.values)
            elif isinstance(member, inspect.IntType):
                yield "an integer"
