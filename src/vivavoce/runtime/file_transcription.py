"""Transcription of files of any length: decoded, cut at pauses, recognised, piece by piece.

Only what is being worked on is in memory: a piece of sound, and a few passages of speech.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from vivavoce.audio.formats import RATE
from vivavoce.audio.segments import Segment, Segmenter, SegmentSettings
from vivavoce.engines.base import STT, Transcript, Word
from vivavoce.errors import EngineError
from vivavoce.media.decoding import SoundFile
from vivavoce.protocol.logprobs import TokenLogprob
from vivavoce.runtime.concurrency import in_thread, prefetched
from vivavoce.runtime.transcription import RecordedAudio, logprobs_of, transcripts
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.session.cascade.turn_detection import WINDOW

MAX_PASSAGES = 2
"""Passages of one recording that are recognised at the same time."""
STALL_TIMEOUT_S = 120.0
"""How long an engine may give no output for a passage."""
_PIECE_SECONDS = 4.096  # 128 windows are decoded at a time ...
_WINDOWS_AHEAD = 32  # ... and so many may wait for the VAD while the next ones are decoded
_WINDOW_BYTES = 2 * WINDOW


class SpeechStretch(msgspec.Struct, frozen=True):
    """The audio of a recording from `start_ms` to `end_ms`, which contains speech."""

    start_ms: int
    end_ms: int
    pcm: bytes
    speaker: str = ""
    """The label of the speaker, if it is known."""


class SpeechScorer:
    """The probability of speech in each window of a recording."""

    def __init__(self, vad: VadBatcher) -> None:
        self._stream = vad.open(self._deliver, self._fail)
        self._scores: list[float] = []
        self._missing = 0  # scores
        self._may_miss = 0
        self._delivered = asyncio.Event()
        self._failure: Exception | None = None
        self._at = 0

    async def score(self, pcm: bytes, *, may_miss: int = 0) -> list[float]:
        """Take PCM of whole windows; return the scores since the last call. Raises EngineError.

        Up to `may_miss` scores may be returned by a later call, so that a stream with more windows
        does not wait for the next batch.
        """
        if pcm:
            self._stream.score(self._at, pcm)
            self._at += len(pcm) // 2
            self._missing += len(pcm) // _WINDOW_BYTES
        self._may_miss = may_miss
        while self._missing > may_miss and self._failure is None:
            self._delivered.clear()
            await self._delivered.wait()
        if self._failure is not None:
            raise EngineError(f"voice activity detection failed: {self._failure}")
        scores, self._scores = self._scores, []
        return scores

    def close(self) -> None:
        self._stream.close()

    def _deliver(self, _at: int, scores: tuple[float, ...]) -> None:
        self._scores += scores
        self._missing -= len(scores)
        if self._missing <= self._may_miss:
            self._delivered.set()

    def _fail(self, exc: Exception) -> None:
        self._failure = exc
        self._delivered.set()


class AudioSource:
    """Cuts the audio of a file into stretches of speech.

    Audio that is no longer needed is dropped.
    """

    def __init__(self, scorer: SpeechScorer, settings: SegmentSettings | None = None) -> None:
        self._scorer = scorer
        self._segmenter = Segmenter(WINDOW, RATE, settings)
        self._held = bytearray()
        self._held_from = 0  # the position of its first sample
        self._scored = 0  # bytes of it
        self._samples = 0  # samples of the whole recording so far

    async def feed(self, pcm: bytes) -> list[SpeechStretch]:
        """Add audio; return the stretches that end in it. Raises EngineError."""
        self._samples += len(pcm) // 2
        return await self._take(pcm, may_miss=_WINDOWS_AHEAD)

    async def finish(self) -> list[SpeechStretch]:
        """The audio has ended: return the stretch that was in progress."""
        missing = -(len(self._held) - self._scored) % _WINDOW_BYTES
        return await self._take(bytes(missing)) + self._cut(self._segmenter.flush())

    async def _take(self, pcm: bytes, *, may_miss: int = 0) -> list[SpeechStretch]:
        self._held += pcm
        whole = (len(self._held) - self._scored) // _WINDOW_BYTES * _WINDOW_BYTES
        windows = bytes(self._held[self._scored : self._scored + whole])
        self._scored += whole
        return self._cut(self._segmenter.feed(await self._scorer.score(windows, may_miss=may_miss)))

    def _cut(self, segments: list[Segment]) -> list[SpeechStretch]:
        stretches = []
        for segment in segments:
            start, end = segment.start, min(segment.end, self._samples)
            pcm = bytes(self._held[2 * (start - self._held_from) : 2 * (end - self._held_from)])
            stretches.append(SpeechStretch(start * 1000 // RATE, end * 1000 // RATE, pcm))
        done = 2 * (self._segmenter.needed_from - self._held_from)
        del self._held[:done]
        self._held_from += done // 2
        self._scored -= done
        return stretches


async def stretches(
    file: SoundFile, vad: VadBatcher, settings: SegmentSettings | None = None
) -> AsyncGenerator[SpeechStretch]:
    """All speech of a file. Raises AudioError, EngineError."""
    pieces = file.pieces(_PIECE_SECONDS)
    scorer = SpeechScorer(vad)
    recording = AudioSource(scorer, settings)
    try:
        while (piece := await in_thread(next, pieces, None)) is not None:
            for stretch in await recording.feed(piece):
                yield stretch
        for stretch in await recording.finish():
            yield stretch
    finally:
        scorer.close()
        await in_thread(pieces.close)


async def speech_probabilities(file: SoundFile, vad: VadBatcher) -> list[float]:
    """The probability of speech in each window of a file; the last window is filled up with
    silence. Raises AudioError, EngineError."""
    pieces = file.pieces(_PIECE_SECONDS)
    scorer = SpeechScorer(vad)
    scores: list[float] = []
    try:
        while (piece := await in_thread(next, pieces, None)) is not None:
            whole = piece + bytes(-len(piece) % _WINDOW_BYTES)
            scores += await scorer.score(whole, may_miss=_WINDOWS_AHEAD)
        return scores + await scorer.score(b"")
    finally:
        scorer.close()
        await in_thread(pieces.close)


class PassageDelta(NamedTuple):
    """New text of a passage; logprobs are empty if the engine gives none."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Passage:
    """A stretch of speech that is being recognised."""

    def __init__(self, start_ms: int, end_ms: int, speaker: str = "") -> None:
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.speaker = speaker
        self.text = ""
        """All its text, once deltas() has ended."""
        self.words: tuple[Word, ...] = ()
        """Times from the start of the recording."""
        self.language: str | None = None
        self._latest = Transcript("")
        self._changed = asyncio.Event()
        self._over = False
        self._failure: Exception | None = None

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """The probabilities of all its tokens; empty if the engine gives none."""
        return logprobs_of(self._latest, 0, len(self.text))

    async def deltas(self) -> AsyncGenerator[PassageDelta]:
        """The text as it becomes certain. Iterate it once. Raises EngineError."""
        sent = 0
        while True:
            self._changed.clear()
            if self._failure is not None:
                raise self._failure
            if len(self.text) > sent:
                end = len(self.text)
                yield PassageDelta(self.text[sent:], logprobs_of(self._latest, sent, end))
                sent = end
            elif self._over:
                return
            else:
                await self._changed.wait()

    def update(self, transcript: Transcript) -> None:
        """Take the transcript so far. White space at both ends is not part of the text."""
        self._latest = transcript
        if transcript.final:
            self.text = transcript.text.strip()
            self.words = tuple(
                msgspec.structs.replace(
                    word,
                    start_ms=word.start_ms + self.start_ms,
                    end_ms=word.end_ms + self.start_ms,
                )
                for word in transcript.words
            )
            self.language = transcript.language
        else:
            self.text = transcript.text[: transcript.stable].strip()
        self._changed.set()

    def end(self, failure: Exception | None = None) -> None:
        self._over = True
        self._failure = failure
        self._changed.set()


class FileTranscriber:
    """Recognises the passages of one recording, a few at a time.

    `slots` are shared by all recordings of the engine, so that many long ones do not keep it from
    live sessions.
    """

    def __init__(
        self,
        stt: STT,
        slots: asyncio.Semaphore,
        *,
        language: str | None = None,
        prompt: str = "",
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self._stt = stt
        self._slots = slots
        self._own_slots = asyncio.Semaphore(MAX_PASSAGES)
        self._language = language
        self._prompt = prompt
        self._stall_timeout_s = stall_timeout_s

    async def passages(self, speech: AsyncGenerator[SpeechStretch]) -> AsyncGenerator[Passage]:
        """The passages in order, each as soon as its recognition has begun.

        Closes what it reads.
        """
        async with prefetched(self._begun(speech), MAX_PASSAGES) as begun, aclosing(begun):
            async for passage in begun:
                yield passage

    async def _begun(self, speech: AsyncGenerator[SpeechStretch]) -> AsyncGenerator[Passage]:
        under_way: set[asyncio.Task[None]] = set()
        try:
            async with aclosing(speech) as found:
                async for stretch in found:
                    await self._own_slots.acquire()
                    passage = Passage(stretch.start_ms, stretch.end_ms, stretch.speaker)
                    task = asyncio.create_task(self._recognise(stretch.pcm, passage))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    yield passage
        except Exception:
            await _ended(under_way)  # passages before the error are recognised
            raise
        else:
            await _ended(under_way)
        finally:
            for task in under_way:
                task.cancel()
            await _ended(under_way)

    async def _recognise(self, pcm: bytes, passage: Passage) -> None:
        try:
            async with self._slots:
                await self._transcribe(pcm, passage)
        except Exception as exc:  # noqa: BLE001  raised again by Passage.deltas()
            passage.end(exc)
        else:
            passage.end()
        finally:
            self._own_slots.release()

    async def _transcribe(self, pcm: bytes, passage: Passage) -> None:
        recognised = transcripts(
            self._stt,
            RecordedAudio(pcm, RATE, self._stt.sample_rate),
            language=self._language,
            prompt=self._prompt,
            stall_timeout_s=self._stall_timeout_s,
        )
        async with aclosing(recognised):
            async for transcript in recognised:
                passage.update(transcript)


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
