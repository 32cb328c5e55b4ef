"""The process that recognises with onnx-asr: the passages of several sessions in one batch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_asr

from vivavoce.engines.passages import (
    RATE,
    PassageAudio,
    PassageWords,
    PassageWorker,
    joined,
    words_of,
)
from vivavoce.engines.worker import HeardWord, onnx_options
from vivavoce.errors import EngineError

UNNAMED = "local/model"
"""onnx-asr wants a name beside a folder; with one that it does not know it reads config.json."""
ASKS_LANGUAGE = ("whisper", "canary", "aed")
"""In the names of models that take the language as an option."""


class OnnxAsrOptions(msgspec.Struct, frozen=True):
    """What a process is built from."""

    model: str
    folder: str
    layout: str
    quantization: str
    cuda: bool
    threads: int
    max_batch: int
    partial_ms: int


class OnnxAsrWorker(PassageWorker):
    Options = OnnxAsrOptions

    def __init__(self, options: OnnxAsrOptions) -> None:
        super().__init__()
        self.max_batch = options.max_batch
        self.partial_ms = options.partial_ms
        kind = options.layout or (_layout_of(options.folder) if options.folder else options.model)
        self._asks_language = any(part in kind.lower() for part in ASKS_LANGUAGE)
        session = onnx_options(options.threads)
        try:
            model = onnx_asr.load_model(
                options.layout or (UNNAMED if options.folder else options.model),
                options.folder or None,
                quantization=options.quantization or None,
                sess_options=session,
                providers=["CUDAExecutionProvider" if options.cuda else "CPUExecutionProvider"],
            )
        except Exception as exc:
            raise EngineError(
                f"[engines.stt.onnx-asr] model: {options.model} cannot be loaded: {exc}; check "
                f"model, layout and quantization"
            ) from exc
        self._model: Any = model.with_timestamps()
        self._recognised([np.zeros(RATE, np.float32)], {})  # the first call is slow

    def recognise(self, passages: Sequence[PassageAudio]) -> list[PassageWords]:
        """A batch has one language: passages of others are recognised after it."""
        found: list[PassageWords] = [PassageWords()] * len(passages)
        languages = {one.request.language if self._asks_language else None for one in passages}
        for language in languages:
            places = [
                i
                for i, one in enumerate(passages)
                if not self._asks_language or one.request.language == language
            ]
            how = {"language": language} if language else {}
            results = self._recognised([passages[i].samples for i in places], how)
            for i, result in zip(places, results, strict=True):
                found[i] = _words(result)
        return found

    def _recognised(self, samples: list[Any], how: dict[str, str]) -> list[Any]:
        return list(self._model.recognize(samples, sample_rate=RATE, **how))


def _layout_of(folder: str) -> str:
    try:
        return str(json.loads((Path(folder) / "config.json").read_text("utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise EngineError(
            f"[engines.stt.onnx-asr] model: the config.json in {folder} names no model_type; set "
            f"layout"
        ) from exc


def _words(result: Any) -> PassageWords:
    text = result.text.strip()
    times = list(result.timestamps or ())
    tokens = list(result.tokens or ())
    words = words_of(tokens, times, list(result.logprobs or ()))
    if len(times) == len(tokens) and joined(words) == text:
        return PassageWords(words, timed=True)
    return PassageWords(tuple(HeardWord(word, 0, 0) for word in text.split()))
