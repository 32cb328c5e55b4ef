"""A WebSocket to the server under test; everything on it is recorded."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.check.recording import CheckRecording, EventFields, RecordedEvent, at
from vivavoce.secret import Secret
from vivavoce.talk.client import ServerLost, open_socket

CHUNK_MS: Final = 100
"""The length of the audio in one input_audio_buffer.append."""
TRAILING_SILENCE_MS: Final = 1500
CLOSE_TIMEOUT_S: Final = 2.0
_decoder = msgspec.json.Decoder()


@dataclass(frozen=True, kw_only=True)
class CheckTarget:
    """The server under test, and how to talk to it."""

    url: str
    """The WebSocket address without a query, ws://localhost:8080/v1/realtime."""
    model: str
    api_key: Secret = Secret()
    timeout_s: float = 30.0
    """The time limit for one event."""
    settle_s: float = 0.5
    """After so long without an event, the server is assumed to have sent everything."""
    speech: bytes = b""
    """One spoken sentence, PCM at 24 kHz; empty: no speech is sent."""
    real_time: bool = True
    """Whether audio is sent in real time."""

    @property
    def http(self) -> str:
        """The base of the HTTP endpoints, http://localhost:8080/v1."""
        return "http" + self.url.removeprefix("ws").removesuffix("/realtime")

    @property
    def headers(self) -> dict[str, str]:
        """The API key, if there is one."""
        key = self.api_key.reveal()
        return {"Authorization": f"Bearer {key}"} if key else {}


class EventMissing(Exception):
    """What the scenario waited for did not arrive in time."""


class CheckConnection:
    """Sends, receives and records the events of one connection."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        target: CheckTarget,
        recording: CheckRecording,
    ) -> None:
        self.target = target
        self.recording = recording
        self._socket = socket
        self._began = time.monotonic()
        self._count = 0

    async def send(self, kind: str, **fields: Any) -> str:
        """Send an event; returns its event_id."""
        self._count += 1
        event_id = fields.pop("event_id", f"check_{self._count}")
        event = {"type": kind, "event_id": event_id, **fields}
        await self.send_raw(msgspec.json.encode(event), event)
        return str(event_id)

    async def send_raw(self, frame: bytes, event: EventFields) -> None:
        """Send a frame; `event` is what the recording shows for it."""
        self._record(sent=True, event=event)
        try:
            await self._socket.send_str(frame.decode())
        except (ConnectionError, aiohttp.ClientError) as exc:
            raise ServerLost(f"the connection is lost: {exc}") from exc

    async def receive(self, timeout_s: float) -> EventFields:
        """The next event. Raises TimeoutError and ServerLost."""
        async with asyncio.timeout(timeout_s):
            message = await self._socket.receive()
        notes = self.recording.notes
        if message.type is aiohttp.WSMsgType.BINARY:
            notes["binary_frames"] = notes.get("binary_frames", 0) + 1
        if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            notes["close_code"] = self._socket.close_code
            notes["close_reason"] = str(message.extra or "")
            raise ServerLost(f"the server closed the connection: {self._socket.close_code}")
        try:
            event = _decoder.decode(message.data)
        except (msgspec.DecodeError, UnicodeError):
            event = {"type": "(not JSON)", "frame": str(message.data)[:200]}
        if not isinstance(event, dict):
            event = {"type": "(not an object)", "frame": str(message.data)[:200]}
        self._record(sent=False, event=event)
        return event

    async def until(
        self, *kinds: str, where: Callable[[EventFields], bool] | None = None
    ) -> EventFields:
        """Read to the first event of these types. Raises EventMissing and ServerLost."""
        deadline = time.monotonic() + self.target.timeout_s
        while True:
            try:
                event = await self.receive(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                what = f"no {' or '.join(kinds)} came within {self.target.timeout_s:g} s"
                self.recording.missing.append(what)
                raise EventMissing(what) from None
            if event.get("type") in kinds and (where is None or where(event)):
                return event

    async def reply(self, event_id: str, *kinds: str) -> EventFields:
        """The event that answers one of the client's, or the error that names it."""
        return await self.until(
            *kinds,
            "error",
            where=lambda e: e.get("type") != "error" or at(e, "error", "event_id") == event_id,
        )

    async def response(self, name: str, **params: Any) -> EventFields:
        """Request a response, note its id by that name, and wait for its end."""
        created = await self.begin_response(name, **params)
        return await self.response_end(created)

    async def begin_response(self, name: str, **params: Any) -> EventFields:
        """Request a response and wait until it is created. Raises EventMissing."""
        event_id = await self.send("response.create", response=params)
        created = await self.reply(event_id, "response.created")
        if created.get("type") == "error":
            what = f"response.create was refused: {at(created, 'error', 'message')}"
            self.recording.missing.append(what)
            raise EventMissing(what)
        self.recording.notes[name] = at(created, "response", "id")
        return created

    async def response_end(self, created: EventFields) -> EventFields:
        """Wait for the response.done of a response."""
        key = at(created, "response", "id")
        return await self.until("response.done", where=lambda e: at(e, "response", "id") == key)

    async def settle(self, seconds: float | None = None) -> None:
        """Read until nothing has arrived for some time."""
        try:
            while True:
                await self.receive(self.target.settle_s if seconds is None else seconds)
        except TimeoutError:
            pass

    async def speak(self, pcm: bytes, silence_ms: int = TRAILING_SILENCE_MS) -> None:
        """Send audio and then silence, in chunks. Needs a target with speech."""
        audio = pcm + bytes(silence_ms * BYTES_PER_MS)
        step = CHUNK_MS * BYTES_PER_MS
        due = time.monotonic()
        for start in range(0, len(audio), step):
            piece = base64.b64encode(audio[start : start + step]).decode()
            await self.send("input_audio_buffer.append", audio=piece)
            due += CHUNK_MS / 1000
            if self.target.real_time:
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _record(self, *, sent: bool, event: EventFields) -> None:
        now = time.monotonic() - self._began
        self.recording.entries.append(RecordedEvent(now, sent, event))


@asynccontextmanager
async def connected(
    target: CheckTarget,
    recording: CheckRecording,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    protocols: tuple[str, ...] = (),
) -> AsyncIterator[CheckConnection]:
    """A connection whose events are recorded. Raises ServerLost if it cannot be made.

    query: instead of ?model=. headers: instead of the key.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
        try:
            socket = await open_socket(
                http,
                target.url,
                target.timeout_s,
                params=dict(query or {"model": target.model}),
                headers=target.headers if headers is None else headers,
                protocols=protocols,
                max_msg_size=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
        except ServerLost as exc:
            recording.notes["status"] = exc.status
            raise
        recording.notes["subprotocol"] = socket.protocol
        try:
            yield CheckConnection(socket, target, recording)
        finally:
            await socket.close()
