"""Counting, spelling, repeating: what can be said without understanding it."""

import re

from vivavoce.engines.builtin.numbers import parse, say_whole
from vivavoce.engines.builtin.words import Utterance, sentence

MAX_COUNT = 100
_COUNT = re.compile(r"\b(?:count|counting)\b(?! on| me\b)(.*)")
_SPELL = re.compile(
    r"\b(?:(?:spell|spelling)(?: out)?(?: of)?(?: for me)?(?: the)?(?: word| name)?"
    r"|how do you (?:spell|write)(?: the word)?|how is) ([\w' ]{1,60})"
)
_REPEAT = re.compile(
    r"^(?:(?:please|now|okay|hey|can you|could you|would you|will you) ){0,3}"
    r"(?:repeat(?: after me| the words?| this)?|say(?: after me| the words?| this)?|echo)"
    r" (?!something\b|anything\b|that\b|it\b|what\b|again\b|a (?:joke|story)|more\b|your name)(.+)"
)
_REPEAT_TEXT = re.compile(r"\b(?:repeat after me|say|repeat)\b[,:]?\s+(.+)", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“”«](.{1,400}?)[\"“”»]")
_TRAILING = re.compile(r"(?:,? please| for me| now| again)[.!?]?$", re.IGNORECASE)

VERBS = frozenset({"spell", "say", "count", "repeat", "echo"})
"""Verbs of this file: what follows them is to be said, whatever it means."""


def asked(said: Utterance) -> bool:
    """Whether the utterance begins like a recital and is one."""
    if not VERBS & set(said.words[:3]):
        return False
    return any((spell(said), count(said), repeat(said)))


def count(said: Utterance) -> str | None:
    """`One, two, three.`; from, to and direction as asked, at most a hundred numbers."""
    rest = said.find(_COUNT)
    if rest is None:
        return None
    words = Utterance.of(rest).words
    numbers: list[int] = []
    at = 0
    while at < len(words):
        # "too" and "two" sound like the "to" before the number: a number directly after one wins.
        found = parse(words, at)
        if found is None or found[0].denominator != 1:
            at += 1
            continue
        value, end = found
        numbers.append(int(value))
        at = end
    if not numbers:
        return None
    down = "down" in words or "backward" in words or "backwards" in words
    numbers = numbers[-2:]
    if len(numbers) == 1:
        start, stop = (numbers[0], 1) if down else (1, numbers[0])
    else:
        start, stop = numbers
        if down and start < stop:
            start, stop = stop, start
    step = 1 if stop >= start else -1
    if abs(stop - start) >= MAX_COUNT:
        told = [say_whole(start + step * i) for i in range(MAX_COUNT)]
        return sentence(", ".join(told)) + " And so on; I stop after a hundred."
    return sentence(", ".join(say_whole(i) for i in range(start, stop + step, step)))


def spell(said: Utterance) -> str | None:
    """`B, A, N, A, N, A.`"""
    found = said.find(_SPELL)
    if found is None:
        return None
    if "how is" in said.plain:
        if not found.endswith((" spelled", " spelt", " written")):
            return None
        found = found.rpartition(" ")[0]
    words = [w for w in found.split() if w.lower() not in ("please", "for", "me")][:4]
    if not words:
        return None
    spelled = ". ".join(", ".join(c.upper() for c in w if c.isalnum())[:120] for w in words)
    return spelled + "."


def repeat(said: Utterance) -> str | None:
    """What follows "say" or "repeat after me", as it was written."""
    if _REPEAT.search(said.plain) is None:
        return None
    quoted = _QUOTED.search(said.text)
    match = _REPEAT_TEXT.search(said.text)
    if quoted is None and match is None:
        return None
    text = quoted[1] if quoted else match[1] if match else ""
    return sentence(_TRAILING.sub("", text).strip(" \"'“”")) or None
