"""Speech to send, and where in it somebody speaks."""

import asyncio
from dataclasses import dataclass

import numpy as np

from bench.served import ROOT
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.engines import registry
from vivavoce.engines.base import TTS
from vivavoce.media import files

SPEECH = ROOT.parent / "shared" / "audio"  # real recordings, where there are some
FRAME_MS = 20
LOUD = 10 ** (-20 / 20)  # of the loudest frame: 20 dB below it may be the room
_FRAME = RATE * FRAME_MS // 1000
_NOISE = 8.0  # standard deviation: a quiet room, not digital silence, which costs less to judge
_SENTENCES = (
    "Go forward ten meters.",
    "Hello world.",
    "What time is it in the north of the country?",
)


@dataclass(frozen=True, slots=True)
class Recording:
    """Sound at 24 kHz, and the seconds at which speech begins and ends in it."""

    name: str
    pcm: bytes
    begins: float
    ends: float

    @property
    def seconds(self) -> float:
        return len(self.pcm) / (2 * RATE)


async def recordings() -> list[Recording]:
    """Real speech if there is any beside the project, else what espeak makes."""
    found = sorted((*SPEECH.glob("*.wav"), *SPEECH.glob("*.flac")))
    if found:
        return [_recording(path.stem, files.read(path)) for path in found]
    tts: TTS
    async with registry.create("tts", "espeak", {}) as tts:
        made = [await _spoken(tts, text) for text in _SENTENCES]
    return [_recording(f"espeak: {text}", pcm) for text, pcm in zip(_SENTENCES, made, strict=True)]


def silence(seconds: float) -> bytes:
    """A quiet room."""
    noise = np.random.default_rng(7).normal(0, _NOISE, int(seconds * RATE))
    return bytes(noise.astype("<i2").data)


def tone(seconds: float) -> bytes:
    """A loud hum, which the scripted voice activity takes for speech."""
    at = np.arange(int(seconds * RATE))
    wave = np.sin(at * (2 * np.pi * 200 / RATE)) * 12_000
    return bytes(wave.astype("<i2").data)


async def conversation() -> bytes:
    """Somebody speaks, then lets the other speak for as long, and so on: a minute or so."""
    parts: list[bytes] = []
    for recording in await recordings():
        parts += (recording.pcm, silence(recording.seconds))
    mixed = np.frombuffer(b"".join(parts), "<i2").astype(np.int32)
    mixed += np.frombuffer(silence(len(mixed) / RATE + 1), "<i2")[: len(mixed)]
    return bytes(mixed.clip(-32768, 32767).astype("<i2").data)


async def _spoken(tts: TTS, text: str) -> bytes:
    pieces = tts.synthesize(
        text, voice=tts.default_voice, speed=1.0, language="en", instructions=""
    )
    async with asyncio.timeout(30):
        pcm = b"".join([piece.audio async for piece in pieces])
    return resample(pcm, tts.sample_rate, RATE)


def _recording(name: str, pcm: bytes) -> Recording:
    whole = len(pcm) // 2 // _FRAME
    frames = np.frombuffer(pcm, "<i2")[: whole * _FRAME].reshape(whole, _FRAME)
    levels = np.sqrt(np.square(frames.astype(np.float64)).mean(axis=1))
    loud = levels > levels.max() * LOUD
    (pairs,) = np.nonzero(loud[:-1] & loud[1:])  # one alone is a click
    return Recording(
        name, pcm, int(pairs[0]) * FRAME_MS / 1000, int(pairs[-1] + 2) * FRAME_MS / 1000
    )
