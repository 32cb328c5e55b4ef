"""A Realtime server for tests of applications: the test says what is heard and what is answered.

    async with FakeServer().running() as fake:
        fake.answers(call("get_weather", city="Rome"), "It is sunny in Rome.")
        ...  # the application connects to fake.url
        await fake.user.says("What is the weather in Rome?")
        await fake.expect.tool_call("get_weather", city="Rome")
        await fake.expect.said("sunny")

The sessions are those of the real server, with scripted engines: the events, their order and the
turn detection are the same. `connect()` opens a session without a socket, also in virtual time.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import msgspec

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.errors import EngineError
from vivavoce.protocol import codec
from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import (
    Audio,
    AudioInput,
    AudioOutput,
    RealtimeSession,
    ServerVad,
    SessionObject,
    Transcription,
)
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.parts import Observer, Peer, Player
from vivavoce.runtime.resume import Ticket
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.sessions import ServerContext, Sessions
from vivavoce.runtime.upstream_calls import PassedOffer
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.session.effects import Effect, Send
from vivavoce.session.facts import AudioArrived, Disconnected, Fact, Received
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, ModelInfo
from vivavoce.testing import (
    LLMScript,
    ScriptedAnswer,
    ScriptedCall,
    ScriptedLLM,
    ScriptedSTT,
    ScriptedTranscript,
    ScriptedTTS,
    ScriptedTurn,
    ScriptedVAD,
    STTScript,
    TTSScript,
    TurnScript,
    VADScript,
)
from vivavoce.testing.expectations import (
    CHUNK_MS,
    TIMEOUT_S,
    Expectations,
    FakeEvent,
    Found,
    SimulatedUser,
)
from vivavoce.transports.send_queue import SendQueue

T = TypeVar("T")
VOICES: Final = ("marin", "alloy", "ash", "ballad", "cedar", "coral", "echo", "sage", "shimmer")
MAX_EVENTS: Final = 100_000
"""That are kept of one test."""
EXPIRED: Final = "Your session hit the maximum duration of 60 minutes."
PACE: Final = 0.02
"""The time in which answers are sent, relative to their duration: 0.1 s for 5 s of audio."""


def call(name: str, /, **arguments: Any) -> ScriptedAnswer:
    """An answer that calls a function."""
    return ScriptedAnswer(calls=(ScriptedCall(name, arguments),))


class FakeLLM(ScriptedLLM):
    """Gives the answers of the test, each once."""

    def __init__(self) -> None:
        super().__init__(LLMScript())
        self.waiting: deque[ScriptedAnswer] = deque()

    def _next(self) -> ScriptedAnswer:
        if not self.waiting:
            raise EngineError("the test has given no answer for this request: call answers()")
        return self.waiting.popleft()


class FakeSTT(ScriptedSTT):
    """Gives the texts that the user of the test says."""

    def __init__(self) -> None:
        super().__init__(STTScript(hears_silence=False))
        self.waiting: deque[str] = deque()

    def _next(self) -> ScriptedTranscript:
        return ScriptedTranscript(self.waiting.popleft() if self.waiting else "")


class FakeTTS(ScriptedTTS):
    """Hums, at a pace that may be changed."""

    def __init__(self) -> None:
        super().__init__(TTSScript(voices=VOICES, realtime_factor=PACE))

    def set_pace(self, factor: float) -> None:
        """Seconds to make one second of audio, from the next utterance on."""
        self._script = msgspec.structs.replace(self._script, realtime_factor=factor)


class FakeSessions(Sessions):
    """Sessions that are known while they are connected."""

    def __init__(self, context: ServerContext) -> None:
        super().__init__(context)
        self.connected: list[Runner] = []
        """The newest last."""
        self.peers: dict[Runner, Peer] = {}

    def open(
        self,
        peer: Peer,
        opening: Opening,
        player: Player | None = None,
        *,
        observers: Iterable[Observer] = (),
        ticket: Ticket | None = None,
        offer: PassedOffer | None = None,
    ) -> Runner:
        """See Sessions."""
        runner = super().open(
            peer, opening, player, observers=observers, ticket=ticket, offer=offer
        )
        self.peers[runner] = peer
        return runner

    async def serve(self, runner: Runner) -> None:
        """See Sessions."""
        self.connected.append(runner)
        try:
            await super().serve(runner)
        finally:
            self.connected.remove(runner)
            del self.peers[runner]


class _Silent:
    """The peer of a session without a socket: its events are in the record."""

    def send(self, event: AnyServerEvent) -> None:
        """Nothing is to be done."""

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        """Nothing is to be done."""

    is_writable = True
    waiting_bytes = 0

    async def wait_writable(self) -> None:
        """It is always writable."""

    def close(self, code: int, reason: str) -> None:
        """Nothing is to be done."""


@dataclass(frozen=True, slots=True)
class FakeClient:
    """A client without a socket."""

    runner: Runner

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event of the client. Raises InvalidRequest."""
        self.runner.post(Received(codec.decode(msgspec.json.encode({"type": kind, **fields}))))

    def say(self, text: str) -> None:
        """Write a message of the user, and request an answer."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        self.send("conversation.item.create", item=item)
        self.send("response.create")

    def tool_output(self, call_id: str, output: str) -> None:
        """Give the output of a function call, and request an answer."""
        item = {"type": "function_call_output", "call_id": call_id, "output": output}
        self.send("conversation.item.create", item=item)
        self.send("response.create")


class FakeServer:
    """Sessions with scripted engines, and a record of all their events."""

    def __init__(self) -> None:
        self.url = ""
        """The base URL for OpenAI's clients, http://127.0.0.1:PORT/v1, while it listens."""
        self.events: list[FakeEvent] = []
        """The events of all sessions, in order, up to MAX_EVENTS."""
        self.user = SimulatedUser(self)
        self.expect = Expectations(self)
        self._llm, self._stt, self._tts = FakeLLM(), FakeSTT(), FakeTTS()
        self._new = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # while it runs
        self._sessions = FakeSessions(self._context())

    @property
    def requests(self) -> list[Any]:
        """What the language model was asked: instructions, items, tools."""
        return self._llm.requests

    @property
    def runner(self) -> Runner | None:
        """The newest session that is connected."""
        connected = self._sessions.connected
        return connected[-1] if connected else None

    def answers(self, *answers: str | ScriptedAnswer) -> None:
        """What the model answers next, in this order: texts, call(...), ScriptedAnswer."""
        self._llm.waiting.extend(
            ScriptedAnswer(each) if isinstance(each, str) else each for each in answers
        )

    def hears(self, text: str) -> None:
        """The transcript of what is spoken next, where the application sends the audio itself."""
        self._stt.waiting.append(text)

    @asynccontextmanager
    async def running(self, *, listen: bool = True) -> AsyncIterator[Self]:
        """Serve until the block ends. listen: on a free port of 127.0.0.1; needs a real clock."""
        self._loop = asyncio.get_running_loop()
        try:
            if listen:
                from vivavoce.routes import application
                from vivavoce.server import serve_app
                from vivavoce.settings import ServerSettings

                local = ServerSettings(host="127.0.0.1", port=0)
                async with serve_app(application(self._sessions), local) as port:
                    self.url = f"http://127.0.0.1:{port}/v1"
                    yield self
                    await self._sessions.drain(0)
            else:
                yield self
                await self._sessions.drain(0)
        finally:
            self.url, self._loop = "", None

    @asynccontextmanager
    async def connect(self, **session: Any) -> AsyncIterator[FakeClient]:
        """A client without a socket; `session` are settings of session.update."""
        runner = self._sessions.open(_Silent(), Opening())
        task = asyncio.create_task(self._sessions.serve(runner))
        client = FakeClient(runner)
        try:
            if session:
                client.send("session.update", session={"type": "realtime", **session})
            yield client
        finally:
            runner.post(Disconnected())
            await task

    @asynccontextmanager
    async def application(self, main: Coroutine[Any, Any, object]) -> AsyncIterator[Self]:
        """Run the application beside the block, and cancel it at the end.

        An exception of the application ends the block and is raised.
        """
        async with asyncio.TaskGroup() as group:
            task = group.create_task(main)
            try:
                yield self
            finally:
                task.cancel()

    def set_pace(self, factor: float) -> None:
        """How long answers take to be spoken: 0 at once, 1 as long as they are heard."""
        self._tts.set_pace(factor)

    async def hear(self, pcm: bytes, text: str, pace: float) -> None:
        """Give PCM to the newest session, and `text` as its transcript; "": it is silence.

        pace: seconds that a second of it takes. Raises AssertionError.
        """
        await self.in_its_loop(self._hear(pcm, text, pace))

    # --- what a server may do to an application at any time

    async def send(self, kind: str, **fields: Any) -> None:
        """Send any event to the client of the newest session, as if the session had sent it."""
        event = {"type": kind, **fields}

        def act(runner: Runner, peer: Peer) -> None:
            now = asyncio.get_running_loop().time()
            self.add(FakeEvent(now, runner.settings.id, "server", event))
            peer.send_raw(msgspec.json.encode(event))

        await self.in_its_loop(self._with_newest(act))

    async def send_text(self, frame: str) -> None:
        """Send any text frame, JSON or not. Raises AssertionError."""
        await self.in_its_loop(self._with_newest(lambda _, peer: peer.send_raw(frame.encode())))

    async def close(self, code: int = 1011, reason: str = "") -> None:
        """Close the newest connection. Raises AssertionError."""
        end = self._with_newest(lambda runner, _: runner.end(code, reason, "operator"))
        await self.in_its_loop(end)

    async def drop(self) -> None:
        """Cut the newest connection without a closing handshake: the client sees code 1006."""

        def act(runner: Runner, peer: Peer) -> None:
            if isinstance(peer, SendQueue):
                peer.cut()
            runner.post(Disconnected())

        await self.in_its_loop(self._with_newest(act))

    async def expire(self) -> None:
        """End the newest session as one that has lasted for too long."""
        error = {"type": "invalid_request_error", "code": "session_expired", "message": EXPIRED}
        await self.send("error", event_id="event_expired", error=error)
        await self.close(1001, EXPIRED)

    async def wait_for(self, what: str, found: Found, timeout_s: float = TIMEOUT_S) -> FakeEvent:
        """The first event of the record that is looked for; each is looked at once.

        Raises AssertionError where it does not come in time. May be called in any event loop.
        """
        return await self.in_its_loop(self._wait_for(what, found, timeout_s))

    async def in_its_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Do that in the loop of the server, which may run in another thread."""
        loop = self._loop
        if loop is None:
            work.close()
            raise AssertionError("the fake server does not run")
        if loop is asyncio.get_running_loop():
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    async def _with_newest(self, act: Callable[[Runner, Peer], None]) -> None:
        runner = self.runner
        assert runner is not None, "no session is connected to the fake server"
        act(runner, self._sessions.peers[runner])

    async def _hear(self, pcm: bytes, text: str, pace: float) -> None:
        runner = self.runner
        assert runner is not None, "no session is connected to the fake server"
        if text:
            self.hears(text)
        step = CHUNK_MS * BYTES_PER_MS
        for start in range(0, len(pcm), step):
            runner.post(AudioArrived(pcm[start : start + step]))
            await asyncio.sleep(pace * CHUNK_MS / 1000)

    async def _wait_for(self, what: str, found: Found, timeout_s: float) -> FakeEvent:
        place = 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    while place < len(self.events):
                        place += 1
                        if found(self.events[place - 1]):
                            return self.events[place - 1]
                    self._new.clear()
                    await self._new.wait()
        except TimeoutError:
            last = ", ".join(event.type for event in self.events[-8:]) or "none"
            raise AssertionError(
                f"{what}: it did not come within {timeout_s:g} s; the last events: {last}"
            ) from None

    def _context(self) -> ServerContext:
        vad, turn = ScriptedVAD(VADScript()), ScriptedTurn(TurnScript(default=1.0))
        cascade = Cascade(VadBatcher(vad), turn, self._stt, self._llm, self._tts)
        template = RealtimeSession(
            audio=Audio(
                AudioInput(turn_detection=ServerVad(), transcription=Transcription(model="fake")),
                AudioOutput(voice=VOICES[0]),
            )
        )
        return ServerContext(
            ModelCatalog({"default": cascade}, "default"),
            AvailableModels({"default": ModelInfo(frozenset(VOICES), VOICES[0])}, "default"),
            SessionLimits(),
            template,
            observers=(self._observer,),
        )

    def _observer(self, session: SessionObject, who: str) -> "_Record":
        return _Record(self, session.id)

    def add(self, event: FakeEvent) -> None:
        """Record an event, and wake those who wait for one."""
        if len(self.events) < MAX_EVENTS:
            self.events.append(event)
        self._new.set()


class _Record:
    """Observes one session."""

    def __init__(self, server: FakeServer, session_id: str) -> None:
        self._server = server
        self._session = session_id

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        """See Observer."""
        if isinstance(fact, Received):
            self._add("client", msgspec.to_builtins(fact.event), now)
        for effect in effects:
            if isinstance(effect, Send):
                self._add("server", msgspec.json.decode(codec.encode(effect.event)), now)

    def _add(self, sent_by: str, fields: dict[str, Any], now: float) -> None:
        self._server.add(FakeEvent(now, self._session, sent_by, fields))
