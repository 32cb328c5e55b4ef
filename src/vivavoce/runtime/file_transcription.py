"""Recordings of any length, made out piece by piece: decoded, cut at pauses, recognised.

Only what is being worked on is in memory: a piece of sound, and a few passages of speech.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.audio.segments import Segment, Segmenter
from vivavoce.engines.base import STT, Transcript, Word
from vivavoce.errors import EngineError
from vivavoce.media.decoding import SoundFile
from vivavoce.runtime.ahead import ahead
from vivavoce.runtime.blocking import blocking
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.session.cascade.turn_detection import WINDOW

AT_ONCE = 2
"""Passages of one recording that are recognised at the same time."""
STALL_SECONDS = 120.0
"""How long an engine may make nothing of a passage."""
_PIECE_SECONDS = 4.096  # 128 windows: so many are decoded in one go ...
_WINDOWS_AHEAD = 32  # ... and so many may be left to judge while the next ones are decoded
_WINDOW_BYTES = 2 * WINDOW
_FED_BYTES = RATE  # half a second: what is resampled at once on the event loop


@dataclass(frozen=True, slots=True)
class SpeechStretch:
    """Of a recording, from `start_ms` to `end_ms`: somebody speaks."""

    start_ms: int
    end_ms: int
    pcm: bytes


class SpeechScorer:
    """Tells of each window of a recording whether it is speech."""

    def __init__(self, ears: VadBatcher) -> None:
        self._ear = ears.open(self._deliver, self._fail)
        self._verdicts: list[float] = []
        self._missing = 0  # verdicts
        self._may_miss = 0
        self._told = asyncio.Event()
        self._failure: Exception | None = None
        self._at = 0

    async def score(self, pcm: bytes, *, may_miss: int = 0) -> list[float]:
        """Take whole windows; the verdicts since the last call. Raises EngineError.

        So many may be missing, and come with a later call: a stream that has more to judge does
        not wait for the next tick of the ears.
        """
        if pcm:
            self._ear.score(self._at, pcm)
            self._at += len(pcm) // 2
            self._missing += len(pcm) // _WINDOW_BYTES
        self._may_miss = may_miss
        while self._missing > may_miss and self._failure is None:
            self._told.clear()
            await self._told.wait()
        if self._failure is not None:
            raise EngineError(f"voice activity detection failed: {self._failure}")
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    def close(self) -> None:
        self._ear.close()

    def _deliver(self, _at: int, verdicts: tuple[float, ...]) -> None:
        self._verdicts += verdicts
        self._missing -= len(verdicts)
        if self._missing <= self._may_miss:
            self._told.set()

    def _fail(self, exc: Exception) -> None:
        self._failure = exc
        self._told.set()


class AudioSource:
    """The sound of a file from where it is still needed on, cut into stretches of speech."""

    def __init__(self, judge: SpeechScorer) -> None:
        self._judge = judge
        self._segmenter = Segmenter(WINDOW, RATE)
        self._held = bytearray()
        self._held_from = 0  # the sample with which that begins
        self._judged = 0  # bytes of it
        self._samples = 0  # of all that came

    async def feed(self, pcm: bytes) -> list[SpeechStretch]:
        """The stretches that more sound brings to an end. Raises EngineError."""
        self._samples += len(pcm) // 2
        return await self._heard(pcm, may_miss=_WINDOWS_AHEAD)

    async def finish(self) -> list[SpeechStretch]:
        """The end of the sound: what was in progress."""
        missing = -(len(self._held) - self._judged) % _WINDOW_BYTES
        return await self._heard(bytes(missing)) + self._cut(self._segmenter.flush())

    async def _heard(self, pcm: bytes, *, may_miss: int = 0) -> list[SpeechStretch]:
        self._held += pcm
        whole = (len(self._held) - self._judged) // _WINDOW_BYTES * _WINDOW_BYTES
        windows = bytes(self._held[self._judged : self._judged + whole])
        self._judged += whole
        return self._cut(self._segmenter.feed(await self._judge.score(windows, may_miss=may_miss)))

    def _cut(self, segments: list[Segment]) -> list[SpeechStretch]:
        stretches = []
        for segment in segments:
            start, end = segment.start, min(segment.end, self._samples)
            pcm = bytes(self._held[2 * (start - self._held_from) : 2 * (end - self._held_from)])
            stretches.append(SpeechStretch(start * 1000 // RATE, end * 1000 // RATE, pcm))
        done = 2 * (self._segmenter.needed_from - self._held_from)
        del self._held[:done]
        self._held_from += done // 2
        self._judged -= done
        return stretches


async def stretches(file: SoundFile, ears: VadBatcher) -> AsyncGenerator[SpeechStretch]:
    """All of a file. Raises AudioError, EngineError."""
    pieces = file.pieces(_PIECE_SECONDS)
    judge = SpeechScorer(ears)
    recording = AudioSource(judge)
    try:
        while (piece := await blocking(next, pieces, None)) is not None:
            for stretch in await recording.feed(piece):
                yield stretch
        for stretch in await recording.finish():
            yield stretch
    finally:
        judge.close()
        await blocking(pieces.close)


class Passage:
    """A stretch of speech that is being recognised."""

    def __init__(self, start_ms: int, end_ms: int) -> None:
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.text = ""
        """All of it once deltas() has ended."""
        self.words: tuple[Word, ...] = ()
        """Their times count from the start of the recording."""
        self.language: str | None = None
        self._changed = asyncio.Event()
        self._over = False
        self._failure: Exception | None = None

    async def deltas(self) -> AsyncGenerator[str]:
        """The text as it becomes certain, to be taken once. Raises EngineError."""
        told = 0
        while True:
            self._changed.clear()
            if self._failure is not None:
                raise self._failure
            if len(self.text) > told:
                yield self.text[told:]
                told = len(self.text)
            elif self._over:
                return
            else:
                await self._changed.wait()

    def hear(self, heard: Transcript) -> None:
        """What is known by now. White space at both ends is not part of the text."""
        if heard.final:
            self.text = heard.text.strip()
            self.words = tuple(
                Word(word.text, word.start_ms + self.start_ms, word.end_ms + self.start_ms)
                for word in heard.words
            )
            self.language = heard.language
        else:
            self.text = heard.text[: heard.stable].strip()
        self._changed.set()

    def end(self, failure: Exception | None = None) -> None:
        self._over = True
        self._failure = failure
        self._changed.set()


class FileTranscriber:
    """Recognises the passages of one recording, a few at a time.

    `places` are those that all recordings of the engine share, so that many long ones do not crowd
    out whoever speaks live.
    """

    def __init__(
        self,
        stt: STT,
        places: asyncio.Semaphore,
        *,
        language: str | None = None,
        prompt: str = "",
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._stt = stt
        self._places = places
        self._own_places = asyncio.Semaphore(AT_ONCE)
        self._language = language
        self._prompt = prompt
        self._stall_seconds = stall_seconds

    async def passages(self, file: SoundFile, ears: VadBatcher) -> AsyncGenerator[Passage]:
        """In their order, each as soon as its recognition has begun."""
        async with ahead(self._begun(file, ears), AT_ONCE) as begun, aclosing(begun):
            async for passage in begun:
                yield passage

    async def _begun(self, file: SoundFile, ears: VadBatcher) -> AsyncGenerator[Passage]:
        under_way: set[asyncio.Task[None]] = set()
        try:
            async with aclosing(stretches(file, ears)) as found:
                async for stretch in found:
                    await self._own_places.acquire()
                    passage = Passage(stretch.start_ms, stretch.end_ms)
                    task = asyncio.create_task(self._recognise(stretch.pcm, passage))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    yield passage
        except Exception:
            await _ended(under_way)  # what came before the trouble is told
            raise
        else:
            await _ended(under_way)
        finally:
            for task in under_way:
                task.cancel()
            await _ended(under_way)

    async def _recognise(self, pcm: bytes, passage: Passage) -> None:
        try:
            async with self._places:
                await self._hear(pcm, passage)
        except Exception as exc:  # noqa: BLE001  raised again by whoever reads the passage
            passage.end(exc)
        else:
            passage.end()
        finally:
            self._own_places.release()

    async def _hear(self, pcm: bytes, passage: Passage) -> None:
        final = False
        async with aclosing(
            self._stt.transcribe(
                _fed(pcm, self._stt.sample_rate), language=self._language, prompt=self._prompt
            )
        ) as transcripts:
            while (heard := await self._next(transcripts)) is not None:
                final = heard.final
                passage.hear(heard)
        if not final:
            raise EngineError("speech recognition ended without a result")

    async def _next(self, transcripts: AsyncIterator[Transcript]) -> Transcript | None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                return await anext(transcripts, None)
        except TimeoutError as exc:
            raise EngineError(
                f"speech recognition told nothing for {self._stall_seconds:g} s"
            ) from exc


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


async def _fed(pcm: bytes, sample_rate: int) -> AsyncGenerator[bytes]:
    resampler = Resampler(RATE, sample_rate)
    for at in range(0, len(pcm), _FED_BYTES):
        if piece := resampler.feed(pcm[at : at + _FED_BYTES]):
            yield piece
        await asyncio.sleep(0)  # an engine that never waits must not keep everybody else waiting
    if piece := resampler.flush():
        yield piece
