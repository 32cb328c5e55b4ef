"""End of turn by the sound of the voice: smart-turn v3 on onnxruntime, in a worker process.

The model reads the last eight seconds of a turn, its pause included, and knows some twenty
languages. score() is that of turn:words: the one notices a voice that is held up, the other a
sentence that is complete. The session joins them, see [turns]; while no process works, the words
decide alone.
"""

import asyncio
import importlib.util

from vivavoce.engines.base import Capabilities
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import AtLeastOne, HostedEngine, ThreadedSettings
from vivavoce.engines.packs import check_files, weights_folder
from vivavoce.engines.turn.text import likelihood
from vivavoce.errors import EngineError

if importlib.util.find_spec("onnxruntime") is None:
    raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

PACK = "smart-turn-v3"
FILE = "smart-turn.onnx"


class SmartTurnSettings(ThreadedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.turn.smart-turn]`."""

    model: str = PACK
    """A model of `vivavoce models`, or a folder with its file."""
    default_language: str = "en"
    """Of transcripts whose language is not known."""
    workers: AtLeastOne = 1
    """Processes. Each takes some 110 MB."""
    streams_per_worker: AtLeastOne = 16
    """Decisions that wait in a process; they are made one after another, some 80 ms each."""


class SmartTurn(HostedEngine[float]):
    """Decides by the sound and the words of a turn."""

    Settings = SmartTurnSettings
    capabilities = Capabilities(
        languages=(
            *("ar", "bn", "da", "de", "en", "es", "fi", "fr", "hi", "id", "it", "ja", "ko", "mr"),
            *("nl", "no", "pl", "pt", "ru", "tr", "uk", "vi", "zh"),
        ),
        licence="BSD-2-Clause",
        extra="local",
        models="smart-turn v3.2, 9 MB, by: vivavoce models pull smart-turn-v3",
    )
    name = "turn.smart-turn"
    audio_seconds = 8.0

    def __init__(self, settings: SmartTurnSettings) -> None:
        self._settings = settings

    async def make_host(self) -> WorkerHost[float]:
        """Check the weights."""
        settings = self._settings
        folder = await asyncio.to_thread(weights_folder, settings.model)
        check_files(folder, (FILE,), "smart-turn model")
        return WorkerHost(
            "vivavoce.engines.turn.smart_turn_worker:SmartTurnWorker",
            {"path": str(folder / FILE), "threads": settings.threads},
            name=self.name,
            message=float,
            limits=self.limits_of(settings),
        )

    async def score(self, text: str, *, language: str | None) -> float:
        """By the words alone."""
        return likelihood(text, language or self._settings.default_language)

    async def score_audio(self, pcm: bytes, text: str, *, language: str | None) -> float:
        """See AudioTurnModel."""
        async with self.host.open(pcm) as stream:
            async for probability in stream:
                return probability
        raise EngineError(f"[engines.{self.name}] the worker process gave no result")
