"""Short-lived keys for browsers: POST /v1/realtime/client_secrets and its two beta forms.

GET /api/realtime/token is what pages expect of their own server, in front of OpenAI.
"""

import secrets
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from vivavoce.api.auth import Auth, presented_key
from vivavoce.api.http_errors import json_response
from vivavoce.limits.tokens import Grant
from vivavoce.protocol import beta
from vivavoce.protocol.beta_client import (
    BetaSessionPatch,
    BetaTranscriptionSessionPatch,
    realtime_patch,
    transcription_patch,
)
from vivavoce.protocol.codec import Reader
from vivavoce.protocol.session import (
    RealtimeSession,
    SessionObject,
    SessionPatch,
    TranscriptionSession,
)
from vivavoce.protocol.wire import Opening

DEFAULT_SECONDS = 600


class ExpiresAfter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Meta(ge=10, le=7200)] = DEFAULT_SECONDS


class ClientSecretRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the key allows. Every field may be left out."""

    expires_after: ExpiresAfter | UnsetType = UNSET
    session: SessionPatch | UnsetType = UNSET


class ClientSecret(msgspec.Struct, frozen=True):
    value: str
    expires_at: int


class ClientSecretResponse(msgspec.Struct, frozen=True):
    """The key, when it expires (Unix seconds), and the session that it opens."""

    value: str
    expires_at: int
    session: SessionObject


class TokenResponse(msgspec.Struct, frozen=True):
    """The key under both names that pages read."""

    token: str
    client_secret: ClientSecret


class BetaSecretLifetime(msgspec.Struct, frozen=True):
    """The lifetime of a beta key, under either of two names that clients use."""

    expires_after: ExpiresAfter | UnsetType = UNSET
    expires_at: ExpiresAfter | UnsetType = UNSET


class BetaSecretEnvelope(msgspec.Struct, frozen=True):
    """The one field of a beta body that is not a setting of the session."""

    client_secret: BetaSecretLifetime | UnsetType | None = UNSET


Begin = Callable[[Opening], SessionObject]

_ga: Reader[ClientSecretRequest] = Reader(ClientSecretRequest)
_beta: Reader[BetaSessionPatch] = Reader(BetaSessionPatch)
_beta_transcription: Reader[BetaTranscriptionSessionPatch] = Reader(BetaTranscriptionSessionPatch)
_envelope: Reader[BetaSecretEnvelope] = Reader(BetaSecretEnvelope)


class ClientSecrets:
    """Issues short-lived keys. `begin` makes the session object that a key opens."""

    def __init__(self, auth: Auth, begin: Begin) -> None:
        self._auth = auth
        self._begin = begin

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/realtime/client_secrets", self.create)
        app.router.add_post("/v1/realtime/sessions", self.create_beta)
        app.router.add_post("/v1/realtime/transcription_sessions", self.create_beta_transcription)
        app.router.add_get("/api/realtime/token", self.token)

    def admit(self, request: web.Request, key: str = "") -> Opening:
        """What a key, or the one in the request, decides about its session. Raises Unauthorized."""
        identity = self._auth.identify(request, key)
        patch = None
        if identity.grant is not None and identity.grant.session is not None:
            patch = msgspec.convert(identity.grant.session, SessionPatch)
        return Opening(patch=patch, who=identity.name)

    def websocket_token(self, request: web.Request) -> str | None:
        """A short-lived key for the sender of a request; None if the server needs no key.

        If the request itself has a short-lived key, that one is returned. Raises Unauthorized.
        """
        if self._auth.identify(request).grant is not None:
            return presented_key(request)
        if not self._auth.keys:
            return None
        return self._grant(request, None, DEFAULT_SECONDS)[1].value

    def short_lived_key(self, request: web.Request) -> str | None:
        """The id of a request's short-lived key; None with an API key. Raises Unauthorized."""
        grant = self._auth.identify(request).grant
        return None if grant is None else grant.id

    async def create(self, request: web.Request) -> web.Response:
        body = _ga.read(await request.read() or b"{}")
        patch = None if body.session is UNSET else body.session
        expires = ExpiresAfter() if body.expires_after is UNSET else body.expires_after
        session, secret = self._grant(request, patch, expires.seconds)
        return json_response(ClientSecretResponse(secret.value, secret.expires_at, session))

    async def create_beta(self, request: web.Request) -> web.Response:
        raw = await request.read() or b"{}"
        flat = _beta.read(raw)
        patch = realtime_patch(flat)
        session, secret = self._grant(request, patch, _beta_seconds(raw))
        assert isinstance(session, RealtimeSession)
        named = () if flat.voice is UNSET else (session.audio.output.voice,)
        return json_response(_shown(beta.realtime_session(session, named), secret))

    async def create_beta_transcription(self, request: web.Request) -> web.Response:
        raw = await request.read() or b"{}"
        patch = transcription_patch(_beta_transcription.read(raw))
        session, secret = self._grant(request, patch, _beta_seconds(raw))
        assert isinstance(session, TranscriptionSession)
        return json_response(_shown(beta.transcription_session(session), secret))

    async def token(self, request: web.Request) -> web.Response:
        _, secret = self._grant(request, None, DEFAULT_SECONDS)
        response = json_response(TokenResponse(secret.value, secret))
        response.headers["Cache-Control"] = "no-store"
        return response

    def _grant(
        self, request: web.Request, patch: SessionPatch | None, seconds: int
    ) -> tuple[SessionObject, ClientSecret]:
        who = self._auth.identify(request).name
        session = self._begin(Opening(patch=patch, who=who))
        expires_at = int(self._auth.wall_clock()) + seconds
        grant = Grant(
            id=secrets.token_hex(8),
            expires_at=expires_at,
            session=None if patch is None else msgspec.to_builtins(patch, builtin_types=()),
            key=who,
        )
        token = self._auth.mint.issue(grant)
        return session, ClientSecret(token.reveal(), expires_at)


def _beta_seconds(raw: bytes) -> int:
    lifetime = _envelope.read(raw).client_secret
    if not isinstance(lifetime, BetaSecretLifetime):
        return DEFAULT_SECONDS
    for expires in (lifetime.expires_after, lifetime.expires_at):
        if isinstance(expires, ExpiresAfter):
            return expires.seconds
    return DEFAULT_SECONDS


def _shown(session: msgspec.Struct, secret: ClientSecret) -> dict[str, Any]:
    """A beta session with its key."""
    shown: dict[str, Any] = msgspec.to_builtins(session)
    return shown | {"client_secret": msgspec.to_builtins(secret)}
