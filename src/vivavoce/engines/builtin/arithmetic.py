"""Sums, from words or digits, worked out exactly."""

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

from vivavoce.engines.builtin.numbers import parse, say, say_about, say_exactly, word
from vivavoce.engines.builtin.words import Utterance, sentence

_MAX = 10**60
_MAX_DEPTH = 12
_MAX_WORDS = 150

# Longest first: the words of an operator, and the operator.
_OPERATORS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("to", "the", "power", "of"), "^"),
    (("the", "square", "root", "of"), "root"),
    (("the", "cube", "root", "of"), "cuberoot"),
    (("square", "root", "of"), "root"),
    (("cube", "root", "of"), "cuberoot"),
    (("raised", "to", "the"), "^"),
    (("to", "the", "power"), "^"),
    (("square", "root"), "root"),
    (("multiplied", "by"), "*"),
    (("divided", "by"), "/"),
    (("divided", "with"), "/"),
    (("per", "cent", "of"), "%of"),
    (("percent", "of"), "%of"),
    (("%", "of"), "%of"),
    (("half", "of"), "half"),
    (("take", "away"), "-"),
    (("added", "to"), "+"),
    (("modulo",), "mod"),
    (("mod",), "mod"),
    (("plus",), "+"),
    (("+",), "+"),
    (("minus",), "-"),
    (("less",), "-"),
    (("-",), "-"),
    (("times",), "*"),
    (("x",), "*"),
    (("*",), "*"),
    (("\u00d7",), "*"),
    (("over",), "/"),
    (("/",), "/"),
    (("÷",), "/"),
    (("^",), "^"),
    (("squared",), "sq"),
    (("cubed",), "cu"),
    (("twice",), "twice"),
    (("double",), "twice"),
    (("(",), "("),
    ((")",), ")"),
    (("percent",), "%"),
    (("%",), "%"),
)
_BY_FIRST_WORD = {
    first: tuple(o for o in _OPERATORS if o[0][0] == first)
    for first in {o[0][0] for o in _OPERATORS}
}
_SAID = {
    "+": "plus",
    "-": "minus",
    "*": "times",
    "/": "divided by",
    "^": "to the power of",
    "mod": "modulo",
    "root": "the square root of",
    "cuberoot": "the cube root of",
    "half": "half of",
    "sq": "squared",
    "cu": "cubed",
    "of": "of",
    "twice": "twice",
    "%": "percent",
    "%of": "percent of",
    "(": "",
    ")": "",
}
_NEEDS_LEFT = frozenset("+*/^") | {"mod", "sq", "cu", "%", "%of"}
_HOMOPHONES = {"to": "two", "too": "two", "for": "four", "won": "one", "ate": "eight"}
# "add three and four": a verb first, its operator between the numbers.
_VERBS = {
    "add": ("+", ("and", "to", "plus")),
    "sum": ("+", ("and", "plus")),
    "multiply": ("*", ("and", "by", "with", "times")),
    "product": ("*", ("and", "times")),
    "divide": ("/", ("by", "with")),
    "difference": ("-", ("and",)),
    "subtract": ("-", ("from", "minus")),
}

Token = Fraction | str


class _CannotSay(Exception):
    """The sum has no answer. The message says why, in a sentence."""


def answer(said: Utterance) -> str | None:
    """The first sum in the utterance, said with its result; None: there is none."""
    words = _unmasked(said.words[:_MAX_WORDS])
    for tokens in _runs(words):
        try:
            parser = _Parser(tokens)
            value = parser.whole()
        except _CannotSay as why:
            return str(why)
        if value is not None:
            # Each token is said by itself: "about" belongs to the result alone.
            asked = " ".join(s for t in tokens if (s := _say_token(t)))
            result = say(value) if parser.exact else "about " + say_about(value)
            # Spoken, brackets would be lost.
            return sentence(f"{asked if '(' not in tokens else 'that'} is {result}")
    return None


def _say_token(token: Token) -> str:
    return _SAID[token] if isinstance(token, str) else say_exactly(token)


def _unmasked(words: Sequence[str]) -> list[str]:
    """A recogniser writes "too plus for": beside an operator those are numbers."""
    out = list(words)
    sure = {"plus", "minus", "times", "+", "*", "/"}
    for i, this in enumerate(words):
        before, after = word(words, i - 1), word(words, i + 1)
        if this not in _HOMOPHONES:
            continue
        if (before in sure and parse(words, i + 1) is None) or (
            after in sure and parse(words, i - 1) is None
        ):
            out[i] = _HOMOPHONES[this]
    return out


def _runs(words: Sequence[str]) -> list[list[Token]]:
    """The stretches of the words that look like sums."""
    runs: list[list[Token]] = [[]]
    at = 0
    while at < len(words):
        if words[at] in _VERBS and (verb := _verb(words, at)) is not None:
            tokens, at = verb
            runs += [tokens, []]
            continue
        step = _token(words, at, runs[-1])
        if step is None:
            if runs[-1]:
                runs.append([])
            at += 1
        else:
            token, at = step
            runs[-1].append(token)
    # "forty percent" alone is a number, not a sum
    return [run for run in runs if any(isinstance(t, str) and t != "%" for t in run)]


def _token(words: Sequence[str], at: int, run: list[Token]) -> tuple[Token, int] | None:
    after_number = bool(run) and (isinstance(run[-1], Fraction) or run[-1] in (")", "sq", "cu"))
    if not (after_number and words[at] in ("minus", "-")) and (number := parse(words, at)):
        return number if not after_number else None
    if words[at] == "of" and run and isinstance(run[-1], Fraction) and run[-1].denominator > 1:
        return "of", at + 1
    for pattern, token in _BY_FIRST_WORD.get(words[at], ()):
        if tuple(words[at : at + len(pattern)]) == pattern:
            if token in _NEEDS_LEFT and not after_number:
                return None
            return token, at + len(pattern)
    return None


def _verb(words: Sequence[str], at: int) -> tuple[list[Token], int] | None:
    operator, between = _VERBS[words[at]]
    verb = words[at]
    at += 1
    while word(words, at) in ("of", "between", "the", "numbers", "up"):
        at += 1
    numbers: list[Token] = []
    while (found := parse(words, at)) is not None and len(numbers) < 40:
        value, at = found
        numbers += [operator, value] if numbers else [value]
        if word(words, at) not in between and parse(words, at) is None:
            break
        at += word(words, at) in between
        if word(words, at) in ("by", "with"):
            at += 1
    if len(numbers) < 3:
        return None
    if verb == "subtract" and len(numbers) == 3:
        numbers.reverse()
    return numbers, at


class _Parser:
    """Recursive descent, the usual precedence. `exact` turns false at an irrational root."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self.exact = True

    def whole(self) -> Fraction | None:
        """The value, or None where the tokens are no sum."""
        value = self._sum()
        return value if self._at == len(self._tokens) else None

    def _take(self, *wanted: str) -> str | None:
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        if isinstance(token, str) and token in wanted:
            self._at += 1
            return token
        return None

    def _sum(self) -> Fraction | None:
        value = self._product()
        while value is not None and (operator := self._take("+", "-")):
            right = self._product()
            if right is None:
                return None
            value = _bounded(value + right if operator == "+" else value - right)
        return value

    def _product(self) -> Fraction | None:
        value = self._power()
        while value is not None and (operator := self._take("*", "/", "mod", "%of", "of")):
            right = self._power()
            if right is None:
                return None
            if operator in ("/", "mod") and right == 0:
                raise _CannotSay("I can't divide by zero. No number would be the answer.")
            match operator:
                case "*" | "of":
                    value = _bounded(value * right)
                case "/":
                    value = _bounded(value / right)
                case "mod":
                    value = value % right
                case _:
                    value = _bounded(value * right / 100)
        return value

    def _power(self) -> Fraction | None:
        value = self._atom()
        if value is not None and self._take("^"):
            exponent = self._atom()
            return None if exponent is None else _power(value, exponent)
        return value

    def _atom(self) -> Fraction | None:
        self._depth += 1
        value = self._prefixed() if self._depth <= _MAX_DEPTH else None
        self._depth -= 1
        while value is not None and (after := self._take("sq", "cu", "%")):
            value = value / 100 if after == "%" else _power(value, Fraction(3 - (after == "sq")))
        return value

    def _prefixed(self) -> Fraction | None:
        if self._take("("):
            value = self._sum()
            return value if self._take(")") else None
        prefix = self._take("root", "cuberoot", "half", "twice", "-")
        if prefix is not None:
            value = self._atom()
            if value is None:
                return None
            match prefix:
                case "half":
                    return value / 2
                case "twice":
                    return value * 2
                case "-":
                    return -value
                case _:
                    return self._root(value, 2 if prefix == "root" else 3)
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        if isinstance(token, Fraction):
            self._at += 1
            return token
        return None

    def _root(self, value: Fraction, degree: int) -> Fraction:
        if value < 0 and degree == 2:
            raise _CannotSay("A negative number has no real square root.")
        top, bottom = _root(abs(value.numerator), degree), _root(value.denominator, degree)
        sign = -1 if value < 0 else 1
        if top**degree == abs(value.numerator) and bottom**degree == value.denominator:
            return sign * Fraction(top, bottom)
        self.exact = False
        scale: int = 10**12
        scaled = abs(value.numerator) * scale**degree // value.denominator
        return sign * Fraction(_root(scaled, degree), scale)


def _root(value: int, degree: int) -> int:
    """The whole part of the root; Newton's method for the cube."""
    if degree == 2 or value < 2:
        return isqrt(value) if degree == 2 else value
    guess = 1 << (value.bit_length() // 3 + 1)
    while (better := (2 * guess + value // (guess * guess)) // 3) < guess:
        guess = better
    return guess


def _bounded(value: Fraction) -> Fraction:
    if abs(value.numerator) > _MAX or value.denominator > _MAX:
        raise _CannotSay("That number is too large for me to say.")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _CannotSay("I can only work out whole powers.")
    if base == 0 and exponent < 0:
        raise _CannotSay("I can't divide by zero. No number would be the answer.")
    bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > 260:
        if abs(base) == 1:
            return base if exponent % 2 else abs(base)
        raise _CannotSay("That number is too large for me to say.")
    return _bounded(Fraction(base ** int(exponent)))
