"""The processes that recognise with sherpa-onnx: passages or streams of several sessions."""

import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import sherpa_onnx

from vivavoce.engines.moonshine.model import vocabulary
from vivavoce.engines.passages import (
    RATE,
    PassageAudio,
    PassageWords,
    PassageWorker,
    joined,
    words_of,
)
from vivavoce.engines.worker import HeardWord, Hypothesis, WorkerStream
from vivavoce.errors import EngineError

STREAM_BYTES = 2 * RATE // 10
"""Taken at a time: 100 ms."""
TAIL = np.zeros(RATE // 2, np.float32)
"""Silence after the end: an encoder needs what follows a word."""
INVENTED = frozenset({"", "you"})
"""What Moonshine makes of hum and noise."""


class SherpaOptions(msgspec.Struct, frozen=True):
    """What a process is built from; `paths`: files by what they are for."""

    layout: str
    paths: dict[str, str]
    provider: Literal["cpu", "cuda"]
    threads: int
    language: str
    max_batch: int
    partial_ms: int


def _built(factory: Any, options: SherpaOptions, **more: Any) -> Any:
    """A recogniser. Raises EngineError: the files are not what their names say."""
    paths = dict(options.paths)
    with tempfile.TemporaryDirectory() as scratch:
        if paths["tokens"].endswith(".bin"):
            paths["tokens"] = str(_as_text(Path(paths["tokens"]), Path(scratch)))
        try:
            return factory(**paths, num_threads=options.threads, provider=options.provider, **more)
        except Exception as exc:
            raise EngineError(
                f"[engines.stt.sherpa] model: the {options.layout} files in "
                f"{Path(options.paths['tokens']).parent} cannot be loaded: {exc}; check the files "
                f"and the setting layout"
            ) from exc


def _as_text(tokens: Path, folder: Path) -> Path:
    """The tokens of Moonshine as sherpa-onnx reads them: base64, a line each."""
    path = folder / "tokens.txt"
    with path.open("wb") as text:
        for number, token in enumerate(vocabulary(tokens.read_bytes())):
            text.write(b64encode(token) + b" %d\n" % number)
    return path


class SherpaPassageWorker(PassageWorker):
    """Models that take a whole passage."""

    Options = SherpaOptions

    def __init__(self, options: SherpaOptions) -> None:
        super().__init__()
        self.max_batch = options.max_batch
        self.partial_ms = options.partial_ms
        make = sherpa_onnx.OfflineRecognizer
        match options.layout:
            case "moonshine":
                self._recogniser = _built(make.from_moonshine_v2, options)
            case "sense_voice":
                self._recogniser = _built(
                    make.from_sense_voice, options, language=options.language, use_itn=True
                )
            case "nemo_ctc":
                self._recogniser = _built(make.from_nemo_ctc, options)
            case "whisper":
                self._recogniser = _built(make.from_whisper, options, language=options.language)
            case layout:
                kind = "nemo_transducer" if layout == "nemo_transducer" else "transducer"
                self._recogniser = _built(make.from_transducer, options, model_type=kind)

    def recognise(self, passages: Sequence[PassageAudio]) -> list[PassageWords]:
        streams = []
        for passage in passages:
            stream = self._recogniser.create_stream()
            stream.accept_waveform(RATE, passage.samples)
            streams.append(stream)
        self._recogniser.decode_streams(streams)
        return [self._words(stream.result) for stream in streams]

    def _words(self, result: Any) -> PassageWords:
        text = result.text.strip()
        plain = "".join(c for c in text.lower() if c.isalnum() or c == " ").strip()
        if plain in INVENTED:
            return PassageWords()
        language = getattr(result, "lang", "").strip("<|>") or None
        times = list(result.timestamps)
        words = words_of(list(result.tokens), times)
        if len(times) == len(result.tokens) and joined(words) == text:
            return PassageWords(words, timed=True, language=language)
        texts = (HeardWord(word, 0, 0) for word in text.split())
        return PassageWords(tuple(texts), language=language)


class SherpaStreamWorker:
    """Streaming transducers: the chunks of all streams that have one are decoded together."""

    Options = SherpaOptions

    def __init__(self, options: SherpaOptions) -> None:
        self._max_batch = options.max_batch
        self._recogniser = _built(
            sherpa_onnx.OnlineRecognizer.from_transducer, options, enable_endpoint_detection=True
        )
        self._streams: list[Any] = []

    def serve(self, request: object, stream: WorkerStream) -> Iterator[int]:
        audio = self._recogniser.create_stream()
        self._streams.append(audio)
        try:
            yield from self._hear(audio, stream)
        finally:
            self._streams.remove(audio)

    def _hear(self, audio: Any, stream: WorkerStream) -> Iterator[int]:
        done: tuple[HeardWord, ...] = ()
        words: tuple[HeardWord, ...] = ()
        fed = start = 0  # samples
        while not stream.exhausted:
            yield STREAM_BYTES
            data = stream.take(stream.queued)
            fed += len(data) // 2
            samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768.0
            audio.accept_waveform(RATE, samples)
            if stream.exhausted:
                audio.accept_waveform(RATE, TAIL)
                audio.input_finished()
            yield from self._decode(audio)
            now = self._words(audio, start)
            if self._recogniser.is_endpoint(audio) and not stream.exhausted:
                self._recogniser.reset(audio)
                done, now, start = (*done, *now), (), fed
            if (found := (*done, *now)) != words and not stream.exhausted:
                words = found
                # greedy search takes no token back, but the last word may still get an ending
                stable = len(done) + max(0, len(now) - 1)
                stream.send(Hypothesis(words, stable, False))
        words = (*done, *self._words(audio, start))
        stream.send(Hypothesis(words, len(words), True))

    def _decode(self, audio: Any) -> Iterator[int]:
        """Decode all chunks of a stream, together with those of others."""
        ready = self._recogniser.is_ready
        while ready(audio):
            yield 0
            if ready(audio):
                others = (other for other in self._streams if other is not audio and ready(other))
                self._recogniser.decode_streams([audio, *others][: self._max_batch])

    def _words(self, audio: Any, start: int) -> tuple[HeardWord, ...]:
        tokens = self._recogniser.tokens(audio)
        logprobs = list(self._recogniser.ys_probs(audio))
        return words_of(tokens, self._recogniser.timestamps(audio), logprobs, start * 1000 // RATE)
