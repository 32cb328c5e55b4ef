"""Fills the values of a function from the words of an utterance."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any

from vivavoce.engines.builtin.dates import find_day, find_time, is_day_word
from vivavoce.engines.builtin.numbers import parse
from vivavoce.engines.builtin.roles import DAYS, named, role_of
from vivavoce.engines.builtin.tools import ABSENT, Param, Tool, is_kind
from vivavoce.engines.builtin.words import FUNCTION_WORDS, Utterance, stem, word_set

_SECONDS = {"second": 1, "minut": 60, "hour": 3600, "day": 86400, "week": 604800}
_AFTER: dict[str, frozenset[str]] = {
    "place": frozenset({"in", "for", "at", "near", "around", "to", "from", "of"}),
    "origin": frozenset({"from"}),
    "destination": frozenset({"to"}),
    "person": frozenset({"to", "with", "for", "named", "called", "call", "text", "email", "tell"}),
    "text": frozenset({"saying", "says", "that"}),
}
_BREAKS = word_set(
    "at on in for to with from and or then is are please saying that right like outside now next"
    " this by about will tonight tomorrow today i you me"
)
_ASKING = FUNCTION_WORDS | word_set("set put add send create find look search remind check kindly")
_DOING = word_set("turn switch open start play book order buy schedule calculate compute fetch")
_LOOSE_ENDS = word_set("please and for me now the at on in to by")
_ON = word_set("on true yes enable enabled activate open start with")
_OFF = word_set("off false no disable disabled deactivate close stop without not")
_STATES = word_set("on enabl stat power activ pow turn_on is on valu")
_EMAIL = re.compile(r"[\w.+-]{1,60}@[\w-]{1,60}(?:\.[\w-]{1,20}){1,4}")
_TOLD = re.compile(r"\b(?:saying|says|that says|telling (?:him|her|them)(?: that)?)\s+(.+)", re.I)


class Slots:
    """One utterance being taken apart for one function. A word fills at most one value."""

    def __init__(self, said: Utterance, tool: Tool, now: datetime) -> None:
        self._said = said
        self._tool = tool
        self._now = now
        self._numbers = tuple(_numbers(said.words))
        self._day = find_day(said.words, now.date())
        self._clock = find_time(said.words)
        self._free = [True] * len(said.words)
        self._stems = tuple(stem(w) for w in said.words)

    def fill(self, params: Sequence[Param]) -> dict[str, Any]:
        """The values that the words give; a parameter they say nothing about is left out."""
        order = sorted(params, key=self._rank)
        given = {p.name: value for p in order if (value := self._value(p)) is not ABSENT}
        return {p.name: given[p.name] for p in params if p.name in given}

    def _rank(self, param: Param) -> tuple[int, bool]:
        """Sure things first: what is left over is free text."""
        kinds = {"boolean": 1, "integer": 3, "number": 3, "object": 5, "array": 6}
        role = role_of(param)
        if param.enum:
            return 0, not param.required
        if param.kind == "string":
            roles = {
                "format": 0,
                "day": 2,
                "time": 2,
                "text": 4,
                "origin": 5,
                "destination": 5,
                "person": 3,
            }
            return roles.get(role, 6 if role == "place" else 7), not param.required
        return kinds.get(param.kind, 7), not param.required

    def _value(self, param: Param) -> Any:
        if param.enum:
            return self._choice(param)
        match param.kind:
            case "boolean":
                return self._flag(param)
            case "integer" | "number":
                return self._number(param)
            case "array":
                return self._many(param)
            case "object":
                fields = self.fill(param.fields)
                whole = all(f.name in fields for f in param.fields if f.required)
                return fields if fields and whole else ABSENT
            case "string":
                return self._string(param)
            case _:
                return ABSENT

    def _choices(self, param: Param) -> list[tuple[int, int, Any]]:
        """Where the words name values of an enum: start, length, value; the longest first."""
        found = []
        for wanted, value in param.choices:
            if isinstance(value, int | float):
                found += [(a, e - a, value) for a, e, n in self._numbers if n == value]
            elif wanted[0] in self._stems:
                for at in range(len(self._stems) - len(wanted) + 1):
                    if self._stems[at : at + len(wanted)] == wanted:
                        found.append((at, len(wanted), value))
        return sorted(found, key=lambda f: -f[1])

    def _choice(self, param: Param) -> Any:
        if len(param.enum) == 1 and param.required:
            return param.enum[0]
        for at, length, value in self._choices(param):
            if self._take(at, at + length):
                return value
        return ABSENT

    def _flag(self, param: Param) -> Any:
        for at, this in enumerate(self._said.words):
            if not self._free[at] or this not in _ON | _OFF:
                continue
            near = set(self._stems[max(0, at - 2) : at + 4])
            if set(param.words) & (_STATES | near) - FUNCTION_WORDS or set(param.words) <= {"on"}:
                # "turn on the light": the word belongs to the function's name as well
                return this in _ON
        wanted = [w for w in param.words if w not in FUNCTION_WORDS]
        if wanted and all(w in self._stems for w in wanted):
            return True
        return ABSENT

    def _number(self, param: Param) -> Any:
        best: tuple[int, int, int, Fraction] | None = None
        unit = next((u for w in (*param.words, *param.hint) if (u := _SECONDS.get(w))), 0)
        for at, end, value in self._numbers:
            if not self._free[at]:
                continue
            after = self._stems[end : end + 2]
            before = self._stems[max(0, at - 3) : at]
            if unit and after and after[0] in _SECONDS:
                total, stop = self._duration(at, unit)
                found = (3, at, stop, total)
            else:
                named_so = not set(param.words).isdisjoint(after + before)
                rank = 2 if named_so else 1 if after and after[0] in param.hint else 0
                found = (rank, at, end, value)
            if best is None or found[0] > best[0]:
                best = found
        if best is None:
            return ABSENT
        self._take(best[1], best[2])
        return _json_number(best[3], param.kind)

    def _duration(self, at: int, unit: int) -> tuple[Fraction, int]:
        """`one minute and thirty seconds` in the unit that is wanted."""
        total = Fraction(0)
        end = at
        while (found := parse(self._said.words, at)) is not None:
            seconds = _SECONDS.get(self._stems[found[1]], 0) if found[1] < len(self._stems) else 0
            if not seconds:
                break
            total, end = total + found[0] * seconds, found[1] + 1
            at = end + (self._said.words[end : end + 1] == ("and",))
        return total / unit, end

    def _many(self, param: Param) -> Any:
        item = param.item
        if item is None:
            return ABSENT
        if item.enum:
            chosen = sorted(self._choices(item), key=lambda f: f[0])
            kept = dict.fromkeys(v for at, n, v in chosen if self._take(at, at + n))
            return list(kept) or ABSENT
        if item.kind in ("integer", "number"):
            numbers: list[int | float] = []
            while len(numbers) < 50 and (value := self._number(item)) is not ABSENT:
                numbers.append(value)
            return numbers or ABSENT
        if item.kind != "string":
            value = self._value(item)
            return ABSENT if value is ABSENT else [value]
        text = self._string(param)
        if text is ABSENT:
            return ABSENT
        parts = re.split(r"\band\b|,", text)
        return [named(p.strip(), role_of(item)) for p in parts if p.strip()] or ABSENT

    def _string(self, param: Param) -> Any:
        role = role_of(param)
        if role == "format":
            found = _EMAIL.search(self._said.text)
            return found[0] if found else ABSENT
        if role in ("day", "time"):
            return self._moment(param, role)
        if role == "text" and (told := _TOLD.search(self._said.text)):
            words = Utterance.of(told[1]).words
            self._take(len(self._stems) - len(words), len(self._stems))
            return told[1].rstrip(".!?")
        if (told_so := self._after_own_name(param)) is not ABSENT:
            return told_so
        if role in _AFTER and role != "text":
            found_after = self._after(_AFTER[role])
            if found_after is not None or role in ("origin", "destination"):
                return named(found_after, role) if found_after else ABSENT
        return self._rest(role)

    def _moment(self, param: Param, role: str) -> Any:
        day, clock = self._day, self._clock
        spans = [s for s in (day, clock) if s is not None]
        wants_day = set(param.words) & DAYS and not set(param.words) & {"tim"}
        if param.format == "date-time" and spans:
            moment = self._now.replace(second=0, microsecond=0)
            if clock is not None:
                moment = moment.replace(hour=clock[2].hour, minute=clock[2].minute)
            if day is not None:
                moment = moment.replace(year=day[2].year, month=day[2].month, day=day[2].day)
            for span in spans:
                self._take(span[0], span[1])
            return moment.isoformat()
        iso = {"iso", "yyyy"} & set(param.hint) or param.format
        if wants_day and day is not None:
            self._take(day[0], day[1])
            if param.format == "date" or iso:
                return day[2].isoformat()
            return self._said.part(day[0], day[1])
        if clock is not None and role == "time":
            self._take(clock[0], clock[1])
            if param.format == "time" or iso or "hh" in param.hint:
                return clock[2].strftime("%H:%M:%S" if param.format == "time" else "%H:%M")
            return self._said.part(clock[0], clock[1])
        return ABSENT

    def _after_own_name(self, param: Param) -> Any:
        """`the title is groceries`, `title groceries`, `with the subject of hello`."""
        wanted = [w for w in param.words if w not in FUNCTION_WORDS and w not in self._tool.stems]
        for at, this in enumerate(self._stems):
            if this in wanted and self._free[at]:
                start = at + 1
                while start < len(self._stems) and self._said.words[start] in (
                    "is",
                    "of",
                    "as",
                    "to",
                ):
                    start += 1
                end = self._run(start, limit=6)
                if start < end and start > at + 1:
                    self._take(start, end)
                    return named(self._said.part(start, end), role_of(param))
        return ABSENT

    def _after(self, prepositions: frozenset[str]) -> str | None:
        for at, this in enumerate(self._said.words):
            if this not in prepositions:
                continue
            start = at + 1
            while start < len(self._stems) and self._said.words[start] in ("the", "a", "my"):
                start += 1
            end = self._run(start, limit=4)
            if end > start and self._stems[start] not in self._tool.stems:
                self._take(start, end)
                return self._said.part(start, end)
        return None

    def _run(self, start: int, limit: int) -> int:
        """The end of the run of free words from `start` that may belong to one name."""
        end = start
        while end < min(len(self._stems), start + limit):
            this = self._said.words[end]
            if not self._free[end] or this in _BREAKS or is_day_word(this) or not this[0].isalnum():
                break
            if parse(self._said.words, end) is not None and end > start:
                break
            end += 1
        return end

    def _rest(self, role: str) -> Any:
        """The longest run of words that nothing else has claimed, without the asking ones."""
        best = (0, 0)
        at = 0
        while at < len(self._stems):
            while at < len(self._stems) and (not self._free[at] or self._asks(at, role)):
                at += 1
            end = at
            while end < len(self._stems) and self._free[end] and not self._stops(at, end, role):
                end += 1
            stop = end
            while stop > at and self._trails(stop - 1, role):
                stop -= 1
            if stop - at > best[1] - best[0]:
                best = (at, stop)
            at = max(end, at + 1)
        start, stop = best
        if start == stop or (role in ("place", "person") and stop - start > 4):
            return ABSENT
        self._take(start, stop)
        return named(self._said.part(start, stop), role)

    def _stops(self, start: int, at: int, role: str) -> bool:
        """A name ends at a preposition, a thing at "to the list"."""
        this = self._said.words[at]
        if role not in ("text", "other"):
            return this in _BREAKS and this != "and"
        following = self._said.words[at + 1 : at + 2]
        thing_ends = this in ("to", "from", "on") and following in (("the",), ("my",), ("our",))
        return role == "other" and at > start and thing_ends

    def _trails(self, at: int, role: str) -> bool:
        return self._said.words[at] in _LOOSE_ENDS or (role != "text" and self._asks(at, role))

    def _asks(self, at: int, role: str) -> bool:
        """Whether the word asks for the function, rather than being a value of it."""
        this = self._said.words[at]
        if self._stems[at] in self._tool.stems or this in _ASKING:
            return True
        return role != "text" and (this in _DOING or this == "outside" or is_day_word(this))

    def _take(self, start: int, end: int) -> bool:
        if not all(self._free[start:end]):
            return False
        self._free[start:end] = [False] * (end - start)
        return True


def _numbers(words: Sequence[str]) -> Iterator[tuple[int, int, Fraction]]:
    """Start, end and value of each number."""
    at = 0
    while at < len(words):
        found = parse(words, at)
        if found is not None:
            yield at, found[1], found[0]
        at = found[1] if found is not None else at + 1


def _json_number(value: Fraction, kind: str) -> int | float:
    if kind == "integer" or value.denominator == 1:
        return round(value)
    return float(value)


def stand_in(param: Param, rest: str) -> Any:
    """The best value for a required parameter that the words say nothing about."""
    if param.enum:
        return param.default if param.default in param.enum else param.enum[0]
    if param.default is not ABSENT and is_kind(param.default, param.kind):
        return param.default
    match param.kind:
        case "integer":
            return int(-(-(param.lowest or 0) // 1))
        case "number":
            return param.lowest or 0
        case "boolean":
            return False
        case "array":
            return []
        case "object":
            return {f.name: stand_in(f, rest) for f in param.fields if f.required}
        case "null":
            return None
        case _:
            return rest
