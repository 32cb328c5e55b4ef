"""The output of a function, told in words."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any

from vivavoce.engines.builtin.dates import say_date, say_time
from vivavoce.engines.builtin.numbers import say
from vivavoce.engines.builtin.words import listing, sentence

_MAX_CHARS = 20_000
_MAX_FIELDS = 8
_MAX_WORDS = 60
_MARKUP = re.compile(r"[*_`#>|]+|\]\([^()\s]{0,300}\)|\[|https?://\S{1,300}")
_SIGNS = {"°C": " degrees Celsius", "°F": " degrees Fahrenheit", "%": " percent", "&": " and "}
_UNITS = {
    "c": "degrees Celsius",
    "celsius": "degrees Celsius",
    "f": "degrees Fahrenheit",
    "fahrenheit": "degrees Fahrenheit",
    "percent": "percent",
    "pct": "percent",
    "kmh": "kilometres an hour",
    "km": "kilometres",
    "kph": "kilometres an hour",
    "mph": "miles an hour",
    "ms": "milliseconds",
    "usd": "dollars",
    "eur": "euros",
    "seconds": "seconds",
    "minutes": "minutes",
    "hours": "hours",
    "meters": "meters",
    "km/h": "kilometres an hour",
    "°c": "degrees Celsius",
    "°f": "degrees Fahrenheit",
    "%": "percent",
}
_ANSWERS = ("result", "answer", "message", "text", "output", "value", "content", "summary", "data")
_FINE = frozenset({"ok", "okay", "success", "done", "completed", "true", "sent", "accepted"})


def tell(output: str, arguments: str = "") -> str:
    """One or two sentences. `arguments` is the JSON of the call; its strings name the subject."""
    value = _parsed(output[:_MAX_CHARS])
    if value is None or value in ("", {}, []):
        return "That is done." if value != [] else "There were no results."
    if isinstance(value, Mapping):
        told = _record(value)
        about = _subject(arguments, told)
        return sentence(f"{about}{told[0].lower() if about else told[0]}{told[1:]}")
    if isinstance(value, bool):
        return "Yes." if value else "No."
    return sentence(_value(value))


def _parsed(output: str) -> Any:
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        return output.strip()


def _subject(arguments: str, told: str) -> str:
    """`For Paris, `, so that the answers of several calls can be told apart."""
    given = _parsed(arguments[:_MAX_CHARS])
    if not isinstance(given, Mapping):
        return ""
    named = next((v for v in given.values() if isinstance(v, str) and 0 < len(v) < 40), None)
    if named is None or not told.lower().startswith("the ") or named.lower() in told.lower():
        return ""
    return f"For {named}, " if named[0].isupper() else ""


def _record(record: Mapping[str, Any]) -> str:
    if error := record.get("error") or record.get("errors"):
        return f"that did not work: {_value(error)}"
    fields = dict(record)
    for flag in ("success", "ok", "status"):
        state = fields.get(flag)
        if state is False:
            rest = {k: v for k, v in fields.items() if k != flag}
            return "that did not work" + (f": {_fields(rest)}" if rest else "")
        if state is True or (isinstance(state, str) and state.lower() in _FINE):
            del fields[flag]
            if not fields:
                return "that is done"
    if len(fields) == 1:
        ((key, value),) = fields.items()
        if key.lower() in _ANSWERS:
            return _record(value) if isinstance(value, Mapping) and value else _value(value)
    return _fields(fields)


def _fields(record: Mapping[str, Any], depth: int = 0) -> str:
    fields = dict(record)
    unit = next((fields.pop(k) for k in ("unit", "units") if isinstance(fields.get(k), str)), None)
    told: list[str] = []
    for key, value in list(fields.items())[:_MAX_FIELDS]:
        if isinstance(value, Mapping) and depth < 2:
            if value:
                told.append(_fields(value, depth + 1))
            continue
        name, own_unit = _key(str(key))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and unit and own_unit is None:
            own_unit, unit = _UNITS.get(unit.lower(), unit[:20]), None
        verb = "are" if name.endswith("s") and not name.endswith(("ss", "us")) else "is"
        measure = f" {own_unit}" if own_unit and number else ""
        told.append(f"the {name} {verb} {_value(value)}{measure}")
    if unit and not told:
        return f"the unit is {_spoken(unit)}"
    return listing(told) if told else "that is done"


_SHORT = {"temp": "temperature", "desc": "description", "qty": "quantity", "num": "number"}


def _key(key: str) -> tuple[str, str | None]:
    """`temperature_c` is a temperature in degrees Celsius."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key[:60].replace("_", " ").replace("-", " "))
    words = [_SHORT.get(w, w) for w in spaced.lower().split()] or ["value"]
    if len(words) > 1 and words[-1] in _UNITS:
        return " ".join(words[:-1]), _UNITS[words[-1]]
    return " ".join(words), None


def _value(value: Any, depth: int = 0) -> str:
    match value:
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
        case int() if abs(value) < 10**18:
            return say(value)
        case float() if abs(value) < 1e15:
            return say(Fraction(str(value)), places=2)
        case str():
            return _spoken(value)
        case list():
            return _several(value, depth)
        case Mapping() if depth < 3:
            return _fields(value, depth) if value else "nothing"
        case _:
            return _spoken(str(value)[:60])


def _several(values: list[Any], depth: int) -> str:
    if not values:
        return "nothing"
    if depth >= 3:
        return f"{say(len(values))} things"
    told = [_value(_short(v), depth + 1) for v in values[:5]]
    if len(values) > 5:
        told.append(f"{say(len(values) - 5)} more")
    return listing(told)


def _short(value: Any) -> Any:
    """Of a record in a list, only its name."""
    if isinstance(value, Mapping):
        return next((value[k] for k in ("name", "title", "text", "label") if k in value), value)
    return value


def _spoken(text: str) -> str:
    """Without what cannot be spoken, and not too long."""
    text = text[: _MAX_CHARS // 4].strip()
    if re.fullmatch(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.{0,30})?", text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return text
        day = say_date(moment.date())
        return f"{day}, at {say_time(moment)}" if len(text) > 10 else day
    text = _MARKUP.sub(" ", text)
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    text = "".join(c for c in text if c.isalnum() or c.isspace() or c in ".,;:!?'\u2019\"()/+-$€£@")
    words = text.split()
    if len(words) > _MAX_WORDS:
        return " ".join(words[:_MAX_WORDS]).rstrip(".,;:") + ", and more"
    return " ".join(words) or "nothing"
