"""Connections to upstream Realtime servers: addresses, credentials, refusals, holds.

The texts of an upstream server are never part of a reason here, because reasons may reach a client.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import aiohttp
import msgspec
from yarl import URL

from vivavoce.engines.http import HttpClient
from vivavoce.engines.remote import RemoteServer, ServerKind
from vivavoce.errors import EngineError
from vivavoce.protocol.upstream import UpstreamEvent, read_upstream
from vivavoce.protocol.xai import XaiTranslation
from vivavoce.secret import Secret
from vivavoce.session.facts import FaultKind
from vivavoce.session.options import ModelInfo
from vivavoce.session.relay.faults import Fault, fault_of, fault_of_status, masked

Provider: TypeAlias = Literal["openai", "azure", "xai", "other"]

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 0.5
TOKEN_TIMEOUT_S = 10.0
HEARTBEAT_S = 20.0
"""Between pings; if a pong takes more than half of that, the connection is ended."""
MAX_FRAME_BYTES = 24 << 20
"""A server may echo an append, which may have 20 MiB."""
MIN_PROBE_PAUSE_S = 5.0
MAX_PROBE_PAUSE_S = 60.0
IDENTIFIER_CHARACTERS = 43
MIN_HIDDEN_CHARACTERS = 6
"""The shortest key or host that is masked: a shorter word may be part of another one."""

NO_FALLBACK = "none"
OPENAI_URL = "wss://api.openai.com/v1/realtime"
XAI_URL = "wss://api.x.ai/v1/realtime"
AZURE_PATH = "/openai/v1/realtime"
_HOSTS: Mapping[str, Provider] = {
    ".openai.com": "openai",
    ".openai.azure.com": "azure",
    ".cognitiveservices.azure.com": "azure",
    ".x.ai": "xai",
}
_KIND = ServerKind("upstream server", "a Realtime session")
_NO_TOKEN = Fault("refused", "no token for the upstream server", hold_s=60.0)


def provider_of(url: str) -> Provider:
    """The provider of an address, by its host."""
    host = "." + (URL(url).host or "")
    return next((known for end, known in _HOSTS.items() if host.endswith(end)), "other")


class UpstreamSocket(Protocol):
    """The WebSocket of aiohttp's client, with what engines/http.py adds to it."""

    passes: Callable[[bytes], bool] | None

    @property
    def close_code(self) -> int | None: ...

    def send_now(self, text: bytes) -> bool: ...

    async def receive(self) -> aiohttp.WSMessage: ...

    async def send_frame(self, message: bytes, opcode: aiohttp.WSMsgType) -> None: ...

    async def close(self) -> bool: ...


class UpstreamRefused(EngineError):
    """The upstream server began no session."""

    def __init__(self, fault: Fault, status: int = 0) -> None:
        """status: of the answer to the request; 0: there was no answer."""
        super().__init__(fault.reason)
        self.fault = fault
        self.status = status


class _Server(RemoteServer):
    """Keeps the status of a refused handshake, which decides when to connect again."""

    def refused(
        self, status: int, headers: Mapping[str, str], body: bytes, model: str | None = None
    ) -> EngineError:
        request = headers.get("apim-request-id") or headers.get("x-request-id") or "none"
        level = logging.WARNING if status == 404 else logging.ERROR  # a call may have ended
        refusal = super().refused(status, headers, body, model)
        log.log(level, "%s (request id %s)", refusal, request)
        return UpstreamRefused(fault_of_status(status, headers.get("Retry-After", "")), status)


class Hold:
    """Until when no session connects to an upstream server. All its sessions set this."""

    def __init__(self, probe_pause_s: float = MIN_PROBE_PAUSE_S) -> None:
        """probe_pause_s: the least pause between two probes whether the server works again."""
        self._probe_pause_s = probe_pause_s
        self._until = float("-inf")
        self._kind: FaultKind = "closed"
        self._answered_at = float("-inf")
        self._probing = asyncio.Lock()

    def set(self, seconds: float, kind: FaultKind) -> None:
        until = asyncio.get_running_loop().time() + seconds
        if until > self._until:
            self._until, self._kind = until, kind

    @property
    def state(self) -> FaultKind | Literal["available"]:
        """Why no session connects now."""
        return self._kind if self.seconds else "available"

    @property
    def seconds(self) -> float:
        """How much longer, in seconds; 0: sessions may connect."""
        return max(0.0, self._until - asyncio.get_running_loop().time())

    async def wait_answering(self, relay: "Relay") -> None:
        """Wait until the server begins sessions again; one caller at a time probes it."""
        pause, clock = self._probe_pause_s, asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(self.seconds, pause))
            async with self._probing:
                if clock() - self._answered_at < self._probe_pause_s:
                    return
                with suppress(UpstreamRefused):
                    async with relay.connected():
                        self._answered_at = clock()
                        return
            pause = min(2 * pause, MAX_PROBE_PAUSE_S)


class SharedClient:
    """The HTTP client of all sessions with one upstream server, open while there are any.

    A client for each session would take 20 KiB.
    """

    def __init__(self) -> None:
        self._client: HttpClient | None = None
        self._users = 0

    async def acquire(self, server: RemoteServer) -> HttpClient:
        """The client, until release(). server: its address and credentials, which do not change."""
        if self._client is None:
            self._client = HttpClient(server, connect_timeout_s=CONNECT_TIMEOUT_S)
            await self._client.__aenter__()
        self._users += 1
        return self._client

    async def release(self) -> None:
        self._users -= 1
        if not self._users and self._client is not None:
            client, self._client = self._client, None
            await client.__aexit__()


class Opened(msgspec.Struct, frozen=True):
    """A session that the upstream server has begun."""

    socket: UpstreamSocket
    expires_in: float
    """Seconds; infinite if the server does not say."""
    hidden: tuple[bytes, ...] = ()
    """The credentials of this connection, and the host: clients must not see them."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A model behind an upstream Realtime server."""

    url: str
    """The address of its WebSocket, without a query: wss://api.openai.com/v1/realtime."""
    model: str
    """The model requested from the upstream server; on Azure the name of a deployment."""
    key: Secret = Secret("")
    default_voice: str = "marin"
    fallback: str = ""
    """The cascade that continues if the upstream server fails; "": the default one; "none": the
    session ends."""
    token_command: tuple[str, ...] = ()
    """A command that prints the bearer token for one connection; used in place of the key."""
    pseudonym_secret: Secret = Secret("")
    """The key for pseudonyms of users; empty: `api_key`."""
    hold: Hold = field(default_factory=Hold, compare=False)
    dialect: Literal["", "ga", "xai"] = ""
    """The protocol of the server; "": decided by its address."""
    heartbeat_s: float = HEARTBEAT_S
    media: Literal["here", "direct"] = "here"
    """The way of the media of WebRTC calls; direct: between the client and the upstream server."""
    client: SharedClient = field(default_factory=SharedClient, compare=False, repr=False)

    def translation(self) -> XaiTranslation | None:
        """A translator for one connection; None: the server speaks GA."""
        dialect = self.dialect or ("xai" if self.provider == "xai" else "ga")
        return XaiTranslation() if dialect == "xai" else None

    @property
    def info(self) -> ModelInfo:
        """What a session needs to know about this model."""
        return ModelInfo(voices=None, default_voice=self.default_voice)

    @property
    def provider(self) -> Provider:
        return provider_of(self.url)

    def query(self, *, transcription: bool) -> dict[str, str]:
        """OpenAI and Azure treat a transcription session that has a `model` as a conversation."""
        if not transcription:
            return {"model": self.model}
        intent = {"intent": "transcription"}
        return intent if self.provider in ("openai", "azure") else {"model": self.model, **intent}

    def credentials(self) -> dict[str, str]:
        """The header with the key; empty if a command prints tokens."""
        key = self.key.reveal()
        if not key or self.token_command:
            return {}
        return {"api-key": key} if self.provider == "azure" else {"Authorization": f"Bearer {key}"}

    def identification(self, user: str) -> dict[str, str]:
        """The header with a pseudonym of the user, if the provider requires one.

        It is the same in every session, and does not reveal the user's name.
        """
        secret = self.pseudonym_secret.reveal() or self.key.reveal()
        if not (user and secret) or self.provider not in ("openai", "azure"):
            return {}
        digest = hmac.new(secret.encode(), user.encode(), hashlib.sha256).digest()
        pseudonym = base64.urlsafe_b64encode(digest).decode()[:IDENTIFIER_CHARACTERS]
        return {"OpenAI-Safety-Identifier": pseudonym}

    def _hidden(self, headers: Mapping[str, str]) -> tuple[bytes, ...]:
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        words = (self.key.reveal(), token, URL(self.url).host or "")
        return tuple(word.encode() for word in words if len(word) >= MIN_HIDDEN_CHARACTERS)

    def connected(
        self, *, user: str = "", transcription: bool = False
    ) -> AbstractAsyncContextManager[Opened]:
        """A session of the upstream server, closed at the end. Raises UpstreamRefused."""
        query = self.query(transcription=transcription)
        return self._connection(query, user, CONNECT_TIMEOUT_S, begins=True)

    def attached(
        self, call_id: str, *, user: str = "", timeout_s: float = CONNECT_TIMEOUT_S
    ) -> AbstractAsyncContextManager[Opened]:
        """The sideband of a call, closed at the end of the block.

        Raises UpstreamRefused. It need not begin with session.created.
        """
        return self._connection({"call_id": call_id}, user, timeout_s, begins=False)

    @asynccontextmanager
    async def http(self, user: str) -> AsyncGenerator[tuple[HttpClient, dict[str, str]]]:
        """The client of this server, and the headers of one request. Raises UpstreamRefused."""
        headers = await self._headers(user)
        http = await self._acquire(headers)
        try:
            yield http, headers
        except UpstreamRefused:
            raise
        except EngineError as exc:
            raise _unreachable(exc) from exc
        finally:
            await self.client.release()

    async def _headers(self, user: str) -> dict[str, str]:
        """Of one request. A token is requested from the command each time, because it may expire
        within the hour."""
        headers = self.identification(user)
        if self.token_command:
            headers["Authorization"] = f"Bearer {await _printed(self.token_command)}"
        return headers

    async def _acquire(self, headers: Mapping[str, str]) -> HttpClient:
        address = "http" + self.url.removeprefix("ws")
        http = await self.client.acquire(_Server(address, _KIND, headers=self.credentials()))
        http.server.hide(*headers.values())
        return http

    @asynccontextmanager
    async def _connection(
        self, query: Mapping[str, str], user: str, timeout_s: float, *, begins: bool
    ) -> AsyncGenerator[Opened]:
        """A WebSocket to the server, closed at the end. Raises UpstreamRefused.

        begins: it begins with session.created. One generator for a session, which lasts as long:
        each takes 600 bytes.
        """
        headers = await self._headers(user)
        http = await self._acquire(headers)
        try:
            socket = await self._socket(http, query, headers, timeout_s)
            try:
                expires_in = await _expiry(socket) if begins else float("inf")
                yield Opened(socket, expires_in, self._hidden(headers))
            finally:
                with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        await socket.close()
        finally:
            await self.client.release()

    async def _socket(
        self, http: HttpClient, query: Mapping[str, str], headers: Mapping[str, str], late_s: float
    ) -> UpstreamSocket:
        """Raises UpstreamRefused."""
        try:
            return await http.connect_websocket(
                "",
                query=query,
                headers=headers,
                max_message_bytes=MAX_FRAME_BYTES,
                heartbeat_s=self.heartbeat_s,
                timeout_s=late_s,
            )
        except UpstreamRefused:
            raise
        except EngineError as exc:
            raise _unreachable(exc) from exc


def without_words(
    event: UpstreamEvent, raw: bytes, hidden: tuple[bytes, ...]
) -> tuple[UpstreamEvent, bytes]:
    """Log an event that reports a failure; return it with its frame, without these words."""
    for word in hidden:
        pattern = re.escape(word).replace(b"/", rb"\\?/")  # JSON may escape a slash
        raw = re.sub(pattern, b"***", raw, flags=re.IGNORECASE)
    log.warning("an upstream server: %s", masked(raw[:500]).decode(errors="replace"))
    return read_upstream(raw), raw


def _unreachable(exc: EngineError) -> UpstreamRefused:
    log.error("%s", exc)
    reason = "the upstream server cannot be reached"
    return UpstreamRefused(Fault("unreachable", reason, hold_s=MIN_PROBE_PAUSE_S))


async def _expiry(socket: UpstreamSocket) -> float:
    """Seconds to the end of the session in the first frame, which may be an error instead."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            message = await socket.receive()
    except TimeoutError as exc:
        raise UpstreamRefused(
            Fault("unreachable", "the upstream server opened no session in time")
        ) from exc
    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        raise UpstreamRefused(Fault("closed", "the upstream server closed the connection at once"))
    raw = message.data.encode() if isinstance(message.data, str) else message.data
    event = read_upstream(raw)
    if event.type == "error":
        log.error("an upstream server opened no session: %s", raw[:300].decode(errors="replace"))
        fault = fault_of(event.error)
        raise UpstreamRefused(fault or Fault("refused", "the upstream server refused the session"))
    return _expires_in(raw)


def _expires_in(raw: bytes) -> float:
    try:
        session: Any = msgspec.json.decode(raw).get("session") or {}
        expires_at = float(session.get("expires_at") or "inf")
    except (AttributeError, TypeError, ValueError, msgspec.DecodeError):
        return float("inf")
    return max(0.0, expires_at - time.time())


async def _printed(command: tuple[str, ...]) -> str:
    """The one line that the command prints. Raises UpstreamRefused."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
    except OSError as exc:
        log.error("token_command %r cannot be run: %s", command[0], exc)
        raise UpstreamRefused(_NO_TOKEN) from exc
    try:
        async with asyncio.timeout(TOKEN_TIMEOUT_S):
            printed, _ = await process.communicate()
    except TimeoutError:
        printed = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    token = printed.decode(errors="replace").strip()
    if process.returncode or not token or not token.isascii() or not token.isprintable():
        log.error("token_command %r printed no token (%s)", command[0], process.returncode)
        raise UpstreamRefused(_NO_TOKEN)
    return token
