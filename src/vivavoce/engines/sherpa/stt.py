"""Speech to text with sherpa-onnx: streaming transducers, Moonshine, SenseVoice, Parakeet."""

import asyncio
import importlib.util
from typing import Literal

from vivavoce.engines.base import Capabilities
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import (
    AcceleratedSettings,
    AtLeastOne,
    HostedSTT,
    Seconds,
    SecondsOrZero,
)
from vivavoce.engines.packs import weights_folder
from vivavoce.engines.passages import RecognitionRequest
from vivavoce.engines.sherpa.folders import Layout, recognised_folder
from vivavoce.engines.worker import Hypothesis

if importlib.util.find_spec("sherpa_onnx") is None:
    raise ModuleNotFoundError("No module named 'sherpa_onnx'", name="sherpa_onnx")

WORKERS = "vivavoce.engines.sherpa.worker"


class SherpaSettings(AcceleratedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.sherpa]`."""

    model: str = "moonshine-tiny-en"
    """A folder with a model of sherpa-onnx, or a model of `vivavoce models`."""
    layout: Layout | Literal["auto"] = "auto"
    """Of the folder; auto: by the names of the folder and its files."""
    language: str = ""
    """Of SenseVoice and Whisper. Empty: detected."""
    max_batch: AtLeastOne = 16
    """Sessions that are decoded together."""
    partial_seconds: SecondsOrZero = 0.6
    """Of models that do not stream: decode again after so much more speech; 0: only in pauses."""
    start_seconds: Seconds = 30.0


class SherpaSTT(HostedSTT):
    Settings = SherpaSettings
    capabilities = Capabilities(
        word_times="exact",
        licence="Apache-2.0",
        extra="sherpa",
        models="a folder of https://github.com/k2-fsa/sherpa-onnx/releases, or moonshine-tiny-en",
    )
    sample_rate = 16_000
    name = "stt.sherpa"
    language = None
    hang_seconds = 30.0

    def __init__(self, settings: SherpaSettings) -> None:
        self._settings = settings

    async def make_host(self) -> WorkerHost[Hypothesis]:
        """Find out what the folder holds."""
        settings = self._settings
        folder = await asyncio.to_thread(weights_folder, settings.model)
        found = recognised_folder(folder, settings.layout)
        options = {
            "layout": found.layout,
            "paths": found.paths,
            "provider": settings.device,
            "threads": settings.threads,
            "language": settings.language,
            "max_batch": settings.max_batch,
            "partial_ms": round(settings.partial_seconds * 1000),
        }
        kind = "SherpaStreamWorker" if found.layout == "streaming" else "SherpaPassageWorker"
        return self.host_for(f"{WORKERS}:{kind}", settings, options)

    def recognition(self, language: str | None, prompt: str) -> RecognitionRequest:
        return RecognitionRequest(language, prompt)
