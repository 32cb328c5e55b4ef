"""What a test says of a conversation with the fake server: the user's part, and what must happen.

Words count, not letter case or punctuation. Every expectation waits, looks at all events from the
beginning of the test, and raises AssertionError with the last events. Any event loop will do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.media import files
from vivavoce.testing.clips import ENGINE, MAX_CLIP_SECONDS, TONE, spoken
from vivavoce.testing.virtual_time import VirtualTimeLoop
from vivavoce.testing.words import normalised

T = TypeVar("T")
TIMEOUT_S: Final = 20.0
"""For what a test expects, unless within() says otherwise."""
TURN_SILENCE_MS: Final = 800
"""After the speech; longer than silence_duration_ms."""
CHUNK_MS: Final = 100
"""The length of one append of the user's audio."""
TURN_ENDS: Final = ("input_audio_buffer.speech_stopped", "response.create")


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


Found = Callable[[FakeEvent], bool]


class ObservedServer(Protocol):
    """What the user and the expectations of a test need of the fake server."""

    events: list[FakeEvent]

    async def wait_for(self, what: str, found: Found, timeout_s: float = ...) -> FakeEvent: ...

    async def in_its_loop(self, work: Coroutine[Any, Any, T]) -> T: ...

    async def hear(self, pcm: bytes, text: str, pace: float) -> None:
        """Give audio to the newest session, and `text` as its transcript."""
        ...


class SimulatedUser:
    """Speaks to the session of the application: a tone stands for the words, or a voice."""

    def __init__(self, server: ObservedServer) -> None:
        self._server = server
        self._voice, self._engine, self._pace = TONE, ENGINE, 0.0

    def set_voice(self, voice: str, engine: str = ENGINE) -> None:
        """Speak with a voice of that engine, each text synthesised once and cached.

        "tone": a tone as long as the text, which needs no engine; so at first.
        """
        self._voice, self._engine = voice, engine

    def set_pace(self, factor: float) -> None:
        """How long speaking takes: 0 no time at all (so at first), 1 as long as it is heard."""
        self._pace = factor

    async def says(self, text: str) -> None:
        """Speak, then be silent long enough to end the turn. Raises AssertionError."""
        await self._server.wait_for("a connection", lambda _: True)
        await self._give(await self._voiced(text), text)

    async def plays(self, sound: Path | bytes, text: str) -> None:
        """A sound file, or PCM at 24 kHz, in place of the voice; `text` is its transcript.

        Raises AssertionError, and AudioError where the file cannot be read.
        """
        if isinstance(sound, Path):
            sound = files.read(sound, max_seconds=MAX_CLIP_SECONDS)
        await self._server.wait_for("a connection", lambda _: True)
        await self._give(sound, text)

    async def is_silent(self, seconds: float) -> None:
        """Send silence. Raises AssertionError."""
        await self._server.wait_for("a connection", lambda _: True)
        await self._server.hear(bytes(round(seconds * 1000) * BYTES_PER_MS), "", self._pace)

    async def interrupts_after(self, words: str, text: str = "Stop.") -> None:
        """Speak as soon as an answer has said these words. Raises AssertionError."""
        spoken_so_far: dict[str, str] = {}

        def reached(event: FakeEvent) -> bool:
            if not event.type.endswith("audio_transcript.delta"):
                return False
            key = str(event.fields["response_id"])
            spoken_so_far[key] = spoken_so_far.get(key, "") + str(event.fields["delta"])
            return words in spoken_so_far[key]

        sound = await self._voiced(text)

        async def interrupt() -> None:
            await self._server.wait_for(f"an answer with the words {words!r}", reached)
            await self._give(sound, text)

        await self._server.in_its_loop(interrupt())  # without delay between the two

    async def _voiced(self, text: str) -> bytes:
        if self._voice == TONE or isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
            return spoken(text, self._voice, self._engine)  # in virtual time it takes no time
        return await asyncio.to_thread(spoken, text, self._voice, self._engine)

    async def _give(self, pcm: bytes, text: str) -> None:
        await self._server.hear(pcm + bytes(TURN_SILENCE_MS * BYTES_PER_MS), text, self._pace)


class Expectations:
    """What has to happen. Each waits, then raises AssertionError with the last events."""

    def __init__(self, server: ObservedServer, timeout_s: float = TIMEOUT_S) -> None:
        self._server = server
        self._timeout_s = timeout_s

    def within(self, seconds: float) -> "Expectations":
        """The same expectations, with another time limit."""
        return Expectations(self._server, seconds)

    async def event(self, kind: str, **fields: Any) -> FakeEvent:
        """An event of that type with those fields, of either side."""
        what = f"{kind} {fields or ''}".strip()
        return await self._wait(what, lambda event: _is(event, kind, fields))

    async def events_in_order(self, *kinds: str) -> None:
        """Events of these types, one after the other; others may come between them."""
        missing = list(kinds)

        def found(event: FakeEvent) -> bool:
            if missing and event.type == missing[0]:
                missing.pop(0)
            return not missing

        await self._wait(f"the events {', '.join(kinds)} in this order", found)

    async def never(self, kind: str, *, for_s: float = 0.0, **fields: Any) -> None:
        """No such event so far, nor in the next seconds."""
        try:
            event = await self._server.wait_for(kind, lambda e: _is(e, kind, fields), for_s)
        except AssertionError:
            return
        raise AssertionError(f"{kind} was not to come, and came: {event.fields}")

    async def tool_call(self, name: str, /, **arguments: Any) -> FakeEvent:
        """A function call with at least these arguments."""

        def found(event: FakeEvent) -> bool:
            if event.type != "response.function_call_arguments.done":
                return False
            given = msgspec.json.decode(event.fields["arguments"])
            right = all(given.get(key) == value for key, value in arguments.items())
            return event.fields["name"] == name and right

        return await self._wait(f"a call of {name} {arguments}", found)

    async def tool_output(self, text: str) -> FakeEvent:
        """The application gives an output of a function that has this text in it."""

        def found(event: FakeEvent) -> bool:
            item = event.fields.get("item") or {}
            output = event.sent_by == "client" and item.get("type") == "function_call_output"
            return output and text in str(item.get("output"))

        return await self._wait(f"an output with {text!r}", found)

    async def said(self, text: str) -> FakeEvent:
        """A complete answer, spoken or written, with these words."""

        def found(event: FakeEvent) -> bool:
            return normalised(text) in normalised(_answer(event))

        return await self._wait(f"an answer with {text!r}", found)

    async def not_said(self, text: str) -> None:
        """The next complete answer, or one that is there, and none of them has these words."""
        await self._wait("an answer", lambda event: bool(_answer(event)))
        for event in tuple(self._server.events):
            if normalised(text) in normalised(_answer(event)):
                raise AssertionError(f"{text!r} was not to be said, and was: {_answer(event)!r}")

    async def heard(self, text: str) -> FakeEvent:
        """A transcript of the user with these words."""

        def found(event: FakeEvent) -> bool:
            completed = event.type.endswith("input_audio_transcription.completed")
            return completed and normalised(text) in normalised(event.fields["transcript"])

        return await self._wait(f"a transcript {text!r}", found)

    async def interrupted(self) -> FakeEvent:
        """An answer that speech has ended."""

        def found(event: FakeEvent) -> bool:
            details = (event.fields.get("response") or {}).get("status_details") or {}
            return event.type == "response.done" and details.get("reason") == "turn_detected"

        return await self._wait("an interrupted answer", found)

    async def error(self, text: str = "") -> FakeEvent:
        """An error of the server whose code or message has this text in it."""

        def found(event: FakeEvent) -> bool:
            return event.type == "error" and text in str(event.fields["error"])

        return await self._wait(f"an error with {text!r}", found)

    async def setting(self, path: str, value: Any) -> FakeEvent:
        """The application has set this: setting("audio.output.voice", "marin")."""

        def found(event: FakeEvent) -> bool:
            at: Any = event.fields.get("session") if event.type == "session.update" else None
            for key in path.split("."):
                at = at.get(key) if isinstance(at, dict) else None
            return bool(at == value)

        return await self._wait(f"session.update with {path} = {value!r}", found)

    async def first_audio(self, seconds: float) -> FakeEvent:
        """Sound of an answer, so soon after the end of the user's newest turn.

        The turn ends with input_audio_buffer.speech_stopped or response.create.
        """
        ended = [event for event in tuple(self._server.events) if event.type in TURN_ENDS]
        newest = ended[-1:] or [
            await self._wait("the end of a turn", lambda e: e.type in TURN_ENDS)
        ]
        passed: list[FakeEvent] = []

        def found(event: FakeEvent) -> bool:
            if event is newest[0]:
                passed.append(event)
            return bool(passed) and event.type.endswith("audio.delta")

        event = await self._wait("the sound of an answer", found)
        took = event.at - newest[0].at
        assert took <= seconds, f"the first sound took {took:.3f} s, more than {seconds:g} s"
        return event

    def _wait(self, what: str, found: Found) -> Awaitable[FakeEvent]:
        return self._server.wait_for(what, found, self._timeout_s)


def _is(event: FakeEvent, kind: str, fields: dict[str, Any]) -> bool:
    return event.type == kind and all(event.fields.get(n) == value for n, value in fields.items())


def _answer(event: FakeEvent) -> str:
    """The text of a complete answer; "" of any other event."""
    ends = ("output_audio_transcript.done", "output_text.done")
    whole = event.fields.get("transcript") or event.fields.get("text") or ""
    return str(whole) if event.type.endswith(ends) else ""
