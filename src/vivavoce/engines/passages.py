"""Recognition, in a worker, by models that take a whole passage of audio at a time.

A worker derives from PassageWorker and implements recognise(), which gets passages of several
streams in one batch. A passage is decoded in every pause of speech, so that the words are there
before the turn ends, at its end, and, if partial_ms is set, while words come. A recording, whose
audio comes faster than it was spoken, is decoded once. Long audio is cut in pauses; the words
before a cut are final. Only the current passage is in memory.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from vivavoce.engines.worker import HeardWord, Hypothesis, WorkerStream

Samples = NDArray[np.float32]

RATE = 16_000
FRAME = RATE // 50
PAUSE_MS = 160
CUT_PAUSE_MS = 320
MIN_CUT_MS = 10_000
TAIL_MS = 240
"""Of silence that is decoded behind the last word."""
LIVE_MS = 1_500
"""Audio that is further ahead of the clock is a recording."""
MIN_LEVEL = 0.0008
"""-62 dBFS: quieter frames are silence."""
SILENCE_RATIO = 0.1
"""Of the level that a tenth of the frames exceeds: -20 dB."""


class RecognitionRequest(msgspec.Struct, frozen=True, array_like=True):
    """What a stream asks of a recogniser."""

    language: str | None = None
    """ISO 639-1; None: any."""
    prompt: str = ""
    translate: bool = False
    """Into English."""


class SpeechBuffer:
    """16-bit mono PCM at 16 kHz that grows, and how loud each frame of 20 ms is."""

    def __init__(self) -> None:
        self.start = 0
        """Samples before it that were dropped."""
        self._audio = bytearray()
        self._loudness: list[float] = []
        self._loud: tuple[int, NDArray[np.intp]] = (0, np.zeros(0, np.intp))  # for so many frames

    @property
    def frames(self) -> int:
        return len(self._loudness)

    def add(self, data: bytes) -> None:
        self._audio += data
        frames = len(self._audio) // (2 * FRAME)
        if frames > len(self._loudness):
            first = len(self._loudness)
            new = np.frombuffer(
                self._audio, np.int16, (frames - first) * FRAME, offset=2 * FRAME * first
            )
            squares = (new.reshape(-1, FRAME) / 32768.0) ** 2
            self._loudness += np.sqrt(squares.mean(axis=1)).tolist()

    def speech_frames(self) -> int:
        """Frames up to the last one that is not silence."""
        loud = self._loud_frames()
        return int(loud[-1]) + 1 if loud.size else 0

    def voiced_frames(self) -> int:
        """Frames that are not silence."""
        return int(self._loud_frames().size)

    def _loud_frames(self) -> NDArray[np.intp]:
        if self._loud[0] != len(self._loudness):
            self._loud = len(self._loudness), _loud_frames(self._loudness)
        return self._loud[1]

    def samples(self, speech: int, *, filled: bool = False) -> Samples:
        """The first `speech` frames and TAIL_MS more, as far as there are: [n], -1..1.

        filled: with silence, if there are fewer.
        """
        wanted = speech * FRAME + TAIL_MS * RATE // 1000
        count = min(wanted, len(self._audio) // 2)
        found = np.zeros(wanted if filled else count, np.float32)
        found[:count] = np.frombuffer(self._audio, np.int16, count) / 32768.0
        return found

    def timed(self, texts: Sequence[str], speech: int) -> tuple[HeardWord, ...]:
        """Words spread over the frames that are not silence, by their length in characters."""
        voiced = _loud_frames(self._loudness[:speech])
        bounds = np.cumsum([0, *(len(text) + 1 for text in texts)])
        places = np.minimum(bounds * len(voiced) // max(1, bounds[-1]), len(voiced) - 1)
        base = self.start * 1000 // RATE
        return tuple(
            HeardWord(
                text,
                base + int(voiced[places[i]]) * 20,
                base + int(voiced[places[i + 1]]) * 20 + 20,
            )
            for i, text in enumerate(texts)
        )

    def drop(self) -> None:
        """Forget all whole frames."""
        used = len(self._loudness) * FRAME
        self.start += used
        del self._audio[: 2 * used]
        self._loudness = []
        self._loud = (0, np.zeros(0, np.intp))


def _loud_frames(loudness: list[float]) -> NDArray[np.intp]:
    """The indexes of the frames that are not silence."""
    levels = np.array(loudness)
    limit = max(MIN_LEVEL, SILENCE_RATIO * float(np.percentile(levels, 90)))
    return np.nonzero(levels > limit)[0]


class PassageAudio(msgspec.Struct, frozen=True):
    """A passage to be recognised: samples [n] at 16 kHz, -1..1, and what its stream asks."""

    samples: Samples
    request: RecognitionRequest


class PassageWords(msgspec.Struct, frozen=True):
    """What was said in a passage. Times are milliseconds from its start."""

    words: tuple[HeardWord, ...] = ()
    timed: bool = False
    """False: the model gives no times, and they are estimated."""
    language: str | None = None


class _Job:
    """A passage that waits for its batch, and the result."""

    def __init__(self, passage: PassageAudio) -> None:
        self.passage = passage
        self.result: PassageWords | None = None


class PassageWorker:
    """Base of a worker: batches over streams."""

    Request = RecognitionRequest
    max_batch = 1
    """Passages of one recognise() call."""
    max_passage_ms = 28_000
    """Longer audio is cut, in a pause if there is one."""
    partial_ms = 0
    """Decode again after so much more speech, and an eighth of the passage; 0: only in pauses."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._jobs: list[_Job] = []

    @abstractmethod
    def recognise(self, passages: Sequence[PassageAudio]) -> list[PassageWords]:
        """The words of each passage, in the same order. Raises EngineError."""

    def serve(self, request: RecognitionRequest, stream: WorkerStream) -> Iterator[int]:
        return PassageStream(self, request).serve(stream)

    def words_of(self, passage: PassageAudio) -> Generator[int, None, PassageWords]:
        """Recognise a passage together with those of other streams that wait just now."""
        job = _Job(passage)
        self._jobs.append(job)
        try:
            yield 0  # the others have their turn, and may add theirs
            if job.result is None:
                batch = [job, *(other for other in self._jobs if other is not job)]
                batch = batch[: self.max_batch]
                results = self.recognise([one.passage for one in batch])
                for one, result in zip(batch, results, strict=True):
                    one.result = result
                    self._jobs.remove(one)
        finally:
            if job in self._jobs:
                self._jobs.remove(job)
        assert job.result is not None
        return job.result


class PassageStream:
    """One utterance: when it is decoded, and its words."""

    def __init__(self, worker: PassageWorker, request: RecognitionRequest) -> None:
        self._worker = worker
        self._request = request
        self._buffer = SpeechBuffer()
        self._done: tuple[HeardWord, ...] = ()
        self._words: tuple[HeardWord, ...] = ()
        self._language = request.language
        self._decoded_frames = -1
        self._decoded_at = 0
        self._begun = worker.clock()

    def serve(self, stream: WorkerStream) -> Iterator[int]:
        """Take all audio of a stream and send each Hypothesis."""
        reported: tuple[HeardWord, ...] = ()
        while not stream.exhausted:
            yield 2 * FRAME
            self._buffer.add(stream.take(stream.queued))
            if stream.exhausted or not self._due():
                continue
            yield from self._decode()
            if self._may_cut():
                self._cut()
            if (words := (*self._done, *self._words)) != reported and not stream.exhausted:
                reported = words
                stream.send(Hypothesis(words, len(self._done), False, self._language))
        if self._buffer.speech_frames() != self._decoded_frames:
            yield from self._decode()
        words = (*self._done, *self._words)
        stream.send(Hypothesis(words, len(words), True, self._language))

    def _due(self) -> bool:
        """Whether to decode now."""
        now, speech = self._buffer.frames, self._buffer.speech_frames()
        if self._passage_is_full():
            return True
        if speech <= self._decoded_frames or not speech:
            return False
        if not self._is_live():
            return self._may_cut()
        if (now - speech) * 20 >= PAUSE_MS:
            return True
        period = self._worker.partial_ms + now * 20 // 8
        return bool(self._worker.partial_ms) and (now - self._decoded_at) * 20 >= period

    def _is_live(self) -> bool:
        audio_ms = self._buffer.start * 1000 // RATE + self._buffer.frames * 20
        return audio_ms <= (self._worker.clock() - self._begun) * 1000 + LIVE_MS

    def _passage_is_full(self) -> bool:
        return self._buffer.frames * 20 >= self._worker.max_passage_ms

    def _decode(self) -> Generator[int, None, None]:
        """Decode the passage; sets its words. Yields while it waits."""
        speech = self._decoded_frames = self._buffer.speech_frames()
        self._decoded_at = self._buffer.frames
        if not speech:
            self._words = ()
            return
        passage = PassageAudio(self._buffer.samples(speech), self._request)
        found = yield from self._worker.words_of(passage)
        self._language = found.language or self._language
        if not found.timed:
            texts = [word.text for word in found.words]
            spread = self._buffer.timed(texts, speech)
            self._words = tuple(
                msgspec.structs.replace(word, start_ms=at.start_ms, end_ms=at.end_ms)
                for word, at in zip(found.words, spread, strict=True)
            )
            return
        base = self._buffer.start * 1000 // RATE
        self._words = tuple(
            msgspec.structs.replace(
                word, start_ms=base + word.start_ms, end_ms=base + max(word.start_ms, word.end_ms)
            )
            for word in found.words
        )

    def _may_cut(self) -> bool:
        pause = (self._buffer.frames - self._buffer.speech_frames()) * 20
        long_enough = self._buffer.frames * 20 >= MIN_CUT_MS
        return self._passage_is_full() or (long_enough and pause >= CUT_PAUSE_MS)

    def _cut(self) -> None:
        """Begin a new passage behind what was decoded."""
        self._done, self._words = (*self._done, *self._words), ()
        self._buffer.drop()
        self._decoded_frames, self._decoded_at = -1, 0


def words_of(
    tokens: Sequence[str],
    times: Sequence[float],
    logprobs: Sequence[float] = (),
    base_ms: int = 0,
) -> tuple[HeardWord, ...]:
    """Words from tokens and the second at which each begins.

    A word ends where the next token begins; the last one 200 ms after its last token.
    """
    words: list[HeardWord] = []
    for i, token in enumerate(tokens):
        text = token.replace("\u2581", " ")
        start = base_ms + round(times[i] * 1000) if i < len(times) else base_ms
        end = base_ms + round(times[i + 1] * 1000) if i + 1 < len(times) else start + 200
        score = min(0.0, logprobs[i]) if i < len(logprobs) else None
        ideograph = len(text) == 1 and ord(text) >= 0x2E80
        if words and not text.startswith(" ") and not ideograph:
            last = words[-1]
            both = None if score is None or last.logprob is None else score + last.logprob
            words[-1] = HeardWord(last.text + text, last.start_ms, end, last.joined, both)
        elif text.strip():
            words.append(HeardWord(text.strip(), start, end, not text.startswith(" "), score))
    return tuple(words)


def joined(words: Sequence[HeardWord]) -> str:
    """Their text."""
    return "".join(
        word.text if word.joined or not i else f" {word.text}" for i, word in enumerate(words)
    )
