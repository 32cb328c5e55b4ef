"""Stories made by rule: the same for the same words, and as long as asked for."""

import random
import re
import zlib
from collections.abc import Iterator

from vivavoce.engines.builtin.numbers import parse
from vivavoce.engines.builtin.story_parts import (
    CLOSINGS,
    EPISODES,
    FILLERS,
    FRIENDS,
    HEROES,
    NAMES,
    OPENINGS,
    PLACES,
    TREASURES,
)
from vivavoce.engines.builtin.words import FUNCTION_WORDS, Utterance, word_set

MAX_WORDS = 3000
_DEFAULT, _SHORT, _LONG, _VERY_LONG = 120, 60, 350, 700
_WORDS_PER_MINUTE = 150  # an unhurried reading voice
_TOKENS_PER_WORD = 1.4  # more than the estimate ever gives for the vocabulary used here

_ASKED = re.compile(
    r"\b(?:tell|read|give|make|invent|want|hear|write|another|one more|long|short|little|bedtime"
    r"|have|know|improvise|narrate)\b.{0,40}\b(?:story|tale|fairytale|stories|stori|storey)\b"
    r"|^(?:a |the )?(?:story|tale)\b"
)
_ABOUT = re.compile(
    r"\b(?:story|tale|one|storey)\b.{0,30}?\b(?:about|of|with|on) "
    r"((?:a |an |the |my |some )?[a-z']+(?: [a-z']+){0,3})"
)
_ENDS = word_set(
    "in with that which who for please of using and at on under about than now long to"
)


def answer(said: Utterance, max_tokens: int | None) -> str | None:
    """A story where one is asked for, else None."""
    if not _ASKED.search(said.plain):
        return None
    target = _length(said)
    if max_tokens is not None:
        target = min(target, int(max_tokens / _TOKENS_PER_WORD))
    return tell(_subject(said), max(target, 1), seed=said.plain)


def _length(said: Utterance) -> int:
    words = said.words
    for i, this in enumerate(words):
        if this not in ("word", "words", "minute", "minutes", "sentence", "sentences", "seconds"):
            continue
        for start in range(max(0, i - 6), i):
            found = parse(words, start)
            if found is not None and found[1] == i and found[0] > 0:
                rate = _WORDS_PER_MINUTE if this.startswith("min") else 1
                rate = 12 if this.startswith("sent") else rate
                scale = found[0] * rate
                scale = scale * _WORDS_PER_MINUTE / 60 if this == "seconds" else scale
                return min(MAX_WORDS, max(1, int(scale)))
    if said.has("long", "longer", "lengthy"):
        return _VERY_LONG if re.search(r"\b(?:very|really|extra) long", said.plain) else _LONG
    short = re.search(r"\b(?:short|shorter|brief|quick|little|tiny)\b", said.plain)
    return _SHORT if short else _DEFAULT


def _subject(said: Utterance) -> str | None:
    found = said.find(_ABOUT)
    if found is None:
        return None
    kept: list[str] = []
    for this in found.lower().split():
        if this in _ENDS or parse([this]) is not None:
            break
        kept.append(this)
    while kept and kept[0] in ("a", "an", "the", "my", "some"):
        kept = kept[1:]
    if not kept or all(k in FUNCTION_WORDS for k in kept):
        return None
    return " ".join(kept)


def tell(subject: str | None, words: int, *, seed: str) -> str:
    """A story of about so many words. `subject` is a noun without its article."""
    rng = random.Random(zlib.crc32(seed.encode("utf-8", "replace")))
    hero = subject or rng.choice(HEROES)
    plural = hero.endswith("s") and not hero.endswith("ss")
    one = f"someone who loved {hero}" if plural else f"{_article(hero)} {hero}"
    cast = {
        "one": one,
        "name": rng.choice(NAMES),
        "place": rng.choice(PLACES),
        "treasure": rng.choice(TREASURES),
    }
    opening = _fitting(OPENINGS, cast, words * 2 // 5)
    closing = _fitting(CLOSINGS, cast, words * 2 // 5)
    left = words - _count(opening) - _count(closing)
    middle: list[str] = []
    episodes = _sentences(rng, cast)
    while left > 0:
        line = next(episodes)
        # Near the end a line of just the right length is better than the next of the tale.
        if _count(line) > left - 3:
            fillers = [f.format(**cast) for f in FILLERS]
            last = min(fillers, key=lambda f: abs(_count(f) - left))
            if abs(_count(last) - left) < left:
                middle.append(last)
            break
        middle.append(line)
        left -= _count(line)
    return " ".join(p for p in (opening, *middle, closing) if p)


def _sentences(rng: random.Random, cast: dict[str, str]) -> Iterator[str]:
    """Episode after episode without end; friends and places come round as late as they can."""
    bags: dict[str, list[str]] = {"friend": [], "where": [], "episode": []}

    def draw(bag: str, options: tuple[str, ...]) -> str:
        if not bags[bag]:
            bags[bag] = list(options)
            rng.shuffle(bags[bag])
        return bags[bag].pop()

    keys = tuple(EPISODES)
    while True:
        scene = {**cast, "friend": draw("friend", FRIENDS), "where": draw("where", PLACES)}
        for line in EPISODES[draw("episode", keys)]:
            yield line.format(**scene)


def _fitting(options: tuple[str, ...], cast: dict[str, str], limit: int) -> str:
    """The longest that fits, or the shortest there is."""
    told = sorted((o.format(**cast) for o in options), key=_count)
    return next((t for t in reversed(told) if _count(t) <= limit), told[0])


def _count(text: str) -> int:
    return len(text.split())


def _article(noun: str) -> str:
    return "an" if noun[:1] in "aeiou" else "a"
