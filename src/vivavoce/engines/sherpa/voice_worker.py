"""The process that speaks with sherpa-onnx: VITS, Kokoro and Matcha."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import sherpa_onnx

from vivavoce.engines.sentences import SentenceWorker, Sound
from vivavoce.engines.worker import UtteranceRequest
from vivavoce.errors import EngineError


class SherpaVoiceOptions(msgspec.Struct, frozen=True):
    """What a process is built from; `paths`: files by what they are for."""

    layout: str
    paths: dict[str, str]
    provider: Literal["cpu", "cuda"]
    threads: int
    voices: tuple[str, ...]


class SherpaVoiceWorker(SentenceWorker):
    Options = SherpaVoiceOptions

    def __init__(self, options: SherpaVoiceOptions) -> None:
        self._voices = options.voices
        config = sherpa_onnx.OfflineTtsConfig(
            model=sherpa_onnx.OfflineTtsModelConfig(
                **_parts(options), num_threads=options.threads, provider=options.provider
            )
        )
        if not config.validate():
            raise EngineError(
                f"[engines.tts.sherpa] model: the {options.layout} files in "
                f"{Path(options.paths['model']).parent} cannot be used; its log says which"
            )
        self._tts = sherpa_onnx.OfflineTts(config)
        self.rate = self._tts.sample_rate

    def speak(self, text: str, request: UtteranceRequest) -> Sound:
        speaker = self._voices.index(request.voice)
        made = self._tts.generate(text, sid=speaker, speed=request.speed)
        return np.array(made.samples, np.float32)


def _parts(options: SherpaVoiceOptions) -> dict[str, Any]:
    """The part of the configuration that the layout has."""
    folder = Path(options.paths["model"]).parent
    data = folder / "espeak-ng-data"
    lexicons = ",".join(str(path) for path in sorted(folder.glob("*lexicon*.txt")))
    common = {
        "tokens": options.paths["tokens"],
        "lexicon": "" if data.is_dir() and options.layout == "vits" else lexicons,
        "data_dir": str(data) if data.is_dir() else "",
    }
    match options.layout:
        case "kokoro":
            made = sherpa_onnx.OfflineTtsKokoroModelConfig(
                model=options.paths["model"], voices=options.paths["voices"], **common
            )
        case "matcha":
            made = sherpa_onnx.OfflineTtsMatchaModelConfig(
                acoustic_model=options.paths["model"], vocoder=options.paths["vocoder"], **common
            )
        case _:
            made = sherpa_onnx.OfflineTtsVitsModelConfig(model=options.paths["model"], **common)
    return {options.layout: made}
