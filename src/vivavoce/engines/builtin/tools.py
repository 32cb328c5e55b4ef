"""Functions that the client declares, read once per answer, and how well words fit them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vivavoce.engines.builtin.words import FUNCTION_WORDS, alike, stem, stems, word_set
from vivavoce.protocol.items import FunctionTool

_MAX_ENUM, _MAX_DEPTH, _MAX_HINT = 60, 3, 160
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
    """A value that a function takes. `kind` is its JSON type; `enum` is () where any value goes.

    `choices` are the values of the enum that can be said, with the stems of their words.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    hint: tuple[str, ...]
    required: bool
    enum: tuple[Any, ...]
    choices: tuple[tuple[tuple[str, ...], Any], ...]
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
    """Read a declaration. Nothing in a schema is an error: what is not understood is a string.

    Of a very large schema only a part is matched against words; its required keys are all kept.
    """
    hint = tool.description if isinstance(tool.description, str) else ""
    schema = tool.parameters if isinstance(tool.parameters, dict) else {}
    told = frozenset(s for s in stems(hint[:_MAX_HINT]) if s not in FUNCTION_WORDS)
    return Tool(tool.name, stems(tool.name[:80]), told, _Reading(schema).fields(schema, 0))


class _Reading:
    """A schema being read: how many more parameters and values of enums are worth the time."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._params = 40
        self._values = 150

    def fields(self, schema: Mapping[str, Any], depth: int) -> tuple[Param, ...]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        needed = dict.fromkeys(name for name in required[:256] if isinstance(name, str))
        known = [n for n in islice(properties, self._params) if isinstance(n, str)]
        return tuple(
            self._param(name, properties.get(name), depth, required=name in needed)
            for name in dict.fromkeys([*known, *needed])
        )

    def _param(self, name: str, schema: Any, depth: int, *, required: bool) -> Param:
        self._params -= 1
        worth = self._params >= 0
        deeper = worth and depth < _MAX_DEPTH
        schema = _resolved(schema, self._root)
        enum = schema.get("enum")
        enum = tuple(enum[:_MAX_ENUM]) if isinstance(enum, list) else ()
        if "const" in schema:
            enum = (schema["const"],)
        kind = _kind(schema)
        hint, lowest, form = (schema.get(k) for k in ("description", "minimum", "format"))
        item = None
        if kind == "array" and deeper:
            item = self._param(name, schema.get("items"), depth + 1, required=False)
        return Param(
            name=name,
            kind=kind,
            words=stems(name[:60]) if worth else (),
            hint=stems(hint[:_MAX_HINT]) if isinstance(hint, str) and worth else (),
            required=required,
            enum=enum,
            choices=self._choices(enum),
            format=form if isinstance(form, str) else "",
            default=_default(schema),
            fields=self.fields(schema, depth + 1) if kind == "object" and deeper else (),
            item=item,
            lowest=lowest if isinstance(lowest, int | float) and abs(lowest) < 1e15 else None,
        )

    def _choices(self, enum: tuple[Any, ...]) -> tuple[tuple[tuple[str, ...], Any], ...]:
        values = [v for v in enum if isinstance(v, str | int | float) and not isinstance(v, bool)]
        values = values[: max(0, self._values)]
        self._values -= len(values)
        named = ((stems(str(value)[:40]), value) for value in values)
        # a value that is only "the" or "to" is never meant
        return tuple(
            (words, value)
            for words, value in named
            if words and (len(words) > 1 or words[0] not in FUNCTION_WORDS - {"no"})
        )


def _default(schema: Mapping[str, Any]) -> Any:
    examples = schema.get("examples")
    if "default" not in schema and isinstance(examples, list) and examples:
        return examples[0]
    return schema.get("default", ABSENT)


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
    chosen = any(spoken.issuperset(words) for words, _ in param.choices)
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
