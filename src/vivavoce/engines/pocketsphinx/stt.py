"""Speech to text with PocketSphinx: English, on this machine, without weights to fetch.

Words are plain and lower-case, as the pronouncing dictionary has them, without punctuation. It
knows US English only: another `language` is decoded as English all the same, and `prompt` is not
used. Short commands come out right, dictation only partly.

The decoder lives in processes of its own and is never imported here, so the server starts fast.
"""

import importlib.util
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Self

import msgspec

from vivavoce.engines.base import BaseEngine, Capabilities, Transcript, Word
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.pocketsphinx.words import Hypothesis
from vivavoce.errors import EngineError

if importlib.util.find_spec("pocketsphinx") is None:
    raise ModuleNotFoundError("No module named 'pocketsphinx'", name="pocketsphinx")

MAX_DEFAULT_WORKERS = 8
NICENESS = 5
"""The server's own loop comes first: it keeps the audio of all clients flowing."""

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


def spare_cores() -> int:
    """Processes that leave a core to the server; no more than eight, of 100 MB each."""
    return max(1, min((os.cpu_count() or 2) - 1, MAX_DEFAULT_WORKERS))


class PocketsphinxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    workers: AtLeastOne = msgspec.field(default_factory=spare_cores)
    """Processes. Each takes some 100 MB and keeps at most one core busy."""
    streams_per_worker: AtLeastOne = 4
    """Utterances that a process decodes at the same time; each after the first takes 60 MB."""
    start_seconds: Seconds = 15.0
    """How long the first utterances wait for the model to be loaded."""
    wait_seconds: Seconds = 10.0
    """How long an utterance waits for a place when all are taken."""


class PocketsphinxSTT(BaseEngine):
    """Processes that recognise, and places in them."""

    Settings = PocketsphinxSettings
    capabilities = Capabilities(
        languages=("en",),
        word_times="exact",
        licence="BSD-2-Clause",
        extra="local",
        models="US-English model of CMU, 40 MB, carried by the package pocketsphinx",
    )
    sample_rate = 16_000

    def __init__(self, settings: PocketsphinxSettings) -> None:
        self.host = WorkerHost(
            "vivavoce.engines.pocketsphinx.worker:PocketsphinxWorker",
            name="stt.pocketsphinx",
            message=Hypothesis,
            limits=HostLimits(
                workers=settings.workers,
                streams_per_worker=settings.streams_per_worker,
                start_seconds=settings.start_seconds,
                wait_seconds=settings.wait_seconds,
                nice=NICENESS,
                remedy="raise workers or streams_per_worker",
            ),
        )

    async def __aenter__(self) -> Self:
        """Start the processes. They load the model meanwhile; the first utterance waits for it."""
        await self.host.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.host.__aexit__(*exc)

    def health(self) -> str | None:
        return self.host.health()

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """See the contract of STT. Waits for a place first; closing gives it back at once."""
        final: Hypothesis | None = None
        async with self.host.open(None, audio) as stream:
            async for hypothesis in stream:
                if hypothesis.final:
                    final = hypothesis
                else:
                    yield _transcript(hypothesis)
        # The place is free already, however long the reader takes for this one.
        if final is None:
            raise EngineError("[engines.stt.pocketsphinx] the recogniser ended without a result")
        yield _transcript(final)


def _transcript(heard: Hypothesis) -> Transcript:
    texts = [word.text for word in heard.words]
    stable = len(" ".join(texts[: heard.stable]))
    words = tuple(Word(word.text, word.start_ms, word.end_ms) for word in heard.words)
    return Transcript(" ".join(texts), stable, heard.final, words, "en")
