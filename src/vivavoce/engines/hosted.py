"""Speech engines in worker processes: the engine around a host.

An engine derives from HostedSTT or HostedTTS and makes a WorkerHost.

* The worker of a recogniser gets 16-bit mono PCM at the engine's sample rate. It sends a Hypothesis
  whenever its words change, and a last one.
* The worker of a synthesiser gets an UtteranceRequest, and sends a SpeechChunk for each piece of
  speech as soon as it is made. It is paused while the listener is behind by more than about 20 s.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, ClassVar, Generic, Literal, Self, TypeVar

import msgspec

from vivavoce.engines.base import BaseEngine, Mark, Residency, Speech, Transcript, Voice, Word
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.speech_text import AWAITED, says_something
from vivavoce.engines.worker import Hypothesis, SpeechChunk, UtteranceRequest
from vivavoce.errors import EngineError, NoSound

NICENESS = 5
"""The server's own loop comes first: it keeps the audio of all clients flowing."""

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
SecondsOrZero = Annotated[float, msgspec.Meta(ge=0)]
M = TypeVar("M")


class HostedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings that engines with worker processes have in common."""

    workers: AtLeastOne = 1
    """Processes."""
    streams_per_worker: AtLeastOne = 16
    """Pieces of work that a process does in turns."""
    start_seconds: Seconds = 60.0
    """How long the first work waits for the model to be loaded."""
    wait_seconds: Seconds = 10.0
    """How long work waits for a place when all are taken."""
    idle_unload_seconds: SecondsOrZero | None = None
    """The processes are ended after so long without work; the next work loads the model again. 0:
    they stay. None: those of a configured model stay, others as [server] unload_seconds says."""


class ThreadedSettings(HostedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of engines whose model uses several threads."""

    threads: AtLeastOne = 1
    """Threads of one piece of work."""


class AcceleratedSettings(ThreadedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of engines whose model can run on a GPU."""

    device: Literal["cpu", "cuda"] = "cpu"
    """cuda needs a build of the engine's library for it."""


class SentenceSettings(AcceleratedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of synthesisers whose model makes a whole sentence at a time."""

    streams_per_worker: AtLeastOne = 4
    """Utterances that a process speaks in turns, a sentence at a time."""


class HostedEngine(BaseEngine, Generic[M]):
    """Processes, places in them, and messages of type M from them."""

    name: ClassVar[str]
    """"kind:name" with a dot: as in its table of settings."""
    hang_seconds: ClassVar[float] = 5.0
    """Longer than any turn of the worker takes."""
    _host: WorkerHost[M] | None = None

    @property
    def host(self) -> WorkerHost[M]:
        """The processes. Raises EngineError: the engine is not entered."""
        if self._host is None:
            raise EngineError(f"[engines.{self.name}] it is closed; enter the engine before use")
        return self._host

    @abstractmethod
    async def make_host(self) -> WorkerHost[M]:
        """Check what the processes need, and say how they are made. Raises EngineError."""

    async def __aenter__(self) -> Self:
        """Start the processes. They load the model meanwhile; the first work waits for it."""
        host = await self.make_host()
        self._host = await host.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        host, self._host = self._host, None
        if host is not None:
            await host.__aexit__(*exc)

    def health(self) -> str | None:
        return self._host.health() if self._host else None

    @property
    def loading(self) -> bool:
        return self._host is not None and self._host.loading

    def warm(self) -> None:
        """Start the processes again, if they were ended for want of work."""
        if self._host is not None:
            self._host.start()

    def residency(self) -> Residency | None:
        return self._host.residency() if self._host else None

    async def load(self) -> None:
        await self.host.load()

    async def unload(self) -> None:
        await self.host.unload()

    @classmethod
    def limits_of(cls, settings: HostedSettings) -> HostLimits:
        """The limits that the settings name."""
        return HostLimits(
            workers=settings.workers,
            streams_per_worker=settings.streams_per_worker,
            start_seconds=settings.start_seconds,
            wait_seconds=settings.wait_seconds,
            hang_seconds=cls.hang_seconds,
            nice=NICENESS,
            idle_seconds=settings.idle_unload_seconds or 0.0,
            remedy="raise workers or streams_per_worker",
        )


class HostedSTT(HostedEngine[Hypothesis]):
    """Processes that recognise."""

    language: ClassVar[str | None] = "en"
    """That of the transcripts, unless the worker says it; None: not known."""

    def host_for(
        self, worker: str, settings: HostedSettings, options: object = None
    ) -> WorkerHost[Hypothesis]:
        """A host with the numbers of the settings; see WorkerHost for `worker` and `options`."""
        limits = self.limits_of(settings)
        return WorkerHost(worker, options, name=self.name, message=Hypothesis, limits=limits)

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """See the contract of STT. Waits for a place first; closing gives it back at once."""
        final: Hypothesis | None = None
        async with self.host.open(self.recognition(language, prompt), audio) as stream:
            async for hypothesis in stream:
                if hypothesis.final:
                    final = hypothesis
                else:
                    yield self._transcript(hypothesis)
        # The place is free already, however long the reader takes for this one.
        if final is None:
            raise EngineError(f"[engines.{self.name}] the recogniser ended without a result")
        yield self._transcript(final)

    def recognition(self, language: str | None, prompt: str) -> object:
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


class HostedTTS(HostedEngine[SpeechChunk]):
    """Processes that speak."""

    sample_rate: int
    voices: tuple[Voice, ...]
    default_voice: str

    def host_for(
        self, worker: str, settings: HostedSettings, options: object = None
    ) -> WorkerHost[SpeechChunk]:
        """A host with the numbers of the settings; see WorkerHost for `worker` and `options`."""
        limits = self.limits_of(settings)
        return WorkerHost(worker, options, name=self.name, message=SpeechChunk, limits=limits)

    def request(
        self, text: str, voice: str, speed: float, language: str | None
    ) -> UtteranceRequest:
        """What the worker is asked for; `voice` is one of `voices`."""
        return UtteranceRequest(text, voice, speed, language)

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """See the contract of TTS. `instructions` have no effect.

        Raises NoSound: there are words in the text, and the voice cannot read them.
        """
        known = [each.id for each in self.voices]
        if voice not in known:
            raise EngineError(
                f"[engines.{self.name}] no voice {voice!r}; there are {', '.join(known[:20])}"
            )
        if not says_something(text):
            return
        samples = 0
        request = self.request(text, voice, speed, language)
        request = msgspec.structs.replace(request, awaited=AWAITED.get())
        async with self.host.open(request) as stream:
            async for chunk in stream:
                marks = tuple(Mark(samples + at, start, end) for at, start, end in chunk.words)
                samples += len(chunk.audio) // 2
                yield Speech(chunk.audio, marks)
        if not samples and any(map(str.isalnum, text)):
            raise NoSound(f"[engines.{self.name}] the voice {voice} cannot read this text")
