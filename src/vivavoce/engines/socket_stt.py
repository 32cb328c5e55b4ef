"""Recognition over WebSockets: audio is sent as it comes, words come back meanwhile.

An engine of this kind says what it sends and reads what it gets; the rest is here.
"""

import array
import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, ClassVar

from vivavoce.engines.base import Transcript, Word
from vivavoce.engines.remote import ServerKind
from vivavoce.engines.sockets import Query, Socket, SocketEngine, SocketSettings, server_of
from vivavoce.errors import EngineError

FRAME_MS = 100
"""Audio is sent in pieces of at least so much, but the last."""
SILENT_PEAK = 33
"""An utterance without a louder sample (-60 dB of full scale) has no words."""


class HeardParts:
    """What was recognised so far, in numbered parts: some stay, others may still change."""

    def __init__(self) -> None:
        self.parts: dict[int, str] = {}
        """That will not change any more."""
        self.drafts: dict[int, str] = {}
        self.words: list[Word] = []

    def keep(self, number: int, text: str) -> None:
        """That part will not change any more."""
        self.parts[number] = text.strip()
        self.drafts.pop(number, None)

    def transcript(self, *, final: bool = False) -> Transcript:
        numbers = sorted({*self.parts, *self.drafts})
        first = min(self.drafts, default=None)
        kept = [self.parts[n] for n in numbers if first is None or n < first]
        rest = [self.parts.get(n) or self.drafts[n] for n in numbers[len(kept) :]]
        stable = " ".join(text for text in kept if text)
        text = " ".join(text for text in (*kept, *rest) if text)
        words = tuple(sorted(self.words, key=lambda word: word.start_ms)) if final else ()
        return Transcript(text, len(text) if final else len(stable), final, words)


class SocketSTT(SocketEngine):
    """Speech to text by a service; see the top of this file."""

    sample_rate = 16_000
    path: ClassVar[str]
    """Of the WebSockets, after base_url."""
    key_scheme: ClassVar[str] = "Bearer"
    """Before the key in Authorization; "": nothing is."""
    named_settings: ClassVar[str] = "model and query"
    """Those that an error names which the service did not expect."""

    def __init__(self, settings: SocketSettings) -> None:
        kind = ServerKind("STT", "a transcript", self.named_settings)
        scheme = self.key_scheme
        server = server_of(settings, kind, key_header="Authorization", key_scheme=scheme)
        self.connect_to(settings, server, self.path)

    def first_query(self) -> Query:
        return self.query_for(None)

    @abstractmethod
    def query_for(self, language: str | None) -> Query:
        """The query of a connection for that language."""

    async def open(self, socket: Socket, language: str | None, prompt: str) -> None:
        """Send what comes before the audio."""

    def audio(self, pcm: bytes) -> object:
        """The message with this audio."""
        return pcm

    @abstractmethod
    def end(self) -> tuple[object, ...]:
        """The messages after the audio."""

    @abstractmethod
    def read(self, event: dict[str, Any], heard: HeardParts) -> bool:
        """Take a message; return whether it is the last one. Raises EngineError."""

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """As base.STT has it. Closing it before its end closes the connection."""
        socket = await self.take(self.query_for(language))
        loud = [False]
        sending: asyncio.Task[None] | None = None
        try:
            await self.open(socket, language, prompt)
            sending = asyncio.create_task(self._send_all(socket, audio, loud))
            heard, shown = HeardParts(), ""
            while True:
                event = await self.within(
                    lambda: self.receive(socket), sending, self._settings.first_result_seconds
                )
                if event is None and not sending.done():
                    self.lose()
                if event is None or self.read(event, heard):
                    break
                transcript = heard.transcript()
                if loud[0] and transcript.text != shown:
                    shown = transcript.text
                    yield transcript
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait((sending,))
            self.give_back(socket)
        yield heard.transcript(final=True) if loud[0] else Transcript("", 0, final=True)

    async def _send_all(
        self, socket: Socket, audio: AsyncIterator[bytes], loud: list[bool]
    ) -> None:
        """Send the audio and the end of it. Silence alone is not speech: see SILENT_PEAK."""
        size = 2 * self.sample_rate * FRAME_MS // 1000
        waiting = bytearray()
        async for piece in audio:
            waiting += piece
            loud[0] = loud[0] or not _is_silent(piece)
            if len(waiting) >= size:
                await self.send(socket, self.audio(bytes(waiting)))
                waiting.clear()
        waiting += bytes(max(0, size - len(waiting)))  # services refuse shorter pieces
        await self.send(socket, self.audio(bytes(waiting)))
        for message in self.end():
            await self.send(socket, message)

    def failed(self, reason: object) -> EngineError:
        """The service reports that it failed."""
        return self._server.failed(reason)


def _is_silent(pcm: bytes) -> bool:
    samples = array.array("h", pcm[: len(pcm) // 2 * 2])
    return not samples or max(max(samples), -min(samples)) <= SILENT_PEAK
