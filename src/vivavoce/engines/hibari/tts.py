"""Text to speech with hibari on onnxruntime: English, one neural voice, on this machine.

The weights are in the package; nothing is fetched. OpenAI's voice names are names of the one voice.
The times of words are those at which the model itself places their phonemes.
"""

import importlib.util

from vivavoce.engines.base import OPENAI_VOICES, Capabilities, Voice
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import AtLeastOne, HostedTTS, ThreadedSettings
from vivavoce.engines.worker import SpeechChunk, UtteranceRequest

if importlib.util.find_spec("hibari") is None:
    raise ModuleNotFoundError("No module named 'hibari'", name="hibari")

HEART = "heart"
MIN_SPEED, MAX_SPEED = 0.5, 2.0


class HibariSettings(ThreadedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.tts.hibari]`."""

    workers: AtLeastOne = 1
    """Processes. Each takes some 220 MB."""
    streams_per_worker: AtLeastOne = 32
    """Utterances that a process speaks in turns, a sentence at a time."""


class HibariTTS(HostedTTS):
    Settings = HibariSettings
    capabilities = Capabilities(
        languages=("en",),
        word_times="exact",
        licence="Apache-2.0",
        extra="local",
        models="hibari heart, 8 MB, carried by the package hibari-tts",
    )
    name = "tts.hibari"
    sample_rate = 24_000
    voices = (
        Voice(HEART, ("en",), "woman, American"),
        *(Voice(name, ("en",), "the voice heart", HEART) for name in OPENAI_VOICES),
    )
    default_voice = HEART

    def __init__(self, settings: HibariSettings) -> None:
        self._settings = settings

    async def make_host(self) -> WorkerHost[SpeechChunk]:
        worker = "vivavoce.engines.hibari.worker:HibariWorker"
        return self.host_for(worker, self._settings, self._settings.threads)

    def request(
        self, text: str, voice: str, speed: float, language: str | None
    ) -> UtteranceRequest:
        """The speed is kept within 0.5..2."""
        return UtteranceRequest(text, voice, max(MIN_SPEED, min(speed, MAX_SPEED)), language)
