"""Text to speech with sherpa-onnx: a folder with a VITS (Piper's too), Kokoro or Matcha voice."""

import asyncio
import importlib.util
from typing import Annotated, Literal

import msgspec

from vivavoce.engines.base import Capabilities, Voice
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import HostedTTS, SentenceSettings
from vivavoce.engines.packs import weights_folder
from vivavoce.engines.sentences import RATE
from vivavoce.engines.sherpa.folders import VoiceLayout, voice_folder
from vivavoce.engines.worker import SpeechChunk
from vivavoce.errors import EngineError

if importlib.util.find_spec("sherpa_onnx") is None:
    raise ModuleNotFoundError("No module named 'sherpa_onnx'", name="sherpa_onnx")


class SherpaVoiceSettings(SentenceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.tts.sherpa]`."""

    model: str = ""
    """A folder with a voice of sherpa-onnx. Required."""
    layout: VoiceLayout | Literal["auto"] = "auto"
    """Of the folder; auto: by the names of its files."""
    voices: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("default",)
    """Names for the speakers of the model, in its order."""
    language: str = ""
    """The language tag that it speaks. Empty: any."""


class SherpaTTS(HostedTTS):
    Settings = SherpaVoiceSettings
    capabilities = Capabilities(
        word_times="estimated",
        licence="Apache-2.0",
        extra="sherpa",
        models="a folder of https://github.com/k2-fsa/sherpa-onnx/releases/tag/tts-models",
    )
    name = "tts.sherpa"
    sample_rate = RATE
    hang_seconds = 60.0

    def __init__(self, settings: SherpaVoiceSettings) -> None:
        if not settings.model:
            raise EngineError("model: name a folder with a voice of sherpa-onnx")
        self._settings = settings
        spoken = (settings.language,) if settings.language else ()
        self.voices = tuple(Voice(name, spoken) for name in settings.voices)
        self.default_voice = settings.voices[0]

    async def make_host(self) -> WorkerHost[SpeechChunk]:
        """Find out what the folder holds."""
        settings = self._settings
        folder = await asyncio.to_thread(weights_folder, settings.model)
        found = voice_folder(folder, settings.layout)
        options = {
            "layout": found.layout,
            "paths": found.paths,
            "provider": settings.device,
            "threads": settings.threads,
            "voices": settings.voices,
        }
        worker = "vivavoce.engines.sherpa.voice_worker:SherpaVoiceWorker"
        return self.host_for(worker, settings, options)
