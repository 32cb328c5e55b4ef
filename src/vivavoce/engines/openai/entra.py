"""Tokens of Microsoft Entra ID for Azure OpenAI: fetched when needed, kept until they run out.

With a client secret (the OAuth 2.0 client credentials grant) or, without one, from the managed
identity of the machine.
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

import asyncio
from typing import Self

import aiohttp
import msgspec

from vivavoce.engines.http import HttpClient, ResponseTimeouts
from vivavoce.engines.remote import RemoteServer, ServerKind, parse_base_url
from vivavoce.errors import EngineError
from vivavoce.protocol import json
from vivavoce.secret import Secret, conceal

SCOPE = "https://cognitiveservices.azure.com"
LOGIN_URL = "https://login.microsoftonline.com"
MACHINE_URL = "http://169.254.169.254"
"""The instance metadata service of a machine in Azure."""
RENEW_EARLY_S = 300.0
"""A token is replaced this long before it expires: connections outlive their first request."""
TOKEN_TIMEOUT_S = 5.0
MAX_TOKEN_BYTES = 1 << 16

_KIND = ServerKind("token service", "a token", "tenant, client_id and client_secret")


class EntraSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The application that requests tokens; without a secret, the machine's managed identity."""

    tenant: str = ""
    client_id: str = ""
    client_secret: str = ""
    authority: str = ""
    """Empty: login.microsoftonline.com, or the metadata service of the machine."""

    def __post_init__(self) -> None:
        if self.client_secret and not (self.tenant and self.client_id):
            raise ValueError("entra: client_secret goes with tenant and client_id")
        conceal(self, "client_secret")


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int | str = 0


_decoder = msgspec.json.Decoder(_Token)


class EntraTokens:
    """Fetches one token at a time, and gives it out until it runs out."""

    def __init__(self, settings: EntraSettings) -> None:
        self._settings = settings
        secret = settings.client_secret
        self._secret = Secret(secret).reveal()
        url = parse_base_url(settings.authority or (LOGIN_URL if self._secret else MACHINE_URL))
        if not self._secret:
            url = url.update_query({"api-version": "2018-02-01", "resource": SCOPE})
            if settings.client_id:
                url = url.update_query(client_id=settings.client_id)
        server = RemoteServer(str(url), _KIND, headers={})
        server.hide(self._secret)
        self._client = HttpClient(server, connect_timeout_s=TOKEN_TIMEOUT_S)
        self._timeouts = ResponseTimeouts(TOKEN_TIMEOUT_S, TOKEN_TIMEOUT_S)
        self._lock = asyncio.Lock()
        self._token = ""
        self._expires = float("-inf")

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.__aexit__(*exc)

    async def token(self) -> str:
        """A token that is valid for some minutes. Raises EngineError."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if clock() >= self._expires:
                found = await self._fetch()
                self._token = found.access_token
                self._expires = clock() + max(0.0, float(found.expires_in) - RENEW_EARLY_S)
            return self._token

    async def _fetch(self) -> _Token:
        server, settings = self._client.server, self._settings
        secret = bool(self._secret)
        async with self._client.request(
            "POST" if secret else "GET",
            f"{settings.tenant}/oauth2/v2.0/token" if secret else "metadata/identity/oauth2/token",
            self._form if secret else None,
            timeouts=self._timeouts,
            headers={} if secret else {"Metadata": "true"},
        ) as response:
            if response.status != 200:
                raise await response.refusal(TOKEN_TIMEOUT_S, "entra")
            deadline = asyncio.get_running_loop().time() + TOKEN_TIMEOUT_S
            body = await response.read(MAX_TOKEN_BYTES, deadline)
        try:
            return json.decode(body, _decoder)
        except (ValueError, RecursionError) as exc:
            raise EngineError(f"{server.name} sent something else instead of a token") from exc

    def _form(self) -> aiohttp.FormData:
        return aiohttp.FormData(
            {
                "grant_type": "client_credentials",
                "client_id": self._settings.client_id,
                "client_secret": self._secret,
                "scope": f"{SCOPE}/.default",
            }
        )
