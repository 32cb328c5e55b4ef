"""Performs a session's effects: the only module that waits on its behalf.

Nothing here waits before the next fact is taken: sending puts into the peer's outbox, judging into
the next batch, and what takes time is a task of its own that tells facts as it goes.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from typing import Protocol, assert_never

from vivavoce.errors import EngineError
from vivavoce.protocol.server import AnyServerEvent, ErrorBody, ErrorEvent
from vivavoce.protocol.session import SessionObject
from vivavoce.runtime.alarm import Alarm
from vivavoce.runtime.attention import Attention
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.echo import EchoCanceller
from vivavoce.runtime.generation import answer
from vivavoce.runtime.jobs import Jobs
from vivavoce.runtime.transcription import AudioFeed, transcribe_item
from vivavoce.session.effects import (
    CancelGeneration,
    CancelTranscription,
    ClearPlayback,
    Close,
    Effect,
    EndAudio,
    FeedAudio,
    Generate,
    PlayAudio,
    RunVad,
    ScoreTurn,
    Send,
    StartTranscription,
)
from vivavoce.session.facts import (
    Disconnected,
    Fact,
    ItemTranscriptionFailed,
    TimerFired,
    VadScores,
)
from vivavoce.session.shell import Session

log = logging.getLogger(__name__)

MOST_WAITING_WINDOWS = 64  # of one session, before its client is read any further: 2 s of sound
MOST_WAITING_BYTES = 4_000_000  # of sound for the recogniser, likewise: 83 s
TAKE_SECONDS = 10.0  # a recogniser that takes none of that for so long is given up


class Peer(Protocol):
    """The other end, whatever carries it."""

    def send(self, event: AnyServerEvent) -> None:
        """Put an event into the outbox. Never waits."""
        ...

    async def wait_writable(self) -> None:
        """Wait until the client has taken most of what was sent."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send what is in the outbox, then close. Nothing is sent after that."""
        ...


class Player(Protocol):
    """What plays answers, where that is not the client's affair. Tells Played as they leave."""

    def play(self, item_id: str, audio: bytes) -> None:
        """Play that behind what waits. Never waits."""
        ...

    def flush(self) -> None:
        """Drop what was not played yet."""
        ...


class Runner:
    """One session at work. Tell it facts while run() runs.

    player: of a session that owns its playout, and only of such.
    """

    def __init__(
        self,
        session: Session,
        peer: Peer,
        brains: ModelCatalog,
        *,
        model: str,
        player: Player | None = None,
    ) -> None:
        self._session = session
        self._peer = peer
        self._player = player
        self._brains = brains
        cascade = brains.of(model)
        self._attention = Attention(cascade, self._judged, self.post, self._deafened)
        self._facts: deque[Fact] = deque()
        self._busy = False
        self._clock = asyncio.get_running_loop().time  # asked for once: it costs as much as a fact
        self._eased = asyncio.Event()  # something that waited has been taken
        self._closed = asyncio.Event()
        self._farewell: tuple[int, str] | None = None
        self._alarm = Alarm(lambda: self.post(TimerFired()))
        self._jobs = Jobs(self.fail, self._eased.set)
        self._room = EchoCanceller(cascade.cleaner) if cascade.cleaner else None

    async def run(self) -> None:
        """Serve until the session closes, then give everything back."""
        try:
            async with self._jobs:
                self._begin()
                await self._closed.wait()
        finally:
            self._end()
            self._alarm.off()
            self._attention.close()
            if self._room:
                self._room.close()

    def post(self, fact: Fact) -> None:
        """Hand the session a fact and do what it says. Never waits."""
        if self._closed.is_set():
            return
        self._facts.append(fact)
        if not self._busy:
            self._take_all()

    @property
    def settings(self) -> SessionObject:
        """Of the session, as its client is shown them."""
        return self._session.settings

    @property
    def behind(self) -> bool:
        """Whether more has come than could be judged and written down."""
        windows = self._attention.waiting
        return windows > MOST_WAITING_WINDOWS or self._jobs.waiting_bytes > MOST_WAITING_BYTES

    def dismiss(self, code: int, reason: str) -> None:
        """Have the session end now, for a reason that is not its client's."""
        self._farewell = (code, reason)
        self.post(Disconnected())

    def fail(
        self, exc: Exception, *, code: str = "internal_error", what: str = "The server had an error"
    ) -> None:
        """A bug, wherever it was met: it ends this session and no other."""
        if not self._closed.is_set():
            log.error("a session failed", exc_info=exc)
            body = ErrorBody(type="server_error", code=code, message=f"{what}; the session ends.")
            with contextlib.suppress(Exception):  # sending may be what has the bug
                self._peer.send(ErrorEvent(event_id=f"event_{secrets.token_hex(8)}", error=body))
            self._peer.close(1011, "the server had an error")
            self._end()

    async def wait_caught_up(self) -> None:
        """Wait while the session is behind with what its client has sent."""
        while not self._closed.is_set() and self.behind:
            self._eased.clear()
            try:
                async with asyncio.timeout(TAKE_SECONDS):
                    await self._eased.wait()
            except TimeoutError:
                for key in self._jobs.unheard():
                    self._jobs.drop(key)
                    self.post(
                        ItemTranscriptionFailed(key, "speech recognition takes no more sound")
                    )

    def _begin(self) -> None:
        try:
            self._perform_all(self._session.begin(), self._clock())
            self._alarm.set(self._session.deadline)
        except Exception as exc:  # noqa: BLE001  see fail()
            self.fail(exc)

    def _take_all(self) -> None:
        self._busy = True
        clock = self._clock
        try:
            while self._facts and not self._closed.is_set():
                fact, now = self._facts.popleft(), clock()
                if self._room:
                    fact = self._room.cleaned(fact, now)
                self._perform_all(self._session.handle(fact, now), now)
            if not self._closed.is_set():
                self._alarm.set(self._session.deadline)
        except Exception as exc:  # noqa: BLE001  see fail()
            self.fail(exc)
        finally:
            self._busy = False

    def _end(self) -> None:
        self._closed.set()
        self._eased.set()
        self._facts.clear()

    def _perform_all(self, effects: list[Effect], now: float) -> None:
        for effect in effects:
            if self._room:
                self._room.notice(effect, now)
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(event=event):
                self._peer.send(event)
            case RunVad(at=at, audio=audio):
                self._attention.score(at, audio)
            case StartTranscription():
                stt = self._brains.of(effect.model).stt
                sound = AudioFeed(stt.sample_rate, self._eased.set)
                self._jobs.start(
                    effect.item_id, transcribe_item(stt, effect, sound, self.post), sound
                )
            case FeedAudio(item_id=key, audio=audio):
                if sound_ := self._jobs.sound(key):
                    sound_.feed(audio)
            case EndAudio(item_id=key):
                if sound_ := self._jobs.sound(key):
                    sound_.finish()
            case CancelTranscription(item_id=key) | CancelGeneration(response_id=key):
                self._jobs.drop(key)
            case ScoreTurn():
                self._jobs.start("assess", self._attention.assess(effect))
            case Generate():
                cascade = self._brains.of(effect.prompt.model)
                work = answer(effect, cascade, self.post, self._peer.wait_writable)
                self._jobs.start(effect.response_id, work)
            case PlayAudio(item_id=item_id, audio=audio):
                assert self._player
                self._player.play(item_id, audio)
            case ClearPlayback():
                assert self._player
                self._player.flush()
            case Close(code=code, reason=reason):
                self._peer.close(*(self._farewell or (code, reason)))
                self._end()
            case _:
                assert_never(effect)

    def _deafened(self, exc: Exception) -> None:
        reason = f": {exc}" if isinstance(exc, EngineError) else ""
        self.fail(exc, code="vad_failed", what=f"Voice activity detection failed{reason}")

    def _judged(self, at: int, speech: tuple[float, ...]) -> None:
        self.post(VadScores(at, speech))
        self._eased.set()
