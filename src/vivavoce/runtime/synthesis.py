"""Text to speech for sessions, HTTP and chat: clauses in, PCM with the times of words out."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import TTS, Mark, Speech
from vivavoce.engines.speech_text import AWAITED, says_something, spoken_language, spoken_text
from vivavoce.engines.spoken_forms import SpokenForms, spoken_forms
from vivavoce.errors import EngineError, EngineLost
from vivavoce.runtime.clauses import Clauses
from vivavoce.runtime.tasks import StallGuard
from vivavoce.runtime.text_stream import KeptText, speech_of
from vivavoce.session.facts import SpokenWord
from vivavoce.session.word_timing import StreamTiming, WordTiming

log = logging.getLogger(__name__)

MAX_PIECE_MS = 400
"""Longer audio from an engine is passed on in pieces of this length."""
STALL_TIMEOUT_S = 30.0
"""How long an engine may give no audio."""
_FED_CHARACTERS = 1000  # characters cut into clauses at a time: 3 ms of work at most
_WORD = re.compile(r"\s*\S+\s*")


class SpokenPiece(Struct, frozen=True):
    """Some of a clause's speech."""

    audio: bytes
    """PCM, 16 bit, mono, 24 kHz; may be empty."""
    words: tuple[SpokenWord, ...] = ()
    """The words that begin in it or before its end."""
    last: bool = False
    """Whether the clause ends with it."""


class Synthesis(msgspec.Struct, frozen=True):
    """A voice of an engine, with its speed, language and instructions."""

    tts: TTS
    voice: str
    speed: float = 1.0
    language: str | None = None
    """Used unless the text is in a script of another language."""
    instructions: str = ""
    max_piece_ms: int = MAX_PIECE_MS
    stall_timeout_s: float = STALL_TIMEOUT_S

    async def text(self, text: str) -> AsyncGenerator[SpokenPiece]:
        """The speech of a whole text, clause by clause. Raises EngineError."""
        samples = 0
        for clause in clauses_of(text):
            async with aclosing(self.clause(clause, samples)) as pieces:
                async for piece in pieces:
                    samples += len(piece.audio) // 2
                    yield piece

    def clause(self, text: str, start: int = 0) -> AsyncGenerator[SpokenPiece]:
        """The speech of one clause, which begins at sample `start` of the answer.

        Markdown and emoji are not spoken, and written forms are read as a person would read them.
        If nothing is left to speak, the clause has all its words and no audio. All words together
        are exactly `text`. If the worker of the engine dies, the clause is requested once more, and
        the audio that was already passed on is skipped. Lets other tasks run after `max_piece_ms`
        of audio at the latest. Raises EngineError.
        """
        timing, plain = WordTiming(text, start=start, speed=self.speed), spoken_text(text)
        spoken = spoken_forms(plain, spoken_language(plain, self.language or self._voice_language))
        if not says_something(plain):
            return _unspoken(timing)
        how = self._how(spoken.text)

        def attempt() -> AsyncGenerator[Speech]:
            AWAITED.set(not start)
            speech = self.tts.synthesize(spoken.text, **how)
            return _with_original_marks(speech, spoken) if spoken.spans else speech

        return self._attempts(attempt, timing)

    async def stream(self, texts: AsyncIterator[str]) -> AsyncGenerator[SpokenPiece]:
        """The speech of a text that is still being generated, as in clause().

        texts: pieces of whole words, passed to the engine as they come. Engines that accept such a
        text read written forms themselves.
        """
        timing = StreamTiming(speed=self.speed)
        async with KeptText(_prose(texts, timing)) as kept:
            if await kept.reaches():

                def attempt() -> AsyncGenerator[Speech]:
                    return speech_of(self.tts, kept.pieces(), **self._how(kept.text))

                async with aclosing(self._attempts(attempt, timing)) as pieces:
                    async for piece in pieces:
                        yield piece
            elif words := timing.rest(0):
                yield SpokenPiece(b"", tuple(words), last=True)

    def _how(self, text: str) -> dict[str, Any]:
        return {
            "voice": self.voice,
            "speed": self.speed,
            "language": spoken_language(text, self.language),
            "instructions": self.instructions,
        }

    async def _attempts(
        self, attempt: Callable[[], AsyncGenerator[Speech]], timing: WordTiming
    ) -> AsyncGenerator[SpokenPiece]:
        """The output of the first attempt; if the worker of the engine dies, the rest from a second
        one."""
        made = 0  # samples passed on
        busy = 0  # bytes since other tasks last ran
        max_busy = self.max_piece_ms * 2 * RATE // 1000
        for may_retry in (True, False):
            cutter = _Cutter(self.tts.sample_rate, self.max_piece_ms, timing, made)
            try:
                async with (
                    aclosing(attempt()) as speech,
                    StallGuard(self.stall_timeout_s, self._stalled) as guard,
                ):
                    guard.begin()
                    async for given in speech:
                        guard.end()
                        for piece in cutter.feed(given):
                            made += len(piece.audio) // 2
                            yield piece
                            busy += len(piece.audio)
                            if busy >= max_busy:
                                busy = 0
                                await asyncio.sleep(0)
                        guard.begin()
                audio = cutter.flush()
                words = timing.rest(made + len(audio) // 2)
                yield SpokenPiece(audio, tuple(words), last=True)
                await asyncio.sleep(0)
                return
            except EngineLost as exc:
                if not may_retry:
                    raise
                log.warning("TTS worker lost, retrying the clause: %s", exc)

    @property
    def _voice_language(self) -> str | None:
        """The only language of the voice; None: it has several, or they are not known."""
        found = next((v.languages for v in self.tts.voices if v.id == self.voice), ())
        return found[0] if len(found) == 1 else None

    def _stalled(self) -> EngineError:
        return EngineError(f"the synthesiser made no sound for {self.stall_timeout_s:g} s")


class _Cutter:
    """Converts the output of one attempt to pieces at 24 kHz, without its first `skip` samples."""

    def __init__(self, rate: int, max_piece_ms: int, timing: WordTiming, skip: int) -> None:
        self._rate = rate
        self._max_bytes = 2 * (max_piece_ms * rate // 1000)
        self._timing = timing
        self._skip = skip
        self._made = 0  # samples of this attempt
        self._resampler = Resampler(rate, RATE)

    def feed(self, given: Speech) -> list[SpokenPiece]:
        words: list[SpokenWord] = []
        if given.marks:
            rate = self._rate
            words = self._timing.marked([(m.end, m.at * RATE // rate) for m in given.marks])
        if len(given.audio) <= self._max_bytes:
            piece = self._piece(given.audio, words)
            return [piece] if piece.audio or piece.words else []
        pieces = []
        for start in range(0, len(given.audio), self._max_bytes):
            piece = self._piece(given.audio[start : start + self._max_bytes], words)
            if piece.audio or piece.words:
                pieces.append(piece)
            words = []
        return pieces

    def flush(self) -> bytes:
        """The rest of the audio."""
        audio = self._resampler.flush()
        return audio[2 * (self._skip - self._made) :] if self._skip > self._made else audio

    def _piece(self, part: bytes, words: list[SpokenWord]) -> SpokenPiece:
        """The next audio, and the words that begin in it, besides the given ones."""
        audio, skip = self._resampler.feed(part), self._skip - self._made
        self._made += len(audio) // 2
        words += self._timing.estimated(self._made)
        return SpokenPiece(audio[2 * skip :] if skip > 0 else audio, tuple(words))


async def _unspoken(timing: WordTiming) -> AsyncGenerator[SpokenPiece]:
    """The words of a clause that has no sound."""
    yield SpokenPiece(b"", tuple(timing.rest(0)), last=True)
    await asyncio.sleep(0)


async def _with_original_marks(
    speech: AsyncGenerator[Speech], spoken: SpokenForms
) -> AsyncGenerator[Speech]:
    """The speech of a text in which written forms were replaced, with marks for the original
    text."""
    async with aclosing(speech):
        async for piece in speech:
            marks = (Mark(m.at, m.start, spoken.original_end(m.end)) for m in piece.marks)
            yield Speech(piece.audio, tuple(marks)) if piece.marks else piece


async def _prose(texts: AsyncIterator[str], timing: StreamTiming) -> AsyncGenerator[str]:
    """The text that is spoken for each text; starts the timing of its words."""
    async for text in texts:
        spoken = spoken_text(text)
        if not says_something(spoken):
            spoken = ""
        timing.add(text, spoken)
        if spoken:
            yield spoken


def clauses_of(text: str) -> Iterator[str]:
    """The clauses of a whole text. The first one is short, as it would be if the text came word by
    word, so that playback starts early. The others are as long as possible, which gives a better
    melody."""
    cutter, at = Clauses(), 0
    for word in _WORD.finditer(text):
        at = word.end()
        if first := cutter.feed(word[0]):
            yield from first
            break
    for begin in range(at, len(text), _FED_CHARACTERS):
        yield from cutter.feed(text[begin : begin + _FED_CHARACTERS])
    if rest := cutter.flush():
        yield rest
