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
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import msgspec
import numpy as np

from vivavoce.audio.formats import RATE
from vivavoce.errors import EngineError
from vivavoce.protocol import codec
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
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.sessions import ServerContext, Sessions
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

T = TypeVar("T")
TIMEOUT_S: Final = 5.0
"""For what a test expects, unless within() says otherwise."""
MS_PER_CHARACTER: Final = 40
"""Of the hum that stands for a spoken text."""
TURN_SILENCE_MS: Final = 800
"""After the speech; longer than silence_duration_ms."""
VOICES: Final = ("marin", "alloy", "ash", "ballad", "cedar", "coral", "echo", "sage", "shimmer")
MAX_EVENTS: Final = 100_000
"""That are kept of one test."""
PACE: Final = 0.02
"""Of answers: one that is heard for 5 s takes 0.1 s."""


def call(name: str, /, **arguments: Any) -> ScriptedAnswer:
    """An answer that calls a function."""
    return ScriptedAnswer(calls=(ScriptedCall(name, arguments),))


class FakeEvent(msgspec.Struct, frozen=True):
    """One event of a session: its fields as they are on the wire, and who sent it."""

    at: float
    """Seconds of the clock of the event loop."""
    session: str
    sent_by: str
    """client or server."""
    fields: dict[str, Any]

    @property
    def type(self) -> str:
        """The type of the event."""
        return str(self.fields["type"])


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

    async def serve(self, runner: Runner) -> None:
        """See Sessions."""
        self.connected.append(runner)
        try:
            await super().serve(runner)
        finally:
            self.connected.remove(runner)


class _Silent:
    """The peer of a session without a socket: its events are in the record."""

    def send(self, event: AnyServerEvent) -> None:
        """Nothing is to be done."""

    def send_raw(self, data: bytes) -> None:
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
        """Of all sessions, in order, up to MAX_EVENTS."""
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
                from vivavoce.app import application
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

    async def wait_for(
        self, what: str, found: Callable[[FakeEvent], bool], timeout_s: float = TIMEOUT_S
    ) -> FakeEvent:
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

    async def _wait_for(
        self, what: str, found: Callable[[FakeEvent], bool], timeout_s: float
    ) -> FakeEvent:
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


class SimulatedUser:
    """Speaks to the session of the application: a hum stands for the words."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def says(self, text: str) -> None:
        """Speak, then be silent long enough to end the turn. Raises AssertionError."""
        await self._server.wait_for("a connection", lambda _: True)
        await self._server.in_its_loop(self._speak(text))

    async def interrupts_after(self, words: str, text: str = "Stop.") -> None:
        """Speak as soon as an answer has said these words. Raises AssertionError."""
        spoken: dict[str, str] = {}

        def reached(event: FakeEvent) -> bool:
            if not event.type.endswith("audio_transcript.delta"):
                return False
            key = str(event.fields["response_id"])
            spoken[key] = spoken.get(key, "") + str(event.fields["delta"])
            return words in spoken[key]

        await self._server.wait_for(f"an answer with the words {words!r}", reached)
        await self.says(text)

    async def _speak(self, text: str) -> None:
        runner = self._server.runner
        assert runner is not None, "no session is connected to the fake server"
        self._server.hears(text)
        sound = hum(len(text) * MS_PER_CHARACTER) + bytes(2 * RATE * TURN_SILENCE_MS // 1000)
        step = 2 * RATE // 10
        for start in range(0, len(sound), step):
            runner.post(AudioArrived(sound[start : start + step]))
            await asyncio.sleep(0)


class Expectations:
    """What has to happen. Each waits, then raises AssertionError with the last events."""

    def __init__(self, server: FakeServer, timeout_s: float = TIMEOUT_S) -> None:
        self._server = server
        self._timeout_s = timeout_s

    def within(self, seconds: float) -> "Expectations":
        """The same expectations, with another time limit."""
        return Expectations(self._server, seconds)

    async def event(self, kind: str, **fields: Any) -> FakeEvent:
        """An event of that type with those fields, of either side."""

        def found(event: FakeEvent) -> bool:
            return event.type == kind and all(
                event.fields.get(name) == value for name, value in fields.items()
            )

        return await self._server.wait_for(f"{kind} {fields or ''}".strip(), found, self._timeout_s)

    async def tool_call(self, name: str, /, **arguments: Any) -> FakeEvent:
        """A function call with at least these arguments."""

        def found(event: FakeEvent) -> bool:
            if event.type != "response.function_call_arguments.done":
                return False
            given = msgspec.json.decode(event.fields["arguments"])
            right = all(given.get(key) == value for key, value in arguments.items())
            return event.fields["name"] == name and right

        return await self._server.wait_for(f"a call of {name} {arguments}", found, self._timeout_s)

    async def tool_output(self, text: str) -> FakeEvent:
        """The application gives an output of a function that has this text in it."""

        def found(event: FakeEvent) -> bool:
            item = event.fields.get("item") or {}
            output = event.sent_by == "client" and item.get("type") == "function_call_output"
            return output and text in str(item.get("output"))

        return await self._server.wait_for(f"an output with {text!r}", found, self._timeout_s)

    async def said(self, text: str) -> FakeEvent:
        """A complete answer, spoken or written, with these words; case and signs do not count."""

        def found(event: FakeEvent) -> bool:
            whole = event.fields.get("transcript") or event.fields.get("text") or ""
            ends = ("output_audio_transcript.done", "output_text.done")
            return event.type.endswith(ends) and normalised(text) in normalised(str(whole))

        return await self._server.wait_for(f"an answer with {text!r}", found, self._timeout_s)

    async def heard(self, text: str) -> FakeEvent:
        """A transcript of the user with these words."""

        def found(event: FakeEvent) -> bool:
            completed = event.type.endswith("input_audio_transcription.completed")
            return completed and normalised(text) in normalised(event.fields["transcript"])

        return await self._server.wait_for(f"a transcript {text!r}", found, self._timeout_s)

    async def interrupted(self) -> FakeEvent:
        """An answer that speech has ended."""

        def found(event: FakeEvent) -> bool:
            details = (event.fields.get("response") or {}).get("status_details") or {}
            return event.type == "response.done" and details.get("reason") == "turn_detected"

        return await self._server.wait_for("an interrupted answer", found, self._timeout_s)


def hum(milliseconds: int) -> bytes:
    """A tone that scripted engines take for speech: PCM at 24 kHz."""
    at = np.arange(RATE * milliseconds // 1000) * (2 * np.pi * 200 / RATE)
    return bytes((np.sin(at) * 9_000).astype("<i2").data)


def normalised(text: str) -> str:
    """Words in lower case with one space between them."""
    return " ".join(re.findall(r"\w+", text.lower()))
