"""The HTTP endpoints that take a body, and the query of a client that comes back."""

import json
from asyncio import timeout
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from aiohttp import WSMsgType
from yarl import URL

from tests.api.audio_stage import tone
from tests.api.routes_stage import wav_of
from tests.protocol.client_samples import BETA_CLIENT_EVENTS, GA_CLIENT_EVENTS, TOOLS
from tests.server import Server
from vivavoce.errors import SettingsError
from vivavoce.settings_sources import load_tree

MAX_TEXT_BYTES = 500_000
WAIT_SECONDS = 60.0  # for one answer: a bound, never a pace
OFFER = Path(__file__).parents[1] / "data" / "sdp" / "chromium.sdp"
GA_SESSIONS: list[Any] = [e["session"] for e in GA_CLIENT_EVENTS if e["type"] == "session.update"]
BETA_SESSIONS: list[Any] = [
    e["session"] for e in BETA_CLIENT_EVENTS if e["type"].endswith("session.update")
]
SECRETS: list[Any] = [
    {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": session}
    for session in GA_SESSIONS
]
CHATS: list[Any] = [
    {"model": "default", "messages": [{"role": "user", "content": "Hi"}]},
    {
        "model": "default",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi"},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                ],
            },
            {"role": "assistant", "audio": {"id": "audio_1", "transcript": "Hello"}},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "pcm16"},
        "max_completion_tokens": 50,
        "n": 1,
    },
    {
        "model": "default",
        "messages": [{"role": "user", "content": "Hi"}],
        "modalities": ["text", "audio"],
        "audio": {"voice": {"id": "alloy"}, "format": "mp3"},
        "max_tokens": 10,
        "tools": [{"type": "function", "function": TOOLS[0]}],
        "tool_choice": "auto",
    },
]
SPEECHES: list[Any] = [
    {"model": "tts-1", "input": "Hello there.", "voice": "alloy"},
    {
        "model": "default",
        "input": "Hello.",
        "voice": {"id": "ash"},
        "response_format": "wav",
        "speed": 1.5,
        "instructions": "Slowly.",
        "stream_format": "sse",
    },
]
STARTS: list[Any] = [
    {"transport": "webrtc", "enableDefaultIceServers": True, "body": {"voice": "coral"}},
    {"createDailyRoom": False, "transport": "websocket", "body": {"model": "m", "language": "de"}},
]
_SDP = OFFER.read_text(encoding="utf-8")
OFFERS: list[Any] = [
    {"sdp": _SDP, "type": "offer", "request_data": {"voice": "coral", "resume_token": "t" * 30}},
    {"sdp": "v=0", "type": "offer", "pc_id": "rtc_00", "restart_pc": True},
    {"offer": json.dumps({"sdp": _SDP, "type": "offer"})},
]
CANDIDATES: list[Any] = [
    {
        "pc_id": "rtc_00",
        "candidates": [
            {
                "candidate": "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host",
                "sdp_mid": "0",
                "sdp_mline_index": 0,
            }
        ],
    }
]
TRANSCRIPTIONS: list[Any] = [
    {
        "model": "whisper-1",
        "response_format": "verbose_json",
        "language": "en",
        "prompt": "Names.",
        "temperature": 0.2,
        "timestamp_granularities[]": ["word", "segment"],
        "include[]": ["logprobs"],
        "stream": False,
        "keywords": ["a"],
        "chunking_strategy": {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 200},
    },
    {
        "model": "default",
        "response_format": "diarized_json",
        "stream": True,
        "known_speaker_names[]": ["ada"],
        "known_speaker_references[]": ["data:audio/wav;base64,AAAA"],
        "threshold": 0.5,
        "hallucination_silence_threshold": 1,
    },
]
HOOKS: list[Any] = [
    {"provider": "twilio", "CallSid": "CA1", "AccountSid": "AC1", "From": "+1", "To": "+2"},
    {"CallFrom": "1", "CallTo": "2", "voice": "coral", "greeting": "Hi."},
    {"CallControlId": "v3:1", "CallUUID": "u", "model": "m"},
]
KEYS: list[Any] = [
    {"name": "ada", "user": "u", "team": "t", "days": 1.5, "max_sessions": 2, "models": ["m"]},
    {"name": "bob", "admin": True, "max_requests": 3},
]
OWNERS: list[Any] = [{"team": "t", "blocked": False}, {"blocked": True}]
BUDGETS: list[Any] = [
    {"scope": "user", "name": "u", "limit": "2.50", "unit": "usd", "period": "day"},
    {
        "scope": "key",
        "name": "ada",
        "limit": "20",
        "unit": "seconds",
        "period": "month",
        "timezone": "Europe/Berlin",
    },
]
SETTINGS: list[Any] = [
    {
        "cluster": {
            "address": "http://10.0.0.1:8080",
            "node": "one",
            "redis": "redis://10.0.0.9:6379/0",
            "lease_seconds": 10.0,
            "when_away": "serve",
        },
        "store": {
            "url": "sqlite:/tmp/x.db",
            "usage_days": 30,
            "when_away": "serve",
            "away_seconds": 60.0,
            "allowance": 4,
            "journal": "/tmp/journal",
        },
        "spend": {"admin_key": "sk-admin", "project": "proj_1", "url": "https://a.example/v1"},
        "resume": {
            "enabled": True,
            "grace_seconds": 15.0,
            "keep_seconds": 60,
            "finish_answers": False,
        },
        "server": {"secret": "s", "origins": ["https://a.example"], "hosts": ["a.example"]},
    },
    {
        "models": {"default": {"llm": ["a", "b"], "tts": "scripted", "type": "cascade"}},
        "engines": {
            "llm": {
                "a": {
                    "engine": "openai",
                    "base_url": ["http://a/v1", "http://b/v1"],
                    "pool": {"weights": [1, 2], "check_seconds": 5, "affinity": True},
                }
            }
        },
        "keys": {"ada": "sha256:00"},
        "session": {"voice": "marin", "max_seconds": 60},
        "webrtc": {"gone_seconds": 5, "udp_ports": "40000-40100"},
        "recorder": {"enabled": True, "folder": "/tmp/r"},
        "aliases": {"gpt-4o": ["default"]},
        "prices": {"gpt-4o": {"text_input": 1.0}},
    },
]
WAV = wav_of(tone(0.2))
NAMES = ("ada", "b%20c", "%ED%A0%BD", "%00", "x" * 300, "..", "%2e%2e%2f")
"""Of what is changed, as they stand in a path."""


class Wrong(AssertionError):
    """The server did not answer as it should."""


class BodyEntrance:
    """An HTTP endpoint with a JSON body."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        server: str,
        path: str,
        samples: list[Any],
        method: str = "POST",
        *,
        session_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """server: its address. path: that of a route. session_id: of one that was promised."""
        self.samples = samples
        self.operation = (method, path)
        self._http = http
        self._server = server
        self._path = path.replace("{session_id}", session_id)
        self._headers = headers or {}

    async def send(self, raw: bytes, rng: Random) -> str:
        kind = rng.choice(("application/json", "application/json", "text/plain", "a/b; charset=x"))
        headers = {**self._headers, "Content-Type": kind}
        return await self._send(rng, data=BytesIO(raw), headers=headers)

    async def close(self) -> None:
        """There is nothing to close."""

    async def _send(self, rng: Random, **request: Any) -> str:
        url = self._server + self._path.format(name=rng.choice(NAMES), provider="twilio")
        async with (
            timeout(WAIT_SECONDS),
            self._http.request(self.operation[0], URL(url, encoded=True), **request) as response,
        ):
            body = await response.read()
            await self._answered(response, body)
        if response.status >= 500:
            raise Wrong(f"{response.status} {body[:300]!r}")
        if response.status >= 400 and not json.loads(body)["error"]["message"]:
            raise Wrong(f"{response.status} without a message")
        return str(response.status)

    async def _answered(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        """Undo what the request began."""

    async def _hang_up(self, call_id: str) -> None:
        await hang_up(self._http, self._server, call_id)


async def hang_up(http: aiohttp.ClientSession, server: str, call_id: str) -> None:
    async with http.post(f"{server}/v1/realtime/calls/{call_id}/hangup") as ended:
        if ended.status != 200:
            raise Wrong(f"the call could not be hung up: {ended.status}")


class CallEntrance(BodyEntrance):
    """The settings in the form that makes a call."""

    async def send(self, raw: bytes, rng: Random) -> str:
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("sdp", OFFER.read_text(encoding="utf-8"), content_type="application/sdp")
        form.add_field("session", _field(raw), content_type="application/json")
        return await self._send(rng, data=form)

    async def _answered(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        if response.status == 201:
            await self._hang_up(response.headers["Location"].rpartition("/")[2])


class OfferEntrance(BodyEntrance):
    """An offer of a small-webrtc client."""

    async def _answered(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        if response.status == 200:
            answer = json.loads(body)
            if call_id := answer.get("data", answer).get("pc_id", ""):
                await self._hang_up(call_id)


class FormEntrance(BodyEntrance):
    """A sound file, and the values of an object as the fields beside it."""

    async def send(self, raw: bytes, rng: Random) -> str:
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("file", WAV, filename="a.wav", content_type="audio/wav")
        for name, value in fields_of(raw):
            form.add_field(quote(name, safe="[]"), _field(value))  # aiohttp sends ASCII only
        return await self._send(rng, data=form)


class HookEntrance(BodyEntrance):
    """The form of a telephone provider."""

    async def send(self, raw: bytes, rng: Random) -> str:
        body = urlencode(fields_of(raw)).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._send(rng, data=BytesIO(body), headers=headers)


def fields_of(raw: bytes) -> list[tuple[str, bytes]]:
    """The members of an object as a form has them; another text is the field `model`."""
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        tree = {"model": raw.decode(errors="replace")}
    found = []
    for name, value in (tree if isinstance(tree, dict) else {"model": tree}).items():
        for one in value if isinstance(value, list) and len(value) < 20 else [value]:
            text = one if isinstance(one, str) else json.dumps(one)
            found.append((_utf8(name), _utf8(text).encode()))
    return found


def query_of(raw: bytes) -> list[tuple[str, str]]:
    """The members of an object as a query has them."""
    return [(name, value.decode()) for name, value in fields_of(raw[:4_000])]


def _field(value: bytes) -> str | BytesIO:
    """As text, unless it is none, or so long that the client library warns of it."""
    try:
        return value.decode() if len(value) < MAX_TEXT_BYTES else BytesIO(value)
    except UnicodeDecodeError:
        return BytesIO(value)


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()


class QueryEntrance:
    """The query with which a client comes back to its conversation, on a WebSocket."""

    operation = ("GET", "/v1/realtime")

    def __init__(self, http: aiohttp.ClientSession, server: Server, path: str) -> None:
        self.samples: list[Any] = []
        self._http = http
        self._url = URL(server.ws + path)

    async def begin(self) -> None:
        """Have a conversation, to which all come back."""
        async with self._http.ws_connect(self._url) as socket:
            created = await socket.receive_json()
        named = {
            "session_id": created["session"]["id"],
            "resume_token": created["resume"]["token"],
        }
        self.samples += [
            {**named, "last_event_id": created["event_id"], "items": "1", "finish": "0"},
            {**named, "heard_item": "item_1", "heard_ms": "700", "finish": "1"},
            {"resume_token": "a-token-of-the-client-itself", "model": "m"},
        ]

    async def send(self, raw: bytes, rng: Random) -> str:
        try:
            async with (
                timeout(WAIT_SECONDS),
                self._http.ws_connect(self._url.extend_query(query_of(raw))) as socket,
            ):
                return await self._greeted(socket)
        except aiohttp.WSServerHandshakeError as exc:
            if exc.status >= 500:
                raise Wrong(f"{exc.status} {exc.message}") from exc
            return str(exc.status)

    async def _greeted(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        with suppress(ConnectionError):  # it was refused
            await socket.send_json({"label": "rtvi-ai", "id": "1", "type": "client-ready"})
        message = await socket.receive()
        if message.type is WSMsgType.BINARY:  # protobuf, until the client has sent JSON
            return "refused"
        if message.type is not WSMsgType.TEXT:
            if socket.close_code not in (1008, 1013, 3000):
                raise Wrong(f"closed with {socket.close_code} without a word")
            return f"closed {socket.close_code}"
        event = json.loads(message.data)
        if event["type"] == "error" and event["error"]["type"] == "server_error":
            raise Wrong(f"server_error: {event}")
        return "resumed" if event.get("resumed") else str(event["type"])

    async def close(self) -> None:
        """There is nothing to close."""


class CallQueryEntrance(QueryEntrance):
    """... on a call, with an offer."""

    operation = ("POST", "/v1/realtime/calls")

    def __init__(self, http: aiohttp.ClientSession, server: Server) -> None:
        super().__init__(http, server, "/v1/realtime")
        self._server = server.http

    async def send(self, raw: bytes, rng: Random) -> str:
        url = URL(self._server + self.operation[1]).extend_query(query_of(raw))
        sdp = {"Content-Type": "application/sdp"}
        async with (
            timeout(WAIT_SECONDS),
            self._http.post(url, data=_SDP, headers=sdp) as response,
        ):
            body = await response.text()
        if response.status == 201:
            call_id = response.headers["Location"].rpartition("/")[2]
            await hang_up(self._http, self._server, call_id)
        elif response.status >= 500:
            raise Wrong(f"{response.status} {body[:300]}")
        return str(response.status)


class SettingsEntrance:
    """The tree of a settings file: it is taken, or refused with SettingsError."""

    operation = ("", "settings")

    def __init__(self) -> None:
        self.samples = SETTINGS

    async def send(self, raw: bytes, rng: Random) -> str:
        try:
            tree = msgspec.json.decode(raw)
        except (ValueError, RecursionError):
            return "no JSON"
        if not isinstance(tree, dict):
            return "no table"
        try:
            load_tree(tree, "vivavoce.toml", {}, {})
        except SettingsError as exc:
            if not str(exc):
                raise Wrong("it is refused without a reason") from exc
            return "refused"
        return "accepted"

    async def close(self) -> None:
        """There is nothing to close."""


def bodies(
    http: aiohttp.ClientSession, server: Server, session_id: str, admin: Server, key: str
) -> dict[str, BodyEntrance]:
    """By name. session_id: that /start has promised. admin: a server with records; key: of an admin
    there."""
    found: dict[str, BodyEntrance] = {}
    for name, path, kind, samples in (
        ("chat", "/v1/chat/completions", BodyEntrance, CHATS),
        ("speech", "/v1/audio/speech", BodyEntrance, SPEECHES),
        ("client secret", "/v1/realtime/client_secrets", BodyEntrance, SECRETS),
        ("beta session", "/v1/realtime/sessions", BodyEntrance, BETA_SESSIONS[:1]),
        (
            "beta transcription session",
            "/v1/realtime/transcription_sessions",
            BodyEntrance,
            BETA_SESSIONS[1:],
        ),
        ("GA call", "/v1/realtime/calls", CallEntrance, GA_SESSIONS),
        ("beta call", "/v1/realtime", CallEntrance, BETA_SESSIONS),
        ("start", "/start", BodyEntrance, STARTS),
        ("Voxray start", "/api/v1/start", BodyEntrance, STARTS),
        ("connect", "/connect", BodyEntrance, STARTS),
        ("offer", "/api/offer", OfferEntrance, OFFERS),
        ("session offer", "/sessions/{session_id}/api/offer", OfferEntrance, OFFERS),
        ("Voxray session offer", "/api/v1/sessions/{session_id}/offer", OfferEntrance, OFFERS),
        ("Voxray offer", "/webrtc/offer", OfferEntrance, OFFERS),
        ("Voxray offer v1", "/api/v1/webrtc/offer", OfferEntrance, OFFERS),
        ("transcription", "/v1/audio/transcriptions", FormEntrance, TRANSCRIPTIONS),
        ("translation", "/v1/audio/translations", FormEntrance, TRANSCRIPTIONS),
        ("timestamps", "/v1/audio/speech/timestamps", FormEntrance, TRANSCRIPTIONS),
        ("embedding", "/v1/audio/speech/embedding", FormEntrance, TRANSCRIPTIONS),
        ("diarization", "/v1/audio/diarization", FormEntrance, TRANSCRIPTIONS),
        ("telephone", "/", HookEntrance, HOOKS),
        ("telephone provider", "/telephony/{provider}", HookEntrance, HOOKS),
    ):
        found[name] = kind(http, server.http, path, samples, session_id=session_id)
    for name, path in (
        ("candidates", "/api/offer"),
        ("session candidates", "/sessions/{session_id}/api/offer"),
        ("Voxray candidates", "/api/v1/sessions/{session_id}/offer"),
    ):
        found[name] = BodyEntrance(
            http, server.http, path, CANDIDATES, "PATCH", session_id=session_id
        )
    there = {"Authorization": f"Bearer {key}"}
    for name, method, path, samples in (
        ("admin keys", "POST", "/v1/admin/keys", KEYS),
        ("admin users", "PUT", "/v1/admin/users/{name}", OWNERS),
        ("admin teams", "PUT", "/v1/admin/teams/{name}", OWNERS),
        ("admin budgets", "PUT", "/v1/admin/budgets", BUDGETS),
    ):
        found[name] = BodyEntrance(http, admin.http, path, samples, method, headers=there)
    return found
