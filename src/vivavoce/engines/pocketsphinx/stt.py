"""Speech to text with PocketSphinx: English, on this machine, without weights to fetch.

Words are plain and lower-case, as the pronouncing dictionary has them, without punctuation. It
knows US English only: another `language` is decoded as English all the same, and `prompt` is not
used. Short commands come out right, dictation only partly.

The decoder lives in processes of its own and is never imported here, so the server starts fast.
"""

import asyncio
import importlib.util
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Self

import msgspec

from vivavoce.engines.base import Transcript, Word
from vivavoce.engines.pocketsphinx.frames import Heard
from vivavoce.engines.pocketsphinx.process import RecogniserProcess, Stream
from vivavoce.errors import EngineError

if importlib.util.find_spec("pocketsphinx") is None:
    raise ModuleNotFoundError("No module named 'pocketsphinx'", name="pocketsphinx")

MOST_DEFAULT_WORKERS = 8

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


def spare_cores() -> int:
    """Processes that leave a core to the server; no more than eight, of 100 MB each."""
    return max(1, min((os.cpu_count() or 2) - 1, MOST_DEFAULT_WORKERS))


class PocketsphinxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    workers: AtLeastOne = msgspec.field(default_factory=spare_cores)
    """Processes. Each takes some 100 MB and keeps at most one core busy."""
    streams_per_worker: AtLeastOne = 4
    """Utterances that a process decodes at the same time; each after the first takes 60 MB."""
    start_seconds: Seconds = 15.0
    """How long the first utterances wait for the model to be loaded."""
    wait_seconds: Seconds = 10.0
    """How long an utterance waits for a place when all are taken."""


class PocketsphinxSTT:
    """Processes that recognise, and the places in them."""

    Settings = PocketsphinxSettings
    sample_rate = 16_000

    def __init__(self, settings: PocketsphinxSettings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.workers * settings.streams_per_worker)
        self.workers: list[RecogniserProcess] = []
        """Those that run; one that ended is replaced when it is needed."""

    async def __aenter__(self) -> Self:
        """Start the processes. They load the model meanwhile; the first utterance waits for it."""
        self.workers = [RecogniserProcess() for _ in range(self._settings.workers)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with asyncio.TaskGroup() as tasks:
            for worker in self.workers:
                tasks.create_task(worker.close())

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """As STT says. Waits for a place first; closing gives it back at once."""
        final: Heard | None = None
        async with self._place() as worker:
            await worker.ready(self._settings.start_seconds)
            async with _listening(worker, audio) as (stream, feeding):
                while final is None:
                    heard = await stream.hear()
                    if feeding.done():
                        feeding.result()
                    if heard is not None and heard.final:
                        final = heard
                    elif heard is not None:
                        yield _transcript(heard)
        # The place is free already, however long this is looked at.
        yield _transcript(final)

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[RecogniserProcess]:
        seconds = self._settings.wait_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise EngineError(
                f"[stt.pocketsphinx] all places were taken for {seconds:g} s; "
                "raise workers or streams_per_worker"
            ) from None
        worker = self._least_busy()
        worker.places_taken += 1
        try:
            yield worker
        finally:
            worker.places_taken -= 1
            self._places.release()

    def _least_busy(self) -> RecogniserProcess:
        """There is a place in it, since no more are given out than there are."""
        for i, worker in enumerate(self.workers):
            if worker.failure is not None:
                self.workers[i] = RecogniserProcess()
        return min(self.workers, key=lambda worker: worker.places_taken)


@asynccontextmanager
async def _listening(
    worker: RecogniserProcess, audio: AsyncIterator[bytes]
) -> AsyncGenerator[tuple[Stream, asyncio.Task[None]]]:
    """A stream, fed beside the block. It wakes when that is done, one way or the other."""

    async def feed(stream: Stream) -> None:
        async for piece in audio:
            await stream.feed(piece)
        stream.end()

    with worker.listen() as stream:
        feeding = asyncio.create_task(feed(stream))
        feeding.add_done_callback(lambda _: stream.wake())
        try:
            yield stream, feeding
        finally:
            feeding.cancel()
            # The process first: the audio may take its time to end.
            stream.cancel()
            await asyncio.wait([feeding])
            if not feeding.cancelled():
                feeding.exception()  # whoever still listened was told already


def _transcript(heard: Heard) -> Transcript:
    texts = [word.text for word in heard.words]
    stable = len(" ".join(texts[: heard.stable]))
    words = tuple(Word(word.text, word.start_ms, word.end_ms) for word in heard.words)
    return Transcript(" ".join(texts), stable, heard.final, words, "en")
