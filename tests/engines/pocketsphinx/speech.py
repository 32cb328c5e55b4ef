"""Speech for the tests: recordings where they are, else what espeak-ng says. 16-bit, 16 kHz."""

import asyncio
import math
import wave
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from vivavoce.engines.espeak.tts import EspeakSettings, EspeakTTS

RECORDINGS = Path(__file__).parents[4] / "shared" / "audio"


def recording(name: str) -> bytes:
    path = RECORDINGS / f"{name}.wav"
    if not path.exists():
        pytest.skip(f"no recording {name}")
    with wave.open(str(path)) as file:
        return _at_16_khz(file.readframes(file.getnframes()), file.getframerate())


def synthetic(text: str) -> bytes:
    """Text as espeak-ng says it, and half a second of silence."""

    async def speak() -> bytes:
        async with EspeakTTS(EspeakSettings()) as tts:
            spoken = tts.synthesize(
                text,
                voice=tts.default_voice,
                speed=1.0,
                language="en",
                instructions="",
            )
            async with aclosing(spoken):
                audio = b"".join([piece.audio async for piece in spoken])
            return _at_16_khz(audio, tts.sample_rate)

    return asyncio.run(speak()) + bytes(16_000)


def _at_16_khz(audio: bytes, rate: int) -> bytes:
    samples = np.frombuffer(audio, "<i2").astype(float)
    if rate > 16_000:
        at = np.arange(-24, 25)
        low = np.sinc(at * 15_000 / rate) * np.hamming(49)
        samples = np.convolve(samples, low / low.sum(), "same")
    times = np.arange(math.floor(len(samples) * 16_000 / rate)) * rate / 16_000
    there = np.interp(times, np.arange(len(samples)), samples)
    return bytes(np.clip(there, -32_768, 32_767).astype("<i2").data)
