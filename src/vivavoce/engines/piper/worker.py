"""The process that speaks with Piper: a sentence at a time."""

import json
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from piper import PiperVoice, SynthesisConfig
from piper.config import PiperConfig

from vivavoce.audio.resample import Resampler
from vivavoce.engines.sentences import RATE, SentenceWorker, Sound
from vivavoce.engines.worker import UtteranceRequest, onnx_options
from vivavoce.errors import EngineError

MAX_LOADED = 4
"""Voices; of more the one that was loaded first is dropped."""


class PiperOptions(msgspec.Struct, frozen=True):
    """What a process is built from."""

    folder: str
    voice: str
    speaker: int | None
    cuda: bool
    threads: int


class PiperWorker(SentenceWorker):
    Options = PiperOptions

    def __init__(self, options: PiperOptions) -> None:
        self._options = options
        self._voices: dict[str, PiperVoice] = {}
        self.rate = RATE
        self._voice(options.voice)

    def speak(self, text: str, request: UtteranceRequest) -> Sound:
        voice = self._voice(request.voice)
        asked = SynthesisConfig(
            speaker_id=self._options.speaker, length_scale=voice.config.length_scale / request.speed
        )
        parts = [chunk.audio_float_array for chunk in voice.synthesize(text, asked)]
        if not parts:
            return np.zeros(0, np.float32)
        return _at_rate(np.concatenate(parts), voice.config.sample_rate)

    def _voice(self, name: str) -> PiperVoice:
        if name not in self._voices:
            while len(self._voices) >= MAX_LOADED:
                del self._voices[next(iter(self._voices))]
            self._voices[name] = self._loaded(Path(self._options.folder, f"{name}.onnx"))
        return self._voices[name]

    def _loaded(self, path: Path) -> PiperVoice:
        session = onnx_options(self._options.threads)
        provider = "CUDAExecutionProvider" if self._options.cuda else "CPUExecutionProvider"
        try:
            described = json.loads(path.with_name(f"{path.name}.json").read_text("utf-8"))
            return PiperVoice(
                session=onnxruntime.InferenceSession(str(path), session, providers=[provider]),
                config=PiperConfig.from_dict(described),
            )
        except Exception as exc:
            raise EngineError(
                f"[engines.tts.piper] model: {path} cannot be loaded: {exc}; it must be a voice of "
                f"Piper with its .json beside it"
            ) from exc


def _at_rate(sound: NDArray[np.float32], rate: int) -> Sound:
    """Samples at the rate of this engine: voices of one folder have several."""
    if rate == RATE:
        return sound
    pcm = (np.clip(sound, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
    resampler = Resampler(rate, RATE)
    made = resampler.feed(pcm) + resampler.flush()
    return np.frombuffer(made, "<i2").astype(np.float32) / 32768.0
