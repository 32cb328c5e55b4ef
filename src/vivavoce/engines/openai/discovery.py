"""Which language models a server lists, and which server on this machine has one."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import aiohttp
import msgspec

from vivavoce.errors import EngineError
from vivavoce.protocol import json

MAX_LIST_BYTES = 1 << 20
LIST_MAX_AGE_S = 300.0
FIRST_LIST_TIMEOUT_S = 1.0

OWN_SERVER = "vivavoce"
"""`owned_by` of the models that this server itself lists."""

# Whole words of a name, between the marks that join the parts of a name.
_OTHER_PURPOSE = re.compile(
    r"embed|whisper|rerank|moderation|dall-?e|stable-diffusion|transcribe|minilm|"
    r"(?<![a-z0-9])(tts|stt|asr|bge|gte|e5|clip|image|realtime|kokoro|piper|parakeet|sora|flux|"
    r"babbage|davinci)(?![a-z])",
    re.IGNORECASE,
)


class _Model(msgspec.Struct):
    id: str | None = None
    owned_by: str | None = None


class _Page(msgspec.Struct):
    data: list[_Model] | None = None


_decoder: msgspec.json.Decoder[_Page | list[_Model]] = msgspec.json.Decoder(_Page | list[_Model])


def chat_models(body: bytes) -> list[str]:
    """The chat models in an answer to GET /models, in its order; none if it is our own server.

    Names that look like those of embedding, speech or image models are left out. Raises
    ValueError: it is not such a list.
    """
    models = _models(body)
    if any(model.owned_by == OWN_SERVER for model in models):
        return []
    return [model.id for model in models if model.id and not _OTHER_PURPOSE.search(model.id)]


def model_names(body: bytes) -> list[str]:
    """All models in an answer to GET /models. Raises ValueError: it is not such a list."""
    return [model.id for model in _models(body) if model.id]


def _models(body: bytes) -> list[_Model]:
    try:
        page = json.decode(body, _decoder)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    return (page.data or []) if isinstance(page, _Page) else page


class ListedModels:
    """The models of one server, looked up in the background and kept for some minutes.

    Only the first question waits for the list, at most FIRST_LIST_TIMEOUT_S. Where a look-up
    fails, the list stays as it was, at first empty, until the next.
    """

    def __init__(self, fetch: Callable[[], Awaitable[list[str]]]) -> None:
        """fetch: gets the list; may raise EngineError."""
        self._fetch = fetch
        self._names: frozenset[str] | None = None
        self._expires = float("-inf")
        self._lookup: asyncio.Task[None] | None = None

    async def has(self, name: str) -> bool:
        """Whether the list, as last seen, has the name."""
        self._look_up_if_old()
        if self._names is None and self._lookup is not None:
            await asyncio.wait((self._lookup,), timeout=FIRST_LIST_TIMEOUT_S)
            self._names = self._names or frozenset()
        return name in (self._names or ())

    def known(self, name: str) -> bool:
        """Whether the list, as last seen, has the name; it never waits for a look-up."""
        self._look_up_if_old()
        return name in (self._names or ())

    async def refresh(self) -> None:
        """Look the list up now, or wait for the look-up that is under way. Never raises."""
        if self._lookup is None:
            self._lookup = asyncio.get_running_loop().create_task(self._refresh())
        await asyncio.wait((self._lookup,))

    def _look_up_if_old(self) -> None:
        loop = asyncio.get_running_loop()
        if self._lookup is None and loop.time() >= self._expires:
            self._lookup = loop.create_task(self._refresh())

    def remove(self, name: str) -> None:
        """The server does not know that model any more: look the list up again."""
        self._expires = float("-inf")
        if self._names is not None:
            self._names -= {name}

    async def close(self) -> None:
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.wait((self._lookup,))

    async def _refresh(self) -> None:
        try:
            with suppress(EngineError):
                self._names = frozenset(await self._fetch())
        finally:
            self._names = self._names or frozenset()
            self._expires = asyncio.get_running_loop().time() + LIST_MAX_AGE_S
            self._lookup = None


class LocalServer(msgspec.Struct, frozen=True):
    """A kind of model server and its default address."""

    name: str
    port: int
    host: str = "127.0.0.1"

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"


class LocalModel(msgspec.Struct, frozen=True):
    """A server that answers, and its first chat model."""

    server: str
    base_url: str
    model: str


LOCAL_SERVERS = (
    LocalServer("Ollama", 11434),
    LocalServer("llama.cpp", 8080),
    LocalServer("LM Studio", 1234),
    LocalServer("vLLM", 8000),
)


async def find_local_model(
    servers: Sequence[LocalServer] = LOCAL_SERVERS,
    *,
    own_port: int | None = None,
    timeout_s: float = 0.3,
) -> LocalModel | None:
    """The first of the servers that has a chat model; all are asked at once. Never raises.

    own_port: where this server itself listens, which is not asked. timeout_s: of the whole search.
    """
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
        asyncio.TaskGroup() as tasks,
    ):
        lookups = [
            (server, tasks.create_task(_first_model(session, server, timeout_s)))
            for server in servers
            if server.port != own_port
        ]
        found = None
        for server, lookup in lookups:
            if model := await lookup:
                found = LocalModel(server.name, server.base_url, model)
                break
        for _, lookup in lookups:
            lookup.cancel()
    return found


async def _first_model(
    session: aiohttp.ClientSession, server: LocalServer, timeout_s: float
) -> str:
    """ "" if there is none, whatever the reason."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            session.get(f"{server.base_url}/models", allow_redirects=False) as response,
        ):
            if response.status != 200:
                return ""
            body = bytearray()
            while len(body) < MAX_LIST_BYTES and (part := await response.content.readany()):
                body += part
        names = chat_models(bytes(body))
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
        return ""
    return names[0] if names else ""
