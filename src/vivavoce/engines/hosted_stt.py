"""Speech to text in worker processes: the engine around a host.

An engine derives from HostedSTT and makes a WorkerHost; its worker gets 16-bit mono PCM at the
engine's sample rate, and sends a Hypothesis whenever its words change, and a last one.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, ClassVar, Protocol, Self

import msgspec

from vivavoce.engines.base import BaseEngine, Transcript, Word
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.worker import Hypothesis
from vivavoce.errors import EngineError

NICENESS = 5
"""The server's own loop comes first: it keeps the audio of all clients flowing."""

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class HostedSettings(Protocol):
    """What the settings of every such engine have."""

    @property
    def workers(self) -> int: ...
    @property
    def streams_per_worker(self) -> int: ...
    @property
    def start_seconds(self) -> float: ...
    @property
    def wait_seconds(self) -> float: ...


class HostedSTT(BaseEngine):
    """Processes that recognise, and places in them."""

    name: ClassVar[str]
    """"stt.…", as in the table of settings."""
    language: ClassVar[str | None] = "en"
    """That of the transcripts, unless the worker says it; None: not known."""
    hang_seconds: ClassVar[float] = 5.0
    """Longer than any turn of the worker takes."""
    _host: WorkerHost[Hypothesis] | None = None

    @property
    def host(self) -> WorkerHost[Hypothesis]:
        """The processes. Raises EngineError: the engine is not entered."""
        if self._host is None:
            raise EngineError(f"[engines.{self.name}] it is closed; enter the engine before use")
        return self._host

    @abstractmethod
    async def make_host(self) -> WorkerHost[Hypothesis]:
        """Check what the processes need, and say how they are made. Raises EngineError."""

    def host_for(
        self, worker: str, settings: HostedSettings, options: object = None
    ) -> WorkerHost[Hypothesis]:
        """A host with the numbers of the settings; see WorkerHost for `worker` and `options`."""
        limits = HostLimits(
            workers=settings.workers,
            streams_per_worker=settings.streams_per_worker,
            start_seconds=settings.start_seconds,
            wait_seconds=settings.wait_seconds,
            hang_seconds=self.hang_seconds,
            nice=NICENESS,
            remedy="raise workers or streams_per_worker",
        )
        return WorkerHost(worker, options, name=self.name, message=Hypothesis, limits=limits)

    async def __aenter__(self) -> Self:
        """Start the processes. They load the model meanwhile; the first utterance waits for it."""
        host = await self.make_host()
        self._host = await host.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        host, self._host = self._host, None
        if host is not None:
            await host.__aexit__(*exc)

    def health(self) -> str | None:
        return self._host.health() if self._host else None

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """See the contract of STT. Waits for a place first; closing gives it back at once."""
        final: Hypothesis | None = None
        async with self.host.open(self.request(language, prompt), audio) as stream:
            async for hypothesis in stream:
                if hypothesis.final:
                    final = hypothesis
                else:
                    yield self._transcript(hypothesis)
        # The place is free already, however long the reader takes for this one.
        if final is None:
            raise EngineError(f"[engines.{self.name}] the recogniser ended without a result")
        yield self._transcript(final)

    def request(self, language: str | None, prompt: str) -> object:
        """What the worker is asked for; by default nothing."""
        return None

    def _transcript(self, heard: Hypothesis) -> Transcript:
        text, stable = "", 0
        for i, word in enumerate(heard.words):
            text += word.text if word.joined or not i else f" {word.text}"
            if i < heard.stable:
                stable = len(text)
        words = tuple(
            Word(word.text, word.start_ms, word.end_ms, word.logprob) for word in heard.words
        )
        return Transcript(text, stable, heard.final, words, heard.language or self.language)
