"""Transcripts of recordings.

Each is made once, however often the recording is part of a request.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

import msgspec

from vivavoce.runtime.concurrency import WorkSlots

MAX_ENTRIES = 10_000
MAX_CACHED_BYTES = 8 << 20
"""Bytes of all transcripts that are kept."""
MAX_RUNNING = 8
"""Recordings that are decoded and transcribed at the same time; further ones wait."""
MAX_WAITING = 1024
"""The most recordings that wait; the next one is refused."""
_ENTRY_BYTES = 128  # for each entry, beside its text


class _Job(msgspec.Struct):
    """A recording that is being transcribed, and the number of requests that wait for it."""

    task: asyncio.Task[str]
    waiting: int = 0


class TranscriptCache:
    """Transcripts by the key of the recording; the least recently used are dropped.

    A failure is raised in all requests that wait for it, and is not kept.
    """

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_CACHED_BYTES,
        max_running: int = MAX_RUNNING,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._slots = WorkSlots(max_running, max_waiting, "recordings")
        self._known: OrderedDict[Hashable, str] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[Hashable, _Job] = {}

    async def transcript(self, key: Hashable, transcribe: Callable[[], Awaitable[str]]) -> str:
        """The transcript under that key, or the result of `transcribe`.

        Requests for one key at the same time share one job; when all of them are cancelled, so is
        the job. Raises what it raises, and LimitReached: too many recordings wait already.
        """
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        job = self._under_way.get(key)
        if job is None:
            job = self._under_way[key] = _Job(asyncio.create_task(self._run(key, transcribe)))
        job.waiting += 1
        try:
            await asyncio.wait((job.task,))
        finally:
            job.waiting -= 1
            if not job.waiting:
                if self._under_way.get(key) is job:
                    del self._under_way[key]
                if not job.task.done():
                    job.task.cancel()
                    await asyncio.wait((job.task,))
        return job.task.result()

    async def _run(self, key: Hashable, transcribe: Callable[[], Awaitable[str]]) -> str:
        async with self._slots.one():
            text = await transcribe()
        self._known[key] = text
        self._bytes += _size(text)
        while self._bytes > self._max_bytes or len(self._known) > self._max_entries:
            _, forgotten = self._known.popitem(last=False)
            self._bytes -= _size(forgotten)
        return text


def _size(text: str) -> int:
    return len(text.encode()) + _ENTRY_BYTES
