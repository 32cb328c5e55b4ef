"""Functions that the client declares, read once per answer, and how well words fit them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vivavoce.engines.builtin.words import FUNCTION_WORDS, alike, stem, stems, word_set
from vivavoce.protocol.items import FunctionTool

_MAX_FIELDS, _MAX_ENUM, _MAX_DEPTH, _MAX_HINT = 40, 60, 3, 300
KINDS = ("string", "number", "integer", "boolean", "array", "object", "null")
ABSENT: Any = object()
"""Where a schema names no default."""

# Groups of stems that stand for one another when a function is looked for.
_THESAURUS = (
    "weather forecast temperatur rain raini sunni snow hot cold whether umbrella degre",
    "light lamp bulb lights",
    "bye goodby hang end hangup finish",
    "buy purchas order",
    "remind reminder",
    "alarm wake",
    "song music play track",
    "mail email",
    "call phon dial",
    "calculat comput arithmetic math",
    "note write memo",
    "search find look lookup googl",
    "book reserv reservation appointment",
    "stock share ticker pric",
    "messag text sms",
    "volum loud louder quieter",
    "timer countdown",
    "agent human operator person transfer",
    "mov driv walk go forward",
    "temperatur thermostat heat",
)
_SAME: dict[str, frozenset[str]] = {}
for _group in _THESAURUS:
    for _stem in _group.split():
        _SAME[_stem] = _SAME.get(_stem, frozenset()) | frozenset(_group.split())

_GENERIC = word_set(
    "get set fetch do run make tool function query data info information api request new current"
    " user use given call when time execut perform return retriev valu result ask provid list"
    " creat updat check show tell thing option nam specifi local on off up down the question"
    " day today conversation system one two"
)
_OPPOSITES = (
    ("on", "off"),
    ("up", "down"),
    ("open", "clos"),
    ("lock", "unlock"),
    ("start", "stop"),
    ("increas", "decreas"),
    ("add", "remov"),
    ("left", "right"),
    ("forward", "backward"),
)
ENOUGH = 2.5
"""The score from which an utterance is taken to ask for a function."""


@dataclass(frozen=True, slots=True)
class Param:
    """A value that a function takes. `kind` is its JSON type; `enum` is () where any value goes."""

    name: str
    kind: str
    words: tuple[str, ...]
    hint: tuple[str, ...]
    required: bool
    enum: tuple[Any, ...]
    format: str
    default: Any
    fields: tuple["Param", ...] = ()
    item: "Param | None" = None
    lowest: float | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function. `stems` are those of its name, `hint` those of what it says about itself."""

    name: str
    stems: tuple[str, ...]
    hint: frozenset[str]
    params: tuple[Param, ...]


def read_tool(tool: FunctionTool) -> Tool:
    """Read a declaration. Nothing in a schema is an error: what is not understood is a string."""
    hint = tool.description if isinstance(tool.description, str) else ""
    schema = tool.parameters if isinstance(tool.parameters, dict) else {}
    told = frozenset(s for s in stems(hint[:_MAX_HINT]) if s not in FUNCTION_WORDS)
    return Tool(tool.name, stems(tool.name[:80]), told, _fields(schema, schema, 0))


def _fields(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> tuple[Param, ...]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    needed = dict.fromkeys(name for name in required[:256] if isinstance(name, str))
    optional = [n for n in list(properties)[:_MAX_FIELDS] if isinstance(n, str)]
    return tuple(
        _param(name, properties.get(name), root, depth, required=name in needed)
        for name in dict.fromkeys([*optional, *needed])
    )


def _param(name: str, schema: Any, root: Mapping[str, Any], depth: int, *, required: bool) -> Param:
    schema = _resolved(schema, root)
    enum = schema.get("enum")
    enum = tuple(enum[:_MAX_ENUM]) if isinstance(enum, list) else ()
    if "const" in schema:
        enum = (schema["const"],)
    kind = _kind(schema)
    hint = schema.get("description")
    lowest = schema.get("minimum")
    examples = schema.get("examples")
    default = schema.get("default", ABSENT)
    if default is ABSENT and isinstance(examples, list) and examples:
        default = examples[0]
    item = None
    if kind == "array" and depth < _MAX_DEPTH:
        item = _param(name, schema.get("items"), root, depth + 1, required=False)
    return Param(
        name=name,
        kind=kind,
        words=stems(name[:60]),
        hint=stems(hint[:_MAX_HINT]) if isinstance(hint, str) else (),
        required=required,
        enum=enum,
        format=schema["format"] if isinstance(schema.get("format"), str) else "",
        default=default,
        fields=_fields(schema, root, depth + 1) if kind == "object" and depth < _MAX_DEPTH else (),
        item=item,
        lowest=lowest if isinstance(lowest, int | float) and abs(lowest) < 1e15 else None,
    )


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind references and unions: the first that is not null."""
    for _ in range(4):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        union = next((schema[k] for k in ("anyOf", "oneOf", "allOf") if k in schema), None)
        if isinstance(reference, str) and reference.startswith("#/"):
            found: Any = root
            for key in reference[2:].split("/")[:6]:
                found = found.get(key) if isinstance(found, Mapping) else None
            schema = found
        elif isinstance(union, list) and union and "type" not in schema:
            real = [u for u in union if isinstance(u, Mapping) and u.get("type") != "null"]
            schema = {**schema, **real[0]} if real else {}
            schema = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf", "allOf")}
        else:
            return schema
    return schema if isinstance(schema, Mapping) else {}


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null") if kind else "string"
    if isinstance(kind, str) and kind in KINDS:
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def is_kind(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a JSON type."""
    match value:
        case bool():
            return kind == "boolean"
        case int():
            return kind in ("integer", "number")
        case float():
            return kind == "number" or (kind == "integer" and value.is_integer())
        case str():
            return kind == "string"
        case list():
            return kind == "array"
        case dict():
            return kind == "object"
        case _:
            return kind == "null"


def score(tool: Tool, said: Sequence[str]) -> float:
    """How well stems of an utterance fit a function: ENOUGH and more, it was asked for."""
    spoken = frozenset(said)
    if not spoken:
        return 0.0
    total = 0.0
    for part in dict.fromkeys(tool.stems):
        weight = 1.0 if part in _GENERIC else 0.0 if part in FUNCTION_WORDS else 3.0
        total += weight * _heard(part, spoken)
    for plus, minus in _OPPOSITES:
        for mine, other in ((plus, minus), (minus, plus)):
            if mine in tool.stems and other in spoken and mine not in spoken:
                total -= 4.0
    told = [h for h in tool.hint if h not in _GENERIC and h not in tool.stems]
    total += min(4.0, sum(2.0 * _heard(h, spoken) for h in told if len(h) > 2))
    return total + min(2.5, sum(_param_score(p, spoken) for p in tool.params))


def _param_score(param: Param, spoken: frozenset[str]) -> float:
    named = any(w in spoken for w in param.words if w not in _GENERIC and w not in FUNCTION_WORDS)
    chosen = any(
        isinstance(v, str) and len(v) > 1 and v.isascii() and set(stems(v[:40])) <= spoken
        for v in param.enum
    )
    return 1.0 * named + 1.5 * chosen


def _heard(part: str, spoken: frozenset[str]) -> float:
    """1 for the stem itself, a little less for a near one or one that means the same."""
    if part in spoken:
        return 1.0
    if _SAME.get(part, frozenset()) & spoken and part not in _GENERIC:
        return 0.85
    if len(part) >= 5 and any(alike(s, part) for s in spoken):
        return 1.0
    # "reminder" is asked for with "remind", "navigation" with "navigate"
    if len(part) >= 5 and any(len(s) >= 5 and (s[:5] == part[:5]) for s in spoken):
        return 1.0
    return 0.0


def spoken_stems(words: Sequence[str]) -> tuple[str, ...]:
    """Stems of what was said."""
    return tuple(stem(w) for w in words)
