"""Turns a msgspec.ValidationError into the wire's error: message, code and param.

The decoder names the path of the first mistake (`$.session.audio.output.speed`), which becomes the
error's `param`. If only a few values are allowed, the message lists them.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from vivavoce.errors import InvalidRequest

MAX_QUOTED = 100  # of the client's text that a message quotes
NO_MCP = (
    "This server does not run MCP tools: define function tools and run them in the client "
    "instead (type 'function')."
)

_BETA_HINT = (
    " A client of the beta protocol, which has none, connects with the header "
    "'OpenAI-Beta: realtime=v1'."
)

# Keys that a client invents may contain anything, so the path is matched at the very end.
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


def reason_and_path(complaint: str) -> tuple[str, str]:
    """Split the message of a msgspec.ValidationError into the reason and the path of the value.

    The path is like `session.tools[0].name`; "" is the decoded value itself, or a place inside a
    dict with unknown keys (`$[...]`).
    """
    at = _AT.search(complaint)
    if at is None:
        return complaint, ""
    return complaint[: at.start()], at["path"].partition("[...]")[0].removesuffix(".")


def refusal(
    complaint: str,
    schema: Any,
    event_id: str | None = None,
    kind: object = "",
    *,
    prefix: str = "",
    what: str = "event",
) -> InvalidRequest:
    """The error for a ValidationError about a value of `schema`, a struct or a union of structs.

    `kind`: the value's `type` as received, which the message does not always quote. `prefix`: the
    path of the value in the client's input, such as "messages[0]". `what`: the name of the whole
    input.
    """
    reason, path = reason_and_path(complaint)
    if path == "type" and not isinstance(kind, str):
        reason = "Invalid value " + msgspec.json.encode(kind).decode()
    message, code, param = _explained(reason, path, schema, prefix, what)
    return InvalidRequest(message, code=code, param=param, event_id=event_id)


def null_place(complaint: str) -> tuple[str, ...] | None:
    """The keys that lead to a null that is not allowed; "[]" for each member of a list or dict."""
    at = _AT.search(complaint)
    if at is None or not complaint.endswith("got `null`" + at[0]):
        return None
    return steps(at["path"])


def steps(path: str) -> tuple[str, ...]:
    """`session.tools[0].name` -> ("session", "tools", "[]", "name")."""
    return tuple("[]" if step[0] == "[" else step for step in _STEP.findall(path))


def _joined(*steps: str) -> str:
    return ".".join(step for step in steps if step).replace(".[", "[")


def _explained(
    reason: str, path: str, schema: Any, prefix: str, what: str
) -> tuple[str, str, str | None]:
    """The message, the code and the param of an error."""
    place = _joined(prefix, path)
    if found := _MISSING.match(reason):
        param = _joined(place, found["field"])
        if param == "type":
            return "The 'type' field is missing.", "invalid_event", None
        hint = _BETA_HINT if (what, param) == ("event", "session.type") else ""
        return f"Missing required parameter: '{param}'.{hint}", "missing_required_parameter", param
    if found := _UNKNOWN.match(reason):
        param = _joined(place, found["field"][:MAX_QUOTED])
        return f"Unknown parameter: '{param}'.", "unknown_parameter", param
    if not place:
        return f"The {what} is not a JSON object.", "invalid_event", None
    if found := _VALUE.match(reason):
        return _not_among(found["value"], path, schema), "invalid_value", place
    if found := _TYPE.match(reason):
        return _wrong_type(place, found["wanted"], found["given"]), "invalid_type", place
    if found := _BOUND.match(reason):
        return f"Invalid '{place}': expected a value {found['bound']}.", "invalid_value", place
    if found := _LENGTH.match(reason):
        return *_wrong_length(place, found["what"], found["bound"]), place
    if reason == "Invalid base64 encoded string":
        return not_audio(place, "an invalid value"), "invalid_value", place
    return f"Invalid '{place}': {reason[0].lower()}{reason[1:]}.", "invalid_value", place


def _wrong_length(place: str, what: str, bound: str) -> tuple[str, str]:
    if what == "array" and bound.startswith("<= "):
        message = (
            f"Invalid '{place}': array too long. "
            f"Expected an array with maximum length {bound.removeprefix('<= ')}."
        )
        return message, "array_above_max_length"
    code = "string_above_max_length" if what == "str" else "invalid_value"
    return f"Invalid '{place}': expected {_WORDS[what]} of length {bound}.", code


def not_audio(param: str, got: str) -> str:
    """The message for audio that cannot be decoded or is empty."""
    return (
        f"Invalid '{param}'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) "
        f"but got {got}."
    )


def _wrong_type(path: str, wanted: str, given: str | None) -> str:
    words = " or ".join(_WORDS[name] for name in wanted.split(" | "))
    got = "" if given is None else f", but got {_WORDS[given]} instead"
    return f"Invalid type for '{path}': expected {words}{got}."


def _not_among(value: str, path: str, schema: Any) -> str:
    shown = value if len(value) <= MAX_QUOTED else value[:MAX_QUOTED] + "…"
    if value.startswith(("'mcp'", "'mcp_")):
        return f"Invalid value: {shown}. {NO_MCP}"
    *most, last = (supported(schema, steps(path)) if path else ()) or ("",)
    if not last:
        return f"Invalid value: {shown}."
    if not most:
        return f"Invalid value: {shown}. Supported values are: {last}."
    comma = "," if len(most) > 1 else ""
    return f"Invalid value: {shown}. Supported values are: {', '.join(most)}{comma} and {last}."


@cache
def supported(schema: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """All values that the schema allows at a place, as messages show them, sorted."""
    types = [inspect.type_info(schema)]
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
