"""The contract of engines that say how a voice sounds; the rest of it is in engines/base.py."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vivavoce.engines.base import Engine

__all__ = ["SpeakerModel"]


class SpeakerModel(Engine, Protocol):
    """Says how a voice sounds, so that two recordings of one speaker can be known by it."""

    sample_rate: int
    """Hertz of the 16-bit mono PCM that it takes."""
    dimensions: int
    """Of an embedding."""
    window_ms: int
    """Sound that it reads at a time: of a longer clip it gives the mean, of a shorter one an
    embedding that is less certain."""
    same_voice: float
    """The cosine of the embeddings of two clips of some seconds from which on they are taken for
    one voice."""
    same_windows: float
    """The mean cosine of single windows of two groups from which on these are taken for one."""

    async def embed(self, clips: Sequence[bytes]) -> NDArray[np.float32]:
        """[len(clips), dimensions]: an embedding of length 1 of each clip.

        A clip holds speech of one voice, at least one sample. Raises EngineError; EngineLost: the
        same clips may be given again.
        """
        ...
