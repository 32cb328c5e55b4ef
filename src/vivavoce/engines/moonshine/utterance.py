"""One utterance in a worker: when it is decoded, which words are stable, and whether it is speech.

The audio is decoded again every DECODE_MS, and an eighth of its length, while words come, and once
more when PAUSE_MS of silence followed them. So the words are there before the turn ends, and its
end costs nothing when only silence was added. Long audio is cut in pauses; the words before a cut
are final.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vivavoce.engines.moonshine.model import RATE, Decoded, MoonshineModel, Samples
from vivavoce.engines.worker import HeardWord, Hypothesis, WorkerStream

FRAME = RATE // 50
DECODE_MS = 600
PAUSE_MS = 160
CUT_PAUSE_MS = 320
MIN_CUT_MS = 10_000
MAX_PART_MS = 24_000
"""The model was trained with at most 30 s."""
TAIL_MS = 240
"""Of silence that is decoded behind the last word."""
AGREEING = 3
UNSTABLE_WORDS = 3
"""The last words change most: they are not reported as stable."""
MIN_LEVEL = 0.0008
"""-62 dBFS: quieter frames are silence."""
SILENCE_RATIO = 0.1
"""Of the level that a tenth of the frames exceeds: -20 dB."""
# On silence, noise, hum and tones the first token has a log probability below -0.95, or the text is
# "You" or notes; on clear speech the first is above -0.3, down to 0 dB of noise above -1.2.
MIN_FIRST_LOG_PROBABILITY = -0.95
MIN_MEAN_LOG_PROBABILITY = -0.4
INVENTED = frozenset({"", "you"})


class Utterance:
    """Audio that grows, and its words."""

    def __init__(self, model: MoonshineModel) -> None:
        self._model = model
        self._audio = bytearray()  # of the current part
        self._part_start = 0  # samples
        self._loudness: list[float] = []
        self._done: tuple[HeardWord, ...] = ()
        self._words: tuple[HeardWord, ...] = ()
        self._recent: list[tuple[int, ...]] = []
        self._prefix: tuple[int, ...] = ()
        self._decoded_frames = -1
        self._decoded_at = 0

    def serve(self, stream: WorkerStream) -> Iterator[int]:
        """Take all audio of a stream and send each Hypothesis."""
        reported: tuple[int, tuple[HeardWord, ...]] = (0, ())
        while not stream.exhausted:
            yield 2 * FRAME
            self._add(stream.take(stream.queued))
            if self._due():
                yield from self._decode()
                if self._may_cut():
                    self._cut()
                words = (*self._done, *self._words)
                if (self._stable, words) != reported and not stream.exhausted:
                    reported = (self._stable, words)
                    stream.send(Hypothesis(words, self._stable, final=False))
        if self._speech_frames() != self._decoded_frames:
            yield from self._decode()
        words = (*self._done, *self._words)
        stream.send(Hypothesis(words, len(words), final=True))

    @property
    def _stable(self) -> int:
        return len(self._done) + len(self._model.text(self._prefix).split())

    def _add(self, data: bytes) -> None:
        self._audio += data
        frames = len(self._audio) // (2 * FRAME)
        if frames > len(self._loudness):
            first = len(self._loudness)
            new = np.frombuffer(
                self._audio, np.int16, (frames - first) * FRAME, offset=2 * FRAME * first
            )
            squares = (new.reshape(-1, FRAME) / 32768.0) ** 2
            self._loudness += np.sqrt(squares.mean(axis=1)).tolist()

    def _speech_frames(self) -> int:
        """Frames up to the last one that is not silence."""
        if not self._loudness:
            return 0
        loud = _loud_frames(self._loudness)
        return int(loud[-1]) + 1 if loud.size else 0

    def _due(self) -> bool:
        """Whether to decode now."""
        now, speech = len(self._loudness), self._speech_frames()
        if speech <= self._decoded_frames or not speech:
            return False
        paused = (now - speech) * 20 >= PAUSE_MS
        return paused or (now - self._decoded_at) * 20 >= DECODE_MS + now * 20 // 8

    def _decode(self) -> Iterator[int]:
        """Decode the part; sets its words. Yields while it works."""
        speech = self._decoded_frames = self._speech_frames()
        self._decoded_at = len(self._loudness)
        if not speech:
            self._words = ()
            return
        samples = self._samples(speech * FRAME + TAIL_MS * RATE // 1000)
        result: Decoded | None = None
        for result in self._model.decode(samples, self._prefix):
            if result is None:
                yield 0
        assert result is not None
        if not self._prefix and not self._is_speech(result):
            self._words, self._recent = (), []
            return
        self._settle(result.tokens)
        self._words = self._timed(self._model.text(result.tokens).split(), speech)

    def _samples(self, count: int) -> Samples:
        whole = len(self._audio) // 2
        pcm = np.frombuffer(self._audio, np.int16, min(count, whole))
        return pcm.astype(np.float32) / 32768.0

    def _is_speech(self, result: Decoded) -> bool:
        """Whether these are words that somebody said; see the limits above."""
        text = self._model.text(result.tokens)
        letters = "".join(c for c in text.lower() if c.isalnum() or c == " ").strip()
        if letters in INVENTED:
            return False
        scores = result.log_probabilities
        return not (
            scores[0] < MIN_FIRST_LOG_PROBABILITY
            and sum(scores) / len(scores) < MIN_MEAN_LOG_PROBABILITY
        )

    def _settle(self, tokens: tuple[int, ...]) -> None:
        """Words that stood in the last decodings alike, but for the last ones, become stable."""
        self._recent = [*self._recent, tokens][-AGREEING:]
        if len(self._recent) < AGREEING:
            return
        common = 0
        for column in zip(*self._recent, strict=False):
            if len(set(column)) > 1:
                break
            common += 1
        starts = [i for i in range(common) if self._model.begins_word(tokens[i])]
        if len(starts) > UNSTABLE_WORDS:
            end = starts[-UNSTABLE_WORDS]
            if end > len(self._prefix):
                self._prefix = tokens[:end]

    def _timed(self, texts: list[str], speech: int) -> tuple[HeardWord, ...]:
        """Words spread over the frames that are not silence, by their length in characters."""
        voiced = _loud_frames(self._loudness[:speech])
        bounds = np.cumsum([0, *(len(text) + 1 for text in texts)])
        places = np.minimum(bounds * len(voiced) // max(1, bounds[-1]), len(voiced) - 1)
        base = self._part_start * 1000 // RATE
        return tuple(
            HeardWord(
                text,
                base + int(voiced[places[i]]) * 20,
                base + int(voiced[places[i + 1]]) * 20 + 20,
            )
            for i, text in enumerate(texts)
        )

    def _may_cut(self) -> bool:
        length = len(self._loudness) * 20
        pause = (len(self._loudness) - self._speech_frames()) * 20
        return length >= MAX_PART_MS or (length >= MIN_CUT_MS and pause >= CUT_PAUSE_MS)

    def _cut(self) -> None:
        """Begin a new part behind what was decoded."""
        self._done, self._words = (*self._done, *self._words), ()
        used = len(self._loudness) * FRAME
        self._part_start += used
        del self._audio[: 2 * used]
        self._loudness, self._recent, self._prefix = [], [], ()
        self._decoded_frames, self._decoded_at = -1, 0


def _loud_frames(loudness: list[float]) -> NDArray[np.intp]:
    """The indexes of the frames that are not silence."""
    levels = np.array(loudness)
    limit = max(MIN_LEVEL, SILENCE_RATIO * float(np.percentile(levels, 90)))
    return np.nonzero(levels > limit)[0]
