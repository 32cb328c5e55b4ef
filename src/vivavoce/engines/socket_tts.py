"""Synthesis over a WebSocket that all texts share: each has a context, which names its messages.

An engine of this kind says what it sends and reads what it gets; the rest is here.
"""

import asyncio
import base64
import binascii
import secrets
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

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

    rate: int
    text: str = ""
    """What the service was given so far."""
    ended: bool = False
    """Whether it was given all."""
    samples: int = 0
    begun: int = 0
    """Sample at which the present context began."""
    given_at: float = 0.0
    """When it was given the last of the text, in the loop's time."""
    _at: int = 0

    @property
    def rest(self) -> str:
        """The text whose words have not come yet."""
        return self.text[self._at :].lstrip()

    @property
    def owes(self) -> bool:
        """Whether more is to come without more text."""
        return self.ended or any(map(str.isalnum, self.rest))

    def give(self, text: str) -> None:
        """The service is given more text."""
        self.text += text
        self.given_at = asyncio.get_running_loop().time()

    def end(self) -> None:
        """It was given all."""
        self.ended = True
        self.given_at = asyncio.get_running_loop().time()

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


Events: TypeAlias = "asyncio.Queue[dict[str, Any] | EngineError]"


@dataclass(slots=True)
class SpeechContext:
    """How a text is spoken, and the name that its messages bear."""

    voice: str
    speed: float
    language: str | None
    id: str = ""
    empty: bool = True
    """Whether it was given no text yet."""

    def renew(self) -> None:
        """Go on under another name: the service has ended this one."""
        self.id, self.empty = secrets.token_hex(8), True


@dataclass(slots=True)
class SharedSocket:
    """A WebSocket, and the texts that are spoken over it."""

    socket: Socket
    contexts: dict[str, Events] = field(default_factory=dict)
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
    def whole(self, context: SpeechContext, text: str) -> Iterable[object]:
        """What asks for the speech of a whole text."""

    @abstractmethod
    def piece(self, context: SpeechContext, text: str) -> Iterable[object]:
        """What gives a context some text, and more follows. Its first has `context.empty` set."""

    @abstractmethod
    def finishing(self, context: SpeechContext) -> Iterable[object]:
        """What says that a context was given all its text."""

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
        context = self._context(voice, speed, language)
        if not says_something(text):
            return
        spoken = SpeechProgress(self.sample_rate)
        async with self._talk(context) as (connection, events):
            spoken.give(text)
            spoken.end()
            for message in self.whole(context, text):
                await self.send(connection.socket, message)
            while (speech := self._read(await self._next(events, spoken), spoken)) is not None:
                if speech.audio or speech.marks:
                    yield speech
            context.id = ""
        if not spoken.samples:
            raise self._server.unexpected("no sound")

    async def synthesize_stream(
        self,
        pieces: AsyncIterator[str],
        *,
        voice: str,
        speed: float,
        language: str | None,
        instructions: str,
    ) -> AsyncGenerator[Speech]:
        """As base.StreamingTTS has it: one context, which is given the text as it comes."""
        context = self._context(voice, speed, language)
        if (first := await anext(pieces, None)) is None:
            return
        spoken = SpeechProgress(self.sample_rate)
        async with self._talk(context) as (connection, events):
            await self._give(connection, context, spoken, first)
            feeding = asyncio.create_task(self._feed(connection, context, spoken, pieces))
            try:
                while not (spoken.ended and context.empty):
                    speech = self._read(await self._next(events, spoken), spoken)
                    if speech is None:
                        if spoken.ended:
                            break
                        await self._renew(connection, context, spoken)
                    elif speech.audio or speech.marks:
                        yield speech
            finally:
                feeding.cancel()
                await asyncio.wait((feeding,))
            context.id = ""

    def _context(self, voice: str, speed: float, language: str | None) -> SpeechContext:
        voice_id = self._settings.voices.get(voice)
        if voice_id is None:
            raise EngineError(f"{self._server.name} has no voice {voice!r}; add it to voices")
        return SpeechContext(voice_id, speed, language, secrets.token_hex(8))

    @asynccontextmanager
    async def _talk(self, context: SpeechContext) -> AsyncGenerator[tuple[SharedSocket, Events]]:
        """The connection, and the messages of the context. Cancels it unless its id is cleared."""
        connection = await self._connection(self.path_for(context.voice))
        events: Events = asyncio.Queue(MAX_WAITING_MESSAGES)
        connection.contexts[context.id] = events
        try:
            yield connection, events
        finally:
            for name in [name for name, one in connection.contexts.items() if one is events]:
                del connection.contexts[name]
            if context.id and not connection.socket.closed:
                self._cancel(connection.socket, context.id)

    async def _give(
        self, connection: SharedSocket, context: SpeechContext, spoken: SpeechProgress, text: str
    ) -> None:
        messages = [*self.piece(context, text)]
        context.empty = False
        spoken.give(text)
        for message in messages:
            await self.send(connection.socket, message)

    async def _feed(
        self,
        connection: SharedSocket,
        context: SpeechContext,
        spoken: SpeechProgress,
        pieces: AsyncIterator[str],
    ) -> None:
        """Give the text as it comes, and its end. What is raised, the reader raises, too."""
        events = connection.contexts[context.id]
        try:
            async for text in pieces:
                await self._give(connection, context, spoken, text)
            spoken.end()
            if context.empty:  # nothing is owed: the service has ended the context before
                events.put_nowait({})
            for message in () if context.empty else self.finishing(context):
                await self.send(connection.socket, message)
        except EngineError as exc:
            events.put_nowait(exc)

    async def _renew(
        self, connection: SharedSocket, context: SpeechContext, spoken: SpeechProgress
    ) -> None:
        """The service ended the context, because no text came for long: the next goes to another.

        What crossed with that end is given once more.
        """
        events = connection.contexts.pop(context.id)
        context.renew()
        connection.contexts[context.id] = events
        spoken.begun = spoken.samples
        if any(map(str.isalnum, spoken.rest)):
            messages = [*self.piece(context, spoken.rest)]
            context.empty = False
            for message in messages:
                await self.send(connection.socket, message)

    async def _next(self, events: Events, spoken: SpeechProgress) -> dict[str, Any]:
        """The next message of a context. Raises EngineError: it is late, while speech is owed."""
        settings, clock = self._settings, asyncio.get_running_loop().time
        seconds = settings.gap_seconds if spoken.samples else settings.first_audio_seconds
        since = clock()
        while True:
            try:
                async with asyncio.timeout_at(max(since, spoken.given_at) + seconds):
                    event = await events.get()
            except TimeoutError as exc:
                if clock() < spoken.given_at + seconds:
                    continue
                if not spoken.owes:
                    since = clock()
                    continue
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
