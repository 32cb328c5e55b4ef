"""Text that is spoken while it is still being generated."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Self

from vivavoce.engines.base import TTS, Mark, Speech, streaming
from vivavoce.runtime.tasks import Signal

MAX_AHEAD_CHARACTERS = 4_000
"""Characters that were read from the source and that no engine has taken yet."""


class KeptText:
    """Text that is read once, and can be given to one engine after another from any character
    on."""

    def __init__(self, source: AsyncIterator[str]) -> None:
        self.text = ""
        """All text so far."""
        self.ended = False
        """Whether it is complete."""
        self.changed_at = 0.0
        """When the last text or its end came, in the loop's time."""
        self._source = source
        self._read = 0  # characters taken by the engine that has read most
        self._changed = Signal()
        self._taken = Signal()
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read_source())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._reading.cancel()
        await asyncio.wait((self._reading,))

    async def reaches(self, at: int = 0) -> bool:
        """Wait for words after that character.

        False: none will come. Raises what the source raises.
        """
        while not self.text[at:].strip():
            if self.ended:
                if self._error is not None:
                    raise self._error
                return False
            await self.changed()
        return True

    async def pieces(self, at: int = 0) -> AsyncGenerator[str]:
        """The text from that character to the end, as it comes. Raises what the source raises."""
        while True:
            if at < len(self.text):
                piece, at = self.text[at:], len(self.text)
                self._read = max(self._read, at)
                self._taken.set()
                yield piece
            elif self.ended:
                if self._error is not None:
                    raise self._error
                return
            else:
                await self.changed()

    async def changed(self) -> None:
        """Wait for more text, or the end."""
        self._changed.clear()
        await self._changed.wait()

    async def _read_source(self) -> None:
        try:
            async for piece in self._source:
                self.text += piece
                self._note()
                while len(self.text) - self._read > MAX_AHEAD_CHARACTERS:
                    self._taken.clear()
                    await self._taken.wait()
        except Exception as exc:  # noqa: BLE001  raised again, by pieces()
            self._error = exc
        finally:
            self.ended = True
            self._note()

    def _note(self) -> None:
        self.changed_at = asyncio.get_running_loop().time()
        self._changed.set()


async def speech_of(tts: TTS, pieces: AsyncGenerator[str], **how: Any) -> AsyncGenerator[Speech]:
    """The speech of a text that comes in pieces, by any engine: as in base.StreamingTTS.

    An engine that does not accept text as it is generated speaks piece by piece.
    """
    async with aclosing(pieces):
        if (engine := streaming(tts)) is not None:
            async with aclosing(engine.synthesize_stream(pieces, **how)) as speech:
                async for part in speech:
                    yield part
            return
        at = samples = 0
        async for piece in pieces:
            begun = samples
            async with aclosing(tts.synthesize(piece, **how)) as speech:
                async for part in speech:
                    marks = tuple(
                        Mark(begun + mark.at, at + mark.start, at + mark.end) for mark in part.marks
                    )
                    samples += len(part.audio) // 2
                    yield Speech(part.audio, marks)
            at += len(piece)
