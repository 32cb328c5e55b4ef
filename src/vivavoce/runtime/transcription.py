"""Speech to text, for sessions, files and chat alike: audio in, transcripts out."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, Self

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import STT, Transcript
from vivavoce.errors import AudioError, EngineError, EngineLost
from vivavoce.protocol.logprobs import ScoredWord, TokenLogprob, token_logprobs
from vivavoce.runtime.tasks import Signal, StallGuard
from vivavoce.session.effects import StartTranscription
from vivavoce.session.facts import ItemTranscriptionFailed, SpokenSegment, TranscriptUpdated

log = logging.getLogger(__name__)

PIECE_BYTES = 2 * RATE  # one second: resampling more at once would block the event loop
RECORDED_PIECE_BYTES = RATE  # bytes: half a second of a whole recording
# bytes of audio that a recogniser has taken, in case that its worker dies
KEPT_BYTES = 60 * 2 * RATE


class ReplayableAudio(Protocol):
    """16-bit mono PCM at the rate of an engine. It can be read from its start once more."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    def rewind(self) -> bool:
        """Begin again from the start. False: that was done already, or not all audio is kept."""
        ...


class AudioFeed:
    """Streamed audio, resampled to the rate of an engine. Iterate it once.

    The session bounds the audio that waits by the size of its input buffer. Up to a minute of the
    audio that was taken is kept for a second attempt.
    """

    def __init__(self, sample_rate: int, taken: Callable[[], None]) -> None:
        """`taken` is called whenever the engine has taken some of the audio."""
        self._rate = sample_rate
        self._resampler = Resampler(RATE, sample_rate)
        self._taken = taken
        self._pcm = bytearray()
        self._kept: list[bytes] | None = []  # what was taken; None: not all of it is kept
        self._kept_bytes = 0
        self._more = Signal()
        self._complete = False
        self._ended = False

    @property
    def waiting_bytes(self) -> int:
        return len(self._pcm)

    @property
    def so_far(self) -> bytes | None:
        """All audio that was fed, PCM at 24 kHz; None: it is not kept any more."""
        return None if self._kept is None else b"".join((*self._kept, self._pcm))

    def set_rate(self, sample_rate: int) -> None:
        """The engine is known only now. Call it before any of the audio is read."""
        self._rate = sample_rate
        self._resampler = Resampler(RATE, sample_rate)

    def feed(self, pcm: bytes) -> None:
        self._pcm += pcm
        self._more.set()

    def finish(self) -> None:
        """Mark the end of the audio."""
        self._complete = True
        self._more.set()

    def close(self) -> None:
        """Drop the kept audio: it is not read again."""
        self._pcm = bytearray()
        self._kept = None

    def rewind(self) -> bool:
        """See ReplayableAudio."""
        if self._kept is None:
            return False
        self._pcm[:0] = b"".join(self._kept)
        self._kept = None
        self._resampler = Resampler(RATE, self._rate)
        self._ended = False
        return True

    def _take(self) -> bytes:
        """The next audio."""
        piece = bytes(self._pcm[:PIECE_BYTES])
        del self._pcm[:PIECE_BYTES]
        if self._kept is not None:
            self._kept.append(piece)
            self._kept_bytes += len(piece)
            if self._kept_bytes > KEPT_BYTES:
                self._kept = None
        return piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            if self._pcm:
                piece = self._resampler.feed(self._take())
                self._taken()
                if self._pcm:  # an engine that never waits must not block other tasks
                    await asyncio.sleep(0)
            elif self._complete:
                piece = self._resampler.flush()
                self._ended = True
            else:
                self._more.clear()
                await self._more.wait()
                continue
            if piece:
                return piece
        raise StopAsyncIteration


class RecordingFeed:
    """The audio of another source, passed on and kept up to `max_bytes`."""

    def __init__(self, source: ReplayableAudio, max_bytes: int) -> None:
        self.pcm = bytearray()
        self._source = source
        self._max_bytes = max_bytes

    def rewind(self) -> bool:
        """See ReplayableAudio."""
        self.pcm.clear()
        return self._source.rewind()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._source)
        self.pcm += piece[: self._max_bytes - len(self.pcm)]
        return piece


class RecordedAudio:
    """A whole recording, resampled to the rate of an engine. It can be read twice."""

    def __init__(self, pcm: bytes, sample_rate: int, engine_rate: int) -> None:
        self._pcm = pcm
        self._rates = (sample_rate, engine_rate)
        self._rewound = False
        self._pieces = self._read()

    def rewind(self) -> bool:
        """See ReplayableAudio."""
        if self._rewound:
            return False
        self._rewound = True
        self._pieces = self._read()
        return True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)

    async def _read(self) -> AsyncGenerator[bytes]:
        resampler = Resampler(*self._rates)
        for at in range(0, len(self._pcm), RECORDED_PIECE_BYTES):
            if piece := resampler.feed(self._pcm[at : at + RECORDED_PIECE_BYTES]):
                yield piece
            await asyncio.sleep(0)  # an engine that never waits must not block other tasks
        if piece := resampler.flush():
            yield piece


async def transcripts(
    stt: STT,
    audio: ReplayableAudio,
    *,
    language: str | None = None,
    prompt: str = "",
    stall_timeout_s: float | None = None,
) -> AsyncGenerator[Transcript]:
    """The transcripts of the engine, the last of which is final.

    If the worker of the recogniser dies, the audio is recognised once more from the start; the last
    transcript is then repeated, as a sign of progress. Raises EngineError: it failed, ended without
    a final transcript, or gave nothing for too long.
    """

    def stalled() -> EngineError:
        return EngineError(f"speech recognition gave nothing for {stall_timeout_s:g} s")

    last = Transcript("")
    while True:
        final = False
        try:
            async with (
                aclosing(stt.transcribe(audio, language=language, prompt=prompt)) as recognised,
                StallGuard(stall_timeout_s, stalled) as guard,
            ):
                guard.begin()
                async for transcript in recognised:
                    guard.end()
                    final = transcript.final
                    last = last if final else transcript
                    yield transcript
                    guard.begin()
        except EngineLost as exc:
            if not audio.rewind():
                raise
            log.warning("STT worker lost, retrying with the same audio: %s", exc)
            yield last
            continue
        if not final:
            raise EngineError("speech recognition ended without a result")
        return


def logprobs_of(transcript: Transcript, start: int, end: int) -> tuple[TokenLogprob, ...]:
    """The tokens that end in that part of the text, without white space at its ends; empty if the
    engine gives no probabilities."""
    return token_logprobs(transcript.text.strip(), scored_words(transcript), start, end)


def scored_words(transcript: Transcript) -> tuple[ScoredWord, ...]:
    return tuple(ScoredWord(word.text, word.logprob) for word in transcript.words)


async def transcribe_item(
    stt: STT,
    order: StartTranscription,
    audio: ReplayableAudio,
    post: Callable[[TranscriptUpdated | ItemTranscriptionFailed], None],
    segments: Callable[[Transcript], Awaitable[tuple[SpokenSegment, ...]]] | None = None,
) -> None:
    """Post the words of an item as they are recognised; cancel to stop.

    segments: finds the speakers of the final words.
    """
    try:
        async with aclosing(
            transcripts(stt, audio, language=order.language, prompt=order.prompt)
        ) as recognised:
            async for transcript in recognised:
                post(
                    TranscriptUpdated(
                        order.key,
                        transcript.text,
                        transcript.stable,
                        transcript.final,
                        scored_words(transcript) if order.scored else (),
                        await segments(transcript) if segments and transcript.final else (),
                        transcript.words[-1].logprob if transcript.words else None,
                    )
                )
    except EngineError as exc:
        post(ItemTranscriptionFailed(order.key, str(exc)))


async def transcript_of(stt: STT, pcm: bytes) -> str:
    """What is said in a whole recording, 16-bit mono PCM at the rate of the engine.

    Raises AudioError: it contains no speech; EngineError.
    """
    text = ""
    async with aclosing(
        transcripts(stt, RecordedAudio(pcm, stt.sample_rate, stt.sample_rate))
    ) as recognised:
        async for transcript in recognised:
            text = transcript.text.strip()
    if not text:
        raise AudioError("no speech was found in the recording")
    return text
