"""Speech to text with onnx-asr: Parakeet, Canary, GigaAM, Vosk and Whisper on onnxruntime."""

import asyncio
import importlib.util
from pathlib import Path

from vivavoce.engines.base import Capabilities
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import (
    AcceleratedSettings,
    AtLeastOne,
    HostedSTT,
    SecondsOrZero,
)
from vivavoce.engines.packs import check_files, weights_folder
from vivavoce.engines.passages import RecognitionRequest
from vivavoce.engines.worker import Hypothesis
from vivavoce.errors import EngineError

for package in ("onnx_asr", "onnxruntime"):
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)


class OnnxAsrSettings(AcceleratedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.onnx-asr]`."""

    model: str = ""
    """A folder with a model; else a name of onnx-asr such as "nemo-parakeet-tdt-0.6b-v3", which it
    downloads from the Hugging Face hub. Required."""
    layout: str = ""
    """Of a folder: the type of its model as onnx-asr names it, such as nemo-conformer-tdt, whisper
    or kaldi-rnnt. Empty: as its config.json says."""
    quantization: str = ""
    """Of the files, such as int8. Empty: none."""
    max_batch: AtLeastOne = 8
    """Utterances that are decoded together."""
    partial_seconds: SecondsOrZero = 0.6
    """Decode again after so much more speech; 0: only in pauses."""


class OnnxAsrSTT(HostedSTT):
    Settings = OnnxAsrSettings
    capabilities = Capabilities(
        decodes_pauses=True,
        word_times="exact",
        licence="MIT",
        extra="onnx_asr",
        models="a folder of https://huggingface.co/istupakov, or a name, which is downloaded",
    )
    sample_rate = 16_000
    name = "stt.onnx-asr"
    language = None
    hang_seconds = 60.0

    def __init__(self, settings: OnnxAsrSettings) -> None:
        if not settings.model:
            raise EngineError("model: name a folder with a model, or a model of onnx-asr")
        self._settings = settings

    async def make_host(self) -> WorkerHost[Hypothesis]:
        """Check the folder, if it is one."""
        settings = self._settings
        folder = ""
        if _is_folder(settings.model):
            found = await asyncio.to_thread(weights_folder, settings.model)
            if not settings.layout:
                check_files(found, ("config.json",), "model of onnx-asr whose layout is not set")
            folder = str(found)
        options = {
            "model": settings.model,
            "folder": folder,
            "layout": settings.layout,
            "quantization": settings.quantization,
            "cuda": settings.device == "cuda",
            "threads": settings.threads,
            "max_batch": settings.max_batch,
            "partial_ms": round(settings.partial_seconds * 1000),
        }
        return self.host_for("vivavoce.engines.onnx_asr.worker:OnnxAsrWorker", settings, options)

    def recognition(self, language: str | None, prompt: str) -> RecognitionRequest:
        return RecognitionRequest((language or "").partition("-")[0].lower() or None, prompt)


def _is_folder(model: str) -> bool:
    """Rather than a name of onnx-asr."""
    return model.startswith(("/", ".", "~")) or Path(model).is_dir()
