"""Which functions an utterance asks for, and with what."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vivavoce.engines.builtin.roles import role_of
from vivavoce.engines.builtin.slots import Slots, stand_in
from vivavoce.engines.builtin.tools import ENOUGH, Param, Tool, score, spoken_stems
from vivavoce.engines.builtin.words import Utterance, listing, stems

MAX_CALLS = 8
_MAX_VALUES = 30  # parameters to be filled for one answer, in whole calls
_MAX_SCORES = 300  # times that a clause is compared with a function
_MAX_CHARS = 400  # of an utterance that asks for functions
_CLAUSE = re.compile(r"[.?!;](?:\s+|$)|,\s+|\b(?:and then|and also|and|then|also)\b", re.IGNORECASE)
_NEGATED = re.compile(r"^(?:please )?(?:do not|never|no need to|you do not need)\b")
_PREPOSITION = re.compile(r"^(?:in|for|at|to|near|from|on) ")
_PLACE_LIKE = frozenset(
    {"location", "city", "plac", "town", "country", "symbol", "ticker", "region"}
)


@dataclass(frozen=True, slots=True)
class Call:
    """A function to be called with these arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A function was asked for, but these of its required values were not said."""

    tool: Tool
    missing: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the user is asked."""
        flags = {p.name for p in self.tool.params if p.kind == "boolean"}
        words = listing(
            f"{m.replace('_', ' ').strip() or 'value'}{', yes or no' if m in flags else ''}"
            for m in self.missing
        )
        name = " ".join(self.tool.name.replace("_", " ").replace("-", " ").split())
        return f"For {name} I need to know the {words}. What should I use?"


@dataclass(frozen=True, slots=True)
class _Wish:
    """A stretch of the utterance that asks for one function."""

    tool: Tool
    text: str


def wanted(said: Utterance, tools: Sequence[Tool], now: datetime) -> list[Call | Question]:
    """What the utterance asks for, in its order.

    A later call of a function takes what it lacks from the first.
    """
    found: list[Call | Question] = []
    first: dict[str, dict[str, Any]] = {}
    left = _MAX_VALUES
    for wish in _wishes(said, tools)[:MAX_CALLS]:
        if left < 0:
            break
        left -= len(wish.tool.params)
        given = Slots(Utterance.of(wish.text), wish.tool, now).fill(wish.tool.params)
        for param in wish.tool.params:
            if param.required and param.name in first.get(wish.tool.name, {}):
                given.setdefault(param.name, first[wish.tool.name][param.name])
        missing = tuple(p.name for p in wish.tool.params if p.required and p.name not in given)
        if missing:
            found.append(Question(wish.tool, missing))
            continue
        call = Call(wish.tool.name, given)
        first.setdefault(wish.tool.name, given)
        if call not in found:
            found.append(call)
    return found


def answered(question: Question, asked: Utterance, said: Utterance, now: datetime) -> Call | None:
    """The call that a question was about, now that its answer was said; None: still not enough."""
    tool = question.tool
    given = Slots(_cut(asked), tool, now).fill(tool.params)
    open_params = tuple(p for p in tool.params if p.name in question.missing)
    given |= Slots(_cut(said), tool, now).fill(open_params)
    if any(p.required and p.name not in given for p in tool.params):
        return None
    return Call(tool.name, {p.name: given[p.name] for p in tool.params if p.name in given})


def forced(said: Utterance, tool: Tool, now: datetime) -> Call:
    """A call that must be made: what was not said is filled as well as can be."""
    given = Slots(_cut(said), tool, now).fill(tool.params)
    for param in tool.params:
        if param.required and param.name not in given:
            given[param.name] = stand_in(param, said.text if _is_free(param) else "")
    return Call(tool.name, given)


def best(said: Utterance, tools: Sequence[Tool]) -> Tool:
    """The function that fits best, even if none fits well. `tools` is not empty."""
    heard = spoken_stems(said.words)
    return max(tools, key=lambda tool: score(tool, heard))


def _cut(said: Utterance) -> Utterance:
    return said if len(said.text) <= _MAX_CHARS else Utterance.of(said.text[:_MAX_CHARS])


def _is_free(param: Param) -> bool:
    return param.kind == "string" and role_of(param) in ("text", "other")


def _wishes(said: Utterance, tools: Sequence[Tool]) -> list[_Wish]:
    """Cut into clauses; what asks for nothing belongs to its neighbour."""
    wishes: list[_Wish] = []
    lead = ""
    for clause, joint in _clauses(said.text[:_MAX_CHARS], _MAX_SCORES // (len(tools) or 1)):
        part = Utterance.of(clause)
        if _NEGATED.search(part.plain):
            continue
        tool = _asked(part, tools)
        if tool is not None and wishes and _goes_on(part, wishes[-1], tool):
            tool = None
        if tool is not None:
            wishes.append(_Wish(tool, f"{lead} {clause}".strip()))
            lead = ""
        elif not wishes:
            lead = f"{lead} {clause}".strip()
        elif _another(part, wishes[-1], joint):
            wishes.append(_Wish(wishes[-1].tool, clause))
        else:
            last = wishes.pop()
            wishes.append(_Wish(last.tool, f"{last.text}{joint}{clause}"))
    if (
        not wishes
        and len(said.text) <= _MAX_CHARS
        and not _NEGATED.search(said.plain)
        and (tool := _asked(said, tools))
    ):
        wishes.append(_Wish(tool, said.text))
    return wishes


def _clauses(text: str, most: int) -> list[tuple[str, str]]:
    """Clauses with what joins each to the one before; the last has all that is left."""
    out: list[tuple[str, str]] = []
    at, joint = 0, " "
    for match in _CLAUSE.finditer(text):
        if len(out) >= most - 1:
            break
        if clause := text[at : match.start()].strip():
            out.append((clause, joint))
        joint = f" {match[0].strip()} " if match[0].strip().isalpha() else f"{match[0].strip()} "
        at = match.end()
    if clause := text[at:].strip():
        out.append((clause, joint))
    return out


def _asked(part: Utterance, tools: Sequence[Tool]) -> Tool | None:
    if not part.words or not tools:
        return None
    heard = spoken_stems(part.words)
    top, at = max((score(tool, heard), -i) for i, tool in enumerate(tools))
    tool = tools[-at]
    return tool if top + (top >= ENOUGH - 1 and _takes_place(tool, part)) >= ENOUGH else None


def _takes_place(tool: Tool, part: Utterance) -> bool:
    """A place after its preposition makes a function that takes a place likelier."""
    takes = any(set(p.words) & _PLACE_LIKE for p in tool.params)
    return takes and re.search(r"\b(?:in|at|near|for) [a-z]{3,}", part.plain) is not None


def _goes_on(part: Utterance, before: _Wish, tool: Tool) -> bool:
    """`five minutes and thirty seconds` is one wish, although seconds name the function too."""
    counted = re.match(r"^\S+(?: \S+)? (?:seconds?|minutes?|hours?)$", part.plain)
    return tool is before.tool and counted is not None


def _another(part: Utterance, before: _Wish, joint: str) -> bool:
    """`and in rome`, `and rome`: the same function once more."""
    params = before.tool.params
    if not any(set(p.words) & _PLACE_LIKE for p in params):
        return False
    if _PREPOSITION.match(part.plain):
        return not any(w in ("celsius", "fahrenheit", "degrees", "detail") for w in part.words)
    many = any(p.kind == "array" for p in params)
    named = all(w.isalpha() for w in part.words) and not set(stems(part.plain)) & {
        "tomorrow",
        "today",
    }
    # After a comma it may as well be more of the same name: "San Francisco, California".
    return not many and joint.strip() != "," and len(part.words) <= 3 and named
