"""An endpoint that speaks OpenAI's API: its settings, its address, its key, its list of models.

Azure OpenAI differs in three points: the address names a deployment and an API version (or ends in
/openai/v1), the key goes into the header `api-key`, and Entra ID gives tokens in place of a key.
https://learn.microsoft.com/azure/ai-foundry/openai/reference
"""

import asyncio
import copy
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Literal, Self

import msgspec
from yarl import URL

from vivavoce.engines.base import BaseEngine
from vivavoce.engines.http import HttpClient, PositiveSeconds, ResponseTimeouts
from vivavoce.engines.openai.discovery import MAX_LIST_BYTES, ListedModels, model_names
from vivavoce.engines.openai.entra import EntraSettings, EntraTokens
from vivavoce.engines.remote import RemoteServer, ServerKind, parse_base_url
from vivavoce.errors import EngineError
from vivavoce.secret import Secret, conceal

AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
AZURE_V1 = ("", "v1", "preview", "latest")
"""Values of `api_version` with which Azure serves the API under /openai/v1."""
WARM_INTERVAL_S = 20.0
"""A connection that was used so recently is open still."""


class EndpointSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which server, model and key."""

    base_url: str = "https://api.openai.com/v1"
    """Up to and including /v1. The bare address is enough of an Azure resource, and of a server on
    this machine or a private network."""
    model: str = ""
    api_key: str = ""
    auth: Literal["auto", "bearer", "api-key"] = "auto"
    """Where the key goes; auto: the header api-key for Azure, else Authorization."""
    api_version: str = ""
    """Of Azure: 2024-10-21 and the like; empty or `v1`: its API without versions."""
    entra: EntraSettings | None = None
    """Azure without a key: tokens of Entra ID."""
    connect_seconds: PositiveSeconds = 5.0
    gap_seconds: PositiveSeconds = 15.0
    """Longest silence within an answer."""
    headers: dict[str, str] = {}
    """Sent along with every request."""
    extra: dict[str, Any] = {}
    """Merged into the body of the request. A null takes a field out."""

    def __post_init__(self) -> None:
        url = parse_base_url(self.base_url)
        key = self.api_key.strip()  # a key that was read from a file ends its line
        msgspec.structs.force_setattr(self, "api_key", key)
        named = {name.lower() for name in self.headers}
        if url.user is not None and (key or "authorization" in named):
            raise ValueError("an API key cannot be sent along with a user name in base_url")
        if self.entra is not None and (key or "authorization" in named or url.user is not None):
            raise ValueError("entra gives the token: take the API key or the user name out")
        for text in (key, *self.headers, *self.headers.values()):
            if not (text.isascii() and text.isprintable()):
                raise ValueError("api_key and headers must be printable ASCII")
        conceal(self, "api_key", "headers")
        if url.user is not None or url.query_string:
            conceal(self, "base_url")  # it carries a password, or a key in its query


def revealed(text: str) -> str:
    """The text itself, be it a Secret or not."""
    return Secret(text).reveal()


def is_azure(url: URL) -> bool:
    """Whether the host is one of Azure's."""
    return (url.host or "").endswith(AZURE_HOSTS)


def _is_near(host: str) -> bool:
    """Whether it is this machine or one of a private network. A name without a dot is."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host


def endpoint_url(settings: EndpointSettings) -> str:
    """The address under which the resources stand, with the API version as its query."""
    url = parse_base_url(revealed(settings.base_url))
    if is_azure(url) and url.path in ("/", "", "/openai"):
        v1 = settings.api_version in AZURE_V1
        if not v1 and not settings.model:
            raise EngineError("Azure's address names a deployment: set model to its name")
        path = "/openai/v1" if v1 else f"/openai/deployments/{settings.model}"
        url = url.with_path(path).with_query(url.query)
    elif url.path in ("/", "") and _is_near(url.host or ""):
        url = url.with_path("/v1").with_query(url.query)  # of Ollama, vLLM, LM Studio, llama.cpp
    if settings.api_version:
        url = url.update_query({"api-version": settings.api_version})
    return str(url)


class Endpoint:
    """One endpoint: its connections and its list of models. Enter it before use."""

    def __init__(
        self,
        settings: EndpointSettings,
        kind: ServerKind,
        timeouts: ResponseTimeouts,
        names_of: Callable[[bytes], list[str]] = model_names,
    ) -> None:
        """names_of: reads the list of models; raises ValueError for something else."""
        base_url = endpoint_url(settings)
        azure = is_azure(parse_base_url(base_url))
        by_header = settings.auth == "api-key" or (settings.auth == "auto" and azure)
        self.server = RemoteServer(
            base_url,
            kind,
            api_key=revealed(settings.api_key),
            headers={name: revealed(value) for name, value in settings.headers.items()},
            key_header="api-key" if by_header else "Authorization",
        )
        self.timeouts = timeouts
        self.connect_timeout_s = settings.connect_seconds
        self._entra = EntraTokens(settings.entra) if settings.entra is not None else None
        self.client = HttpClient(
            self.server,
            connect_timeout_s=settings.connect_seconds,
            authorize=self._token if self._entra is not None else None,
        )
        self._names_of = names_of
        self._has_deployment = "/deployments/" in base_url
        self.listed = ListedModels(self.list_models)
        self._warming: asyncio.Task[None] | None = None
        self._warm_until = float("-inf")

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        if self._entra is not None:
            await self._entra.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait((self._warming,))
        await self.listed.close()
        if self._entra is not None:
            await self._entra.__aexit__(*exc)
        await self.client.__aexit__(*exc)

    def used(self) -> None:
        """A connection has just been used: it stays open for a while."""
        self._warm_until = asyncio.get_running_loop().time() + WARM_INTERVAL_S

    def warm(self) -> None:
        """Open a connection in the background, unless one was used just now. Never raises.

        The request is the one for the list of models, which is looked up on that occasion.
        """
        if asyncio.get_running_loop().time() < self._warm_until or self._warming is not None:
            return
        self.used()
        self._warming = asyncio.create_task(self._open_connection())

    async def list_models(self) -> list[str]:
        """The models that the server lists. Raises EngineError."""
        if self._has_deployment:
            raise EngineError(f"{self.server.name} is one deployment and lists no models")
        async with self.client.request("GET", "models", timeouts=self.timeouts) as response:
            if response.status != 200:
                raise await response.refusal(self.connect_timeout_s, "")
            deadline = asyncio.get_running_loop().time() + self.timeouts.first_s
            body = await response.read(MAX_LIST_BYTES, deadline)
        try:
            return self._names_of(body)
        except ValueError as exc:
            raise EngineError(
                f"{self.server.name} sent something else instead of a list of models; set model"
            ) from exc

    async def check(self, path: str) -> None:
        """See BaseEngine. A refusal of the path itself is an answer: the server is there."""
        async with self.client.request("GET", path, timeouts=self.timeouts) as response:
            if response.status >= 500:
                raise await response.refusal(self.connect_timeout_s)

    async def _open_connection(self) -> None:
        try:
            await self.listed.refresh()
        finally:
            self._warming = None

    async def _token(self) -> dict[str, str]:
        assert self._entra is not None
        token = await self._entra.token()
        self.server.hide(token)
        return {"Authorization": f"Bearer {token}"}


class EndpointEngine(BaseEngine):
    """An engine that is one endpoint: its __init__ sets `_endpoint`."""

    _endpoint: Endpoint

    async def __aenter__(self) -> Self:
        await self._endpoint.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._endpoint.__aexit__(*exc)

    def warm(self) -> None:
        self._endpoint.warm()

    async def check(self, path: str) -> None:
        await self._endpoint.check(path)


class SpeechEngine(EndpointEngine):
    """STT or TTS at an endpoint: each of its models in turn. Its __init__ sets `_model`, too."""

    _model: str

    def for_model(self, name: str) -> Self | None:
        """See BaseEngine. The list of models is looked up in the background."""
        if name != self._model and not self._endpoint.listed.known(name):
            return None
        other = copy.copy(self)
        other._model = name
        return other
