"""What `llm:builtin` says: answers by keyword, numbers in words, function results. English.

Some words of a transcript are wrong, so each rule looks for few keywords anywhere in the text.
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

MAX_CHARS = 2000  # of one message that are read
_MAX_MATCHED_CHARS = 300  # a pattern with `.*` takes time by the square of the length
_MAX_RESULT_CHARS, _MAX_RESULT_WORDS, _MAX_FIELDS = 20_000, 60, 8

NOT_A_MODEL = "I am not a language model: I answer simple requests by fixed rules."
ABILITIES = (
    "I can do small sums, tell the time and the date, repeat what you say, remember your name,"
    " tell a story, and call the functions of your app."
)
CONNECT = (
    "To connect a model, set OPENAI_API_KEY, or CHAT_COMPLETION_BASE_URL and"
    " CHAT_COMPLETION_MODEL, and start the server again."
)
_STORY = (
    "Once upon a time there was {subject}, whose home was a small house at the edge of a quiet"
    " forest. Behind the house ran a river, and one morning the river was dry. Nobody in the"
    " village knew why. So the brave little hero packed some bread and followed the empty river up"
    " into the hills. The first night was cold, but an old owl showed the way to a dry cave. On the"
    " second day a bridge was broken, and a family of beavers built a new one in return for half of"
    " the bread. On the third day, high above the clouds, a great stone lay in the middle of the"
    " spring, too heavy to push alone. But the owl had called the beavers, and the beavers had"
    " called the whole village, and together they rolled the stone away. The water leaped down into"
    " the valley, and every summer since then there is a feast at the river. The end."
)

_ONES: list[str] = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen",
)
_TENS: list[str] = re.findall(r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety")
_WORDS = rf"(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_ONES[1:10])}))?|{'|'.join(_ONES)}"
_NUMBER = rf"\b(?:\d{{1,9}}(?:\.\d{{1,6}})?|{_WORDS})\b"
NUMBER = re.compile(_NUMBER, re.IGNORECASE | re.ASCII)
_OPERATORS = {
    "plus": r"plus|\+",
    "minus": r"minus|less|-",
    "times": r"times?|multiplied by|x|\*",
    "divided by": r"divided by|over|/",
}
_STEP = re.compile(rf" ?({'|'.join(_OPERATORS.values())}) ?({_NUMBER})", re.ASCII)
_SUM = re.compile(rf"({_NUMBER})((?:{_STEP.pattern}){{1,9}})(?! hundred| thousand)", re.ASCII)
_MISHEARD = re.compile(r"\b(plus|minus|times?|by) (?:(too?)|for)\b")

_REPEAT = re.compile(
    r"\W*(?:(?:please|now|can you|could you|would you),? )*"
    r"(?:repeat(?: after me)?|say(?: after me)?|echo)\b(?!\W+(?:(?:some|any)thing|what)\b)(.*)",
    re.IGNORECASE | re.DOTALL,
)
_AGAIN = re.compile(r"(?:that|it)?(?: ?again| please| once more)*", re.IGNORECASE)
_STORY_ASKED = re.compile(
    r"\b(?:story|stories|storey|tale)\b(?:.{0,20}?\b(?:about|of) ([\w'-]+(?: [\w'-]+)?))?"
)
_COUNT = re.compile(rf"\bcount\b(?: from ({_NUMBER}))?(?: up)? (?:to|till) ({_NUMBER})", re.ASCII)
_MAX_COUNTED = 100
_NAME_GIVEN = re.compile(
    r"\b(?:my name is|call me) (?!not\b|an?\b|the\b|back\b|later\b|when\b|if\b|at\b|on\b|in\b)"
    r"([^\W\d_][\w'-]{0,30})"
)
_NAME_ASKED = re.compile(r"\b(?:what|know|remember|say)\b.*\bmy name\b|\bwho am i\b")
_TIME_ASKED = re.compile(r"\b(?:what|tell|know|have|give)\b.*\btime\b")
_DATE_ASKED = re.compile(r"\b(?:what|which|tell|know)\b.*\b(?:day|date)\b|\bwhat is today\b")
_ANSWERS = {
    r"\bhow\b.*\b(?:models?|modal|llm|ollama)\b|\bconnect\b": CONNECT,
    r"\b(?:models?|modal|llm|gpt|openai)\b"
    r"|\b(?:are|is) (?:you|this|it)\b.*\b(?:ai|a i|robot|bot|machine|human|person|real)\b": (
        f"{NOT_A_MODEL} {CONNECT}"
    ),
    r"\bwhat\b.*\b(?:can|could|able)\b|\bhelp\b|\bcan you do\b|\bvivavoce\b|^say (?:some|any)"
    r"|\b(?:who|what) (?:are|is) (?:you|this)\b|\byour name\b|\babout yourself\b": (
        f"{NOT_A_MODEL} {ABILITIES} {CONNECT}"
    ),
    r"\b(?:thanks|thank you)\b": "You are welcome.",
    r"\b(?:bye|goodbye|good night)\b": "Goodbye.",
    r"\bhow are you\b": "I am fine, thank you. How can I help?",
    r"\b(?:hello|hi|hey|good (?:morning|afternoon|evening))\b": "Hello. How can I help?",
    r"^(?:stop|no|never ?mind|cancel)\b": "All right.",
}
_COMPILED = {re.compile(pattern): reply for pattern, reply in _ANSWERS.items()}


class Exchange(NamedTuple):
    """The conversation: the message to be answered, and what was said before it.

    said: None where no message of the user awaits an answer; "" where it has no words.
    earlier: messages of the user before it, oldest first. last_answer: of the assistant, in
    one or several messages.
    called: whether a function was called since. result: a function's output that came last.
    """

    said: str | None = None
    earlier: Sequence[str] = ()
    last_answer: str = ""
    called: bool = False
    result: str | None = None


def answer(exchange: Exchange, now: datetime) -> str:
    """The answer to what came last, a function's output or a message; never empty."""
    if exchange.result is not None:
        return result_in_words(exchange.result)
    if exchange.said is None:
        question = "What else can I do for you?" if exchange.earlier else "Hello. How can I help?"
        return _rest(exchange, now) or question
    text = _plain(exchange.said)
    if not re.search(r"\w", re.sub(r"\[\w+\]|\bu[hm]+\b", "", text)):
        return "I heard no words, and I cannot see pictures. Could you say that again?"
    if found := _REPEAT.match(exchange.said):
        if _AGAIN.fullmatch(found[1].strip(" .?!")):
            return exchange.last_answer or "I have not said anything yet."
        return sentence(found[1])
    return (
        _story(text)
        or _counted(text)
        or calculate(text)
        or _name(text, exchange.earlier)
        or _clock(text, now)
        or next((reply for pattern, reply in _COMPILED.items() if pattern.search(text)), "")
        or f"You said: {sentence(exchange.said[:300])} {NOT_A_MODEL} Ask me what I can do."
    )


def _rest(exchange: Exchange, now: datetime) -> str:
    """What is missing of the last answer, which has broken off; "" if nothing."""
    if not exchange.earlier or not exchange.last_answer:
        return ""
    whole = answer(Exchange(exchange.earlier[-1], exchange.earlier[:-1]), now)
    is_beginning = whole.startswith(exchange.last_answer)
    return whole.removeprefix(exchange.last_answer).strip() if is_beginning else ""


def _plain(text: str) -> str:
    """Lower case, one space between words, "what's" and the like as two words."""
    text = " ".join(text[:_MAX_MATCHED_CHARS].lower().replace("\u2019", "'").split())
    return re.sub(r"\b(what|who|it|name)'s\b|\b(what)s\b", r"\1\2 is", text)


def _story(text: str) -> str:
    found = _STORY_ASKED.search(text)
    if found is None:
        return ""
    subject = found[1] or "a dragon"
    return _STORY.format(subject=subject if " " in subject else f"somebody who loved {subject}")


def _counted(text: str) -> str:
    """The numbers that the text asks for, one after the other; else ""."""
    if not (found := _COUNT.search(text)):
        return ""
    first, last = (int(number(each or "one")) for each in found.groups())
    counted = range(first, min(last + 1, first + _MAX_COUNTED))
    return sentence(", ".join(map(in_words, counted))) if counted else ""


def calculate(text: str) -> str:
    """The first sum in the text with its result, products before sums; else ""."""
    found = _SUM.search(_MISHEARD.sub(lambda m: f"{m[1]} {'two' if m[2] else 'four'}", text))
    if found is None:
        return ""
    total, term = Fraction(0), number(found[1])
    spoken = in_words(term)
    for sign, operand in _STEP.findall(found[2]):
        name = next(n for n, signs in _OPERATORS.items() if re.fullmatch(signs, sign))
        value = number(operand)
        spoken += f" {name} {in_words(value)}"
        if name == "times":
            term *= value
        elif name != "divided by":
            total, term = total + term, value if name == "plus" else -value
        elif value:
            term /= value
        else:
            return "I cannot divide by zero."
    return sentence(f"{spoken} is {in_words(total + term)}")


def _name(text: str, earlier: Sequence[str]) -> str:
    if given := _NAME_GIVEN.search(text):
        return f"Nice to meet you, {given[1].title()}."
    if not _NAME_ASKED.search(text):
        return ""
    names = (_NAME_GIVEN.search(_plain(said[:150])) for said in earlier[:-51:-1])
    name = next((found[1].title() for found in names if found), None)
    return f"Your name is {name}." if name else "You have not said your name yet."


def _clock(text: str, now: datetime) -> str:
    if _TIME_ASKED.search(text):
        return f"It is {now.hour % 12 or 12}:{now:%M %p}."
    if _DATE_ASKED.search(text):
        return f"Today is {now:%A}, {now:%B} {now.day}, {now.year}."
    return ""


def number(text: str) -> Fraction:
    """The value of a match of NUMBER."""
    if text[0].isdigit():
        return Fraction(text)
    words = re.split("[ -]", text.lower())
    return Fraction(sum(_ONES.index(w) if w in _ONES else 10 * _TENS.index(w) + 20 for w in words))


def in_words(value: Fraction | int | float) -> str:
    """A number in words, rounded to two decimal places; in digits from a million up."""
    if value < 0:
        return f"minus {in_words(-value)}"
    whole, hundredths = divmod(round(Fraction(value) * 100), 100)
    digits = [_ONES[int(digit)] for digit in f"{hundredths:02}".rstrip("0")]
    if digits:
        return f"{in_words(whole)} point {' '.join(digits)}"
    if whole < 20:
        return _ONES[whole]
    if whole >= 1_000_000:
        return str(whole)
    if whole < 100:
        return _TENS[whole // 10 - 2] + (f"-{_ONES[whole % 10]}" if whole % 10 else "")
    size, name = (1000, "thousand") if whole >= 1000 else (100, "hundred")
    rest = f" {in_words(whole % size)}" if whole % size else ""
    return f"{in_words(whole // size)} {name}{rest}"


def result_in_words(output: str) -> str:
    """The output of a function, JSON or plain text, as one sentence."""
    try:
        value = json.loads(output[:_MAX_RESULT_CHARS])
    except (ValueError, RecursionError):
        value = output[:_MAX_RESULT_CHARS].strip()
    if value in ("", None, {}, []):
        return "That is done."
    words = _value_in_words(value).encode("utf-8", "replace").decode().split()
    return sentence(" ".join(words[:_MAX_RESULT_WORDS]))


def _value_in_words(value: Any, depth: int = 0) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float() if abs(value) < 1e18:  # neither NaN nor infinite
            return in_words(value)
        case str():
            return re.sub(r"[*`#]+", "", value)
        case dict() if depth < 3:
            fields = ((_field(key), v) for key, v in list(value.items())[:_MAX_FIELDS])
            parts = [f"{name} {_value_in_words(v, depth + 1)}" for name, v in fields]
        case list() if depth < 3:
            parts = [_value_in_words(v, depth + 1) for v in value[:_MAX_FIELDS]]
        case _:
            return "unknown"
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]])) or "empty"


def _field(key: str) -> str:
    return f"the {spaced(key)} {'are' if re.search('[^su]s$', key) else 'is'}"


def spaced(name: str) -> str:
    """`get weather` for `get_weather` and for `getWeather`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", name[:100]).lower().strip() or "value"


def sentence(text: str) -> str:
    """With a capital first and a full stop last."""
    text = text.strip(" \n\"'“”,:")
    return text[:1].upper() + text[1:] + ("" if text[-1:] in (".", "!", "?") else ".")
