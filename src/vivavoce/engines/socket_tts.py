"""Synthesis over a WebSocket that all texts share: each has a context, which names its messages.

An engine of this kind says what it sends and reads what it gets; the rest is here.
"""

import asyncio
import base64
import binascii
import secrets
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from vivavoce.engines.base import Mark, Speech, Voice
from vivavoce.engines.http import PositiveSeconds
from vivavoce.engines.sockets import Socket, SocketEngine, SocketSettings
from vivavoce.engines.speech_text import says_something
from vivavoce.errors import EngineError

MAX_WAITING_MESSAGES = 4096
"""Of one context, that were not read yet."""


class SocketTTSSettings(SocketSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What such an engine needs besides."""

    voices: dict[str, str]
    """Names for clients, and the ids of the service; the first is the default."""
    sample_rate: Annotated[int, Meta(ge=8000, le=48_000)] = 24_000
    first_audio_seconds: PositiveSeconds = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.voices:
            raise ValueError("voices: name at least one")


@dataclass(slots=True)
class SpeechProgress:
    """One text, and how much of its speech has come."""

    text: str
    rate: int
    samples: int = 0
    _at: int = 0

    def take(self, audio: str) -> bytes:
        """Whole samples of base64. Raises ValueError."""
        pcm = base64.b64decode(audio, validate=True)
        pcm = pcm[: len(pcm) // 2 * 2]
        self.samples += len(pcm) // 2
        return pcm

    def mark(self, word: str, at: int) -> tuple[Mark, ...]:
        """The mark of the next word, which begins at that sample; none for one that is past."""
        start = self.text.find(word, self._at) if word else -1
        if start < 0:
            return ()
        self._at = start + len(word)
        return (Mark(at, start, self._at),) if at >= self.samples else ()


@dataclass(slots=True)
class SharedSocket:
    """A WebSocket, and the texts that are spoken over it."""

    socket: Socket
    contexts: dict[str, "asyncio.Queue[dict[str, Any] | EngineError]"] = field(default_factory=dict)
    reader: "asyncio.Task[None] | None" = None


class SocketTTS(SocketEngine):
    """Text to speech by a service; see the top of this file."""

    sample_rate: int
    voices: tuple[Voice, ...]
    default_voice: str
    _settings: SocketTTSSettings

    def speak_with(self, settings: SocketTTSSettings) -> None:
        """Called by __init__, besides connect_to()."""
        self.sample_rate = settings.sample_rate
        self.voices = tuple(Voice(name, ()) for name in settings.voices)
        self.default_voice = self.voices[0].id
        self._connections: dict[str, SharedSocket] = {}
        self._opening = asyncio.Lock()
        self._warming: asyncio.Task[None] | None = None

    @abstractmethod
    def path_for(self, voice: str) -> str:
        """The path of the WebSocket that speaks with the voice of that id."""

    @abstractmethod
    def messages(
        self, context: str, text: str, voice: str, speed: float, language: str | None
    ) -> Iterable[object]:
        """What asks for the speech of a text."""

    @abstractmethod
    def cancelling(self, context: str) -> object:
        """What ends a context early."""

    @abstractmethod
    def context_of(self, event: dict[str, Any]) -> str:
        """The context that a message belongs to."""

    @abstractmethod
    def read(self, event: dict[str, Any], spoken: SpeechProgress) -> Speech | None:
        """The speech in a message; None: it was the last one. Raises EngineError, ValueError."""

    async def __aexit__(self, *exc: object) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait((self._warming,))
        for connection in tuple(self._connections.values()):
            if connection.reader is not None:
                connection.reader.cancel()
                await asyncio.wait((connection.reader,))
            self.give_back(connection.socket)
        self._connections.clear()
        await super().__aexit__(*exc)

    def warm(self) -> None:
        """Open the connection of the default voice, unless it is open."""
        path = self.path_for(self._settings.voices[self.default_voice])
        if path not in self._connections and (self._warming is None or self._warming.done()):
            self._warming = asyncio.create_task(self._warm(path))

    async def _warm(self, path: str) -> None:
        with suppress(EngineError):  # the first text says why
            await self._connection(path)

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """As base.TTS has it. Closing it before its end cancels its context."""
        voice_id = self._settings.voices.get(voice)
        if voice_id is None:
            raise EngineError(f"{self._server.name} has no voice {voice!r}; add it to voices")
        if not says_something(text):
            return
        connection = await self._connection(self.path_for(voice_id))
        context = secrets.token_hex(8)
        events: asyncio.Queue[dict[str, Any] | EngineError]
        events = connection.contexts[context] = asyncio.Queue(MAX_WAITING_MESSAGES)
        spoken, ended = SpeechProgress(text, self.sample_rate), False
        try:
            for message in self.messages(context, text, voice_id, speed, language):
                await self.send(connection.socket, message)
            while (speech := self._read(await self._next(events, spoken), spoken)) is not None:
                if speech.audio or speech.marks:
                    yield speech
            ended = True
        finally:
            del connection.contexts[context]
            if not ended and not connection.socket.closed:
                self._cancel(connection.socket, context)
        if not spoken.samples:
            raise self._server.unexpected("no sound")

    async def _next(
        self, events: "asyncio.Queue[dict[str, Any] | EngineError]", spoken: SpeechProgress
    ) -> dict[str, Any]:
        settings = self._settings
        seconds = settings.gap_seconds if spoken.samples else settings.first_audio_seconds
        try:
            async with asyncio.timeout(seconds):
                event = await events.get()
        except TimeoutError as exc:
            silent = self._server.silent if spoken.samples else self._server.late
            raise silent(seconds) from exc
        if isinstance(event, EngineError):
            raise event
        return event

    def _read(self, event: dict[str, Any], spoken: SpeechProgress) -> Speech | None:
        try:
            return self.read(event, spoken)
        except (ValueError, binascii.Error) as exc:
            raise self._server.unexpected("something else") from exc

    def _cancel(self, socket: Socket, context: str) -> None:
        async def cancel() -> None:
            with suppress(EngineError):
                await self.send(socket, self.cancelling(context))

        task = asyncio.create_task(cancel())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _connection(self, path: str) -> SharedSocket:
        """The open connection of that path. Raises EngineError."""
        async with self._opening:
            connection = self._connections.get(path)
            if connection is None or connection.socket.closed:
                connection = SharedSocket(await self.connect(self.first_query(), path))
                connection.reader = asyncio.create_task(self._read_all(connection, path))
                self._connections[path] = connection
            return connection

    async def _read_all(self, connection: SharedSocket, path: str) -> None:
        """Give each message to its context, until the connection ends."""
        error: EngineError | None = None
        try:
            while (event := await self.receive(connection.socket)) is not None:
                events = connection.contexts.get(self.context_of(event))
                if events is not None and not events.full():
                    events.put_nowait(event)
        except EngineError as exc:
            error = exc
        finally:
            if self._connections.get(path) is connection:
                del self._connections[path]
            self.give_back(connection.socket)
        for events in connection.contexts.values():
            with suppress(asyncio.QueueFull):
                events.put_nowait(error or self._server.broken_off())
