"""End of turn by the words alone: whether the transcript sounds complete.

It reads transcripts as recognisers give them, often in lower case and without punctuation. It knows
English well and some German, French, Spanish and Italian. No weights, and a few microseconds.
"""

import re
import tomllib
from pathlib import Path

import msgspec

LEXICONS_PATH = Path(__file__).with_name("lexicons.toml")

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*'?")
_GOING_ON = re.compile(r"(\.\.+|…|[;:\-\u2013\u2014])$")
_FINAL = ".。।"
_ASKING = "?!\uff1f\uff01"

_NOTHING = 0.3
_NEUTRAL = 0.5
_DANGLING = 0.05
_DANGLING_ASKED = 0.07
_TAGS = frozenset({"huh", "eh", "hm", "hmm"})  # fillers that ask
_CONDITION = 0.35
_COMMA = 0.35  # at most: recognisers also set one where the sound ends soon after the last word
_DICTATED = 0.3
_ONE_NUMBER = 0.2
_NUMBER_WHOLE = 0.6
_STATEMENT = 0.6
_COMMAND = 0.8
_QUESTION = 0.85
_SENTENCE = 0.85
_CLOSED = 0.95

# Grammar, mostly English; in the other languages no other of these words stands where it is sought.
_BEING = frozenset({"is", "are", "was", "were", "am"})
_AUXILIARIES = _BEING | {"have", "has", "had", "will", "would", "could", "should"}
_SUBJECTS = frozenset({"i", "we", "he", "she", "they", "it"})
_IS = frozenset({"is", "ist", "est", "es", "è"})
_THEN = frozenset({"then", "dann", "alors", "entonces", "allora"})
_ASKED = frozenset({"what", "where", "who", "how", "which"})

_PHONE_NUMBER = 10  # digits with an area code: fewer may still be going on


class Lexicon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words of one language; lexicons.toml says what each set is for."""

    fillers: frozenset[str]
    dangling: frozenset[str]
    closings: frozenset[str]
    answers: frozenset[str]
    leads: frozenset[str]
    questions: frozenset[str]
    commands: frozenset[str]
    conditions: frozenset[str]
    digits: frozenset[str]
    stranded: frozenset[str] = frozenset()
    supports: frozenset[str] = frozenset()
    particles: frozenset[str] = frozenset()


def read_lexicons(path: Path = LEXICONS_PATH) -> dict[str, Lexicon]:
    """The lexicons of the file, by ISO 639-1 code."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        language: Lexicon(
            **{
                name: frozenset(entry.strip() for entry in entries.split(",") if entry.strip())
                for name, entries in table.items()
            }
        )
        for language, table in tables.items()
    }


_LEXICONS = read_lexicons()


def likelihood(text: str, language: str) -> float:
    """How likely it is, 0..1, that `text` is a finished turn.

    language: ISO 639-1, a region may follow. Of languages that are not known, only the
    punctuation is read, and without any the answer is 0.5.
    """
    text = text.strip().replace("\u2019", "'").lower()
    if not text:
        return _NOTHING
    if text.endswith(","):
        return min(_COMMA, likelihood(text.rstrip(", "), language))
    if _GOING_ON.search(text):
        return _DANGLING
    lexicon = _LEXICONS.get(re.split("[-_]", language.lower())[0])
    words = _WORD.findall(text)
    if lexicon is not None and words:
        return _by_words(lexicon, words, text[-1])
    return _by_mark(text[-1]) or _NEUTRAL


def _by_mark(mark: str) -> float:
    """Of the punctuation at the end; 0 if there is none."""
    if mark in _ASKING:
        return _CLOSED
    return _SENTENCE if mark in _FINAL else 0.0


def _by_words(lexicon: Lexicon, words: list[str], mark: str) -> float:
    core = _without_leads(lexicon, words)
    if mark in _ASKING:  # a recogniser also hears "is there a?" and "is there, uh?"
        thinks = words[-1] in lexicon.fillers and words[-1] not in _TAGS
        open_ended = thinks or 0 < _by_ending(lexicon, words, core) <= _DANGLING
        return _DANGLING_ASKED if open_ended else _CLOSED
    if words[-1] in lexicon.fillers:
        return _DANGLING / 2
    if _is_answer(lexicon, words) or _is_answer(lexicon, core):
        return _CLOSED
    return (
        _by_ending(lexicon, words, core)
        or _by_dictation(lexicon, words)
        or _by_condition(lexicon, core)
        or _by_mark(mark)
        or _by_beginning(lexicon, core)
    )


def _asks(lexicon: Lexicon, core: list[str]) -> bool:
    """Also "when does it open", not "when it opens"."""
    if core[0] in lexicon.conditions:
        return len(core) > 2 and core[1] in lexicon.questions
    return len(core) > 2 and core[0] in lexicon.questions


def _without_leads(lexicon: Lexicon, words: list[str]) -> list[str]:
    """The words without the leads at the beginning; the last word always stays."""
    for i, word in enumerate(words):
        if word not in lexicon.leads:
            return words[i:]
    return words[-1:]


def _is_answer(lexicon: Lexicon, words: list[str]) -> bool:
    """Also if it is said twice, or two answers follow each other: "no no", "yes exactly"."""
    if " ".join(words) in lexicon.answers:
        return True
    return len(words) <= 3 and all(word in lexicon.answers for word in words)


def _by_ending(lexicon: Lexicon, words: list[str], core: list[str]) -> float:
    """Of the last words; 0 if they tell nothing."""
    last = words[-1]
    if _asks(lexicon, core):
        held = core[-2] in lexicon.supports or core[-2].endswith("ing")
        if last in lexicon.stranded and held:
            return _QUESTION
        if core[-2] in _BEING and last in _SUBJECTS:
            return _QUESTION
    if len(core) > 1 and core[0] in lexicon.commands and last in lexicon.particles:
        return _COMMAND
    if len(words) == 2 and words[0] in _SUBJECTS and last in _AUXILIARIES:
        return _NEUTRAL  # "i am" may be all, or a beginning
    if len(words) > 2 and last == "that" and words[-2] in _BEING and not _ASKED & {*words}:
        return _DANGLING  # "the problem is that"
    dangling = _longest_ending(words, lexicon.dangling)
    closing = _longest_ending(words, lexicon.closings)
    if closing > dangling:
        return _CLOSED
    if dangling == 1 and last in _BEING and any(word in _ASKED for word in words[:-2]):
        return _NEUTRAL  # "i don't know what it is", "what i want is"
    return _DANGLING if dangling else 0.0


def _longest_ending(words: list[str], endings: frozenset[str]) -> int:
    """How many words at the end stand among the endings."""
    for length in range(min(len(words), 5), 0, -1):
        if " ".join(words[-length:]) in endings:
            return length
    return 0


def _by_dictation(lexicon: Lexicon, words: list[str]) -> float:
    """Of numbers told digit by digit and names told letter by letter; 0 if there are none."""
    digits = letters = pieces = 0
    for word in reversed(words):
        number = word.replace("-", "")
        if word in lexicon.digits:
            digits += 1
        elif number.isdecimal():
            digits += len(number)
        elif len(word) == 1:
            letters += 1
        else:
            break
        pieces += 1
    if pieces == 1 and digits and len(words) > 1 and words[-2] in _IS:  # "my address is twelve"
        return _ONE_NUMBER
    if pieces < 2:
        return 0.0
    return _NUMBER_WHOLE if digits >= _PHONE_NUMBER and not letters else _DICTATED


def _by_condition(lexicon: Lexicon, core: list[str]) -> float:
    """Of "if it rains tomorrow": the longer it is, the likelier its second clause is in it. 0 if it
    is no condition, or "then" and some words followed it."""
    if core[0] not in lexicon.conditions or _asks(lexicon, core):
        return 0.0
    if core[-1] in _THEN:
        return _DANGLING
    if _THEN & {*core[3:-3]}:
        return 0.0
    return _CONDITION if len(core) <= 6 else _NEUTRAL


def _by_beginning(lexicon: Lexicon, core: list[str]) -> float:
    """Of the first words, where the last ones tell nothing."""
    if _asks(lexicon, core):
        return _QUESTION
    if len(core) > 1 and core[0] in lexicon.commands:
        return _COMMAND
    return _STATEMENT if len(core) > 2 else _NEUTRAL
