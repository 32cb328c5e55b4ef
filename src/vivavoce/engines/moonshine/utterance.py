"""One utterance in a worker: when it is decoded, which words are stable, and whether it is speech.

The audio is decoded first when some of it is speech (EARLY_MS), then every DECODE_MS, and an eighth
of its length, while words come, and once more when PAUSE_MS of silence followed them. So the words
are there before the turn ends, and its end costs nothing when only silence was added. While other
streams wait for the process, all but the decoding in a pause is left to later. Long audio is cut in
pauses; the words before a cut are final.
"""

from collections.abc import Iterator, Sequence

import msgspec

from vivavoce.engines.moonshine.model import NOTHING, Decoded, MoonshineModel
from vivavoce.engines.passages import CUT_PAUSE_MS, FRAME, MIN_CUT_MS, SpeechBuffer
from vivavoce.engines.worker import HeardWord, Hypothesis, WorkerStream

DECODE_MS = 600
PAUSE_MS = 100
"""Of silence, after which the words are looked for that may be the last. The model hears more
silence than that: of a sound that ends at once it makes other words."""
EARLY_MS = (200, 300, 420)
"""Of sound that is not silence, after which the first words are looked for: speech over an answer
is judged by them. Each costs some 40 ms."""
LATER_EARLY_MS, LATER_MS = 160, 1_200
"""How much later the first and the others of these are, while other streams wait."""
MAX_PART_MS = 24_000
"""The model was trained with at most 30 s."""
AGREEING = 3
UNSTABLE_WORDS = 3
"""The last words change most: they are not reported as stable."""
# On silence, noise, hum and tones the first token has a log probability below -0.95, or the text is
# "You" or notes; on clear speech the first is above -0.3, down to 0 dB of noise above -1.2.
MIN_FIRST_LOG_PROBABILITY = -0.95
MIN_MEAN_LOG_PROBABILITY = -0.4
INVENTED = frozenset({"", "you"})
# What the model makes of melodies and sweeps, where its first token is below -0.7; of a voice that
# says it, down to 0 dB of noise, it is above -0.2.
SUSPECTED = frozenset({"thank you for watching", "thanks for watching"})
MIN_SUSPECTED_LOG_PROBABILITY = -0.5


class Utterance:
    """Audio that grows, and its words."""

    def __init__(self, model: MoonshineModel) -> None:
        self._model = model
        self._buffer = SpeechBuffer()  # of the current part
        self._done: tuple[HeardWord, ...] = ()
        self._words: tuple[HeardWord, ...] = ()
        self._recent: list[tuple[int, ...]] = []
        self._prefix = NOTHING
        self._decoded_frames = -1
        self._decoded_at = 0
        self._early = 0  # decodings of EARLY_MS

    def serve(self, stream: WorkerStream) -> Iterator[int]:
        """Take all audio of a stream and send each Hypothesis."""
        reported: tuple[int, tuple[HeardWord, ...]] = (0, ())
        while not stream.exhausted:
            yield 2 * FRAME
            self._buffer.add(stream.take(stream.queued))
            if self._due(contended=stream.contended):
                stream.urgent = self._awaited
                yield from self._decode()
                stream.urgent = False
                if self._may_cut():
                    self._cut()
                words = (*self._done, *self._words)
                if (self._stable, words) != reported and not stream.exhausted:
                    reported = (self._stable, words)
                    stream.send(Hypothesis(words, self._stable, final=False))
        if self._buffer.speech_frames() != self._decoded_frames:
            yield from self._decode()
        words = (*self._done, *self._words)
        stream.send(Hypothesis(words, len(words), final=True))

    @property
    def _stable(self) -> int:
        return len(self._done) + len(self._model.text(self._prefix.tokens).split())

    @property
    def _awaited(self) -> bool:
        """Whether the words so far are waited for: in a pause, and at the beginning of speech."""
        return self._paused or self._buffer.voiced_frames() * 20 <= EARLY_MS[-1]

    @property
    def _paused(self) -> bool:
        return (self._buffer.frames - self._buffer.speech_frames()) * 20 >= PAUSE_MS

    def _due(self, *, contended: bool) -> bool:
        """Whether to decode now."""
        now, speech = self._buffer.frames, self._buffer.speech_frames()
        if speech <= self._decoded_frames or not speech:
            return False
        voiced_ms = self._buffer.voiced_frames() * 20
        early = sum(voiced_ms >= each for each in EARLY_MS)
        later = LATER_EARLY_MS if contended else 0
        if early > self._early and voiced_ms >= EARLY_MS[self._early] + later:
            self._early = early
            return True
        if self._paused:
            return True
        later = LATER_MS if contended else 0
        return (now - self._decoded_at) * 20 >= DECODE_MS + now * 20 // 8 + later

    def _decode(self) -> Iterator[int]:
        """Decode the part; sets its words. Yields while it works."""
        speech = self._decoded_frames = self._buffer.speech_frames()
        self._decoded_at = self._buffer.frames
        if not speech:
            self._words = ()
            return
        samples = self._buffer.samples(speech, filled=self._paused)
        result: Decoded | None = None
        for result in self._model.decode(samples, self._prefix):
            if result is None:
                yield 0
        assert result is not None
        if not self._prefix.tokens and not self._is_speech(result):
            self._words, self._recent = (), []
            return
        self._settle(result)
        words = self._buffer.timed(self._model.text(result.tokens).split(), speech)
        scores: Sequence[float | None] = self._model.word_scores(result) or [None] * len(words)
        self._words = tuple(
            msgspec.structs.replace(word, logprob=score)
            for word, score in zip(words, scores, strict=True)
        )

    def _is_speech(self, result: Decoded) -> bool:
        """Whether these words were spoken, and not invented for noise; see the limits above."""
        text = self._model.text(result.tokens)
        letters = "".join(c for c in text.lower() if c.isalnum() or c == " ").strip()
        if letters in INVENTED:
            return False
        scores = result.log_probabilities
        if letters in SUSPECTED and scores[0] < MIN_SUSPECTED_LOG_PROBABILITY:
            return False
        return not (
            scores[0] < MIN_FIRST_LOG_PROBABILITY
            and sum(scores) / len(scores) < MIN_MEAN_LOG_PROBABILITY
        )

    def _settle(self, result: Decoded) -> None:
        """Words that stood in the last decodings alike, but for the last ones, become stable."""
        tokens = result.tokens
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
            if end > len(self._prefix.tokens):
                self._prefix = Decoded(tokens[:end], result.log_probabilities[:end])

    def _may_cut(self) -> bool:
        length = self._buffer.frames * 20
        pause = (self._buffer.frames - self._buffer.speech_frames()) * 20
        return length >= MAX_PART_MS or (length >= MIN_CUT_MS and pause >= CUT_PAUSE_MS)

    def _cut(self) -> None:
        """Begin a new part behind what was decoded."""
        self._done, self._words = (*self._done, *self._words), ()
        self._buffer.drop()
        self._recent, self._prefix = [], NOTHING
        self._decoded_frames, self._decoded_at = -1, 0
