"""The probabilities of the tokens of a transcript. Here a token is a word. Arithmetic only.

OpenAI's tokens are pieces of words; clients that read the field add them up or show them, and
either works with words. The tokens of a text concatenate to it, white space and signs included.
"""

from collections.abc import Iterator, Sequence

import msgspec


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token, the natural logarithm of its probability, and its UTF-8 bytes."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


class ScoredWord(msgspec.Struct, frozen=True):
    """A word of a transcript; logprob is None where the recogniser gives none."""

    text: str
    logprob: float | None


def word_starts(text: str, words: Sequence[str]) -> list[int]:
    """Where each word's part of the text begins, the signs before it included, and the text's end.

    Nothing if the text has not all of the words, in order.
    """
    starts = []
    at = 0
    for word in words:
        place = text.find(word.strip(), at)
        if place < 0:
            return []
        starts.append(text.rfind(" ", at, place) + 1 or place)
        at = place + len(word.strip())
    return [0, *starts[1:], len(text)] if starts else []


def token_logprobs(
    text: str, words: Sequence[ScoredWord], start: int = 0, end: int | None = None
) -> tuple[TokenLogprob, ...]:
    """The tokens that end in text[start:end]; empty where not all words have a probability.

    Consecutive ranges give every token once. The space before a word is part of its token.
    """
    return tuple(_tokens(text, words, start, len(text) if end is None else end))


def _tokens(text: str, words: Sequence[ScoredWord], start: int, end: int) -> Iterator[TokenLogprob]:
    if any(word.logprob is None for word in words):
        return
    starts = word_starts(text, [word.text for word in words])
    for i, word in enumerate(words if starts else ()):
        # the space before a word belongs to it
        first = starts[i] - (i > 0 and text[starts[i] - 1] == " ")
        last = i + 1 < len(words) and text[starts[i + 1] - 1] == " "
        stop = starts[i + 1] - last
        if start < stop <= end:
            token = text[first:stop]
            yield TokenLogprob(token, float(word.logprob or 0.0), tuple(token.encode()))
