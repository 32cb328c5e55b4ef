"""The process that speaks with hibari: a sentence at a time, streams in turns.

The package has the model, its text analysis and its vocoder. Here is what it does not offer: the
times of words, read from the durations that the model computes for its phonemes, and pieces of
bounded length. A model file is one protobuf message, and two of them one after another are read as
one merged message; so an output is added to the graph by adding a few bytes (protobuf's encoding
specification, "Last One Wins": embedded messages merge, repeated fields are joined).
"""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from hibari import Hibari, dsp
from hibari.g2p.normalize import normalize
from numpy.typing import NDArray

from vivavoce.engines.speech_text import named_signs
from vivavoce.engines.worker import SpeechChunk, UtteranceRequest, WorkerStream, onnx_options

Samples = NDArray[np.float32]
Span = tuple[int, int]

PHONEME_ENDS = b"/CumSum_output_0"
"""The tensor of the graph with the time at which each phoneme ends, in frames of 25 ms."""
FRAME = dsp.HOP
LONG_PIECE = 200
"""Phonemes, some 15 s of speech: behind so many, a piece ends at the next pause."""
MAX_PIECE = 360
SILENCE = 10 ** (-60 / 20)
LEAD_FRAMES = 2
"""Of the 17 frames of silence, 212 ms, that the model begins each sentence with."""
PAUSE_FRAMES = {",": 12, ";": 16, ":": 16, "\u2014": 16}
"""Silence that is kept behind a piece that ends with this sign; behind . ! ? all of it."""
MID_SENTENCE_FRAMES = 4
PAUSES = ".!?\u2026,;:\u2014"
WARM_UP = "Hello, this is 1 sentence of Vivavoce."

_WORD = re.compile(r"\S+")


class Group(NamedTuple):
    """What is spoken for a word of the normalised text."""

    text: str
    phonemes: str


class Piece(NamedTuple):
    """Groups that are synthesised at once; `words` are (index of the group, span in the text)."""

    groups: tuple[Group, ...]
    words: tuple[tuple[int, Span], ...]


class HibariWorker:
    """One model and its text analysis, shared by the utterances of the process."""

    Options = int  # threads
    Request = UtteranceRequest

    def __init__(self, threads: int) -> None:
        options = onnx_options(threads)
        # "heart" lies in the package; the constructor fetches nothing for it
        self._hibari = Hibari(voice="heart", threads=threads)
        self._model = onnxruntime.InferenceSession(
            with_output(Path(self._hibari.model_path).read_bytes(), PHONEME_ENDS),
            options,
            providers=["CPUExecutionProvider"],
        )
        self._hibari.sess = None  # the session above is used in its place
        for piece in self._pieces(WARM_UP):  # the first call is slow
            self._speech(piece, 1.0, np.random.default_rng(0))

    def serve(self, request: UtteranceRequest, stream: WorkerStream) -> Iterator[int]:
        """Send the speech of each piece. The same request gives the same samples."""
        stream.urgent = request.awaited
        return self._speak(request, stream)

    def _speak(self, request: UtteranceRequest, stream: WorkerStream) -> Iterator[int]:
        named = named_signs(request.text, "en")
        random, done = np.random.default_rng(0), 0
        for piece in self._pieces(named.text):
            yield 0
            audio, starts = self._speech(piece, request.speed, random)
            words = []
            for (_, span), at in zip(piece.words, starts, strict=True):
                first, last = named.original(*span)
                if first >= done:  # else a further word of a sign's name
                    done = last
                    words.append((at, first, last))
            if len(audio):
                pcm = (np.clip(audio, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
                stream.send(SpeechChunk(pcm, tuple(words)))
                stream.urgent = False
        yield 0

    def _pieces(self, text: str) -> Iterator[Piece]:
        at = 0
        for sentence in self._hibari.split_sentences(text):
            at = text.index(sentence, at)
            groups = self._groups(sentence)
            words = [found.span() for found in _WORD.finditer(sentence)]
            firsts = aligned([sentence[slice(*span)] for span in words], [g.text for g in groups])
            places = list(zip(firsts, words, strict=True))
            for start, end in cuts([group.phonemes for group in groups]):
                inside = [
                    (first - start, (at + span[0], at + span[1]))
                    for first, span in places
                    if start <= first < end
                ]
                yield Piece(tuple(groups[start:end]), tuple(inside))
            at += len(sentence)

    def _groups(self, sentence: str) -> list[Group]:
        """The words of the normalised sentence, those without a sound included."""
        g2p = self._hibari.g2p
        groups, text, phonemes = [], "", ""
        for token in g2p.phonemize_tokens(g2p.tokenize(normalize(sentence))):
            text += token.text
            phonemes += token.phonemes or ""
            if token.whitespace:
                groups.append(Group(text, phonemes))
                text, phonemes = "", ""
        return [*groups, Group(text, phonemes)] if text else groups

    def _speech(
        self, piece: Piece, speed: float, random: np.random.Generator
    ) -> tuple[Samples, list[int]]:
        """The samples of a piece, and the sample at which each of its words begins."""
        ids, firsts = [0], []
        vocabulary, space = self._hibari.vocab, self._hibari.vocab[" "]
        for group in piece.groups:
            known = [vocabulary[sign] for sign in group.phonemes if sign in vocabulary]
            firsts.append(len(ids))  # a word begins with the space before it: none is late
            if known and len(ids) > 1:
                ids.append(space)
            ids += known
        if len(ids) == 1:
            return np.zeros(0, np.float32), [0] * len(piece.words)
        ids.append(0)
        feed = {"ids": np.array([ids], np.int64), "speed": np.array([speed], np.float32)}
        *spectra, ends = self._model.run(None, feed)
        audio = dsp.synth(*(each[0] for each in spectra), random)
        signs = "".join(group.phonemes for group in piece.groups)
        begin, end = sounding(audio, signs[-1:])
        frames = len(audio) // FRAME // int(ends[-1])  # of the audio, in one of the phonemes': 2
        starts = [frames * int(ends[firsts[i] - 1]) for i, _ in piece.words]
        inside = [min(max(start, begin), end) - begin for start in starts]
        return audio[begin * FRAME : end * FRAME], [frame * FRAME for frame in inside]


def sounding(audio: Samples, last_sign: str) -> tuple[int, int]:
    """The frames of the audio that are kept: without most of the silence at its ends."""
    frames = len(audio) // FRAME
    peaks = np.abs(audio[: frames * FRAME].reshape(frames, FRAME)).max(axis=1)
    loud = np.nonzero(peaks > SILENCE)[0]
    if not loud.size:
        return 0, frames
    kept = PAUSE_FRAMES.get(last_sign, MID_SENTENCE_FRAMES)
    end = frames if last_sign in ".!?\u2026" else min(frames, int(loud[-1]) + 1 + kept)
    return max(0, int(loud[0]) - LEAD_FRAMES), end


def cuts(phonemes: list[str]) -> Iterator[Span]:
    """Where to divide words, [start, end): at pauses where possible, and none too long."""
    start = total = 0
    for i, signs in enumerate(phonemes):
        if i > start and total + len(signs) > MAX_PIECE:
            yield start, i
            start, total = i, 0
        total += len(signs) + 1
        if total > LONG_PIECE and signs.endswith(tuple(PAUSES)):
            yield start, i + 1
            start, total = i + 1, 0
    if start < len(phonemes):
        yield start, len(phonemes)


def aligned(words: list[str], spoken: list[str]) -> list[int]:
    """For each word of a text the index of what is spoken for it, never falling.

    Words that are read as others ("3rd", "third") lie in proportion between those that are not.
    """
    if not spoken:
        return [0] * len(words)
    matcher = SequenceMatcher(None, words, spoken, autojunk=False)
    firsts = []
    for _, start, end, begin, stop in matcher.get_opcodes():
        for i in range(end - start):
            firsts.append(min(begin + i * (stop - begin) // (end - start), len(spoken) - 1))
    return firsts


def with_output(model: bytes, tensor: bytes) -> bytes:
    """A serialised ONNX model whose graph has one more output, the last: ModelProto.graph is field
    7, GraphProto.output 12, ValueInfoProto.name 1."""
    return model + _field(7, _field(12, _field(1, tensor)))


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of protobuf; for less than 128 bytes."""
    return bytes([number << 3 | 2, len(data)]) + data
