"""How a voice sounds, by Resemblyzer's encoder in numpy: any language, on this machine."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivavoce.engines.base import Capabilities
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import HostedEngine, HostedSettings
from vivavoce.engines.packs import check_files, weights_folder
from vivavoce.errors import EngineError

PACK = "resemblyzer"
FILES = ("pretrained.pt",)
SAME_VOICE = 0.75
"""Measured: two recordings of one speaker have 0.81 to 0.90, of two speakers 0.30 to 0.70."""
SAME_WINDOWS = 0.66
"""Measured on mixtures of up to four voices: from 0.60 to 0.72 the errors are the least, above 0.75
one voice becomes several (bench/diarization.py)."""


class ResemblyzerSettings(HostedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.speaker.resemblyzer]`."""

    model: str = PACK
    """A model of `vivavoce models`, or a folder with its file."""
    same_voice: float = SAME_VOICE
    """The cosine of two embeddings from which on a voice is that of a known speaker."""
    same_windows: float = SAME_WINDOWS
    """The mean cosine from which on two groups of windows are one speaker: higher finds more."""


class ResemblyzerSpeaker(HostedEngine[bytes]):
    """Embeddings of 256 numbers."""

    Settings = ResemblyzerSettings
    capabilities = Capabilities(
        licence="Apache-2.0",
        models="Resemblyzer, 17 MB, by: vivavoce models pull resemblyzer",
    )
    name = "speaker.resemblyzer"
    sample_rate = 16_000
    dimensions = 256
    window_ms = 1_600

    def __init__(self, settings: ResemblyzerSettings) -> None:
        self._settings = settings
        self.same_voice = settings.same_voice
        self.same_windows = settings.same_windows

    async def make_host(self) -> WorkerHost[bytes]:
        """Check the weights."""
        settings = self._settings
        folder = await asyncio.to_thread(weights_folder, settings.model)
        check_files(folder, FILES, "voice encoder of Resemblyzer")
        return WorkerHost(
            "vivavoce.engines.resemblyzer.worker:ResemblyzerWorker",
            {"path": str(folder / FILES[0])},
            name=self.name,
            message=bytes,
            limits=self.limits_of(settings),
        )

    async def embed(self, clips: Sequence[bytes]) -> NDArray[np.float32]:
        """See SpeakerModel."""
        if not clips:
            return np.zeros((0, self.dimensions), np.float32)
        async with self.host.open(list(clips)) as stream:
            rows = [np.frombuffer(row, "<f4") async for row in stream]
        if len(rows) != len(clips):
            raise EngineError(f"[engines.{self.name}] the worker process gave no result")
        return np.stack(rows)
