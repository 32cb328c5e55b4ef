"""The marks of a voice, turned into words with the samples at which they begin.

Every character of a clause belongs to exactly one word, so that what is told as spoken is the text
to the letter: the signs and spaces behind a word go with it.
"""

import re
from collections.abc import Iterable

from vivavoce.audio.formats import RATE
from vivavoce.engines.base import Mark
from vivavoce.session.facts import SpokenWord

_WORD = re.compile(r"\s*\S+\s*|\s+")  # a model may begin its answer with a space
_GAP = re.compile(r"\W*")
MS_PER_CHARACTER = 65  # where a voice gives no marks: ordinary English at ordinary speed


class SpokenText:
    """One clause that is being spoken, from sample `base` of the answer on; 24 kHz."""

    def __init__(self, text: str, *, base: int, sample_rate: int, speed: float) -> None:
        self._text = text
        self._base = base
        self._rate = sample_rate
        self._speed = speed
        self._told = 0  # characters
        self._last = base
        self._marked = False

    def marked(self, marks: Iterable[Mark]) -> list[SpokenWord]:
        """Words that the voice's own marks place."""
        words = []
        for mark in marks:
            self._marked = True
            gap = _GAP.match(self._text, mark.end)
            end = gap.end() if gap else mark.end
            if end > self._told:
                words.append(self._tell(end, self._base + mark.at * RATE // self._rate))
        return words

    def guessed(self, spoken: int) -> list[SpokenWord]:
        """Words that should have begun by now, `spoken` samples into the clause."""
        words: list[SpokenWord] = []
        while not self._marked and (word := _WORD.match(self._text, self._told)):
            at = int(self._told * MS_PER_CHARACTER * RATE / 1000 / self._speed)
            if at >= spoken:
                break
            words.append(self._tell(word.end(), self._base + at))
        return words

    def rest(self, spoken: int) -> list[SpokenWord]:
        """What was not told when the clause's sound is over, `spoken` samples long."""
        words = []
        while word := _WORD.match(self._text, self._told):
            words.append(self._tell(word.end(), min(self._last, self._base + spoken)))
        return words

    def _tell(self, end: int, at: int) -> SpokenWord:
        text, self._told = self._text[self._told : end], end
        self._last = max(self._last, at)
        return SpokenWord(text, self._last)
