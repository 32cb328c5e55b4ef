"""Text to speech with Kokoro on onnxruntime: English, and with espeak-ng five languages more."""

import asyncio
import importlib.util

from vivavoce.engines.base import OPENAI_VOICES, Capabilities, Voice
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import AtLeastOne, HostedTTS, SentenceSettings
from vivavoce.engines.kokoro.phonemes import LANGUAGES
from vivavoce.engines.packs import check_files, weights_folder
from vivavoce.engines.sentences import RATE
from vivavoce.engines.worker import SpeechChunk, UtteranceRequest

if importlib.util.find_spec("onnxruntime") is None:
    raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

PACK = "kokoro-82m"
MODEL = "model.onnx"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
MIN_SPEED, MAX_SPEED = 0.5, 2.0
_NAMES = {
    "af": "alloy aoede bella heart jessica kore nicole nova river sarah sky",
    "am": "adam echo eric fenrir liam michael onyx puck santa",
    "bf": "alice emma isabella lily",
    "bm": "daniel fable george lewis",
    "ef": "dora",
    "em": "alex santa",
    "ff": "siwis",
    "hf": "alpha beta",
    "hm": "omega psi",
    "if": "sara",
    "im": "nicola",
    "pf": "dora",
    "pm": "alex santa",
}
_TAGS = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr", "h": "hi", "i": "it", "p": "pt"}
OWN_VOICES = tuple(f"{kind}_{name}" for kind, names in _NAMES.items() for name in names.split())
"""Those of the pack but the Japanese and Chinese ones, whose text nothing here can read."""
ALIASES = {
    "ash": "am_michael",
    "ballad": "bm_george",
    "cedar": "am_puck",
    "coral": "af_bella",
    "echo": "am_echo",
    "fable": "bm_fable",
    "marin": "af_sarah",
    "nova": "af_nova",
    "onyx": "am_onyx",
    "sage": "bf_emma",
    "shimmer": "af_sky",
    "verse": "am_fenrir",
    "alloy": "af_alloy",
}
"""OpenAI's voices."""


class KokoroSettings(SentenceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.tts.kokoro]`."""

    model: str = PACK
    """A model of `vivavoce models`, or a folder with its files."""
    voice: str = "af_heart"
    """The default voice."""
    workers: AtLeastOne = 1
    """Processes. Each takes some 460 MB."""
    threads: AtLeastOne = 2


def _tag(voice: str) -> str:
    return _TAGS[ALIASES.get(voice, voice)[0]]


class KokoroTTS(HostedTTS):
    Settings = KokoroSettings
    capabilities = Capabilities(
        languages=("en", "es", "fr", "hi", "it", "pt"),
        word_times="estimated",
        licence="Apache-2.0",
        extra="local",
        models="Kokoro-82M int8, 121 MB, by: vivavoce models pull kokoro-82m",
    )
    name = "tts.kokoro"
    sample_rate = RATE
    voices = tuple(
        Voice(
            name,
            (_tag(name).partition("-")[0],),
            f"Kokoro, {_tag(name)}",
            ALIASES.get(name, ""),
        )
        for name in (*OWN_VOICES, *OPENAI_VOICES)
    )
    hang_seconds = 60.0  # a sentence takes as long as it is, on one core

    def __init__(self, settings: KokoroSettings) -> None:
        self._settings = settings
        self.default_voice = settings.voice

    async def make_host(self) -> WorkerHost[SpeechChunk]:
        """Check the weights."""
        settings = self._settings
        folder = await asyncio.to_thread(weights_folder, settings.model)
        files = (MODEL, "vocab.json", f"{ALIASES.get(settings.voice, settings.voice)}.bin")
        check_files(folder, files, "Kokoro model")
        options = {
            "folder": str(folder),
            "model": MODEL,
            "provider": PROVIDERS[settings.device],
            "threads": settings.threads,
        }
        return self.host_for("vivavoce.engines.kokoro.worker:KokoroWorker", settings, options)

    def request(
        self, text: str, voice: str, speed: float, language: str | None
    ) -> UtteranceRequest:
        """The language that is asked for, where it is spoken; else that of the voice."""
        own = _tag(voice)
        asked = (language or own).lower().replace("_", "-")
        base = asked.partition("-")[0]
        tag = asked if asked in LANGUAGES else base
        if tag not in LANGUAGES or own.startswith(base):
            tag = own
        pace = max(MIN_SPEED, min(speed, MAX_SPEED))
        return UtteranceRequest(text, ALIASES.get(voice, voice), pace, tag)
