"""The words of an utterance, as a simple recogniser gives them. Matching is loose on purpose."""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

MAX_CHARS = 1500
"""More than a minute of speech; what is said beyond it is not looked at."""

_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|[-+*/^%\u00d7÷()=$€£°]")
_JOINED = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_NOT_WORDS = re.compile(r"\[[^\[\]]{0,20}\]|<[^<>]{0,20}>")  # recognisers write [NOISE], <unk>


def word_set(text: str) -> frozenset[str]:
    """The words of a text, written in one line for the reader's sake."""
    return frozenset(text.split())


_FILLERS = frozenset({"um", "uh", "uhm", "er", "erm", "hmm", "mhm"})
_TAILS = {"'s": "is", "'re": "are", "'m": "am", "'ll": "will", "'ve": "have", "'d": "would"}
_WHOLE = {
    "can't": "cannot",
    "won't": "will not",
    "let's": "let us",
    "lets": "let us",
    "whats": "what is",
    "what's": "what is",
    "who's": "who is",
    "it's": "it is",
    "that's": "that is",
    "there's": "there is",
    "how's": "how is",
    "where's": "where is",
    "gonna": "going to",
    "wanna": "want to",
    "goodnight": "good night",
}
_SUBJECTS = frozenset({"i", "you", "we", "they", "he", "she", "it", "that", "what", "who", "there"})

FUNCTION_WORDS = word_set(
    "a an the is are am was were be been do does did can could would will shall should may might"
    " i you he she it we they me him her us them my your his its our their this that these those"
    " what who whom which how when where why and or but if so then than of to in for at by with"
    " from as into about over please there here not no yes just some any all let have has had"
    " want like need know tell say give show make get go hey hello hi okay ok now too also"
    " much many very really well im dont cannot out right something anything thing"
)


@dataclass(frozen=True, slots=True)
class Utterance:
    """What was said: its text, its words as written, and the same in lower case.

    Contractions are taken apart ("what's" is two words), so that one rule fits both ways.
    """

    text: str
    surface: tuple[str, ...]
    words: tuple[str, ...]
    plain: str

    @classmethod
    def of(cls, text: str) -> Self:
        text = _NOT_WORDS.sub(" ", text[:MAX_CHARS].replace("\u2019", "'"))
        text = " ".join(text.split())
        surface: list[str] = []
        for token in _TOKEN.findall(_JOINED.sub(" ", text)):
            if token.lower() not in _FILLERS:
                surface += _apart(token)
        words = tuple(word.lower() for word in surface)
        return cls(text, tuple(surface), words, " ".join(words))

    def has(self, *wanted: str) -> bool:
        """Whether one of these words was said, or one that is a letter away from it."""
        return any(alike(word, want) for want in wanted for word in self.words)

    def part(self, start: int, end: int | None = None) -> str:
        """The words from `start` to `end` as they were written."""
        return " ".join(self.surface[start:end])

    def find(self, pattern: re.Pattern[str]) -> str | None:
        """The first group of `pattern` in the plain words, as it was written."""
        match = pattern.search(self.plain)
        if match is None or not match[1]:
            return None
        found = match[1].strip()
        if not found:
            return None
        at = match.start(1) + len(match[1]) - len(match[1].lstrip())
        start = self.plain[:at].count(" ")
        return self.part(start, start + found.count(" ") + 1)


def _apart(token: str) -> list[str]:
    lower = token.lower()
    if lower in _WHOLE:
        first, *rest = _WHOLE[lower].split()
        return [first.capitalize() if token[0].isupper() else first, *rest]
    if lower.endswith("n't"):
        return [token[:-3], "not"]
    head, mark, tail = token.partition("'")
    if mark and head.lower() in _SUBJECTS and f"'{tail.lower()}" in _TAILS:
        return [head, _TAILS[f"'{tail.lower()}"]]
    return [token]


def alike(word: str, want: str) -> bool:
    """Equal, or for longer words one edit away and with the same first letter."""
    if word == want:
        return True
    if len(want) < 5 or word[:1] != want[0] or abs(len(word) - len(want)) > 1:
        return False
    short, long = sorted((word, want), key=len)
    at = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return long[at + 1 :] == (short[at:] if len(short) < len(long) else short[at + 1 :])


def stem(word: str) -> str:
    """The word without its commonest endings. The same for what is said and what is looked for."""
    word = word.removesuffix("'s")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("ing", "ed"):
        if len(word) > len(ending) + 2 and word.endswith(ending):
            word = word.removesuffix(ending)
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            return word.removesuffix("e")
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
        if word.endswith(("she", "che", "xe", "sse")):
            word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


def stems(text: str) -> tuple[str, ...]:
    """Stems of the words of a text or of an identifier (`getWeather`, `get_weather`)."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text.replace("_", " ").replace("-", " "))
    return tuple(stem(word) for word in Utterance.of(spaced).words)


def content(words: Iterable[str]) -> list[str]:
    """The words that carry meaning."""
    return [w for w in words if w not in FUNCTION_WORDS and w[0].isalpha()]


def listing(things: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    *head, tail = things
    return f"{', '.join(head)} {last} {tail}" if head else tail


def pick(options: tuple[str, ...], text: str) -> str:
    """One of the options: always the same one for the same text."""
    return options[zlib.crc32(text.encode("utf-8", "replace")) % len(options)]


def sentence(text: str) -> str:
    """With a capital first and a full stop last."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
