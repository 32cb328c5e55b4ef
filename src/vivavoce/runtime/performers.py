"""Performers carry out the effects of a brain: engines on this machine, or an upstream server.

Performing an effect never waits: work that takes time is a task of its own, which posts its facts.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, assert_never

from vivavoce.audio.resample import resample
from vivavoce.engines.base import Transcript
from vivavoce.errors import EngineError
from vivavoce.runtime.anticipation import AnticipationWork
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.diarization import SessionSpeakers
from vivavoce.runtime.echo import EchoCanceller
from vivavoce.runtime.generation import answer, say
from vivavoce.runtime.speaker_gate import SessionGate, SpeakerGate
from vivavoce.runtime.tasks import Tasks
from vivavoce.runtime.text_generation import ServerCalls
from vivavoce.runtime.transcription import AudioFeed, RecordingFeed, transcribe_item
from vivavoce.runtime.turn_scoring import TurnScorer
from vivavoce.runtime.vad_batcher import VadStream
from vivavoce.session.effects import (
    AddEchoReference,
    CancelGeneration,
    CancelTranscription,
    CascadeEffect,
    CheckSpeaker,
    CleanAudio,
    ClearEchoReference,
    ConfigureCleaning,
    ConnectUpstream,
    DisconnectUpstream,
    DraftTranscript,
    DropAnticipated,
    EndAudio,
    FeedAudio,
    Generate,
    HoldUpstream,
    RelayEffect,
    RunTool,
    RunVad,
    Say,
    ScoreTurn,
    SendUpstream,
    Speculate,
    StartTranscription,
)
from vivavoce.session.facts import (
    AudioCleaned,
    BackgroundToolFinished,
    Fact,
    ItemTranscriptionFailed,
    SpokenSegment,
    TranscriptionKey,
    TranscriptUpdated,
    VadScores,
)

log = logging.getLogger(__name__)

# audio not scored yet, above which the client is not read any further: 2 s
MAX_WAITING_WINDOWS = 64
MAX_WAITING_BYTES = 4_000_000  # audio not taken by the recogniser yet, likewise: 83 s
MAX_DIARIZED_SECONDS = 300  # audio of an item in which speakers are distinguished


class SessionPort(Protocol):
    """What a performer needs from the runner of its session."""

    def post(self, fact: Fact) -> None:
        """Give the session a fact."""
        ...

    def pass_output(self, frame: bytes) -> bool:
        """Send a frame of an upstream server to the client unchanged.

        False: it has to be posted.
        """
        ...

    def progressed(self) -> None:
        """Some queued input was taken."""
        ...

    def fail(self, exc: Exception, *, code: str = ..., what: str = ...) -> None:
        """A bug has occurred: it ends the session."""
        ...

    def writable(self) -> Awaitable[None]:
        """Wait until the client has taken most of what was sent."""
        ...

    def run_tool(self, order: RunTool) -> Awaitable[str]:
        """Call a function of this server; return its result for the model."""
        ...


class Performer(Protocol):
    """Carries out the effects of one brain."""

    passes_frames: bool
    """Whether frames of the client may go upstream unchanged: see Session.pass_input()."""

    @property
    def behind(self) -> bool:
        """Whether too much input is queued."""
        ...

    @property
    def waiting_bytes(self) -> int:
        """Bytes queued: input, and what is to be sent to an upstream server."""
        ...

    def perform(self, effect: CascadeEffect | RelayEffect, now: float) -> None:
        """Carry out an effect. Never waits."""
        ...

    def pass_input(self, frame: bytes) -> None:
        """Send a client's frame upstream, as Session.pass_input() has allowed. Never waits."""
        ...

    def give_up(self) -> None:
        """Queued input was not taken for too long: fail what it belongs to."""
        ...

    def close(self) -> None:
        """Cancel all work and give back all resources. Nothing is posted after that."""
        ...


MakePerformer = Callable[[SessionPort, asyncio.TaskGroup], Performer]


class CascadePerformer:
    """Runs VAD, turn detection, recognition, generation and echo cancellation of one session."""

    passes_frames = False

    def __init__(
        self,
        catalog: ModelCatalog,
        model: str,
        port: SessionPort,
        group: asyncio.TaskGroup,
        *,
        is_busy: Callable[[], bool] = lambda: False,
        gate: SpeakerGate | None = None,
    ) -> None:
        """is_busy: while it is so, nothing begins early.

        gate: the speaker gate, if there is one.
        """
        self._catalog = catalog
        self._cascade: Cascade = catalog.of(model)
        self._port = port
        self._tasks = Tasks(group, port.fail, port.progressed)
        self._calls = ServerCalls(port.run_tool, self._begin_tool)
        self._early = AnticipationWork(
            catalog, port.post, port.writable, self._tasks, is_busy, self._calls
        )
        self._feeds: dict[TranscriptionKey, AudioFeed] = {}
        self._scorer = TurnScorer(self._cascade, self._tasks, port.post)
        self._gate = SessionGate(gate, self._cascade, self._tasks, port.post) if gate else None
        self._vad: VadStream | None = None
        self._speakers = SessionSpeakers()
        cleaner = self._cascade.cleaner
        self._echo = EchoCanceller(cleaner) if cleaner else None
        self._cascade.warm()

    @property
    def behind(self) -> bool:
        if self._vad is not None and self._vad.waiting > MAX_WAITING_WINDOWS:
            return True
        return bool(self._feeds) and self.waiting_bytes > MAX_WAITING_BYTES

    @property
    def waiting_bytes(self) -> int:
        waiting = 0
        # evaluated after every frame: a loop is faster than a generator
        for feed in self._feeds.values():
            waiting += feed.waiting_bytes
        return waiting

    def perform(self, effect: CascadeEffect | RelayEffect, now: float) -> None:
        match effect:
            case RunVad(at=at, audio=audio):
                self._run_vad(at, audio)
            case FeedAudio(key=key, audio=audio):
                if feed := self._feeds.get(key):
                    feed.feed(audio)
            case StartTranscription():
                self._start_transcription(effect)
            case EndAudio():
                self._end_audio(effect)
            case CancelTranscription(key=key):
                self._early.cancel(key)
                self._feeds.pop(key, None)
                self._tasks.cancel(key)
            case ScoreTurn() | CheckSpeaker():
                self._examine(effect)
            case Generate(begun=begun):
                if not (begun and self._early.adopt(begun, effect.response_id)):
                    self._generate(effect)
            case DraftTranscript() | Speculate() | DropAnticipated():
                self._anticipate(effect)
            case CancelGeneration(response_id=response_id):
                self._tasks.cancel(response_id)
            case CleanAudio(audio=audio):
                cleaned = self._echo.clean(audio, now) if self._echo else audio
                self._port.post(AudioCleaned(cleaned))
            case ConfigureCleaning() | AddEchoReference() | ClearEchoReference():
                self._configure_echo(effect, now)
            case ConnectUpstream() | SendUpstream() | HoldUpstream() | DisconnectUpstream():
                raise AssertionError("a cascade has no upstream server")
            case _:
                assert_never(effect)

    def pass_input(self, frame: bytes) -> None:
        raise AssertionError("a cascade has no upstream server")

    def give_up(self) -> None:
        for key in [key for key, feed in self._feeds.items() if feed.waiting_bytes]:
            del self._feeds[key]
            self._tasks.cancel(key)
            self._port.post(ItemTranscriptionFailed(key, "speech recognition takes no more audio"))

    def close(self) -> None:
        self._tasks.cancel_all()
        self._feeds.clear()
        if self._vad:
            self._vad.close()
            self._vad = None
        if self._echo:
            self._echo.close()

    def _run_vad(self, at: int, audio: bytes) -> None:
        if self._vad is None:
            self._vad = self._cascade.vad.open(self._on_scores, self._on_vad_failure)
        self._vad.score(at, audio)

    def _start_transcription(self, effect: StartTranscription) -> None:
        cascade = self._catalog.of(effect.model)
        cascade.warm()
        feed = AudioFeed(cascade.stt.sample_rate, self._port.progressed)
        self._feeds[effect.key] = feed
        self._tasks.start(effect.key, self._transcribe(cascade, effect, feed))

    async def _transcribe(
        self, cascade: Cascade, effect: StartTranscription, feed: AudioFeed
    ) -> None:
        try:
            async with cascade.use_stt(effect.asked_model) as stt:
                if stt.sample_rate != cascade.stt.sample_rate:
                    feed.set_rate(stt.sample_rate)
                if effect.diarized and cascade.speaker is not None:
                    kept = RecordingFeed(feed, MAX_DIARIZED_SECONDS * 2 * stt.sample_rate)
                    who = partial(self._segments, cascade, kept, stt.sample_rate)
                    await transcribe_item(stt, effect, kept, self._port.post, who)
                else:
                    await transcribe_item(stt, effect, feed, self._port.post)
        finally:
            feed.close()
            if self._feeds.get(effect.key) is feed:
                del self._feeds[effect.key]

    async def _segments(
        self, cascade: Cascade, audio: RecordingFeed, rate: int, transcript: Transcript
    ) -> tuple[SpokenSegment, ...]:
        """What each speaker said in an item; empty if the speaker model fails."""
        try:
            async with cascade.use_speaker() as model:
                pcm = await asyncio.to_thread(resample, bytes(audio.pcm), rate, model.sample_rate)
                return await self._speakers.segments(pcm, transcript, model)
        except EngineError as exc:
            log.warning("speakers of an item are not told apart: %s", exc)
            return ()

    def _end_audio(self, effect: EndAudio) -> None:
        key = effect.key
        feed = self._feeds.get(key)
        if feed is None:
            return
        if not effect.draft_id:
            feed.finish()
            return

        def take(final: TranscriptUpdated | None) -> None:
            if final is None or not final.text.startswith(effect.begins):
                feed.finish()
            else:
                self._feeds.pop(key, None)
                self._tasks.cancel(key)
                self._port.post(final)

        self._early.take_draft(key, effect.draft_id, take)

    def _anticipate(self, effect: DraftTranscript | Speculate | DropAnticipated) -> None:
        match effect:
            case DraftTranscript(order=order):
                feed = self._feeds.get(order.key)
                self._early.draft(effect, feed.so_far if feed else None)
            case Speculate():
                self._early.speculate(effect)
            case DropAnticipated(id=id_):
                self._early.drop(id_)
            case _:
                assert_never(effect)

    def _generate(self, order: Generate) -> None:
        cascade = self._catalog.of(order.prompt.model)
        port = self._port
        if order.text:
            work = say(Say(order, order.text), cascade, port.post, port.writable)
        else:
            work = answer(order, cascade, port.post, port.writable, calls=self._calls)
        self._tasks.start(order.response_id, work)

    def _examine(self, effect: ScoreTurn | CheckSpeaker) -> None:
        if isinstance(effect, ScoreTurn):
            self._scorer.score(effect)
        else:
            assert self._gate  # without a speaker gate no session has such effects
            self._gate.check(effect)

    def _begin_tool(self, order: RunTool) -> None:
        self._tasks.start(("tool", order.call_id), self._run_in_background(order))

    async def _run_in_background(self, order: RunTool) -> None:
        self._calls.finish(order, await self._port.run_tool(order))
        self._port.post(BackgroundToolFinished(order.call_id))

    def _configure_echo(
        self, effect: ConfigureCleaning | AddEchoReference | ClearEchoReference, now: float
    ) -> None:
        if self._echo is None:
            return
        match effect:
            case ConfigureCleaning(field=field):
                self._echo.configure(field)
            case AddEchoReference(audio=audio):
                self._echo.add_reference(audio, now)
            case ClearEchoReference():
                self._echo.clear_reference()
            case _:
                assert_never(effect)

    def _on_scores(self, at: int, speech: tuple[float, ...]) -> None:
        self._port.post(VadScores(at, speech))
        self._port.progressed()

    def _on_vad_failure(self, exc: Exception) -> None:
        reason = f": {exc}" if isinstance(exc, EngineError) else ""
        what = f"Voice activity detection failed{reason}"
        self._port.fail(exc, code="vad_failed", what=what)
