"""Where a text that is still growing can be cut so that its beginning can be spoken already.

Concatenated, the clauses are the text, to the letter.
"""

import re

FIRST_SHORTEST = 12  # characters: the sooner something can be said, the better
SHORTEST = 40  # later ones: the longer, the better the melody
LONGEST = 240
_SENTENCE = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？；]+|\n+")  # noqa: RUF001  CJK ends
_PAUSE = re.compile(r"[,;:–—]+(?=\s)|[，、：]+")  # noqa: RUF001
_SPACE = re.compile(r"\s+")
# a full stop after one of these, or after one letter, ends no sentence
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|vs|etc|e\.g|i\.e|No)|(?:^|\s)[A-Za-z])\.$"
)


class Clauses:
    """Feed text as it comes; what can be spoken comes out."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def feed(self, text: str) -> list[str]:
        self._text += text
        clauses = []
        while end := self._end():
            clauses.append(self._text[:end])
            self._text = self._text[end:]
            self._first = False
        return clauses

    def flush(self) -> str:
        """What is left when no more text comes."""
        rest, self._text = self._text, ""
        return rest

    def _end(self) -> int:
        """Where the first clause ends, the space behind it included; 0: not yet."""
        shortest = FIRST_SHORTEST if self._first else SHORTEST
        for mark in _SENTENCE.finditer(self._text):
            if not _ABBREVIATION.search(self._text, 0, mark.end()) and self._says(mark.end()):
                return self._with_space(mark.end())
        for mark in _PAUSE.finditer(self._text):
            if mark.end() >= shortest and self._says(mark.end()):
                return self._with_space(mark.end())
        if len(self._text) > LONGEST:
            spaces = [m.end() for m in _SPACE.finditer(self._text, 0, LONGEST)]
            return spaces[-1] if spaces else LONGEST
        return 0

    def _says(self, end: int) -> bool:
        return any(c.isalnum() for c in self._text[:end])

    def _with_space(self, end: int) -> int:
        space = _SPACE.match(self._text, end)
        return space.end() if space else end
