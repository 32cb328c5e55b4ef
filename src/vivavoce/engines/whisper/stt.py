"""Speech to text with Whisper on CTranslate2 (faster-whisper): 99 languages, on CPU or CUDA.

`prompt` is what stands before the transcript: names and words in it are recognised more often.
"""

import asyncio
import importlib.util
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec

from vivavoce.engines.base import Capabilities
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import AtLeastOne, HostedSTT, ThreadedSettings
from vivavoce.engines.packs import check_files, manifest, weights_folder
from vivavoce.engines.passages import RecognitionRequest
from vivavoce.engines.worker import Hypothesis

for package in ("faster_whisper", "ctranslate2"):
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

FILES = ("model.bin", "config.json", "tokenizer.json")
SIZES = (
    *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "distil-small.en"),
    *("medium", "medium.en", "distil-medium.en", "large-v1", "large-v2", "large-v3", "large"),
    *("distil-large-v2", "distil-large-v3", "distil-large-v3.5", "large-v3-turbo", "turbo"),
)
"""Names of faster-whisper: it downloads them from the Hugging Face hub."""


class WhisperSettings(ThreadedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.whisper]`."""

    model: str = "whisper-base"
    """A model of `vivavoce models`; a folder with a model for CTranslate2; a size such as "small"
    or "large-v3-turbo", or "owner/name", from the Hugging Face hub."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one."""
    compute_type: str = "auto"
    """Of CTranslate2: int8, int8_float16, float16, float32. auto: the fastest of the device."""
    beam_size: AtLeastOne = 1
    """5 is a little better and slower."""
    max_batch: AtLeastOne = 8
    """Utterances that are decoded together."""
    partial_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Decode again after so much more speech. 0: only in pauses; every decoding costs as much as
    that of 30 s of audio."""
    hot_words: str = ""
    """Names and words to expect, before the prompt of a client."""


class WhisperSTT(HostedSTT):
    Settings = WhisperSettings
    capabilities = Capabilities(
        decodes_pauses=True,
        word_times="exact",
        licence="MIT",
        extra="whisper",
        models="Whisper base, 150 MB, by: vivavoce models pull whisper-base",
    )
    sample_rate = 16_000
    name = "stt.whisper"
    language = None
    hang_seconds = 60.0  # a batch of a large model takes long on a slow machine

    def __init__(self, settings: WhisperSettings) -> None:
        self._settings = settings
        self._translate = False

    async def make_host(self) -> WorkerHost[Hypothesis]:
        """Check the weights, unless they come from the hub."""
        settings = self._settings
        download = _is_of_hub(settings.model)
        model = settings.model
        if not download:
            folder = await asyncio.to_thread(weights_folder, model)
            check_files(folder, FILES, "Whisper model of CTranslate2")
            model = str(folder)
        options = {
            "model": model,
            "download": download,
            "device": settings.device,
            "compute_type": settings.compute_type,
            "threads": settings.threads,
            "beam_size": settings.beam_size,
            "max_batch": settings.max_batch,
            "partial_ms": round(settings.partial_seconds * 1000),
        }
        return self.host_for("vivavoce.engines.whisper.worker:WhisperWorker", settings, options)

    def recognition(self, language: str | None, prompt: str) -> RecognitionRequest:
        tag = (language or "").lower().replace("_", "-").partition("-")[0] or None
        text = " ".join(part for part in (self._settings.hot_words, prompt) if part.strip())
        return RecognitionRequest(tag, text, self._translate)

    def for_translation(self) -> Self | None:
        """The same processes, asked for English."""
        if self._settings.model.endswith(".en"):
            return None
        made = type(self)(self._settings)
        made._translate = True
        made._host = self._host
        return made


def _is_of_hub(model: str) -> bool:
    if model in manifest() or Path(model).expanduser().is_dir():
        return False
    return model in SIZES or ("/" in model and model.count("/") == 1 and model[0] not in "./~")
