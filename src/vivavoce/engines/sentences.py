"""Synthesis, in a worker, by models that speak a whole sentence at a time.

A worker derives from SentenceWorker and implements speak(). Word times are estimated: the words of
a piece are spread over its sounding part by their length in characters.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.resample import resample
from vivavoce.engines.worker import SpeechChunk, UtteranceRequest, WorkerStream

Sound = NDArray[np.float32]

RATE = 24_000
"""Hertz of what is sent."""
MAX_PIECE_CHARACTERS = 180
MIN_PIECE_CHARACTERS = 60
"""A sentence that is too long is divided at a comma behind so many characters, else at a space."""
SILENCE = 0.003
FRAME_MS = 10
_WORD = re.compile(r"\S+")
_END = re.compile(r"[.!?\u2026]+[\"')\]\u201d\u2019]*\s+|[\u3002\uff01\uff1f]\s*|\n+")
_PAUSE = re.compile(r"[,;:\u2014\uff0c\u3001]\s*|\s-\s")


class SentenceWorker:
    """Base of a worker: the sentences of an utterance, one after another."""

    Request = UtteranceRequest
    rate = RATE
    """Hertz of what speak() returns."""

    @abstractmethod
    def speak(self, text: str, request: UtteranceRequest) -> Sound:
        """Samples [n], -1..1; none for a text that cannot be read. Raises EngineError."""

    def serve(self, request: UtteranceRequest, stream: WorkerStream) -> Iterator[int]:
        stream.urgent = request.awaited
        return self._speak(request, stream)

    def _speak(self, request: UtteranceRequest, stream: WorkerStream) -> Iterator[int]:
        for start, end in pieces(request.text):
            yield 0
            text = request.text[start:end]
            if not any(map(str.isalnum, text)):
                continue
            sound = self.speak(text, request)
            if not len(sound):
                continue
            pcm = (np.clip(sound, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
            words = tuple(
                (at, start + first, start + last)
                for at, first, last in word_starts(text, sound, RATE / self.rate, self.rate)
            )
            stream.send(SpeechChunk(resample(pcm, self.rate, RATE), words))
            stream.urgent = False
        yield 0


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """The sentences of a text as spans, long ones divided at a comma or a space."""
    start = 0
    for end in (*(found.end() for found in _END.finditer(text)), len(text)):
        while end - start > MAX_PIECE_CHARACTERS:
            cut = _cut(text, start, end)
            yield start, cut
            start = cut
        if text[start:end].strip():
            yield start, end
        start = end


def _cut(text: str, start: int, end: int) -> int:
    """Where to divide a sentence that is too long."""
    last = min(end, start + MAX_PIECE_CHARACTERS)
    ends = [found.end() for found in _PAUSE.finditer(text, start + MIN_PIECE_CHARACTERS, last)]
    if ends:
        return ends[-1]
    space = text.rfind(" ", start + 1, last)
    return space + 1 if space > start else last


def word_starts(text: str, sound: Sound, ratio: float, rate: int) -> Iterator[tuple[int, int, int]]:
    """(sample, start, end) of each word with a sound; `ratio`: samples sent for one of `sound`."""
    frame = max(1, rate * FRAME_MS // 1000)
    peaks = np.abs(sound[: len(sound) // frame * frame].reshape(-1, frame)).max(axis=1)
    loud = np.nonzero(peaks > SILENCE)[0]
    begin, stop = (int(loud[0]), int(loud[-1]) + 1) if loud.size else (0, len(peaks))
    for found in _WORD.finditer(text):
        if any(map(str.isalnum, found.group())):
            share = found.start() / max(1, len(text))
            at = begin + int((stop - begin) * share)
            yield int(at * frame * ratio), found.start(), found.end()
