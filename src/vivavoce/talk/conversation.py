"""A conversation with a server: sends what the user says, and waits for answers, never for ever."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import IO, Any, TypeVar

import msgspec

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.talk import events
from vivavoce.talk.connection import Lost, Wire
from vivavoce.talk.events import Event
from vivavoce.talk.loudness import speech_end_ms
from vivavoce.talk.options import TalkOptions, Waits
from vivavoce.talk.screen import Screen
from vivavoce.talk.turn import Kind, Patience, Turn

CHUNK_MS = 40
_CHUNK_BYTES = CHUNK_MS * BYTES_PER_MS
_FOR_EVER = Patience(math.inf, "")
T = TypeVar("T")


class Conversation:
    """Use `opened()`. One turn at a time; what comes is shown and recorded whatever happens."""

    def __init__(
        self, wire: Wire, screen: Screen, waits: Waits, record: IO[bytes] | None, turns: list[Turn]
    ) -> None:
        self.lost = ""
        """Why the connection is over; "" while it is not."""
        self.turn: Turn | None = None
        """The one that is told what comes: the latest."""
        self.ear: Callable[[Event], Awaitable[None]] | None = None
        """Is told every event that comes, after the turn was."""
        self._wire = wire
        self._screen = screen
        self._waits = waits
        self._record = record
        self._turns = turns
        self._begun = self._last = self._clock()
        self._session = Event({})
        self._changed = asyncio.Event()

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()

    def _open(self, kind: Kind) -> Turn:
        self.turn = Turn(kind, self._clock())
        self._turns.append(self.turn)
        return self.turn

    async def listen(self) -> None:
        """Take what comes until the connection is lost."""
        while True:
            frame = await self._wire.receive()
            if isinstance(frame, Lost):
                self.lost = frame.reason
                self._changed.set()
                return
            self._last = self._clock()
            event = events.read(frame)
            self._note(False, event, frame)
            if event.type in ("session.created", "session.updated"):
                self._session = event
            if self.turn is not None:
                self.turn.feed(event, self._last)
            if self.ear is not None:
                await self.ear(event)
            self._changed.set()

    async def set_up(self, options: TalkOptions, *, spoken: bool) -> str | None:
        """Wait for the session and set it up. Returns what went wrong."""
        setting = Turn("typed", self._clock())
        self.turn = setting
        if problem := await self._until(lambda: self._is("session.created") or _bad(setting)):
            return problem
        created = self._session
        update = events.session_update(
            voice=options.voice,
            instructions=options.instructions,
            spoken=spoken,
            transcription=created.get("session", "audio", "input", "transcription") is None,
        )
        if update is not None and not setting.problems:
            await self.send(update)
            problem = await self._until(lambda: self._is("session.updated") or _bad(setting))
        self.turn = None
        return problem or next(iter(setting.problems), None)

    async def ask(self, text: str) -> Turn:
        """One typed turn, to its end."""
        turn = self._open("typed")
        await self.send(events.user_text(text))
        asked = turn.marks.asked = turn.sent = self._clock()
        await self.send(events.response_create())
        return await self._ended(turn, self._patience(turn, asked))

    async def ask_aloud(self, pcm24: bytes) -> Turn:
        """One spoken turn, in real time, and silence after it until it is over."""
        turn = self._open("spoken")
        end_ms = speech_end_ms(pcm24)
        if end_ms is not None:
            turn.marks.asked = turn.begun + end_ms / 1000
        expected = turn.begun + len(pcm24) / BYTES_PER_MS / 1000
        async with asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(self._speak(pcm24, turn))
            try:
                return await self._ended(turn, self._patience(turn, expected))
            finally:
                speaking.cancel()

    async def overhear(self) -> Turn:
        """One turn of whoever speaks into a microphone: no wait has an end before they do."""
        turn = self._open("spoken")

        def patience() -> Patience:
            decided = turn.marks.decided
            if decided is None:
                return _FOR_EVER
            return turn.patience(self._waits, self._last, decided)

        return await self._ended(turn, patience)

    async def unless_lost(self, what: Coroutine[Any, Any, T]) -> T | None:
        """Its result; None, and it is cancelled, when the connection is lost before."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(what)
            task.add_done_callback(lambda _: self._changed.set())
            await self._until(task.done, lambda: _FOR_EVER)
            task.cancel()
        return None if task.cancelled() else task.result()

    async def send(self, event: Event) -> None:
        frame = events.written(event)
        self._note(True, event, frame)
        await self._wire.send(frame)

    async def _speak(self, pcm24: bytes, turn: Turn) -> None:
        """A piece goes out when a microphone would have it: at its end. Then silence, for ever."""
        begun, sent = turn.begun, 0
        while True:
            chunk = pcm24[sent : sent + _CHUNK_BYTES]
            sent += _CHUNK_BYTES
            await asyncio.sleep(begun + sent / BYTES_PER_MS / 1000 - self._clock())
            await self.send(events.append(chunk + bytes(_CHUNK_BYTES - len(chunk))))
            if turn.sent is None and sent >= len(pcm24):
                turn.sent = self._clock()
                self._changed.set()

    def _patience(self, turn: Turn, expected: float) -> Callable[[], Patience]:
        return lambda: turn.patience(self._waits, self._last, expected)

    async def _ended(self, turn: Turn, patience: Callable[[], Patience]) -> Turn:
        """Wait for the end of a turn and show it."""
        problem = await self._until(lambda: turn.complete, patience)
        if problem is not None and not turn.over:
            turn.fail(problem)
        self._screen.turn(turn)
        return turn

    async def _until(
        self, reached: Callable[[], bool], patience: Callable[[], Patience] | None = None
    ) -> str | None:
        """Wait for something to be so; returns what came instead, if it did not."""
        begun = self._clock()
        quiet = Patience(
            begun + self._waits.quiet, f"the server did not answer for {self._waits.quiet:g} s"
        )
        waited = begun  # a timer may fire a little before its time
        while not reached():
            if self.lost:
                return self.lost
            limit = patience() if patience is not None else quiet
            if limit.until <= max(waited, self._clock()):
                return limit.complaint
            self._changed.clear()
            try:
                async with asyncio.timeout_at(None if limit == _FOR_EVER else limit.until):
                    await self._changed.wait()
            except TimeoutError:
                waited = limit.until
        return None

    def _is(self, kind: str) -> bool:
        return self._session.type == kind

    def _note(self, sent: bool, event: Event, frame: bytes) -> None:
        at = self._clock() - self._begun
        self._screen.event(at, sent, event)
        if self._record is not None:
            body = msgspec.Raw(frame) if event.fields else frame.decode(errors="replace")
            line = {"at": round(at, 6), "sent": sent, "event": body}
            try:
                self._record.write(msgspec.json.encode(line) + b"\n")
            except OSError as exc:
                self._record = None
                self._screen.problem(f"no more events are recorded: {exc.strerror}")


@asynccontextmanager
async def opened(
    wire: Wire,
    screen: Screen,
    waits: Waits,
    record: IO[bytes] | None = None,
    turns: list[Turn] | None = None,
) -> AsyncIterator[Conversation]:
    """A conversation that listens as long as the block lasts.

    record: takes every event as a line of JSON. turns: takes every turn as it begins, for whoever
    wants to know of them when the block was interrupted.
    """
    conversation = Conversation(wire, screen, waits, record, [] if turns is None else turns)
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(conversation.listen())
        try:
            yield conversation
        finally:
            listening.cancel()


def _bad(turn: Turn) -> bool:
    return bool(turn.problems)
