"""What is said to the server: 24 kHz PCM."""

from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.engines import registry
from vivavoce.media import files

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "audio"


def silence(ms: int) -> bytes:
    return bytes(2 * (RATE * ms // 1000))


def tone(ms: int, hertz: int = 200) -> bytes:
    """Loud; speech to the scripted VAD, and to no other."""
    at = np.arange(RATE * ms // 1000) * (2 * np.pi * hertz / RATE)
    return bytes((np.sin(at) * 20_000).astype("<i2").data)


TURN = tone(320) + silence(800)
"""A turn to the scripted VAD under the default settings."""


async def spoken(text: str) -> bytes:
    """The words, in the voice of the embedded synthesiser."""
    async with registry.create("tts", "espeak", {}) as tts:
        resampler = Resampler(tts.sample_rate, RATE)
        async with aclosing(
            tts.synthesize(text, voice="marin", speed=1.0, language="en", instructions="")
        ) as pieces:
            pcm = b"".join([resampler.feed(piece.audio) async for piece in pieces])
        return pcm + resampler.flush()


def recorded(name: str) -> bytes:
    """A recording of a person, where there is one beside the project."""
    path = RECORDINGS / name
    if not path.is_file():
        pytest.skip(f"there is no recording {name}")
    return files.read(path)
