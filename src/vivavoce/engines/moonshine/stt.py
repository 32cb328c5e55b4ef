"""Speech to text with Moonshine tiny on onnxruntime: English, on this machine, with punctuation.

Another `language` is decoded as English all the same; `prompt` is not used. Word times are
estimated from the length of the words and the loudness of the audio.
"""

import asyncio
import importlib.util

from vivavoce.engines.base import Capabilities
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import AtLeastOne, HostedSTT, ThreadedSettings
from vivavoce.engines.packs import check_files, weights_folder
from vivavoce.engines.worker import Hypothesis

if importlib.util.find_spec("onnxruntime") is None:
    raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

PACK = "moonshine-tiny-en"
FILES = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")


class MoonshineSettings(ThreadedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.moonshine]`."""

    model: str = PACK
    """A model of `vivavoce models`, or a folder with its files."""
    workers: AtLeastOne = 1
    """Processes. Each takes some 180 MB."""


class MoonshineSTT(HostedSTT):
    Settings = MoonshineSettings
    capabilities = Capabilities(
        decodes_pauses=True,
        languages=("en",),
        word_times="estimated",
        licence="MIT",
        extra="local",
        models="Moonshine tiny.en, 44 MB, by: vivavoce models pull moonshine-tiny-en",
    )
    sample_rate = 16_000
    name = "stt.moonshine"

    def __init__(self, settings: MoonshineSettings) -> None:
        self._settings = settings

    async def make_host(self) -> WorkerHost[Hypothesis]:
        """Check the weights."""
        settings = self._settings
        folder = await asyncio.to_thread(weights_folder, settings.model)
        check_files(folder, FILES, "Moonshine model")
        options = {"folder": str(folder), "threads": settings.threads}
        return self.host_for("vivavoce.engines.moonshine.worker:MoonshineWorker", settings, options)
