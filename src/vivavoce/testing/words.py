"""Words of texts that are to be compared: what was said, and what should have been."""

import re
import unicodedata
from typing import Final

import numpy as np

from vivavoce.engines.spoken_forms import spoken_forms

_WORD: Final = re.compile(r"\w+(?:'\w+)?")
_NUMBER: Final = re.compile(r"\b\d{1,6}\b")
_SMALL: Final = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS: Final = [
    "-",
    "ten",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
]


def normalised(text: str) -> str:
    """Words in lower case with one space between them, without punctuation."""
    return " ".join(_WORD.findall(text.lower().replace("\u2019", "'")))


def words_of(text: str, language: str = "en") -> list[str]:
    """The words as they are spoken: 21 is "twenty one"; accents do not count."""
    said = spoken_forms(text, language).text.replace("-", " ")
    if language.partition("-")[0] == "en":
        said = _NUMBER.sub(lambda found: cardinal(int(found.group())), said)
    plain = unicodedata.normalize("NFKD", normalised(said))
    return "".join(c for c in plain if not unicodedata.combining(c)).split()


def cardinal(number: int) -> str:
    """A number below a million in English words, without "and"."""
    if number >= 1000:
        thousands, rest = divmod(number, 1000)
        return f"{cardinal(thousands)} thousand {cardinal(rest) if rest else ''}".strip()
    if number >= 100:
        hundreds, rest = divmod(number, 100)
        return f"{_SMALL[hundreds]} hundred {cardinal(rest) if rest else ''}".strip()
    if number < len(_SMALL):
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens]} {_SMALL[ones] if ones else ''}".strip()


def has_words(text: str, wanted: str, language: str = "en") -> bool:
    """Whether the words stand in the text, one after the other."""
    inside = " ".join(words_of(text, language))
    return f" {' '.join(words_of(wanted, language))} " in f" {inside} "


def word_error_rate(wanted: str, heard: str, language: str = "en") -> float:
    """Substitutions, deletions and insertions for each wanted word, 0.0 and up.

    The Levenshtein distance over words, as in NIST's sclite. Without a wanted word: 0.0 where none
    was heard, else 1.0.
    """
    reference, given = words_of(wanted, language), words_of(heard, language)
    if not reference:
        return float(bool(given))
    row = np.arange(len(given) + 1)
    for word in reference:
        differs = np.array([word != other for other in given], int)
        best = np.minimum(row[1:] + 1, row[:-1] + differs)
        row[0] += 1
        for place, cost in enumerate(best):  # an insertion builds on the place before it
            row[place + 1] = min(int(cost), int(row[place]) + 1)
    return float(row[-1]) / len(reference)
