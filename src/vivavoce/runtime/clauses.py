"""Splits a growing text into clauses, so that synthesis can start before the text is complete.

The concatenated clauses equal the text exactly.
"""

import re

MIN_FIRST_CHARS = 12  # characters: a short first clause can be spoken early
MIN_CHARS = 40  # later ones: longer clauses have a better melody
MAX_CHARS = 240
MIN_EARLY_WORDS = 2
MIN_EARLY_CJK = 4  # characters of a script without spaces
# closing quotes, brackets and marks of emphasis belong to the sentence before them
_SENTENCE = re.compile(r"[.!?…]+[\"'”’»)\]*_~]*(?=\s)|[。！？；]+[」』）”’]*|\n+")  # noqa: RUF001  CJK
_PAUSE = re.compile(r"[,;:–—]+(?=\s)|[，、：]+")  # noqa: RUF001
_SPACE = re.compile(r"\s+")
# a full stop after one of these, or after a single letter, ends no sentence
_EARLY = re.compile(r"(?<=\S)\s+|(?<=[\u3040-\u30ff\u3400-\u9fff])(?=[\u3040-\u30ff\u3400-\u9fff])")
_LETTERS = re.compile(r"\w[\w'’-]*")  # noqa: RUF001
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
# articles, pronouns and prepositions are said in one breath with the word after them; in European
# languages hardly any of them is longer
MAX_BOUND_LETTERS = 3
_ABBREVIATION = re.compile(
    r"(?<!\w)(?:(?:Mr|Mrs|Ms|Drs?|St|Prof|Rev|Gen|Sen|Capt|vs|etc|e\.g|i\.e|Nos?|Fig|approx|dept"
    r"|z\.\s?B|d\.\s?h|u\.\s?a|bzw|ca|evtl|ggf|inkl|usw|Nr|Hr|Fr|Str|Mme|p\.\s?ex|env"
    r"|Sra?|Srta|Uds?|p\.\s?ej|aprox|sig|dott|ecc|ad es)|(?<!\S)[A-Za-z])\.\Z"
)
# German dates, and the numbers of a list: the text on both sides of the full stop decides
_ORDINAL = re.compile(r"(?<![\w.,])\d{1,2}\.\Z")
_MONTH = re.compile(
    r"\s+(?:Jan|Feb|M\u00e4r|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez|Jahrhundert|[a-z\u00e4\u00f6\u00fc])"
)


class Clauses:
    """Splits a stream of text into clauses."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def feed(self, text: str) -> list[str]:
        self._text += text
        clauses, begin = [], 0
        while end := self._end(begin):
            clauses.append(self._text[begin:end])
            begin = end
            self._first = False
        self._text = self._text[begin:]
        return clauses

    def cut_early(self) -> str:
        """The part of an incomplete clause that may be spoken, because there is nothing else to
        speak; "": it is too short. It ends after a whole word, if possible where a voice can pause,
        and never within a link, code or emphasis.
        """
        last = ""
        for space in _EARLY.finditer(self._text):
            part = self._text[: space.end()]
            words = _LETTERS.findall(part)
            enough = len(words) >= MIN_EARLY_WORDS or len(_CJK.findall(part)) >= MIN_EARLY_CJK
            if not enough or _is_open(part) or _ABBREVIATION.search(part.rstrip()):
                continue
            if not last or _is_bound(last) or not _is_bound(part):
                last = part
        self._text = self._text[len(last) :]
        self._first = self._first and not last
        return last

    def flush(self) -> str:
        """The remaining text at the end of the stream."""
        rest, self._text = self._text, ""
        return rest

    def _end(self, begin: int) -> int:
        """The end of the clause that starts at `begin`, with the space after it; 0: it is
        incomplete."""
        text, limit = self._text, begin + MAX_CHARS
        shortest = begin + (MIN_FIRST_CHARS if self._first else MIN_CHARS)
        for mark in _SENTENCE.finditer(text, begin, limit):
            if self._ends_sentence(begin, mark.end()) and self._says(begin, mark.end()):
                return self._with_space(mark.end())
        for mark in _PAUSE.finditer(text, begin, limit):
            if mark.end() >= shortest and self._says(begin, mark.end()):
                return self._with_space(mark.end())
        if len(text) > limit:
            spaces = [m.end() for m in _SPACE.finditer(text, begin, limit)]
            return spaces[-1] if spaces else limit
        return 0

    def _ends_sentence(self, begin: int, end: int) -> bool:
        """Whether a mark that ends there is no part of an abbreviation or a number."""
        if _ABBREVIATION.search(self._text, begin, end):
            return False
        number = _ORDINAL.search(self._text, begin, end)
        if number is None:
            return True
        of_list = not self._text[begin : number.start()].strip()
        return not of_list and not _MONTH.match(self._text, end)

    def _says(self, begin: int, end: int) -> bool:
        return any(c.isalnum() for c in self._text[begin:end])

    def _with_space(self, end: int) -> int:
        space = _SPACE.match(self._text, end)
        return space.end() if space else end


def _is_bound(part: str) -> bool:
    """Whether its last word is spoken without a pause before the next one."""
    word = part.rstrip()
    letters = _LETTERS.findall(word)[-1]
    return word[-1].isalnum() and len(letters) <= MAX_BOUND_LETTERS and not _CJK.search(letters)


def _is_open(text: str) -> bool:
    """Whether the text has a link, code or emphasis that is still open."""
    return (
        any(text.count(mark) % 2 for mark in ("**", "__", "`", '"'))
        or text.count("[") > text.count("]")
        or text.count("(") > text.count(")")
    )
