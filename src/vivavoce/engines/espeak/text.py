"""What espeak is given to read, and where its words are. Text only: offsets never move."""

import re
import unicodedata

Span = tuple[int, int]

# Replaced by as many spaces. A line break stays: two of them are a pause. U+0001 would begin a
# command to espeak, a NUL would end the text. Joiners stay outside of emoji: some scripts spell
# with them.
_PICTURE = "\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_UNSPOKEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    "|[\ud800-\udfff\ue000-\uf8ff\ufffe\uffff\U000f0000-\U0010ffff]"
    "|[*_`#~|]|-{3,}"  # markdown; and three dashes before some Hindi words crash espeak
    "|[\ufe0e\ufe0f\u20e3\U000e0000-\U000e007f]"
    f"|[{_PICTURE}](?:[\u200d\ufe0f{_PICTURE}])*"
)

# Each ideograph is a word of its own: there are no spaces to tell.
_IDEOGRAPH = re.compile("[\u2e80-\u2fdf\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

# Over one letter a character, see _kind().
_WORD = re.compile("w+(?:jw+)*|s|i")


def readable(text: str) -> str:
    """The text with spaces, one for one, for what is not to be spoken; "" if nothing is left."""
    cleaned = _UNSPOKEN.sub(lambda found: " " * len(found.group()), text)
    return cleaned if cleaned.strip() else ""


def word_spans(text: str) -> list[Span]:
    """Where the words are, [start, end), in order: "don't", "12.5" and "%" are one each."""
    return [found.span() for found in _WORD.finditer("".join(map(_kind, text)))]


def _kind(character: str) -> str:
    """w: of a word; j: joins two parts of one; s: a sign with a name; i: ideograph; "-": none."""
    if character.isascii():
        if character.isalnum():
            return "w"
        if character in ".,:'-":
            return "j"
        return "s" if character in "$%&+/<=>@\\^" else "-"
    if _IDEOGRAPH.match(character):
        return "i"
    if character.isalnum() or character in "\u00ad\u200c\u200d":
        return "w"
    category = unicodedata.category(character)
    if category[0] == "M":
        return "w"
    if character in "\u2019\u2011":
        return "j"
    return "s" if category[0] == "S" else "-"


class WordFinder:
    """Turns the positions that espeak reports, in order, into the words of the text."""

    def __init__(self, text: str) -> None:
        self._spans = word_spans(text)
        self._next = 0
        self._last_end = 0

    def find(self, position: int, length: int) -> Span | None:
        """The word at a position; None if it was found already or there is none.

        espeak reports a number once for each word it says, at any place in it and just behind
        it, and some words at the space or dash before them. Its length counts only where words
        touch, as ideographs do: elsewhere it is often wrong.
        """
        if position < self._last_end:
            return None
        while self._next < len(self._spans) and self._spans[self._next][1] <= position:
            self._next += 1
        if self._next == len(self._spans):
            return None
        start, end = self._spans[self._next]
        if self._next and position == self._last_end and start != position:
            return None
        self._next += 1
        while self._next < len(self._spans):
            following, its_end = self._spans[self._next]
            if following != end or following >= position + length:
                break
            end = its_end
            self._next += 1
        self._last_end = end
        return start, end
