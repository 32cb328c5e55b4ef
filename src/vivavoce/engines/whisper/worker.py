"""The process that recognises with Whisper: passages of several streams are one batch.

faster-whisper has the features, the tokens and the words; decoding is CTranslate2's.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Literal

import ctranslate2
import msgspec
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens
from faster_whisper.utils import download_model

from vivavoce.engines.passages import (
    RATE,
    PassageAudio,
    PassageWords,
    PassageWorker,
    Samples,
)
from vivavoce.engines.worker import HeardWord
from vivavoce.errors import EngineError

MAX_TOKENS = 448
"""Of a prompt and its transcript together: what Whisper was trained with."""
SPARE_TOKENS = 32
MAX_TOKENS_PER_SECOND = 25
# Whisper's own limits: above the first and below the second, or above the third, it made words up.
MAX_NO_SPEECH = 0.6
MIN_MEAN_LOG_PROBABILITY = -1.0
MAX_COMPRESSION = 2.4
INVENTED = frozenset({"", "you", "thank you", "thanks for watching", "bye"})
"""What it makes of hum and noise. Dropped below SURE."""
SURE = -0.35
"""Mean log probability of a token; speech of one or two words is mostly above it."""
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages written without spaces between words."""


class WhisperOptions(msgspec.Struct, frozen=True):
    """What a process is built from. `download`: `model` is a name at the hub, not a folder."""

    model: str
    download: bool
    device: Literal["auto", "cpu", "cuda"]
    compute_type: str
    threads: int
    beam_size: int
    max_batch: int
    partial_ms: int


class _Row(msgspec.Struct):
    """A passage on its way through a batch."""

    index: int
    """Of its row in the output of the encoder."""
    language: str
    translate: bool
    prompt: str
    seconds: float
    words: tuple[HeardWord, ...] = ()


class WhisperWorker(PassageWorker):
    Options = WhisperOptions

    def __init__(self, options: WhisperOptions) -> None:
        super().__init__()
        self.max_batch = options.max_batch
        self.partial_ms = options.partial_ms
        self._beam_size = options.beam_size
        self._model = _loaded(options)
        self._languages = frozenset(self._model.supported_languages)
        self._tokenizers: dict[tuple[str, bool], Tokenizer] = {}
        self._encoded([np.zeros(RATE, np.float32)])  # the first call is slow

    def recognise(self, passages: Sequence[PassageAudio]) -> list[PassageWords]:
        states = self._encoded([passage.samples for passage in passages])
        languages = self._languages_of(states, passages)
        rows = [
            _Row(
                i,
                language,
                passage.request.translate,
                passage.request.prompt,
                len(passage.samples) / RATE,
            )
            for i, (passage, language) in enumerate(zip(passages, languages, strict=True))
        ]
        groups: dict[tuple[str, bool, str], list[_Row]] = {}
        for row in rows:  # CTranslate2 decodes rows with prompts of one length together
            groups.setdefault((row.language, row.translate, row.prompt), []).append(row)
        for group in groups.values():
            self._decode(states, group)
        return [
            PassageWords(row.words, timed=True, language="en" if row.translate else row.language)
            for row in rows
        ]

    def _encoded(self, audio: Sequence[Samples]) -> "np.ndarray[Any, Any]":
        """What the encoder makes of each: [n, 1500, width]. Whisper's window is 30 s."""
        extract = self._model.feature_extractor
        features = np.zeros(
            (len(audio), extract.mel_filters.shape[0], extract.nb_max_frames), np.float32
        )
        for row, samples in zip(features, audio, strict=True):
            padded = np.pad(samples, (0, max(0, extract.n_samples - len(samples))))
            made = extract(padded[: extract.n_samples], padding=0)
            row[:, : made.shape[1]] = made[:, : row.shape[1]]
        view = ctranslate2.StorageView.from_array(features)
        return np.array(self._model.model.encode(view, to_cpu=True))

    def _languages_of(
        self, states: "np.ndarray[Any, Any]", passages: Sequence[PassageAudio]
    ) -> list[str]:
        """The language of each: as its stream says, else found by the model."""
        asked = [passage.request.language or "" for passage in passages]
        if self._languages == {"en"}:
            return ["en"] * len(asked)
        unknown = [i for i, language in enumerate(asked) if language not in self._languages]
        if unknown:
            found = self._model.model.detect_language(_view(states[unknown]))
            for i, best in zip(unknown, found, strict=True):
                asked[i] = best[0][0].strip("<|>")
        return asked

    def _decode(self, states: "np.ndarray[Any, Any]", group: list[_Row]) -> None:
        """Set the words of rows with the same language, task and prompt."""
        first = group[0]
        tokenizer = self._tokenizer(first.language, first.translate)
        prompt = self._model.get_prompt(
            tokenizer,
            tokenizer.encode(" " + first.prompt.strip()) if first.prompt.strip() else [],
            without_timestamps=True,
        )
        mine = _view(states[[row.index for row in group]])
        seconds = max(row.seconds for row in group)
        made = self._generated(mine, [prompt] * len(group), tokenizer, seconds)
        good: list[tuple[_Row, list[int], float]] = []
        for row, one in zip(group, made, strict=True):
            tokens, score = one.sequences_ids[0], one.scores[0]
            text = tokenizer.decode(tokens).strip()
            if _repeats(text):
                only = _view(states[[row.index]])
                (one,) = self._generated(only, [prompt], tokenizer, row.seconds, no_repeat=3)
                tokens, score = one.sequences_ids[0], one.scores[0]
                text = tokenizer.decode(tokens).strip()
            if _is_speech(text, score, one.no_speech_prob):
                good.append((row, tokens, score))
        self._align(states, good, tokenizer)

    def _generated(
        self,
        states: ctranslate2.StorageView,
        prompts: list[list[int]],
        tokenizer: Tokenizer,
        seconds: float,
        no_repeat: int = 0,
    ) -> Any:
        room = SPARE_TOKENS + int(seconds * MAX_TOKENS_PER_SECOND)
        return self._model.model.generate(
            states,
            prompts,
            beam_size=self._beam_size,
            max_length=min(MAX_TOKENS, len(prompts[0]) + room),
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
            no_repeat_ngram_size=no_repeat,
            return_scores=True,
            return_no_speech_prob=True,
        )

    def _align(
        self,
        states: "np.ndarray[Any, Any]",
        rows: list[tuple[_Row, list[int], float]],
        tokenizer: Tokenizer,
    ) -> None:
        """Times of words, from the attention of the decoder to the audio."""
        if not rows:
            return
        found = self._model.find_alignment(
            tokenizer,
            [[token for token in tokens if token < tokenizer.eot] for _, tokens, _ in rows],
            _view(states[[row.index for row, _, _ in rows]]),
            [max(1, round(row.seconds * self._model.frames_per_second)) for row, _, _ in rows],
        )
        for (row, _, _), pieces in zip(rows, found, strict=True):
            row.words = _words(pieces, spaced=tokenizer.language_code not in UNSPACED)

    def _tokenizer(self, language: str, translate: bool) -> Tokenizer:
        key = language, translate
        if key not in self._tokenizers:
            self._tokenizers[key] = Tokenizer(
                self._model.hf_tokenizer,
                self._model.model.is_multilingual,
                task="translate" if translate else "transcribe",
                language=language,
            )
        return self._tokenizers[key]


def _loaded(options: WhisperOptions) -> WhisperModel:
    """The model. Raises EngineError: it cannot be downloaded or loaded."""
    folder = options.model
    try:
        if options.download:
            folder = download_model(options.model)
        return WhisperModel(
            folder,
            device=options.device,
            compute_type=options.compute_type,
            cpu_threads=options.threads,
            local_files_only=True,
        )
    except Exception as exc:  # the hub and CTranslate2 raise what they like
        what = "downloaded from the hub" if folder == options.model and options.download else "used"
        raise EngineError(
            f"[engines.stt.whisper] model: {options.model} cannot be {what}: "
            f"{str(exc).splitlines()[0] if str(exc) else type(exc).__name__}; check model, device "
            f"and compute_type, or try: vivavoce models pull whisper-base"
        ) from exc


def _view(states: "np.ndarray[Any, Any]") -> ctranslate2.StorageView:
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(states))


def _repeats(text: str) -> bool:
    data = text.encode()
    return len(data) > MAX_COMPRESSION * len(zlib.compress(data))


def _is_speech(text: str, score: float, no_speech: float) -> bool:
    """Whether this was spoken; see the limits above. score: mean log probability."""
    plain = "".join(c for c in text.lower() if c.isalnum() or c == " ").strip()
    if not plain or _repeats(text):
        return False
    if score < MIN_MEAN_LOG_PROBABILITY and no_speech > MAX_NO_SPEECH:
        return False
    return plain not in INVENTED or (score > SURE and no_speech < MAX_NO_SPEECH)


def _words(pieces: Sequence[dict[str, Any]], *, spaced: bool) -> tuple[HeardWord, ...]:
    """Words from the pieces of an alignment; a sign belongs to the word before it."""
    words: list[HeardWord] = []
    for piece in pieces:
        text: str = piece["word"]
        start, end = round(piece["start"] * 1000), round(piece["end"] * 1000)
        logprob = float(np.log(max(float(piece["probability"]), 1e-9)))
        begins = text.startswith(" ") or (not spaced and any(map(str.isalnum, text)))
        if words and not begins:
            last = words[-1]
            words[-1] = HeardWord(
                last.text + text, last.start_ms, max(end, last.end_ms), last.joined, last.logprob
            )
        elif text.strip():
            words.append(HeardWord(text.strip(), start, end, not text.startswith(" "), logprob))
    return tuple(words)
