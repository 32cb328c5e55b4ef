"""Text to speech with Piper: a folder with voices, each NAME.onnx beside NAME.onnx.json.

The package piper-tts, and espeak-ng in it, are GPL-3: they run in worker processes, and only where
the extra is installed.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from vivavoce.engines.base import Capabilities, Voice
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import HostedTTS, SentenceSettings
from vivavoce.engines.sentences import RATE
from vivavoce.engines.worker import SpeechChunk, UtteranceRequest
from vivavoce.errors import EngineError

if importlib.util.find_spec("piper") is None:
    raise ModuleNotFoundError("No module named 'piper'", name="piper")

MIN_SPEED, MAX_SPEED = 0.5, 3.0


class PiperSettings(SentenceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.tts.piper]`."""

    model: str = ""
    """A folder with voices of Piper. Required."""
    voice: str = ""
    """The default voice: the name of its file without .onnx. Empty: the first by name."""
    speaker: int | None = None
    """The number of the speaker in voices that have several. None: the voice's own."""


class PiperTTS(HostedTTS):
    Settings = PiperSettings
    capabilities = Capabilities(
        word_times="estimated",
        licence="GPL-3.0-or-later",
        extra="piper",
        models="a folder with voices of https://huggingface.co/rhasspy/piper-voices",
    )
    name = "tts.piper"
    sample_rate = RATE
    hang_seconds = 30.0

    def __init__(self, settings: PiperSettings) -> None:
        self._folder = Path(settings.model).expanduser()
        if not settings.model or not self._folder.is_dir():
            raise EngineError(
                f"model: {settings.model!r} is no folder; name one with voices of Piper"
            )
        found = sorted(self._folder.glob("*.onnx"))
        self.voices = tuple(Voice(path.stem, (_language_of(path),)) for path in found)
        names = [voice.id for voice in self.voices]
        if not names or (settings.voice and settings.voice not in names):
            wanted = f"{settings.voice or 'NAME'}.onnx"
            raise EngineError(f"model: there is no {wanted} in the folder {self._folder}")
        self.default_voice = settings.voice or names[0]
        self._settings = settings

    async def make_host(self) -> WorkerHost[SpeechChunk]:
        """The default voice is loaded first, others when they are asked for."""
        settings = self._settings
        options = {
            "folder": str(self._folder),
            "voice": self.default_voice,
            "speaker": settings.speaker,
            "cuda": settings.device == "cuda",
            "threads": settings.threads,
        }
        return self.host_for("vivavoce.engines.piper.worker:PiperWorker", settings, options)

    def request(
        self, text: str, voice: str, speed: float, language: str | None
    ) -> UtteranceRequest:
        pace = max(MIN_SPEED, min(speed, MAX_SPEED))
        return UtteranceRequest(text, voice, pace, language)


def _language_of(path: Path) -> str:
    """ISO 639-1, of the file beside a voice. Raises EngineError."""
    beside = path.with_name(f"{path.name}.json")
    try:
        held: Any = json.loads(beside.read_text("utf-8"))
        code = held.get("language", {}).get("code") or held["espeak"]["voice"]
        return str(code).replace("_", "-").partition("-")[0].lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise EngineError(
            f"model: {beside} is not the description of a voice of Piper: {exc}"
        ) from exc
