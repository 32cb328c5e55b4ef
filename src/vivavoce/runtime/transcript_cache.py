"""What recordings say: each is transcribed once, however often a conversation sends it along."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass

from vivavoce.engines.base import STT
from vivavoce.errors import AudioError, EngineError

MOST_ENTRIES = 10_000
MOST_BYTES = 8 << 20
"""Of all transcripts kept."""
MOST_AT_ONCE = 8
"""Recordings that are being transcribed; further ones wait."""
_ENTRY_BYTES = 128  # the key and the like


@dataclass(slots=True)
class _Work:
    """A recording that is being transcribed, for so many who wait for it."""

    task: asyncio.Task[str]
    waiting: int = 0


class TranscriptCache:
    """Transcripts by the recording's key; the ones not asked for the longest are forgotten.

    A failure is told to all who wait and not kept.
    """

    def __init__(
        self,
        *,
        most_entries: int = MOST_ENTRIES,
        most_bytes: int = MOST_BYTES,
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._places = asyncio.Semaphore(most_at_once)
        self._known: OrderedDict[Hashable, str] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[Hashable, _Work] = {}

    async def transcript(self, key: Hashable, hear: Callable[[], Awaitable[str]]) -> str:
        """What is known under that key, or what `hear` finds; the same moment, the same hearing.

        Who is cancelled waits no more, and the last one to go stops the work.
        """
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        work = self._under_way.get(key)
        if work is None:
            work = self._under_way[key] = _Work(asyncio.create_task(self._hear(key, hear)))
        work.waiting += 1
        try:
            await asyncio.wait((work.task,))
        finally:
            work.waiting -= 1
            if not work.waiting:
                if self._under_way.get(key) is work:
                    del self._under_way[key]
                if not work.task.done():
                    work.task.cancel()
                    await asyncio.wait((work.task,))
        return work.task.result()

    async def _hear(self, key: Hashable, hear: Callable[[], Awaitable[str]]) -> str:
        async with self._places:
            text = await hear()
        self._known[key] = text
        self._bytes += _size(text)
        while self._bytes > self._most_bytes or len(self._known) > self._most_entries:
            _, forgotten = self._known.popitem(last=False)
            self._bytes -= _size(forgotten)
        return text


def _size(text: str) -> int:
    return len(text.encode()) + _ENTRY_BYTES


async def words(stt: STT, pcm: bytes) -> str:
    """What is said in a recording, 16-bit mono PCM at the rate of the engine.

    Raises AudioError: nobody speaks in it; EngineError: it could not be heard.
    """
    text = None
    async with aclosing(
        stt.transcribe(_pieces(pcm, 2 * stt.sample_rate), language=None, prompt="")
    ) as transcripts:
        async for heard in transcripts:
            if heard.final:
                text = heard.text
    if text is None:
        raise EngineError("speech recognition ended without a result")
    if not text.strip():
        raise AudioError("no speech was found in the recording")
    return text.strip()


async def _pieces(pcm: bytes, size: int) -> AsyncGenerator[bytes]:
    for at in range(0, len(pcm), size):
        yield pcm[at : at + size]
        await asyncio.sleep(0)  # others may run: a long recording is many pieces
