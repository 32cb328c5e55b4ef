"""Transcripts with times: split into lines, and written as SRT, WebVTT and verbose JSON. No I/O.

SRT has no standard; WebVTT is the W3C's.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec

from vivavoce.protocol.logprobs import word_starts
from vivavoce.protocol.rest_audio import TranscriptionWord, VerboseSegment

LINE_CHARACTERS = 84
"""Two rows of 42, the usual limit of broadcasters."""
LINE_MS = 7_000
"""The usual limit of broadcasters."""
PAUSE_MS = 700
"""A pause between two words after which a new line begins."""
_ENDS = (".", "!", "?", "…")  # before a space
_WIDE_ENDS = ("。", "？", "！")  # noqa: RUF001  of Chinese and Japanese, before anything
_CLOSING = "\"')]»”’"  # noqa: RUF001


class Timed(msgspec.Struct, frozen=True):
    """A word, a line or a passage, in milliseconds from the start of the recording."""

    text: str
    start_ms: int
    end_ms: int


def lines(passage: Timed, words: Sequence[Timed] = ()) -> list[Timed]:
    """Split a passage where words allow it: after a sentence, in a pause, before it is too long.

    Each line has its part of the passage's text, spaces and punctuation included. If the words are
    not known, or are not those of the text, the passage is one line. Without text there is no line.
    """
    whole = Timed(" ".join(passage.text.split()), passage.start_ms, passage.end_ms)
    if not whole.text:
        return []
    starts = word_starts(whole.text, [word.text for word in words])
    if not starts:
        return [whole]
    made = []
    first = 0
    for last in _ends(whole.text, words, starts):
        text = whole.text[starts[first] : starts[last + 1]].strip()
        made.append(Timed(text, words[first].start_ms, words[last].end_ms))
        first = last + 1
    return made


def _ends(text: str, words: Sequence[Timed], starts: Sequence[int]) -> Iterator[int]:
    """The last word of each line."""
    first = 0
    for at, (word, following) in enumerate(pairwise(words)):
        so_far = text[starts[first] : starts[at + 1]]
        with_next = text[starts[first] : starts[at + 2]].rstrip()
        if (
            _ends_sentence(so_far)
            or following.start_ms - word.end_ms >= PAUSE_MS
            or following.end_ms - words[first].start_ms > LINE_MS
            or len(with_next) > LINE_CHARACTERS
        ):
            yield at
            first = at + 1
    yield len(words) - 1


def _ends_sentence(text: str) -> bool:
    bare = text.rstrip().rstrip(_CLOSING)
    return bare.endswith(_WIDE_ENDS) or (bare.endswith(_ENDS) and text.endswith(" "))


def srt(shown: Iterable[Timed]) -> str:
    """An SRT file; "" if nothing is said."""
    return "".join(
        f"{number}\n{_clock(line.start_ms, ',')} --> {_clock(line.end_ms, ',')}\n"
        f"{_one_row(line.text).replace('-->', '->')}\n\n"
        for number, line in enumerate(shown, 1)
    )


def vtt(shown: Iterable[Timed]) -> str:
    """A WebVTT file, which has a header even if nothing is said."""
    cues = "".join(
        f"{_clock(line.start_ms, '.')} --> {_clock(line.end_ms, '.')}\n"
        f"{_escaped(_one_row(line.text))}\n\n"
        for line in shown
    )
    return f"WEBVTT\n\n{cues}"


def segments(
    shown: Iterable[Timed], *, seek_ms: int = 0, first_id: int = 0, temperature: float = 0.0
) -> tuple[VerboseSegment, ...]:
    """The same lines for verbose JSON. `seek_ms`: the start of the audio in which they were
    recognised."""
    return tuple(
        VerboseSegment(
            id=number,
            seek=seek_ms // 10,
            start=line.start_ms / 1_000,
            end=line.end_ms / 1_000,
            text=line.text,
            temperature=temperature,
            compression_ratio=_compression_ratio(line.text),
        )
        for number, line in enumerate(shown, first_id)
    )


def words_in_seconds(words: Iterable[Timed]) -> tuple[TranscriptionWord, ...]:
    """Words for verbose JSON."""
    return tuple(
        TranscriptionWord(
            word=word.text.strip(), start=word.start_ms / 1_000, end=word.end_ms / 1_000
        )
        for word in words
    )


def _compression_ratio(text: str) -> float:
    """Whisper's measure of repetition: bytes of the text / bytes of the compressed text."""
    plain = text.encode()
    return round(len(plain) / len(zlib.compress(plain)), 3)


def _clock(ms: int, comma: str) -> str:
    seconds, ms = divmod(ms, 1_000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{comma}{ms:03}"


def _one_row(text: str) -> str:
    return " ".join(text.split())  # an empty row would end the line


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
