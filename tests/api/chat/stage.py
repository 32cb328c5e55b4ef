"""The chat routes on a real socket, engines that record their requests, and audio to send."""

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import numpy as np
from openai import AsyncOpenAI

from tests.api.routes_stage import catalog_of, scripted_stt, scripted_tts, serving_routes, wav_of
from tests.engines.openai.chat_server import ChatServer, Reply, engine
from vivavoce.api.chat.routes import ChatRoutes
from vivavoce.audio.formats import RATE
from vivavoce.engines.base import LLM
from vivavoce.engines.scripted.engines import ScriptedLLM, ScriptedSTT, ScriptedTTS
from vivavoce.engines.scripted.scripts import LLMScript


@dataclass(frozen=True, slots=True)
class Stage:
    """The served chat routes and their engines."""

    client: AsyncOpenAI
    http: aiohttp.ClientSession
    url: str
    """Of the endpoint."""
    stt: ScriptedSTT
    tts: ScriptedTTS

    async def post(self, body: bytes | dict[str, Any]) -> tuple[int, Any]:
        """Status and decoded body."""
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with self.http.post(self.url, data=raw) as response:
            return response.status, msgspec.json.decode(await response.read())

    async def refusal(self, **fields: Any) -> tuple[int, str | None, str]:
        """Status, param and message of an error."""
        status, body = await self.post({"model": "default", **fields})
        return status, body["error"]["param"], body["error"]["message"]


@asynccontextmanager
async def stage(
    llm: LLM,
    *,
    stt: dict[str, Any] | None = None,
    tts: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Stage]:
    """Chat routes with the given language model."""
    heard, spoken = scripted_stt(stt), scripted_tts(tts)
    voice = options.pop("default_voice", "")
    catalog = catalog_of(heard, spoken, llm, voice)
    async with serving_routes(ChatRoutes(**options), catalog=catalog) as (client, http, base):
        yield Stage(client, http, f"{base}/chat/completions", heard, spoken)


@asynccontextmanager
async def stage_before(
    *replies: Reply, model: str = "llama", **options: Any
) -> AsyncIterator[tuple[Stage, ChatServer]]:
    """Chat routes with an endpoint that sends the given reply."""
    async with (
        ChatServer(list(replies)) as server,
        engine(server, model=model) as llm,
        stage(llm, **options) as here,
    ):
        yield here, server


def scripted(*answers: str | dict[str, Any]) -> ScriptedLLM:
    return ScriptedLLM(msgspec.convert({"answers": answers or ("Hello.",)}, LLMScript))


def wav(number: int = 0, *, seconds: float = 0.2, level: int = 8000) -> bytes:
    """A recording; another one for each number."""
    at = np.arange(int(RATE * seconds))
    return wav_of((np.sin(at * (0.05 + 0.01 * number)) * level).astype("<i2").tobytes())


def recording(data: bytes | None = None, format: str = "wav") -> Any:  # noqa: A002  the wire's word
    """A content part."""
    encoded = b64encode(wav() if data is None else data).decode()
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": format}}


def user(*parts: Any) -> Any:
    return {"role": "user", "content": list(parts)}


def said(content: str, **more: Any) -> dict[str, Any]:
    """A whole answer of an endpoint."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "llama",
        "choices": [choice],
        **more,
    }
