"""Given routes on a real socket, scripted engines, and audio to send."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any, Protocol
from wave import open as open_wave

import aiohttp
import msgspec
from aiohttp import web
from openai import AsyncOpenAI

from tests.server import HOST, Complaints
from vivavoce.api.auth import Auth
from vivavoce.api.requests import keep_context
from vivavoce.audio.formats import RATE
from vivavoce.engines.base import LLM, STT, TTS
from vivavoce.engines.scripted.engines import (
    ScriptedLLM,
    ScriptedSTT,
    ScriptedTTS,
    ScriptedTurn,
    ScriptedVAD,
)
from vivavoce.engines.scripted.scripts import (
    LLMScript,
    STTScript,
    TTSScript,
    TurnScript,
    VADScript,
)
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import TokenMint
from vivavoce.protocol.session import RealtimeSession
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.choice import OnDemandEngine
from vivavoce.runtime.reload import Counted
from vivavoce.runtime.sessions import ServerContext
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.secret import Secret
from vivavoce.session.limits import SessionLimits


class Routes(Protocol):
    def add_to(self, app: web.Application) -> None: ...


@asynccontextmanager
async def serving_routes(
    *all_routes: Routes,
    catalog: ModelCatalog,
) -> AsyncIterator[tuple[AsyncOpenAI, aiohttp.ClientSession, str]]:
    """The official client, a plain HTTP client, and the base URL, such as http://127.0.0.1:1234/v1.

    catalog: the configured models. No key is needed. The exit fails if an error was logged.
    """
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    app = web.Application()
    Auth(KeyRing({}), TokenMint(Secret("s"))).add_to(app)
    context = ServerContext(catalog, catalog.available(), SessionLimits(), RealtimeSession())
    keep_context(app, Counted(context).hold)
    for routes in all_routes:
        routes.add_to(app)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        base = f"http://{HOST}:{runner.addresses[0][1]}/v1"
        async with (
            AsyncOpenAI(base_url=base, api_key="any", max_retries=0) as client,
            aiohttp.ClientSession() as http,
        ):
            yield client, http, base
    finally:
        await runner.cleanup()
        logging.getLogger().removeHandler(complaints)
    assert not complaints.messages, "\n".join(complaints.messages)


def catalog_of(
    stt: STT,
    tts: TTS,
    llm: LLM | None = None,
    default_voice: str = "",
    speaker: OnDemandEngine | None = None,
) -> ModelCatalog:
    """One model of these engines; the rest plays scripts."""
    cascade = Cascade(
        VadBatcher(ScriptedVAD(VADScript())),
        ScriptedTurn(TurnScript()),
        stt,
        llm or ScriptedLLM(LLMScript()),
        tts,
        default_voice=default_voice,
        speaker=speaker,
    )
    return ModelCatalog({"default": cascade}, "default")


def scripted_stt(script: dict[str, Any] | None) -> ScriptedSTT:
    return ScriptedSTT(msgspec.convert(script or {}, STTScript))


def scripted_tts(script: dict[str, Any] | None) -> ScriptedTTS:
    return ScriptedTTS(msgspec.convert(script or {}, TTSScript))


def wav_of(pcm: bytes) -> bytes:
    """A WAV file of PCM at 24 kHz."""
    made = BytesIO()
    with open_wave(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm)
    return made.getvalue()
