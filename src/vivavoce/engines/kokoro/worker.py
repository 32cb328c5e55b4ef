"""The process that speaks with Kokoro: a sentence at a time."""

import json
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vivavoce.engines.kokoro.phonemes import Phonemes
from vivavoce.engines.sentences import SentenceWorker, Sound
from vivavoce.engines.worker import UtteranceRequest, onnx_options
from vivavoce.errors import EngineError

MAX_TOKENS = 510
"""A voice has one style for each length."""
STYLE = 256
EDGE_SECONDS = 0.05
"""Of the silence at both ends that is kept."""
SILENCE = 0.003


class KokoroOptions(msgspec.Struct, frozen=True):
    """What a process is built from."""

    folder: str
    model: str
    provider: str
    threads: int


class KokoroWorker(SentenceWorker):
    Options = KokoroOptions

    def __init__(self, options: KokoroOptions) -> None:
        self._folder = Path(options.folder)
        session = onnx_options(options.threads)
        self._model = onnxruntime.InferenceSession(
            str(self._folder / options.model), session, providers=[options.provider]
        )
        self._names = [given.name for given in self._model.get_inputs()]
        vocabulary = json.loads((self._folder / "vocab.json").read_text("utf-8"))
        self._vocabulary: dict[str, int] = vocabulary.get("vocab", vocabulary)
        self._phonemes = Phonemes()
        self._styles: dict[str, NDArray[np.float32]] = {}

    def speak(self, text: str, request: UtteranceRequest) -> Sound:
        signs = self._phonemes.of(text, request.language or "en-us")
        tokens = [self._vocabulary[sign] for sign in signs if sign in self._vocabulary]
        parts = [
            self._sound(tokens[start : start + MAX_TOKENS], request)
            for start in range(0, len(tokens), MAX_TOKENS)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _sound(self, tokens: list[int], request: UtteranceRequest) -> Sound:
        styles = self._style(request.voice)
        given = {
            self._names[0]: np.array([[0, *tokens, 0]], np.int64),  # "tokens" or "input_ids"
            "style": styles[min(len(tokens), len(styles)) - 1][None],
            "speed": np.array([request.speed], np.float32),
        }
        sound = np.asarray(self._model.run(None, given)[0], np.float32).ravel()
        loud = np.nonzero(np.abs(sound) > SILENCE)[0]
        if not loud.size:
            return sound[:0]
        edge = int(EDGE_SECONDS * self.rate)
        return sound[max(0, int(loud[0]) - edge) : int(loud[-1]) + edge]

    def _style(self, voice: str) -> NDArray[np.float32]:
        """[510, 256]: by the number of tokens. Raises EngineError."""
        if voice not in self._styles:
            path = self._folder / f"{voice}.bin"
            try:
                self._styles[voice] = np.fromfile(path, "<f4").reshape(-1, STYLE)
            except (OSError, ValueError) as exc:
                raise EngineError(
                    f"[engines.tts.kokoro] the voice {voice} cannot be read from {path}: {exc}; "
                    f"try: vivavoce models pull kokoro-82m"
                ) from exc
        return self._styles[voice]
