"""The audio endpoints before engines of a test's choice, and sound to send them."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from wave import open as open_wave

import aiohttp
import msgspec
import numpy as np
from aiohttp import web
from openai import AsyncOpenAI

from tests.server import HOST, Complaints
from vivavoce.api.gate import Gate
from vivavoce.api.models import Models
from vivavoce.api.speech import SpeechDoor
from vivavoce.api.transcription import TranscriptionDoor
from vivavoce.audio.formats import RATE
from vivavoce.engines.base import STT, TTS
from vivavoce.engines.scripted import (
    ScriptedLLM,
    ScriptedSTT,
    ScriptedTTS,
    ScriptedTurn,
    ScriptedVAD,
)
from vivavoce.engines.scripted_scripts import (
    LLMScript,
    STTScript,
    TTSScript,
    TurnScript,
    VADScript,
)
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import TokenMint
from vivavoce.runtime.brain import Brains, Cascade
from vivavoce.runtime.ears import Ears
from vivavoce.secret import Secret


@dataclass(frozen=True, slots=True)
class Stage:
    """A running server: the official client of it, and a plain one."""

    client: AsyncOpenAI
    http: aiohttp.ClientSession
    base: str
    """Where the plain one asks, as http://127.0.0.1:1234/v1."""

    async def transcribe(self, file: bytes, **fields: str) -> tuple[int, Any]:
        """Upload a file as a browser would; the status, and the answer decoded."""
        form = aiohttp.FormData({"model": "whisper-1", **fields})
        form.add_field(
            "file", BytesIO(file), filename="sound", content_type="application/octet-stream"
        )
        return await self.post(data=form)

    async def post(self, path: str = "/audio/transcriptions", **options: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.base}{path}", **options) as response:
            return response.status, await response.json()


@asynccontextmanager
async def stage(
    *,
    stt: STT | dict[str, Any] | None = None,
    tts: TTS | dict[str, Any] | None = None,
    **doors: Any,
) -> AsyncIterator[Stage]:
    """`stt` and `tts`: engines, or scripts. `doors`: arguments of the door of recordings, and
    `default_voice`. Leaving it fails when an error was logged meanwhile."""
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    voice = doors.pop("default_voice", "")
    brains = Brains({"default": cascade(stt, tts)}, "default")
    app = web.Application()
    Gate(KeyRing({}), TokenMint(Secret("s"))).stand_before(app)
    SpeechDoor(brains, voice, stall_seconds=doors.get("stall_seconds", 30.0)).add_to(app)
    TranscriptionDoor(brains, **doors).add_to(app)
    Models(brains, voice, lambda: 1_700_000_000.5).add_to(app)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        base = f"http://{HOST}:{runner.addresses[0][1]}/v1"
        async with (
            AsyncOpenAI(base_url=base, api_key="any", max_retries=0) as client,
            aiohttp.ClientSession() as http,
        ):
            yield Stage(client, http, base)
    finally:
        await runner.cleanup()
        logging.getLogger().removeHandler(complaints)
    assert not complaints.messages, "\n".join(complaints.messages)


def cascade(
    stt: STT | dict[str, Any] | None = None, tts: TTS | dict[str, Any] | None = None
) -> Cascade:
    if stt is None or isinstance(stt, dict):
        stt = ScriptedSTT(msgspec.convert(stt or {}, STTScript))
    if tts is None or isinstance(tts, dict):
        tts = ScriptedTTS(msgspec.convert(tts or {}, TTSScript))
    return Cascade(
        Ears(ScriptedVAD(VADScript())),
        ScriptedTurn(TurnScript()),
        stt,
        ScriptedLLM(LLMScript()),
        tts,
    )


def tone(seconds: float) -> bytes:
    """PCM that the scripted voice activity takes for speech."""
    at = np.arange(int(seconds * RATE))
    return bytes((np.sin(at * 0.05) * 12_000).astype("<i2").data)


def quiet(seconds: float) -> bytes:
    return bytes(2 * int(seconds * RATE))


def wav(pcm: bytes) -> bytes:
    made = BytesIO()
    with open_wave(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm)
    return made.getvalue()
