"""What the worker of Moonshine sends to the engine."""

import msgspec


class TimedWord(msgspec.Struct, frozen=True, array_like=True):
    """A word with estimated times, in milliseconds from the start of the utterance."""

    text: str
    start_ms: int
    end_ms: int


class HeardWords(msgspec.Struct, frozen=True, array_like=True):
    """All words so far; the first `stable` will not change."""

    words: tuple[TimedWord, ...]
    stable: int
    final: bool
