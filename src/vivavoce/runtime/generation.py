"""One answer: the model's text, cut into clauses, each spoken while the next ones are generated.

language model → TextGenerator → ClauseFeed → _perform() → SpeechWriter → facts

A synthesiser that accepts text as it is generated gets each clause at once, in one request for the
whole answer. The first clause may be a few words, so that speech begins early, and the next words
are generated while it is played. Later clauses are cut short only if the client would run out of
audio otherwise.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TypeAlias

from vivavoce.audio.formats import RATE
from vivavoce.engines.base import (
    TTS,
    streaming,
)
from vivavoce.errors import EngineError
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.clauses import Clauses
from vivavoce.runtime.synthesis import SpokenPiece, Synthesis, clauses_of
from vivavoce.runtime.tasks import Signal
from vivavoce.runtime.text_generation import ServerCalls, TextGenerator
from vivavoce.session.effects import Filler, Generate, Say
from vivavoce.session.facts import (
    AudioGenerated,
    GenerationFact,
    GenerationFailed,
    OutputFinished,
    SpeechFailed,
    SpokenWord,
    TextGenerated,
)
from vivavoce.session.word_timing import MS_PER_CHARACTER

log = logging.getLogger(__name__)

CLAUSES_AHEAD = 32  # generated and not spoken yet; a model that is further ahead has to wait

INFINITY = float("inf")
FIRST_PIECE_S = 0.05
"""From the first word of the model to the first words that are spoken, if no clause is complete."""
SPEECH_MARGIN_S = 0.1
"""How long before its audio is needed the next clause goes to the synthesiser."""
MIN_WORDS_PER_S = 3.0
"""A model that is slower than speech is spoken in whole clauses, because otherwise there would be a
pause after every word."""

Post: TypeAlias = Callable[[GenerationFact], None]
WaitWritable: TypeAlias = Callable[[], Awaitable[None]]
# the clauses of an answer, then its end: None, or the reason of its failure
Clause: TypeAlias = str | GenerationFailed | None


class Gate:
    """Holds back the clauses of an answer until it is opened; some may pass before."""

    def __init__(self, clauses: int) -> None:
        """clauses: how many may pass before."""
        self.characters = 0
        """Text that the model has generated."""
        self._clauses = clauses
        self._opened = Signal()

    def open(self) -> None:
        self._opened.set()

    async def wait_open(self) -> None:
        """Wait until it is opened."""
        await self._opened.wait()

    async def wait(self) -> float:
        """Wait until the next clause may pass; return how long that took, in seconds."""
        if self._opened.is_set:
            return 0.0
        if self._clauses > 0:
            self._clauses -= 1
            return 0.0
        clock = asyncio.get_running_loop().time
        began = clock()
        await self._opened.wait()
        return clock() - began


async def answer(
    order: Generate,
    cascade: Cascade,
    post: Post,
    wait_writable: WaitWritable,
    gate: Gate | None = None,
    *,
    calls: ServerCalls | None = None,
) -> None:
    """Generate an answer and post its facts; cancel to stop.

    `wait_writable` is backpressure: it waits until the client has taken what it was sent. gate:
    holds back clauses before they are spoken or posted, and calls before they are made. calls: the
    calls of this server's functions in this session; None: the model is offered none.
    """
    clauses = ClauseFeed(spoken=order.prompt.spoken, gate=gate, filler=order.filler)
    async with asyncio.TaskGroup() as tasks:
        opened = gate.wait_open if gate else None
        generator = TextGenerator(order, cascade, post, clauses, opened, calls)
        generating = tasks.create_task(generator.run())
        if await _perform(order, cascade, post, wait_writable, clauses):
            post(OutputFinished(order.response_id))
        generating.cancel()


async def say(order: Say, cascade: Cascade, post: Post, wait_writable: WaitWritable) -> None:
    """Speak a given text and post the facts; cancel to stop."""
    try:
        async with _writer(order.order, cascade, post, wait_writable) as writer:
            for clause in clauses_of(order.text):
                await writer.speak(clause)
    except EngineError as exc:
        post(GenerationFailed(order.order.response_id, "tts", str(exc)))
    else:
        post(OutputFinished(order.order.response_id))


class ClauseFeed:
    """The text of an answer between the model and the voice, cut into clauses."""

    def __init__(
        self, *, spoken: bool, gate: Gate | None = None, filler: Filler | None = None
    ) -> None:
        """spoken: False: text is passed on as it comes.

        gate: may hold back clauses. filler: becomes the first clause if the model takes too long
        for one.
        """
        self._spoken = spoken
        self._gate = gate
        self._filler = filler
        self._cutter = Clauses()
        self._ready: deque[str] = deque()
        self._end: list[GenerationFailed | None] = []
        self._changed = Signal()
        self._taken = Signal()
        self._begun = INFINITY  # when the first word came
        self._words = 0

    async def put(self, text: str) -> None:
        """Add text; wait while CLAUSES_AHEAD clauses are waiting to be spoken."""
        self._begun = min(self._begun, asyncio.get_running_loop().time())
        self._words += len(text.split())
        if self._gate:
            self._gate.characters += len(text)
        for clause in self._cutter.feed(text) if self._spoken else [text]:
            await self._append(clause)
        self._changed.set()

    async def wait_allowed(self) -> float:
        """Wait until the next clause may be taken; return how long that took, in seconds."""
        return await self._gate.wait() if self._gate else 0.0

    async def flush(self) -> None:
        """No more text will come."""
        if rest := self._cutter.flush():
            await self._append(rest)

    def end(self, failed: GenerationFailed | None) -> None:
        """The answer ends after the clauses so far, or has failed."""
        self._end.append(failed)
        self._changed.set()

    async def next(self, hurry_at: float) -> Clause:
        """The next clause, then the end.

        hurry_at: the time, in the loop's clock, from which on some words of a clause are enough.
        """
        clock = asyncio.get_running_loop().time
        filler, self._filler = self._filler, None
        fill_at = clock() + filler.after_s if filler else INFINITY
        while not self._ready and not self._end:
            at = max(hurry_at, self._begun + FIRST_PIECE_S)
            if clock() >= at and (early := self._early(clock())):
                return early
            if self._begun == INFINITY:  # the model has given nothing
                if filler and clock() >= fill_at:
                    return f"{filler.text} "
                at = fill_at
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(at if clock() < at < INFINITY else None):
                    await self._changed.wait()
        if not self._ready:
            return self._end[0]
        self._taken.set()
        return self._ready.popleft()

    def _early(self, now: float) -> str:
        seconds = now - self._begun
        if not self._spoken or self._words - 1 < MIN_WORDS_PER_S * seconds:
            return ""
        return self._cutter.cut_early()

    async def _append(self, clause: str) -> None:
        while len(self._ready) >= CLAUSES_AHEAD:
            self._taken.clear()
            await self._taken.wait()
        self._ready.append(clause)
        self._changed.set()


async def _perform(
    order: Generate,
    cascade: Cascade,
    post: Post,
    wait_writable: WaitWritable,
    clauses: ClauseFeed,
) -> bool:
    """Post clause after clause, spoken or written.

    False: it failed, and the failure was posted. If speech synthesis fails, the rest is written.
    """
    async with _writer(order, cascade, post, wait_writable) as writer:
        if order.prompt.spoken and writer.streams_text:
            return await _perform_stream(order, writer, post, wait_writable, clauses)
        return await _perform_clauses(order, writer, post, wait_writable, clauses)


@asynccontextmanager
async def _writer(
    order: Generate, cascade: Cascade, post: Post, wait_writable: WaitWritable
) -> AsyncIterator["SpeechWriter"]:
    """The same with the synthesiser that the client names, loaded if necessary."""
    async with cascade.use_tts(order.prompt.speech_model) as tts:
        voice = cascade.voice_of(tts, order.prompt.voice)
        yield SpeechWriter(order, tts, voice, post, wait_writable)


async def _perform_clauses(
    order: Generate,
    writer: "SpeechWriter",
    post: Post,
    wait_writable: WaitWritable,
    clauses: ClauseFeed,
) -> bool:
    while True:
        match await _next(clauses, writer):
            case None:
                return True
            case GenerationFailed() as failed:
                post(failed)
                return False
            case str() as clause if not order.prompt.spoken:
                post(TextGenerated(order.response_id, clause))
                await wait_writable()
            case str() as clause:
                try:
                    await writer.speak(clause)
                except EngineError as exc:
                    writer.fall_silent(exc)


async def _next(clauses: ClauseFeed, writer: "SpeechWriter") -> Clause:
    """The next clause as soon as it may be spoken, or some words of it if it is late."""
    writer.postpone(await clauses.wait_allowed())
    return await clauses.next(writer.hurry_at)


async def _perform_stream(
    order: Generate,
    writer: "SpeechWriter",
    post: Post,
    wait_writable: WaitWritable,
    clauses: ClauseFeed,
) -> bool:
    """The same with a synthesiser that gets the text as it is generated."""
    ending: list[GenerationFailed | None] = []

    async def texts() -> AsyncGenerator[str]:
        while isinstance(clause := await _next(clauses, writer), str):
            writer.hand_over(clause)
            yield clause
        ending.append(clause)

    try:
        await writer.speak_stream(texts())
    except EngineError as exc:
        writer.fall_silent(exc)
        if not ending:
            return await _perform_clauses(order, writer, post, wait_writable, clauses)
    if failed := ending[0]:
        post(failed)
    return failed is None


class SpeechWriter:
    """Synthesises the clauses of one answer in order."""

    def __init__(
        self, order: Generate, tts: TTS, voice: str, post: Post, wait_writable: WaitWritable
    ) -> None:
        prompt = order.prompt
        self._response_id = order.response_id
        self._synthesis = Synthesis(
            tts,
            voice,
            speed=prompt.speed,
            language=prompt.language,
            instructions="",  # the instructions of the session are for the model, not for the voice
        )
        self._post = post
        self._wait_writable = wait_writable
        self._clock = asyncio.get_running_loop().time
        self._samples = 0  # samples of the answer so far
        self._heard_until = float("-inf")  # when a client that plays at once would run out of audio
        self._latency = 0.0  # the longest time from a clause to its first audio
        self._unspoken = ""  # text given to the synthesiser, whose words were not posted yet
        self._silent = False  # the synthesiser has failed
        self._owed = 0  # characters that were handed over and are not spoken yet
        self._handed_at = 0.0  # when the first of them was handed over

    @property
    def streams_text(self) -> bool:
        """Whether the synthesiser gets the text as it is generated."""
        return streaming(self._synthesis.tts) is not None

    @property
    def hurry_at(self) -> float:
        """When the next clause is needed so that the user hears no pause."""
        if self._silent:
            return INFINITY
        until = self._heard_until
        if self._owed > 0:
            seconds = self._owed * MS_PER_CHARACTER / 1000 / self._synthesis.speed
            until = max(until, self._handed_at) + seconds
        return until - self._latency - SPEECH_MARGIN_S

    def hand_over(self, text: str) -> None:
        """This text goes to the synthesiser now."""
        self._post(TextGenerated(self._response_id, text))
        self._unspoken += text
        if self._owed <= 0:
            self._handed_at = self._clock()
        self._owed += len(text)

    async def speak_stream(self, texts: AsyncIterator[str]) -> None:
        """Speak a text as it is generated. Raises EngineError."""
        async with aclosing(self._synthesis.stream(texts)) as pieces:
            async for piece in pieces:
                if piece.audio and not self._samples:
                    self._latency = self._clock() - self._handed_at
                self._owed -= sum(len(word.text) for word in piece.words)
                self._post_piece(piece)
                await self._wait_writable()

    def postpone(self, seconds: float) -> None:
        """The speech so far was held back for this long."""
        self._heard_until += seconds

    async def speak(self, clause: str) -> None:
        """Speak a clause, or write it if the synthesiser has failed. Raises EngineError."""
        self._post(TextGenerated(self._response_id, clause))
        self._unspoken += clause
        if self._silent:
            self._write()
            await self._wait_writable()
            return
        asked, begun = self._clock(), False
        async with aclosing(self._synthesis.clause(clause, self._samples)) as pieces:
            async for piece in pieces:
                if piece.audio and not begun:
                    begun, self._latency = True, max(self._latency, self._clock() - asked)
                self._post_piece(piece)
                await self._wait_writable()

    def fall_silent(self, exc: EngineError) -> None:
        """The synthesiser has failed: write what it has not spoken, and everything after that."""
        log.warning("speech synthesis failed, an answer goes on in writing: %s", exc)
        self._silent = True
        self._post(SpeechFailed(self._response_id, str(exc)))
        self._write()

    def _post_piece(self, piece: SpokenPiece) -> None:
        audio, words = piece.audio, piece.words
        if audio:
            now, until = self._clock(), self._heard_until
            self._heard_until = (until if until > now else now) + len(audio) / (2 * RATE)
            self._samples += len(audio) // 2
        if words:
            self._unspoken = self._unspoken[sum([len(word.text) for word in words]) :]
        self._post(AudioGenerated(self._response_id, audio, words, piece.last))

    def _write(self) -> None:
        """Post the words that were not spoken, without audio."""
        text, self._unspoken = self._unspoken, ""
        words = (SpokenWord(text, self._samples),) if text else ()
        self._post(AudioGenerated(self._response_id, b"", words, ends=True))
