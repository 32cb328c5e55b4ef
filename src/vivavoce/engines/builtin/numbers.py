"""Numbers from words, and words from numbers."""

from collections.abc import Sequence
from fractions import Fraction

# fmt: off
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = (
    "zero", "ten", "twenty", "thirty", "forty",
    "fifty", "sixty", "seventy", "eighty", "ninety",
)
# fmt: on
_SCALES = ("", "thousand", "million", "billion", "trillion", "quadrillion", "quintillion")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_SMALL = {word: i for i, word in enumerate(_ONES)} | {"oh": 0, "nought": 0, "fourty": 40}
_SMALL |= {word: 10 * i for i, word in enumerate(_TENS) if i >= 2}
_BIG = {word: 1000**i for i, word in enumerate(_SCALES) if word}
_PARTS = {"half": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4}
_MAX_DIGITS = 18
MAX_SAID = 10**21
"""Numbers from here on are said as a power of ten."""


def parse(words: Sequence[str], at: int = 0) -> tuple[Fraction, int] | None:
    """The number that begins at words[at], and where it ends; None: no number begins there.

    Words are in lower case: "twenty one", "3.5", "two and a half", "a hundred", "minus four".
    """
    start = at
    if word(words, at) in ("minus", "negative", "-"):
        at += 1
    if word(words, at) in ("a", "an", "one") and word(words, at + 1) in _PARTS:
        if word(words, at + 1) in ("third", "half", "quarter"):
            return _signed(words, start, Fraction(1, _PARTS[words[at + 1]])), at + 2
        return None
    found = _digits(words, at) or _whole(words, at)
    if found is None:
        return None
    value, at = found
    value, at = _decimals(words, at, value)
    value, at = _and_part(words, at, value)
    return _signed(words, start, value), at


def _signed(words: Sequence[str], start: int, value: Fraction) -> Fraction:
    return -value if words[start] in ("minus", "negative", "-") else value


def word(words: Sequence[str], at: int) -> str:
    """The word there, "" beyond the end."""
    return words[at] if 0 <= at < len(words) else ""


def _digits(words: Sequence[str], at: int) -> tuple[Fraction, int] | None:
    text = word(words, at)
    if not text[:1].isdigit() or ":" in text or not text.isascii() or len(text) > _MAX_DIGITS:
        return None
    groups = text.split(",")
    if len(groups) > 1 and not all(len(g.partition(".")[0]) == 3 for g in groups[1:]):
        return None
    if text.count(".") > 1:
        return None
    value = Fraction("".join(groups))
    scale = word(words, at + 1)
    if scale in _BIG:
        return value * _BIG[scale], at + 2
    if scale == "hundred":
        return value * 100, at + 2
    return value, at + 1


def _whole(words: Sequence[str], at: int) -> tuple[Fraction, int] | None:
    total, current, last, ceiling = 0, 0, "", 10**24
    if word(words, at) in ("a", "an") and word(words, at + 1) in {"hundred", "dozen", *_BIG}:
        current, last, at = 1, "one", at + 1
    while (kind := _kind(words, at, last)) is not None:
        this = words[at]
        if kind == "and":
            at += 1
            continue
        if kind == "scale":
            if _BIG[this] >= ceiling:
                break
            total, current, ceiling = total + (current or 1) * _BIG[this], 0, _BIG[this]
        elif kind == "hundred":
            current = (current or 1) * 100
        elif kind == "dozen":
            current = (current or 1) * 12
        else:
            current += _SMALL[this]
        last, at = kind, at + 1
    return (Fraction(total + current), at) if last else None


def _kind(words: Sequence[str], at: int, last: str) -> str | None:
    """What the word is, if it can go on the number whose last word was a `last`."""
    this = word(words, at)
    fits: tuple[str, ...] = ("", "hundred", "scale")
    kind = None
    if this in _BIG:
        kind, fits = "scale", ("", "one", "tens", "teen", "hundred")
    elif this == "hundred":
        kind, fits = "hundred", ("", "one", "teen", "tens", "scale")
    elif this == "dozen":
        kind, fits = "dozen", ("", "one", "teen")
    elif this == "and":
        kind, fits = "and", ("hundred", "scale")
        if word(words, at + 1) not in _SMALL:
            return None
    elif this in _SMALL:
        size = _SMALL[this]
        kind = "one" if size < 10 else "teen" if size < 20 else "tens"
        if 0 < size < 10:
            fits = (*fits, "tens")
        if this == "oh" and last != "":
            return None
    return kind if last in fits else None


def _decimals(words: Sequence[str], at: int, value: Fraction) -> tuple[Fraction, int]:
    if word(words, at) not in ("point", "dot"):
        return value, at
    end, digits = at + 1, ""
    while len(digits) < 12 and _SMALL.get(word(words, end), 99) < 10:
        digits += str(_SMALL[words[end]])
        end += 1
    if not digits and word(words, end).isascii() and word(words, end).isdigit():
        digits, end = words[end][:12], end + 1
    if not digits:
        return value, at
    return value + Fraction(int(digits), 10 ** len(digits)), end


def _and_part(words: Sequence[str], at: int, value: Fraction) -> tuple[Fraction, int]:
    if word(words, at) != "and":
        return value, at
    count, part = word(words, at + 1), word(words, at + 2)
    if part in _PARTS and count in ("a", "one", "two", "three"):
        return value + Fraction(_SMALL.get(count, 1), _PARTS[part]), at + 3
    return value, at


def say(value: Fraction | int, places: int = 4) -> str:
    """In words: exact where it ends within six decimal places or is a simple fraction."""
    value = Fraction(value)
    if value < 0:
        return "minus " + say(-value, places)
    if value.denominator == 1:
        return say_whole(value.numerator)
    scaled = value * 10**6
    if scaled.denominator == 1:
        return _say_decimal(scaled.numerator, 6)
    if value.denominator <= 12:
        return f"{_say_mixed(value)}, or about {say_about(value, places)}"
    return "about " + say_about(value, places)


def say_exactly(value: Fraction) -> str:
    """In words, as it stands: a decimal where there is one, else a fraction."""
    if value < 0:
        return "minus " + say_exactly(-value)
    if (value * 10**6).denominator == 1:
        return say(value)
    return _say_mixed(value)


def say_about(value: Fraction, places: int = 4) -> str:
    """In words, rounded; very small and very large values as a power of ten."""
    if value < 0:
        return "minus " + say_about(-value, places)
    if value and value < Fraction(1, 10**places):
        return f"one divided by {say_about(1 / value)}"
    if value >= MAX_SAID:
        return say_whole(int(value))
    return _say_decimal(round(value * 10**places), places)


def _say_decimal(scaled: int, places: int) -> str:
    whole, rest = divmod(scaled, 10**places)
    digits = f"{rest:0{places}d}".rstrip("0")
    if not digits:
        return say_whole(whole)
    return f"{say_whole(whole)} point {' '.join(_ONES[int(d)] for d in digits)}"


def _say_mixed(value: Fraction) -> str:
    whole, top = divmod(value.numerator, value.denominator)
    part = ordinal(value.denominator) if value.denominator != 4 else "quarter"
    part = f"{say_whole(top)} {part}{'s' if top > 1 else ''}"
    return f"{say_whole(whole)} and {part}" if whole else part


def say_whole(value: int) -> str:
    """A whole number in words."""
    if value < 0:
        return "minus " + say_whole(-value)
    if value >= MAX_SAID:
        digits = str(value)
        lead = _say_decimal(int(digits[:4]), 3)
        about = "" if not digits[4:].strip("0") else "about "
        return f"{about}{lead} times ten to the power of {say_whole(len(digits) - 1)}"
    if value < 1000:
        return _say_hundreds(value)
    parts: list[str] = []
    small = value % 1000
    for scale in _SCALES:
        value, rest = divmod(value, 1000)
        if rest:
            parts.append(f"{_say_hundreds(rest)} {scale}".strip())
    if len(parts) > 1 and 0 < small < 100:
        parts[0] = f"and {parts[0]}"
    return " ".join(reversed(parts))


def _say_hundreds(value: int) -> str:
    hundreds, rest = divmod(value, 100)
    parts = [f"{_ONES[hundreds]} hundred"] if hundreds else []
    if rest or not hundreds:
        tens, ones = divmod(rest, 10)
        small = _ONES[rest] if rest < 20 else _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
        parts.append(small)
    return " and ".join(parts)


def ordinal(value: int) -> str:
    """`first`, `twenty-first`, ..."""
    head, dash, last = say_whole(value).rpartition("-")
    head, space, last = (head, dash, last) if dash else say_whole(value).rpartition(" ")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = last.removesuffix("y") + "ieth" if last.endswith("y") else last + "th"
    return f"{head}{space}{last}"


ORDINALS = {ordinal(i).replace("-", " "): i for i in range(1, 32)}
"""The days of a month, "twenty first" without its hyphen."""
