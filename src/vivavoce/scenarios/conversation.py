"""Runs one scenario: a client that speaks, listens, runs the tools, and interrupts."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.check.recording import RecordedEvent
from vivavoce.errors import AudioError, EngineError, SettingsError
from vivavoce.media import files
from vivavoce.scenarios.files import ScenarioFile, ScenarioStep
from vivavoce.scenarios.judging import ChatClient, next_words
from vivavoce.scenarios.turns import ScenarioTurn, SpokenStretch, TurnRecorder
from vivavoce.secret import Secret
from vivavoce.talk.client import (
    TRANSCRIPTION_MODEL,
    TRUNCATE_ID,
    ConnectionLost,
    Event,
    WebSocketConnection,
    append_audio,
    connect,
    decode,
    encode,
    response_create,
    truncate,
    user_text,
)
from vivavoce.talk.options import Timeouts
from vivavoce.talk.turn import speech_end_ms
from vivavoce.testing.clips import KINDS, MAX_CLIP_SECONDS, SpeechCache, treated

CHUNK_MS: Final = 40
CHUNK_BYTES: Final = CHUNK_MS * BYTES_PER_MS
TRAILING_MS: Final = 1_500
"""The silence after speech that is sent faster than real time."""
QUIET_S: Final = 0.5
"""After the last step: what comes late is still taken in."""


@dataclass(frozen=True, kw_only=True)
class ScenarioTarget:
    """The server, and how to talk to it."""

    url: str
    """A complete WebSocket address with ?model=."""
    api_key: Secret = Secret()
    voice: str = ""
    engine: str = "espeak"
    real_time: bool = True
    """Whether audio is sent as fast as it is heard."""
    timeouts: Timeouts = Timeouts()
    user_model: ChatClient | None = None
    """Speaks for a simulated user."""


@dataclass(slots=True)
class ScenarioRun:
    """What happened, to be judged."""

    recorder: TurnRecorder = field(default_factory=TurnRecorder)
    session: dict[str, Any] = field(default_factory=dict)
    """As the server has last reported it."""
    steps: list[ScenarioTurn] = field(default_factory=list)
    """The turn of each step; fewer, where the conversation broke off."""
    seconds: float = 0.0
    problem: str = ""
    """Why it broke off."""


async def run_scenario(scenario: ScenarioFile, target: ScenarioTarget, folder: Path) -> ScenarioRun:
    """Carry the conversation to its end. folder: of the file, for clips beside it.

    Raises SettingsError: the server cannot be reached, or something is missing to speak.
    """
    run = ScenarioRun()
    async with (
        SpeechCache(target.engine) as cache,
        connect(target.url, target.api_key, target.timeouts) as connection,
    ):
        conversation = _Conversation(scenario, target, folder, run, cache, connection)
        try:
            await conversation.whole()
        except _BrokenOff as exc:
            run.problem = str(exc)
        except (AudioError, EngineError) as exc:
            raise SettingsError(f"{scenario.name}: {exc}") from exc
        run.seconds = max(conversation.now(), run.recorder.playback.plays_until)
    return run


class _BrokenOff(Exception):
    """The conversation cannot go on."""


class _NotInTime(_BrokenOff):
    """What was awaited did not come."""


class ScenarioMicrophone:
    """Sends a chunk when its last sample would have been recorded: speech, or silence."""

    def __init__(self, send: Callable[[Event], Awaitable[None]]) -> None:
        self._send = send
        self._speech: deque[bytes] = deque()  # chunks that are sent next
        self._spoken = asyncio.Event()
        self._closed = False

    async def run(self) -> None:
        """Until it is closed."""
        loop = asyncio.get_running_loop()
        due, silence = loop.time(), bytes(CHUNK_BYTES)
        while not self._closed:
            due += CHUNK_MS / 1000
            await asyncio.sleep(due - loop.time())
            chunk = self._speech.popleft() if self._speech else silence
            await self._send(append_audio(chunk + bytes(CHUNK_BYTES - len(chunk))))
            if not self._speech:
                self._spoken.set()

    async def speak(self, chunks: Iterable[bytes]) -> None:
        """Wait until these are sent, or it is closed."""
        self._speech.extend(chunks)
        if not self._closed:
            self._spoken.clear()
        await self._spoken.wait()

    def close(self) -> None:
        """The connection is lost."""
        self._closed = True
        self._spoken.set()


class _Conversation:
    """One connection and everything on it."""

    def __init__(
        self,
        scenario: ScenarioFile,
        target: ScenarioTarget,
        folder: Path,
        run: ScenarioRun,
        cache: SpeechCache,
        connection: WebSocketConnection,
    ) -> None:
        self._scenario, self._target, self._folder = scenario, target, folder
        self._run, self._cache, self._connection = run, cache, connection
        self._recorder = run.recorder
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        self._changed = asyncio.Event()
        self._lost = ""
        self._microphone = ScenarioMicrophone(self._send)
        self._words: dict[str, str] = {}  # of the answers that are given, by item
        self._tasks: asyncio.TaskGroup | None = None
        self._running_tools: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """Seconds since the connection was made."""
        return self._loop.time() - self._begun

    async def whole(self) -> None:
        """Set-up, all steps, the simulated user.

        Raises _BrokenOff, SettingsError, AudioError, EngineError.
        """
        failure: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            beside = [tasks.create_task(self._receive())]
            if self._scenario.is_spoken and self._target.real_time:
                beside.append(tasks.create_task(self._microphone.run()))
            try:
                await self._converse()
            except (_BrokenOff, SettingsError, AudioError, EngineError) as exc:
                failure = exc
            finally:
                for task in (*beside, *self._running_tools):
                    task.cancel()
        if failure is not None:
            raise failure

    async def _converse(self) -> None:
        await self._set_up()
        for place, step in enumerate(self._scenario.steps):
            turn = await self._step(step, waits=self._scenario.waits(place))
            self._run.steps.append(turn)
        if self._scenario.user is not None:
            await self._simulate()
        if self._target.real_time:
            await asyncio.sleep(QUIET_S)

    async def _set_up(self) -> None:
        seen = self._recorder
        limit = self._target.timeouts.quiet
        await self._until("session.created", lambda: bool(self._run.session), limit)
        session = dict(self._scenario.session)
        declared = [
            {
                "type": "function",
                "name": name,
                "description": t.description,
                "parameters": t.parameters or {"type": "object", "properties": {}},
            }
            for name, t in self._scenario.tools.items()
            if t.declared
        ]
        if declared:
            session["tools"] = [*session.get("tools", ()), *declared]
        if any(step.expect.heard for step in self._scenario.steps):
            audio = session.setdefault("audio", {}).setdefault("input", {})
            audio.setdefault("transcription", {"model": TRANSCRIPTION_MODEL})
        if session:
            await self._send(
                Event({"type": "session.update", "session": {"type": "realtime", **session}})
            )
            await self._until(
                "session.updated",
                lambda: (
                    any(e.event.get("type") == "session.updated" for e in seen.entries)
                    or bool(seen.setup_errors)
                ),
                limit,
            )
        if seen.setup_errors:
            raise _BrokenOff(f"the session was not set up: {seen.setup_errors[0]}")

    # --- steps

    async def _step(self, step: ScenarioStep, *, waits: bool) -> ScenarioTurn:
        sound = await self._sound(step)  # spoken before its time: an interruption is punctual
        if step.interrupts:
            await self._wait_heard(step)
        elif not self._target.real_time:
            self._recorder.playback.plays_until = self.now()  # all is taken as heard
        turn = await self._act(step, sound)
        if waits or step.expect.event:
            await self._wait_done(step, turn, waits=waits)
        return turn

    async def _act(self, step: ScenarioStep, sound: bytes | None) -> ScenarioTurn:
        now = self.now()
        if sound is not None:
            turn = ScenarioTurn("silence" if step.silence_ms else "spoken", step.text, now)
            self._recorder.begin(turn)
            await self._speak(sound, turn)
            return turn
        if step.types:
            turn = self._recorder.begin(ScenarioTurn("typed", step.text, now, ended=now))
            await self._send(user_text(step.types))
            await self._send(response_create())
        else:
            turn = self._recorder.begin(ScenarioTurn("event", step.text, now, ended=now))
            await self._send(Event(step.sends))
        return turn

    async def _sound(self, step: ScenarioStep) -> bytes | None:
        """What the step makes heard; None: it makes no sound. Raises AudioError, EngineError."""
        voice = self._target.voice or step.voice or self._scenario.voice
        if step.says:
            return await self._cache.speak(step.says, voice)
        if step.silence_ms:
            return bytes(step.silence_ms * BYTES_PER_MS)
        if not step.clip:
            return None
        if step.clip in KINDS:
            text = KINDS[step.clip].text
            speech = await self._cache.speak(text, voice) if text else b""
            return await asyncio.to_thread(treated, step.clip, speech)
        path = self._folder / step.clip
        return await asyncio.to_thread(files.read, path, max_seconds=MAX_CLIP_SECONDS)

    async def _speak(self, pcm: bytes, turn: ScenarioTurn) -> None:
        """Send speech to its end. Silence follows: see ScenarioMicrophone."""
        end_ms = speech_end_ms(pcm)
        self._recorder.user.append(SpokenStretch(turn.begun, pcm))
        chunks = [pcm[at : at + CHUNK_BYTES] for at in range(0, len(pcm), CHUNK_BYTES)]
        if self._target.real_time:
            await self._microphone.speak(chunks)
            end = len(pcm) / BYTES_PER_MS if end_ms is None else end_ms
            turn.ended = turn.begun + end / 1000
            return
        for chunk in chunks:
            await self._send(append_audio(chunk))
        turn.ended = self.now()
        silence = bytes(CHUNK_BYTES)
        for _ in range(TRAILING_MS // CHUNK_MS):
            await self._send(append_audio(silence))

    async def _wait_heard(self, step: ScenarioStep) -> None:
        """Wait until so much of the answer was heard."""
        playback = self._recorder.playback
        if step.interrupts_after:
            item = ""

            def said() -> bool:
                nonlocal item
                item = next((k for k, t in self._words.items() if step.interrupts_after in t), "")
                return bool(item)

            await self._until(f"an answer with {step.interrupts_after!r}", said, step.within)
            moment = playback.heard_at(item)
        else:
            turn = self._recorder.turns[-1]
            await self._until("the sound of an answer", lambda: bool(turn.first_audio), step.within)
            moment = (turn.first_audio or 0.0) + step.interrupts_after_ms / 1000
        if self._target.real_time:
            await asyncio.sleep(max(0.0, moment - self.now()))

    async def _wait_done(self, step: ScenarioStep, turn: ScenarioTurn, *, waits: bool) -> None:
        wanted = step.expect

        def reached() -> bool:
            if wanted.event and not find_event(self._recorder.entries, turn, step):
                return False
            if wanted.heard and not turn.transcripts:
                return False
            return not waits or turn.is_settled

        what = f"an event {wanted.event}" if wanted.event else "a complete answer"
        try:
            await self._until(what, reached, step.within)
        except _NotInTime as exc:
            turn.problem = str(exc)
            return
        if waits and self._target.real_time:
            await asyncio.sleep(max(0.0, self._recorder.playback.plays_until - self.now()))

    # --- a simulated user

    async def _simulate(self) -> None:
        user, model = self._scenario.user, self._target.user_model
        assert user is not None
        if model is None:
            raise SettingsError(f"{self._scenario.name}: its [user] needs a language model: --llm")
        for _ in range(user.max_turns):
            said = [(turn.text, turn.answer) for turn in self._recorder.turns]
            words = await next_words(model, user, said)
            if not words:
                return
            step = ScenarioStep(says=words, within=user.within)
            turn = await self._step(step, waits=True)
            if turn.problem:
                raise _BrokenOff(turn.problem)

    # --- events

    async def _send(self, event: Event) -> None:
        shown = dict(event.fields)
        if isinstance(shown.get("audio"), bytes):
            shown["audio"] = f"({len(shown['audio'])} bytes)"
        if event.type != "input_audio_buffer.append":
            self._recorder.entries.append(RecordedEvent(self.now(), True, shown))
        await self._connection.send(encode(event))

    async def _receive(self) -> None:
        while True:
            frame = await self._connection.receive()
            if isinstance(frame, ConnectionLost):
                self._lost = frame.reason
                self._microphone.close()
                self._changed.set()
                return
            event = decode(frame)
            if not (event.type == "error" and event.text("error", "event_id") == TRUNCATE_ID):
                await self._take(event)
            self._changed.set()

    async def _take(self, event: Event) -> None:
        now = self.now()
        fields = dict(event.fields)
        pcm = event.pcm() if event.type == "response.output_audio.delta" else b""
        if pcm:
            fields["delta"] = f"({len(pcm)} bytes)"
        self._recorder.received(fields, now)
        match event.type:
            case "session.created" | "session.updated":
                self._run.session = dict(event.get("session") or {"id": ""})
            case "response.output_audio.delta":
                index = event.get("content_index")
                self._recorder.playback.add(pcm, event.text("item_id"), index or 0, now)
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                item = event.text("item_id")
                self._words[item] = self._words.get(item, "") + event.text("delta")
            case "input_audio_buffer.speech_started":
                await self._stop_playback(now)
            case "response.done" if event.text("response", "status") == "completed":
                calls = [
                    item
                    for item in event.get("response", "output") or ()
                    if isinstance(item, dict) and item.get("type") == "function_call"
                ]
                if calls and self._tasks is not None:
                    task = self._tasks.create_task(self._run_tools(calls))
                    self._running_tools.add(task)
                    task.add_done_callback(self._running_tools.discard)

    async def _stop_playback(self, now: float) -> None:
        """Do as a client has to that plays the answers itself."""
        stopped = self._recorder.stop_playback(now)
        if stopped is not None:
            await self._send(truncate(*stopped))

    async def _run_tools(self, calls: list[dict[str, Any]]) -> None:
        for item in calls:
            tool = self._scenario.tools.get(str(item.get("name")))
            output: Any = {"error": f"the scenario has no table [tools.{item.get('name')}]"}
            if tool is not None:
                output = tool.output
                await asyncio.sleep(tool.delay_ms / 1000)
            text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
            given = {"type": "function_call_output", "call_id": item.get("call_id"), "output": text}
            await self._send(Event({"type": "conversation.item.create", "item": given}))
        await self._send(response_create())

    async def _until(self, what: str, reached: Callable[[], bool], seconds: float) -> None:
        """Raises _NotInTime; _BrokenOff: the connection is lost."""
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    if self._lost:
                        raise _BrokenOff(f"{self._lost}, while {what} was awaited")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise _NotInTime(f"{what} did not come within {seconds:g} s") from None


def find_event(
    entries: list[RecordedEvent], turn: ScenarioTurn, step: ScenarioStep
) -> dict[str, Any] | None:
    """The event of the server that a step expects, since the step began."""
    for entry in entries:
        wanted = entry.event.get("type") == step.expect.event and not entry.sent
        if entry.at >= turn.begun and wanted and has_fields(entry.event, step.expect.fields):
            return entry.event
    return None


def has_fields(found: Any, wanted: Any) -> bool:
    """Whether a table has all of these fields, and the tables in it likewise."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            has_fields(found.get(key), value) for key, value in wanted.items()
        )
    return bool(found == wanted)
