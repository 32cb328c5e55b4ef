"""A conversation with a server: sends what the user says and waits for the answers. Every wait has
a time limit."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import IO, Any, Final, TypeVar

import msgspec

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.talk import client
from vivavoce.talk.client import ConnectionLost, Event, ServerConnection
from vivavoce.talk.options import TalkOptions, Timeouts
from vivavoce.talk.screen import Screen
from vivavoce.talk.turn import Turn, TurnKind, WaitLimit, speech_end_ms

CHUNK_MS: Final = 40
_CHUNK_BYTES: Final = CHUNK_MS * BYTES_PER_MS
_NO_LIMIT: Final = WaitLimit(math.inf, "")
T = TypeVar("T")


class TalkConversation:
    """One turn at a time; every event is shown and recorded. Made by open_conversation()."""

    def __init__(
        self,
        connection: ServerConnection,
        screen: Screen,
        timeouts: Timeouts,
        record: IO[bytes] | None,
        turns: list[Turn],
    ) -> None:
        self.lost = ""
        """Why the connection is over; "" while it is not."""
        self.turn: Turn | None = None
        """The latest turn; every event of the server is fed to it."""
        self.on_event: Callable[[Event], Awaitable[None]] | None = None
        """Awaited with every event of the server, after the turn was fed."""
        self._connection = connection
        self._screen = screen
        self._timeouts = timeouts
        self._record = record
        self._turns = turns
        self._begun = self._last = self._clock()
        self._session = Event({})
        self._changed = asyncio.Event()

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()

    def _begin_turn(self, kind: TurnKind) -> Turn:
        self.turn = Turn(kind, self._clock())
        self._turns.append(self.turn)
        return self.turn

    async def receive(self) -> None:
        """Receive events until the connection is lost."""
        while True:
            frame = await self._connection.receive()
            if isinstance(frame, ConnectionLost):
                self.lost = frame.reason
                self._changed.set()
                return
            self._last = self._clock()
            event = client.decode(frame)
            self._note(False, event, frame)
            if event.type in ("session.created", "session.updated"):
                self._session = event
            if self.turn is not None:
                self.turn.feed(event, self._last)
            if self.on_event is not None:
                await self.on_event(event)
            self._changed.set()

    async def set_up(self, options: TalkOptions, *, spoken: bool) -> str | None:
        """Wait for the session and send its settings. Returns the problem, if there is one."""
        setup = Turn("typed", self._clock())
        self.turn = setup

        def reached(kind: str) -> Callable[[], bool]:
            return lambda: self._session.type == kind or bool(setup.problems)

        if problem := await self._until(reached("session.created")):
            return problem
        update = client.session_update(
            voice=options.voice,
            instructions=options.instructions,
            spoken=spoken,
            transcription=self._session.get("session", "audio", "input", "transcription") is None,
        )
        if update is not None and not setup.problems:
            await self.send(update)
            problem = await self._until(reached("session.updated"))
        self.turn = None
        return problem or next(iter(setup.problems), None)

    async def ask(self, text: str) -> Turn:
        """Ask one typed question; returns the turn when it is over."""
        turn = self._begin_turn("typed")
        await self.send(client.user_text(text))
        asked = turn.times.asked = turn.sent = self._clock()
        await self.send(client.response_create())
        return await self._finish(turn, self._limit_of(turn, asked))

    async def ask_aloud(self, pcm24: bytes) -> Turn:
        """Ask one spoken question, in real time, followed by silence until the turn is over."""
        turn = self._begin_turn("spoken")
        end_ms = speech_end_ms(pcm24)
        if end_ms is not None:
            turn.times.asked = turn.begun + end_ms / 1000
        expected = turn.begun + len(pcm24) / BYTES_PER_MS / 1000
        async with asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(self._send_audio(pcm24, turn))
            try:
                return await self._finish(turn, self._limit_of(turn, expected))
            finally:
                speaking.cancel()

    async def microphone_turn(self) -> Turn:
        """One turn by microphone. Waits without limit for the user to speak."""
        turn = self._begin_turn("spoken")

        def limit() -> WaitLimit:
            decided = turn.times.decided
            if decided is None:
                return _NO_LIMIT
            return turn.wait_limit(self._timeouts, self._last, decided)

        return await self._finish(turn, limit)

    async def unless_lost(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result; None, and the work is cancelled, if the connection is lost first."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work)
            task.add_done_callback(lambda _: self._changed.set())
            await self._until(task.done, lambda: _NO_LIMIT)
            task.cancel()
        return None if task.cancelled() else task.result()

    async def send(self, event: Event) -> None:
        frame = client.encode(event)
        self._note(True, event, frame)
        await self._connection.send(frame)

    async def _send_audio(self, pcm24: bytes, turn: Turn) -> None:
        """Send each chunk at the time when its last sample would have been recorded; then
        silence."""
        begun, sent = turn.begun, 0
        while True:
            chunk = pcm24[sent : sent + _CHUNK_BYTES]
            sent += _CHUNK_BYTES
            await asyncio.sleep(begun + sent / BYTES_PER_MS / 1000 - self._clock())
            await self.send(client.append_audio(chunk + bytes(_CHUNK_BYTES - len(chunk))))
            if turn.sent is None and sent >= len(pcm24):
                turn.sent = self._clock()
                self._changed.set()

    def _limit_of(self, turn: Turn, expected: float) -> Callable[[], WaitLimit]:
        return lambda: turn.wait_limit(self._timeouts, self._last, expected)

    async def _finish(self, turn: Turn, limit: Callable[[], WaitLimit]) -> Turn:
        """Wait for the end of a turn and show it."""
        problem = await self._until(lambda: turn.complete, limit)
        if problem is not None and not turn.over:
            turn.fail(problem)
        self._screen.turn(turn)
        return turn

    async def _until(
        self, reached: Callable[[], bool], limit: Callable[[], WaitLimit] | None = None
    ) -> str | None:
        """Wait for a condition. Returns the problem if it is not met in time."""
        begun = self._clock()
        quiet = WaitLimit(
            begun + self._timeouts.quiet,
            f"the server did not answer for {self._timeouts.quiet:g} s",
        )
        waited = begun  # a timer may fire a little before its time
        while not reached():
            if self.lost:
                return self.lost
            now = limit() if limit is not None else quiet
            if now.until <= max(waited, self._clock()):
                return now.problem
            self._changed.clear()
            try:
                async with asyncio.timeout_at(None if now == _NO_LIMIT else now.until):
                    await self._changed.wait()
            except TimeoutError:
                waited = now.until
        return None

    def _note(self, sent: bool, event: Event, frame: bytes) -> None:
        """Show an event and record it."""
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
async def open_conversation(
    connection: ServerConnection,
    screen: Screen,
    timeouts: Timeouts,
    record: IO[bytes] | None = None,
    turns: list[Turn] | None = None,
) -> AsyncIterator[TalkConversation]:
    """A conversation that receives as long as the block lasts.

    record: gets every event as a line of JSON. turns: gets every turn when it begins, and keeps
    them when the block is interrupted.
    """
    conversation = TalkConversation(
        connection, screen, timeouts, record, [] if turns is None else turns
    )
    async with asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(conversation.receive())
        try:
            yield conversation
        finally:
            receiving.cancel()
