"""Speech to text with Moonshine tiny on onnxruntime: English, on this machine, with punctuation.

Another `language` is decoded as English all the same; `prompt` is not used. Word times are
estimated from the length of the words and the loudness of the audio.
"""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Self

import msgspec

from vivavoce.engines.base import BaseEngine, Capabilities, Transcript, Word
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.moonshine.words import HeardWords
from vivavoce.engines.packs import check_files, weights_folder
from vivavoce.errors import EngineError

if importlib.util.find_spec("onnxruntime") is None:
    raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

PACK = "moonshine-tiny-en"
FILES = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
NICENESS = 5
"""The server's own loop comes first."""

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class MoonshineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.moonshine]`."""

    model: str = PACK
    """A model of `vivavoce models`, or a folder with its files."""
    workers: AtLeastOne = 1
    """Processes. Each takes some 180 MB."""
    threads: AtLeastOne = 1
    """Threads of one decoding."""
    streams_per_worker: AtLeastOne = 16
    """Utterances that a process decodes in turns."""
    start_seconds: Seconds = 20.0
    """How long the first utterances wait for the model to be loaded."""
    wait_seconds: Seconds = 10.0
    """How long an utterance waits for a place when all are taken."""


class MoonshineSTT(BaseEngine):
    """Processes that recognise, and places in them."""

    Settings = MoonshineSettings
    capabilities = Capabilities(
        languages=("en",),
        word_times="estimated",
        licence="MIT",
        extra="local",
        models="Moonshine tiny.en, 44 MB, by: vivavoce models pull moonshine-tiny-en",
    )
    sample_rate = 16_000

    def __init__(self, settings: MoonshineSettings) -> None:
        self._settings = settings
        self._host: WorkerHost[HeardWords] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Check the weights and start the processes, which load them meanwhile."""
        settings = self._settings
        folder = await asyncio.to_thread(weights_folder, settings.model)
        check_files(folder, FILES, "Moonshine model")
        limits = HostLimits(
            workers=settings.workers,
            streams_per_worker=settings.streams_per_worker,
            start_seconds=settings.start_seconds,
            wait_seconds=settings.wait_seconds,
            nice=NICENESS,
            remedy="raise workers or streams_per_worker",
        )
        host = WorkerHost(
            "vivavoce.engines.moonshine.worker:MoonshineWorker",
            {"folder": str(folder), "threads": settings.threads},
            name="stt.moonshine",
            message=HeardWords,
            limits=limits,
        )
        self._host = await self._stack.enter_async_context(host)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._host = None
        await self._stack.aclose()

    def health(self) -> str | None:
        return self._host.health() if self._host else None

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """See the contract of STT. Waits for a place first; closing gives it back at once."""
        if self._host is None:
            raise EngineError("[engines.stt.moonshine] it is closed; enter the engine before use")
        final: HeardWords | None = None
        async with self._host.open(None, audio) as stream:
            async for heard in stream:
                if heard.final:
                    final = heard
                else:
                    yield _transcript(heard)
        if final is None:
            raise EngineError("[engines.stt.moonshine] the recogniser ended without a result")
        yield _transcript(final)


def _transcript(heard: HeardWords) -> Transcript:
    texts = [word.text for word in heard.words]
    words = tuple(Word(word.text, word.start_ms, word.end_ms) for word in heard.words)
    stable = len(" ".join(texts[: heard.stable]))
    return Transcript(" ".join(texts), stable, heard.final, words, "en")
