"""A client of a Realtime server: its address, the WebSocket to it, and the events on it.

Events of the server are not checked against the types of this package: other servers add fields,
omit some, and have events of their own. A value that is absent or of another type reads as empty.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aiohttp
import msgspec
from aiohttp import WSMsgType

from vivavoce.errors import SettingsError, VoiceError
from vivavoce.secret import Secret
from vivavoce.talk.options import DEFAULT_MODEL, Timeouts

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
NOT_AN_EVENT: Final = "(not an event)"
TRANSCRIPTION_MODEL: Final = "gpt-4o-mini-transcribe"
TRUNCATE_ID: Final = "talk_truncate"
"""The event_id of every truncation. A server may refuse one because all of the audio was played
already: that is not a failure of the turn."""
_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_PATH: Final = "/realtime"


def endpoint(url: str, model: str = "") -> str:
    """The WebSocket address for what the user typed. Raises SettingsError.

    A base such as http://localhost:8080 or https://api.openai.com/v1 is completed; without a scheme
    it is ws://. `model` takes precedence over the one in the address.
    """
    typed = url.strip()
    try:
        parts = urlsplit(typed if "://" in typed else f"ws://{typed}")
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise _bad_url(url, str(exc)) from exc
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise _bad_url(url, f"{parts.scheme}:// is none of {', '.join(_SCHEMES)}")
    if not host:
        raise _bad_url(url, "it names no host")
    if "@" in parts.netloc:
        raise _bad_url(url, "it holds a user or password; give a key with --api-key")
    path = parts.path.rstrip("/")
    if not path.endswith(_PATH):
        path += _PATH if path.endswith("/v1") else f"/v1{_PATH}"
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query["model"] = model or query.get("model") or DEFAULT_MODEL
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


def without_query(address: str) -> str:
    """An address for messages, without the query, which may hold a key."""
    return urlunsplit((*urlsplit(address)[:3], "", ""))


def _bad_url(url: str, reason: str) -> SettingsError:
    place = url.split("@")[-1]  # messages must not show a password
    return SettingsError(
        f"{place!r} is not the address of a Realtime server: {reason}; "
        f"write it like ws://localhost:8080/v1/realtime"
    )


class Event:
    """One event, sent or received."""

    __slots__ = ("fields", "type")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        kind = fields.get("type")
        self.type = kind if isinstance(kind, str) and kind else NOT_AN_EVENT
        self.fields = fields

    def get(self, *path: str) -> Any:
        """The value at a path of keys; None if absent."""
        found: Any = self.fields
        for key in path:
            if not isinstance(found, Mapping):
                return None
            found = found.get(key)
        return found

    def text(self, *path: str) -> str:
        """The text at a path; "" if absent."""
        found = self.get(*path)
        return found if isinstance(found, str) else ""

    def pcm(self) -> bytes:
        """The PCM in `audio` (of a sent event) or `delta` (of a received one); b"" without any."""
        found = self.get("audio") or self.get("delta")
        if isinstance(found, bytes):
            return found
        try:
            return msgspec.convert(found, bytes)  # base64 on the wire
        except msgspec.ValidationError:
            return b""

    def __repr__(self) -> str:
        return f"Event({self.type!r})"


_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def decode(frame: bytes) -> Event:
    """The event in a frame; of type NOT_AN_EVENT if it holds none."""
    try:
        fields = _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Event({})
    return Event(fields if isinstance(fields, dict) else {})


def encode(event: Event) -> bytes:
    """The frame of an event."""
    return _encoder.encode(event.fields)


def session_update(
    *, voice: str, instructions: str, spoken: bool, transcription: bool
) -> Event | None:
    """The settings of the conversation; None without any option.

    spoken: audio will be sent, and the server has to detect the turns. transcription: request
    transcripts of the user, which the server does not send by default.
    """
    session: dict[str, Any] = {}
    audio: dict[str, Any] = {}
    if instructions:
        session["instructions"] = instructions
    if spoken:
        audio["input"] = {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {"type": "server_vad"},
        }
        if transcription:
            audio["input"]["transcription"] = {"model": TRANSCRIPTION_MODEL}
    if voice:
        audio["output"] = {"voice": voice}
    if audio:
        session["audio"] = audio
    if not session:
        return None
    return Event({"type": "session.update", "session": {"type": "realtime", **session}})


def append_audio(pcm24: bytes) -> Event:
    return Event({"type": "input_audio_buffer.append", "audio": pcm24})


def user_text(text: str) -> Event:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    return Event({"type": "conversation.item.create", "item": item})


def response_create() -> Event:
    return Event({"type": "response.create"})


def truncate(item_id: str, content_index: int, audio_end_ms: int) -> Event:
    return Event(
        {
            "type": "conversation.item.truncate",
            "event_id": TRUNCATE_ID,
            "item_id": item_id,
            "content_index": content_index,
            "audio_end_ms": audio_end_ms,
        }
    )


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection is over, and why."""

    reason: str


class ServerConnection(Protocol):
    """Frames to and from a server. After a ConnectionLost, sent frames are discarded."""

    async def send(self, frame: bytes) -> None: ...

    async def receive(self) -> bytes | ConnectionLost: ...


class WebSocketConnection:
    """A ServerConnection over aiohttp."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, timeouts: Timeouts) -> None:
        self._socket = socket
        self._timeouts = timeouts
        self._lost = ""

    async def send(self, frame: bytes) -> None:
        if self._lost or self._socket.closed:
            return
        try:
            async with asyncio.timeout(self._timeouts.connect):
                await self._socket.send_frame(frame, WSMsgType.TEXT)
        except TimeoutError:
            self._lost = f"the server has taken nothing for {self._timeouts.connect:g} s"
            await self._socket.close()
        except ConnectionError:
            self._lost = "the connection broke"

    async def receive(self) -> bytes | ConnectionLost:
        message = await self._socket.receive()
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY:
                data = message.data
                return data.encode() if isinstance(data, str) else bytes(data)
            case WSMsgType.CLOSE:
                reason = f": {message.extra}" if message.extra else ""
                return ConnectionLost(f"the server closed the connection ({message.data}){reason}")
            case WSMsgType.ERROR:
                return ConnectionLost(f"the connection broke: {message.data}")
            case _:
                return ConnectionLost(self._lost or "the server closed the connection")


class ServerLost(VoiceError):
    """A server refuses the connection, has ended it, or does not answer. The message says why."""

    status: int | None = None
    """The HTTP status with which it refused the connection."""


async def open_socket(
    http: aiohttp.ClientSession, address: str, timeout_s: float, **options: Any
) -> aiohttp.ClientWebSocketResponse:
    """A WebSocket to `address`. Raises ServerLost, which says what to do.

    options: of ClientSession.ws_connect().
    """
    place = without_query(address)
    try:
        async with asyncio.timeout(timeout_s):
            socket: aiohttp.ClientWebSocketResponse = await http.ws_connect(address, **options)
    except TimeoutError as exc:
        raise ServerLost(
            f"no server answers at {place} within {timeout_s:g} s; is the address right?"
        ) from exc
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        lost = ServerLost(connect_error(place, exc))
        if isinstance(exc, aiohttp.WSServerHandshakeError):
            lost.status = exc.status
        raise lost from exc
    return socket


@asynccontextmanager
async def connect(
    address: str, api_key: Secret, timeouts: Timeouts
) -> AsyncIterator[WebSocketConnection]:
    """A connection to `address`. Raises SettingsError, which says what to do, if it fails."""
    headers = {"Authorization": f"Bearer {api_key.reveal()}"} if api_key else {}
    async with AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=None)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        try:
            socket = await open_socket(
                http,
                address,
                timeouts.connect,
                headers=headers,
                max_msg_size=MAX_FRAME_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=timeouts.close),
            )
        except ServerLost as exc:
            raise SettingsError(str(exc)) from exc
        stack.push_async_callback(socket.close)
        yield WebSocketConnection(socket, timeouts)


def error_message(error: object) -> str:
    """The message of an error event's `error`, with the remedy for a wrong key; "" without one."""
    fields = error if isinstance(error, dict) else {}
    message = str(fields.get("message") or "")
    if fields.get("code") == "invalid_api_key":
        return f"{message} This command takes it from --api-key or OPENAI_API_KEY."
    return message


def connect_error(place: str, exc: Exception) -> str:
    """Why there is no connection to that address, and the remedy, in one sentence."""
    match exc:
        case aiohttp.WSServerHandshakeError(status=401 | 403 as status):
            return (
                f"the server at {place} does not accept the key ({status}); "
                f"give it with --api-key or in OPENAI_API_KEY"
            )
        case aiohttp.WSServerHandshakeError(status=404):
            return f"there is no Realtime API at {place} (404); check the path of the address"
        case aiohttp.WSServerHandshakeError(status=503):
            return f"the server at {place} takes no more sessions just now (503); try again later"
        case aiohttp.WSServerHandshakeError(status=status):
            return f"the server at {place} refuses the connection: HTTP {status}; check the address"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return f"no trustworthy TLS at {place}: {exc}; check its certificate, or use ws://"
        case aiohttp.ClientConnectorDNSError():
            return f"no server answers at {place}: the host is not known; check the address"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return (
                f"no server answers at {place}: connection refused; start one with `vivavoce serve`"
            )
        case aiohttp.ClientConnectorError(os_error=cause):
            return f"no server answers at {place}: {cause.strerror or cause}; check the address"
        case _:
            return f"what answers at {place} is no Realtime server: {exc}; check the address"
