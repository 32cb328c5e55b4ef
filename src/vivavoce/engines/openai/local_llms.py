"""Looks for a language model that already runs on this machine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from vivavoce.engines.openai import model_list


@dataclass(frozen=True, slots=True)
class Place:
    """Where a kind of server listens unless it is told otherwise."""

    name: str
    port: int
    host: str = "127.0.0.1"

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answers, and its first model that one can talk with."""

    name: str
    base_url: str
    model: str


USUAL = (
    Place("Ollama", 11434),
    Place("llama.cpp", 8080),
    Place("LM Studio", 1234),
    Place("vLLM", 8000),
)


async def find(
    places: Sequence[Place] = USUAL, *, own_port: int | None = None, seconds: float = 0.3
) -> Found | None:
    """The first of the places that has a model; all are asked at once. Never raises.

    own_port: where we ourselves listen, which is not asked. seconds: bound of the whole search.
    """
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
        asyncio.TaskGroup() as tasks,
    ):
        asked = [
            (place, tasks.create_task(_model(session, place, seconds)))
            for place in places
            if place.port != own_port
        ]
        found = None
        for place, task in asked:
            if model := await task:
                found = Found(place.name, place.base_url, model)
                break
        for _, task in asked:
            task.cancel()
    return found


async def _model(session: aiohttp.ClientSession, place: Place, seconds: float) -> str:
    """ "" if there is none, whatever the reason."""
    try:
        async with (
            asyncio.timeout(seconds),
            session.get(f"{place.base_url}/models", allow_redirects=False) as response,
        ):
            if response.status != 200:
                return ""
            body = bytearray()
            while len(body) < model_list.MAX_BYTES and (part := await response.content.readany()):
                body += part
        names = model_list.chat_models(bytes(body))
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
        return ""
    return names[0] if names else ""
