"""Scripted engines, a peer that remembers, and sessions at work, for the tests of the runtime."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import msgspec

from vivavoce.engines.base import ChatEvent, ChatRequest, Speech, Transcript
from vivavoce.engines.scripted.engines import (
    ScriptedLLM,
    ScriptedSTT,
    ScriptedTTS,
    ScriptedTurn,
    ScriptedVAD,
)
from vivavoce.engines.scripted.scripts import (
    LLMScript,
    STTScript,
    TTSScript,
    TurnScript,
    VADScript,
)
from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.client import AnyClientEvent, InputAudioAppend, ItemCreate, ResponseCreate
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.responses import Response
from vivavoce.protocol.server import AnyServerEvent, ResponseDone
from vivavoce.protocol.session import (
    Audio,
    AudioInput,
    AudioOutput,
    RealtimeSession,
    Transcription,
    TurnDetection,
)
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.parts import Peer
from vivavoce.runtime.performers import CascadePerformer
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.sessions import ServerContext
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.facts import Received
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, ModelInfo
from vivavoce.session.shell import Session

LOUD = b"\x00\x40" * WINDOW
SOFT = bytes(2 * WINDOW)
TURN = LOUD * 4 + SOFT * 20
"""Speech, and silence enough to end it."""
TURN_SAMPLES = 24_000
"""Audio that turn detection wants, if it reads audio."""
MODELS = AvailableModels(
    {"default": ModelInfo(frozenset({"alloy"}), "alloy", turn_samples=TURN_SAMPLES)},
    "default",
    failure_errors=True,
)


class VAD(ScriptedVAD):
    """Knows which streams are open."""

    def __init__(self, script: VADScript) -> None:
        super().__init__(script)
        self.held: set[int] = set()

    def open(self) -> int:
        stream = super().open()
        self.held.add(stream)
        return stream

    def close(self, stream: int) -> None:
        self.held.remove(stream)
        super().close(stream)


class Running:
    """Counts the generators that are open."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *exc: object) -> None:
        self.count -= 1


class STT(ScriptedSTT):
    def __init__(self, script: STTScript, running: Running) -> None:
        super().__init__(script)
        self._running = running

    async def transcribe(self, audio: Any, **how: Any) -> AsyncGenerator[Transcript]:
        with self._running:
            async for transcript in super().transcribe(audio, **how):
                yield transcript


class LLM(ScriptedLLM):
    def __init__(self, script: LLMScript, running: Running) -> None:
        super().__init__(script)
        self._running = running

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        with self._running:
            async for event in super().generate(request):
                yield event


class TTS(ScriptedTTS):
    def __init__(self, script: TTSScript, running: Running) -> None:
        super().__init__(script)
        self._running = running

    async def synthesize(self, text: str, **how: Any) -> AsyncGenerator[Speech]:
        with self._running:
            async for speech in super().synthesize(text, **how):
                yield speech


class ScriptedEngines:
    """One of each engine. Options are those of the scripts, as they stand in a settings file."""

    def __init__(
        self,
        *,
        vad: dict[str, Any] | None = None,
        turn: dict[str, Any] | None = None,
        stt: dict[str, Any] | None = None,
        llm: dict[str, Any] | None = None,
        tts: dict[str, Any] | None = None,
    ) -> None:
        self.running = Running()
        self.vad = VAD(msgspec.convert(vad or {}, VADScript))
        self.turn = ScriptedTurn(msgspec.convert(turn or {}, TurnScript))
        self.stt = STT(msgspec.convert(stt or {}, STTScript), self.running)
        self.llm = LLM(msgspec.convert(llm or {}, LLMScript), self.running)
        self.tts = TTS(msgspec.convert(tts or {}, TTSScript), self.running)

    @property
    def cascade(self) -> Cascade:
        return Cascade(VadBatcher(self.vad), self.turn, self.stt, self.llm, self.tts)

    @property
    def catalog(self) -> ModelCatalog:
        return ModelCatalog({"default": self.cascade}, "default")


def make_runner(session: Session, peer: Peer, catalog: ModelCatalog, **more: Any) -> Runner:
    """A runner of a session of the model "default"."""
    return Runner(session, peer, partial(CascadePerformer, catalog, "default"), **more)


class RecordingPeer:
    """A peer that records the events sent to it and its close."""

    def __init__(self) -> None:
        self.events: list[AnyServerEvent] = []
        self.raw: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self._news = asyncio.Event()

    def send(self, event: AnyServerEvent) -> None:
        assert self.closed is None, "sent after the close"
        self.events.append(event)
        self._news.set()

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        assert self.closed is None, "sent after the close"
        self.raw.append(data)
        self._news.set()

    @property
    def is_writable(self) -> bool:
        return self.writable.is_set()

    @property
    def waiting_bytes(self) -> int:
        return 0

    async def wait_writable(self) -> None:
        await self.writable.wait()

    def close(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = (code, reason)
            self._news.set()

    async def until(self, tag: str, count: int = 1) -> None:
        """Wait for `count` events of that type."""
        while self.types.count(tag) < count:
            assert self.closed is None, f"closed {self.closed} before {tag}"
            self._news.clear()
            await self._news.wait()

    @property
    def types(self) -> list[str]:
        return [str(type(event).__struct_config__.tag) for event in self.events]

    @property
    def responses(self) -> list[Response]:
        """Of each response.done."""
        return [event.response for event in self.events if isinstance(event, ResponseDone)]

    @property
    def endings(self) -> list[tuple[str, str | None]]:
        """Status of each response, and the code of its error."""
        found: list[tuple[str, str | None]] = []
        for response in self.responses:
            details = response.status_details
            code = details.error.code if details and details.error else None
            found.append((str(response.status), code))
        return found


def template(turn_detection: TurnDetection | None = None, **fields: Any) -> RealtimeSession:
    input_ = AudioInput(turn_detection=turn_detection, transcription=Transcription(model="whisper"))
    audio = Audio(input_, AudioOutput(voice="alloy"))
    return RealtimeSession(id="sess_1", model="default", audio=audio, **fields)


def make_context(
    scripted: ScriptedEngines,
    limits: SessionLimits | None = None,
    max_sessions: int = 100,
    turn_detection: TurnDetection | None = None,
) -> ServerContext:
    opening = template(turn_detection)
    return ServerContext(scripted.catalog, MODELS, limits or SessionLimits(), opening, max_sessions)


def received(*events: AnyClientEvent) -> Sequence[Received]:
    return [Received(event) for event in events]


def question(text: str = "Who is there?") -> Sequence[Received]:
    """A text item and a response.create."""
    item = Message(role="user", content=(InputText(text=text),))
    return received(ItemCreate(item=item), ResponseCreate())


def speech(sound: bytes = TURN) -> Sequence[Received]:
    """Audio of the user, one append for each window."""
    size = 2 * WINDOW
    pieces = (sound[start : start + size] for start in range(0, len(sound), size))
    return received(*(InputAudioAppend(audio=piece) for piece in pieces))
