"""The process that recognises: audio in, slice by slice, words out.

It is a process because the decoder holds the interpreter lock. It decodes several utterances in
turns, a slice of each. What is recognised depends on the audio alone, not on how it was cut or when
it came.
"""

import re
from array import array
from collections import deque
from collections.abc import Iterator, Sequence

from pocketsphinx import Config, Decoder, NGramModel

from vivavoce.engines.pocketsphinx.words import StableWords
from vivavoce.engines.worker import HeardWord, Hypothesis, WorkerStream

SLICE_BYTES = 3_200
"""100 ms: what is decoded in one go."""
HOLD_BYTES = 6 * SLICE_BYTES
"""Measured before decoding begins, for the mean spectrum of the voice and the line."""
BYTES_PER_MS = 32
MS_PER_FRAME = 10
HYPOTHESIS_SLICES = 2

STABLE_LAG_MS = 1_500
STABLE_AGREEING = 4

PART_MS = 20_000
PART_PAUSE_MS = 300

REPORT_BYTES = 6_400
"""Of audio between two reports of words: 200 ms, at whatever speed it comes."""

_VARIANT = re.compile(r"\(\d+\)$")


class SphinxModel:
    """The US-English model that comes with pocketsphinx. The language model is loaded once."""

    def __init__(self) -> None:
        # No second pass (fwdflat): at the end it takes 27 ms for each second of speech, the best
        # path through the lattice 3, and it makes no fewer errors. The limits cost no words.
        self._options = {
            "loglevel": "FATAL",
            "fwdflat": False,
            "topn": 2,
            "maxwpf": 20,
            "maxhmmpf": 10_000,
        }
        self._language_path = Config()["lm"]
        self._language: NGramModel | None = None

    def decoder(self) -> Decoder:
        """A new decoder; some 60 MB, 95 for the first one."""
        made = Decoder(lm=None, **self._options)
        if self._language is None:
            self._language = NGramModel(made.config, made.logmath, self._language_path)
        made.add_lm("english", self._language)
        made.activate_search("english")
        return made


class CepstralMean:
    """The average spectrum of this voice on this line, which recognition must subtract.

    The library begins with a fixed average and corrects it only after some seconds, too late for
    a turn of that length: 105 of 214 words of short recordings came out wrong that way, 82 this
    way. Here the mean is that of the loud slices of the last ten seconds, and a little of the
    average.
    """

    # What comes out of clear speech at a usual level.
    _USUAL = (41.0, -5.29, -0.12, 5.09, 2.48, -4.07, -1.37, -1.78, -5.08, -2.05, -6.45, -1.42, 1.17)
    _USUAL_FRAMES = 40
    _LIBRARY_FRAMES = 500  # the weight which the library gives to a mean that is set
    _SILENT = 0.2  # of the loudest slice

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._slices: deque[tuple[float, float, list[float]]] = deque(maxlen=100)
        self._current = list(self._USUAL)
        self.apply()

    def measure(self, audio: bytes) -> None:
        """Note the mean of the slice which the decoder has just been given."""
        frames = len(audio) / BYTES_PER_MS / MS_PER_FRAME
        mixed = _numbers(self._decoder.get_cmn(True))
        weight = self._LIBRARY_FRAMES / frames
        mean = [m + (m - c) * weight for m, c in zip(mixed, self._current, strict=True)]
        samples = array("h", audio)
        self._slices.append((sum(map(abs, samples)) / len(samples), frames, mean))
        self._set(self._current)

    def apply(self) -> None:
        """Subtract from now on what was measured so far."""
        floor = self._SILENT * max((level for level, _, _ in self._slices), default=0.0)
        total = [usual * self._USUAL_FRAMES for usual in self._USUAL]
        count: float = self._USUAL_FRAMES
        for level, frames, mean in self._slices:
            if level >= floor:
                count += frames
                total = [t + m * frames for t, m in zip(total, mean, strict=True)]
        self._set([t / count for t in total])

    def _set(self, mean: Sequence[float]) -> None:
        self._decoder.set_cmn(",".join(f"{value:.5f}" for value in mean))
        self._current = _numbers(self._decoder.get_cmn(False))


class Recognition:
    """One utterance: audio that is queued, and the words of the audio before it."""

    def __init__(self, part_ms: int = PART_MS) -> None:
        """The search keeps all its history, so a long utterance is decoded in parts.

        A part ends in a pause after part_ms, or anywhere after twice that.
        """
        self.words: tuple[HeardWord, ...] = ()
        self.finished = False
        self._audio = bytearray()
        self._ended = False
        self._decoder: Decoder | None = None
        self._mean: CepstralMean | None = None
        self._stable_words = StableWords(lag_ms=STABLE_LAG_MS, agreeing=STABLE_AGREEING)
        self._closed: tuple[HeardWord, ...] = ()
        self._slices = 0
        self._part_ms = part_ms
        self._part_start_ms = 0

    @property
    def stable(self) -> int:
        """The number of words that will not change."""
        return self._stable_words.stable

    @property
    def queued(self) -> int:
        """Bytes of audio that are not decoded yet."""
        return len(self._audio)

    def feed(self, audio: bytes) -> None:
        self._audio += audio

    def end(self) -> None:
        """All audio was fed."""
        self._ended = True

    def begin(self, decoder: Decoder) -> None:
        """Take a decoder, until release(). Measures the first HOLD_BYTES that were fed."""
        decoder.reinit_feat()  # forget the voice and the noise of the last utterance
        self._decoder = decoder
        self._mean = mean = CepstralMean(decoder)
        decoder.start_utt()
        held = min(len(self._audio), HOLD_BYTES) & ~1
        for start in range(0, held, SLICE_BYTES):
            audio = bytes(self._audio[start : min(start + SLICE_BYTES, held)])
            decoder.process_raw(audio, True)  # no search
            mean.measure(audio)
        decoder.end_utt()
        mean.apply()
        self._start_part()

    def step(self) -> int:
        """Decode one slice, or finish; return how many bytes it took."""
        taken = self._audio[:SLICE_BYTES]
        del self._audio[:SLICE_BYTES]
        audio = bytes(taken[: len(taken) & ~1])
        if audio:
            self._decode(audio)
        if self._ended and not self._audio:
            self.words = self._finish_part()
            self.finished = True
        return len(taken)

    def release(self) -> Decoder | None:
        """Give the decoder back, in whatever state the utterance is."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None and not self.finished:
            decoder.end_utt()
        return decoder

    def _decode(self, audio: bytes) -> None:
        assert self._decoder is not None
        assert self._mean is not None
        self._decoder.process_raw(audio)
        self._slices += 1
        if self._slices * SLICE_BYTES > HOLD_BYTES:
            self._mean.measure(audio)
            if self._slices % HYPOTHESIS_SLICES == 0:
                self._mean.apply()
        if self._slices % HYPOTHESIS_SLICES == 0:
            self.words = self._stable_words.update(self._hypothesis(), self._now_ms)
            if self._may_cut():
                self._closed = self.words = self._finish_part()
                self._start_part()

    @property
    def _now_ms(self) -> int:
        return self._slices * SLICE_BYTES // BYTES_PER_MS

    def _may_cut(self) -> bool:
        length = self._now_ms - self._part_start_ms
        last_ms = self.words[-1].end_ms if self.words else 0
        pause = self._now_ms - max(last_ms, self._part_start_ms)
        return length >= 2 * self._part_ms or (length >= self._part_ms and pause >= PART_PAUSE_MS)

    def _start_part(self) -> None:
        assert self._decoder is not None
        self._part_start_ms = self._now_ms
        self._decoder.start_utt()

    def _finish_part(self) -> tuple[HeardWord, ...]:
        if self._decoder is None:
            return ()
        self._decoder.end_utt()
        return self._stable_words.settle(self._hypothesis())

    def _hypothesis(self) -> list[HeardWord]:
        assert self._decoder is not None
        heard = [
            HeardWord(
                _VARIANT.sub("", segment.word),
                self._part_start_ms + segment.start_frame * MS_PER_FRAME,
                self._part_start_ms + (segment.end_frame + 1) * MS_PER_FRAME,
            )
            for segment in self._decoder.seg() or ()
            if segment.word[0] not in "<[+"  # silence and noises
        ]
        return [*self._closed, *heard]


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


class PocketsphinxWorker:
    """The decoders, which utterances share one after the other. A turn is a slice."""

    def __init__(self, options: object) -> None:
        self._model = SphinxModel()
        self._free = [self._model.decoder()]

    def serve(self, request: object, stream: WorkerStream) -> Iterator[int]:
        """Audio in, a Hypothesis out from time to time, and a final one at the end."""
        recognition = Recognition()
        yield HOLD_BYTES
        recognition.feed(stream.take(HOLD_BYTES))
        recognition.begin(self._free.pop() if self._free else self._model.decoder())
        try:
            decoded = reported_at = 0
            reported: tuple[HeardWord, ...] = ()
            while not recognition.finished:
                if recognition.queued < SLICE_BYTES:
                    recognition.feed(stream.take(SLICE_BYTES))
                if stream.exhausted:
                    recognition.end()
                decoded += recognition.step()
                words = recognition.words
                due = words != reported and decoded - reported_at >= REPORT_BYTES
                if due and not recognition.finished:
                    reported_at, reported = decoded, words
                    stream.send(Hypothesis(words, recognition.stable, final=False))
                yield 0 if recognition.queued >= SLICE_BYTES else SLICE_BYTES
            stream.send(Hypothesis(recognition.words, len(recognition.words), final=True))
        finally:
            if decoder := recognition.release():
                self._free.append(decoder)
