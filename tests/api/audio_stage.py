"""The audio endpoints before engines of a test's choice, and sound to send them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import aiohttp
import numpy as np
from openai import AsyncOpenAI

from tests.api.routes_stage import catalog_of, scripted_stt, scripted_tts, serving_routes
from vivavoce.api.models import ModelRoutes
from vivavoce.api.speech import SpeechRoutes
from vivavoce.api.speech_analysis import SpeechAnalysisRoutes
from vivavoce.api.transcription import TranscriptionRoutes
from vivavoce.audio.formats import RATE
from vivavoce.engines.base import STT, TTS
from vivavoce.engines.scripted.engines import ScriptedSpeaker
from vivavoce.engines.scripted.scripts import SpeakerScript
from vivavoce.runtime.choice import OnDemandEngine


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
    **options: Any,
) -> AsyncIterator[Stage]:
    """`stt` and `tts`: engines, or scripts. `options`: arguments of TranscriptionRoutes,
    `default_voice`, and the script of a `speaker` model, None for no such model."""
    voice = options.pop("default_voice", "")
    script = options.pop("speaker", SpeakerScript())
    speaker = script and OnDemandEngine("speaker", "scripted", partial(ScriptedSpeaker, script))
    catalog = catalog_of(
        scripted_stt(stt) if stt is None or isinstance(stt, dict) else stt,
        scripted_tts(tts) if tts is None or isinstance(tts, dict) else tts,
        default_voice=voice,
        speaker=speaker,
    )
    analysis = {name: options[name] for name in ("max_bytes", "max_seconds") if name in options}
    async with serving_routes(
        SpeechRoutes(stall_timeout_s=options.get("stall_timeout_s", 30.0)),
        TranscriptionRoutes(**options),
        SpeechAnalysisRoutes(**analysis),
        ModelRoutes(lambda: 1_700_000_000.5),
        catalog=catalog,
    ) as (client, http, base):
        yield Stage(client, http, base)
        if speaker is not None:
            await speaker.unload()


def tone(seconds: float, hertz: float = 191.0) -> bytes:
    """PCM that the scripted voice activity takes for speech, and the scripted speaker model for a
    voice of that pitch."""
    at = np.arange(int(seconds * RATE))
    return bytes((np.sin(at * (2 * np.pi * hertz / RATE)) * 12_000).astype("<i2").data)


def quiet(seconds: float) -> bytes:
    return bytes(2 * int(seconds * RATE))
