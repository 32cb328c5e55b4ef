"""The words of a spoken clause, and the samples at which they begin.

Every character of a clause belongs to exactly one word: punctuation and spaces behind a word go
with it, so that all words together are the text to the letter.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable

from vivavoce.audio.formats import RATE
from vivavoce.session.facts import SpokenWord

_WORD = re.compile(r"\s*\S+\s*|\s+")  # a model may begin its answer with a space
_GAP = re.compile(r"[^\w$\u20ac\u00a3\u00a5]*")  # a currency sign belongs to the word after it
MS_PER_CHARACTER = 65  # where the synthesiser gives no marks: English at normal speed


class WordTiming:
    """One clause whose audio begins at sample `start` of the answer, at 24 kHz.

    Words come from the synthesiser's marks; where it gives none, from the length of the text. Each
    word comes once, in order, and none begins before the one before it.
    """

    def __init__(self, text: str, *, start: int = 0, speed: float = 1.0) -> None:
        self._text = text
        self._start = start
        self._speed = speed
        self._timed = 0  # characters
        self._last = start
        self._marked = False

    def marked(self, marks: Iterable[tuple[int, int]]) -> list[SpokenWord]:
        """Take marks: words that end at these characters and begin at these samples of the
        clause."""
        words = []
        for character, sample in marks:
            self._marked = True
            gap = _GAP.match(self._text, character)
            end = gap.end() if gap else character
            if end > self._timed:
                words.append(self._word(end, self._start + sample))
        return words

    def estimated(self, samples: int) -> list[SpokenWord]:
        """Words that have probably begun when this many samples of the clause are made.

        Empty once marks have come.
        """
        words: list[SpokenWord] = []
        while not self._marked and (word := _WORD.match(self._text, self._timed)):
            at = int(self._timed * MS_PER_CHARACTER * RATE / 1000 / self._speed)
            if at >= samples:
                break
            words.append(self._word(word.end(), self._start + at))
        return words

    def rest(self, samples: int) -> list[SpokenWord]:
        """All words that are left at the end of the clause's audio, `samples` long."""
        words = []
        while word := _WORD.match(self._text, self._timed):
            words.append(self._word(word.end(), min(self._last, self._start + samples)))
        return words

    def _word(self, end: int, at: int) -> SpokenWord:
        text, self._timed = self._text[self._timed : end], end
        self._last = max(self._last, at)
        return SpokenWord(text, self._last)


class StreamTiming(WordTiming):
    """Words of a text that grows piece by piece, while its beginning is already being spoken."""

    def __init__(self, *, speed: float = 1.0) -> None:
        super().__init__("", speed=speed)
        self._spoken = 0  # characters that the synthesiser was given
        self._begins: list[int] = [0]  # of each piece, among those characters
        self._places: list[int] = [0]  # of each piece, in the text

    def add(self, text: str, spoken: str) -> None:
        """Add text, and what the synthesiser is given of it, which may be without markdown."""
        self._begins.append(self._spoken)
        self._places.append(len(self._text))
        self._text += text
        self._spoken += len(spoken)

    def marked(self, marks: Iterable[tuple[int, int]]) -> list[SpokenWord]:
        """As in WordTiming; characters are counted in what the synthesiser was given."""
        return super().marked((self._place(character), sample) for character, sample in marks)

    def _place(self, character: int) -> int:
        """The position in the text."""
        piece = max(0, bisect_left(self._begins, character) - 1)
        place = self._places[piece] + character - self._begins[piece]
        end = self._places[piece + 1] if piece + 1 < len(self._places) else len(self._text)
        return min(place, end)
