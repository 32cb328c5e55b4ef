"""Performs a session's effects: the only module that waits on its behalf.

Nothing here waits before the next fact is taken: sending puts into the peer's outbox, judging into
the next batch, and what takes time is a task of its own that tells facts as it goes.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol, assert_never

from vivavoce.protocol.server import AnyServerEvent
from vivavoce.runtime.brain import Brains
from vivavoce.runtime.dictation import Sound, dictate
from vivavoce.runtime.ears import Ear
from vivavoce.runtime.speaking import answer
from vivavoce.session.effects import (
    Answer,
    Assess,
    Close,
    Effect,
    Feed,
    Finish,
    Forget,
    Judge,
    Listen,
    Send,
    Stop,
)
from vivavoce.session.facts import Assessed, Fact, Judged, Woken
from vivavoce.session.machine import Session

log = logging.getLogger(__name__)

MOST_WAITING_WINDOWS = 64  # of one session, before its client is read any further: 2 s of sound
MOST_WAITING_BYTES = 4_000_000  # of sound for the recogniser, likewise: 2 minutes


class Peer(Protocol):
    """The other end, whatever carries it."""

    def send(self, event: AnyServerEvent) -> None:
        """Put an event into the outbox. Never waits."""
        ...

    async def room(self) -> None:
        """Wait until the client has taken most of what was sent."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send what is in the outbox, then close. Nothing is sent after that."""
        ...


class Runner:
    """One session at work. Tell it facts while run() runs."""

    def __init__(self, session: Session, peer: Peer, brains: Brains, *, model: str) -> None:
        self._session = session
        self._peer = peer
        self._brains = brains
        self._model = model  # whose ears and judge of turns this session has
        self._ear: Ear | None = None
        self._facts: deque[Fact] = deque()
        self._busy = False
        self._sounds: dict[str, Sound] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._group: asyncio.TaskGroup | None = None
        self._eased = asyncio.Event()  # something that waited has been taken
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Serve until the session closes, then give everything back."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._guarded(self._perform_all, self._session.begin())
                self._arm()
                await self._closed.wait()
                for task in self._tasks.values():
                    task.cancel()
        except* Exception:
            log.exception("a session failed")
            self._peer.close(1011, "the server had an error")
        finally:
            self._end()
            if self._timer:
                self._timer.cancel()
            if self._ear:
                self._ear.close()
            self._sounds.clear()

    def tell(self, fact: Fact) -> None:
        """Hand the session a fact and do what it says. Never waits."""
        self._facts.append(fact)
        if not self._busy and not self._closed.is_set():
            self._guarded(self._take_all)
            self._arm()

    async def room(self) -> None:
        """Wait while the session is behind with what its client has sent."""
        while not self._closed.is_set() and self._is_behind():
            self._eased.clear()
            await self._eased.wait()

    def _take_all(self) -> None:
        self._busy = True
        clock = asyncio.get_running_loop().time
        while self._facts and not self._closed.is_set():
            self._perform_all(self._session.handle(self._facts.popleft(), clock()))
        self._busy = False

    def _guarded(self, work: Any, *args: Any) -> None:
        """Run what may be called from anywhere; its bugs end this session, not the caller."""
        try:
            work(*args)
        except Exception:  # the same place as in run(), reached from a callback
            log.exception("a session failed")
            self._peer.close(1011, "the server had an error")
            self._end()

    def _end(self) -> None:
        self._closed.set()
        self._eased.set()

    def _arm(self) -> None:
        """See to it that the session is woken at its deadline."""
        if self._closed.is_set():
            return
        deadline = self._session.deadline
        if self._timer is None or self._timer.cancelled() or deadline < self._timer.when():
            if self._timer:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(deadline, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if asyncio.get_running_loop().time() >= self._session.deadline:
            self.tell(Woken())
        else:  # the deadline has moved on since
            self._arm()

    def _perform_all(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(event=event):
                self._peer.send(event)
            case Judge(at=at, audio=audio):
                self._ears().judge(at, audio)
            case Listen():
                self._listen(effect)
            case Feed(item_id=key, audio=audio):
                if sound := self._sounds.get(key):
                    sound.feed(audio)
            case Finish(item_id=key):
                if sound := self._sounds.get(key):
                    sound.finish()
            case Forget(item_id=key):
                self._drop(key)
            case Stop(response_id=key):
                self._drop(key)
            case Assess():
                self._start(f"assess {effect.item_id}", self._assess(effect))
            case Answer():
                cascade = self._brains.of(effect.prompt.model)
                work = answer(effect, cascade, self.tell, self._peer.room)
                self._start(effect.response_id, work)
            case Close(code=code, reason=reason):
                self._peer.close(code, reason)
                self._end()
            case _:
                assert_never(effect)

    def _ears(self) -> Ear:
        if self._ear is None:
            ears = self._brains.of(self._model).ears
            self._ear = ears.open(self._judged)
        return self._ear

    def _judged(self, at: int, speech: tuple[float, ...]) -> None:
        self.tell(Judged(at, speech))
        self._eased.set()

    def _listen(self, order: Listen) -> None:
        stt = self._brains.of(order.model).stt
        sound = Sound(stt.sample_rate, self._eased.set)
        self._start(order.item_id, dictate(stt, order, sound, self.tell))
        self._sounds[order.item_id] = sound

    async def _assess(self, order: Assess) -> None:
        turn = self._brains.of(self._model).turn
        likelihood = await turn.finished(order.text, language=order.language)
        self.tell(Assessed(order.item_id, likelihood))

    def _start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin a task of the session under a name by which it can be dropped."""
        assert self._group is not None
        self._drop(key)
        self._tasks[key] = task = self._group.create_task(work)
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
            self._sounds.pop(key, None)

    def _drop(self, key: str) -> None:
        self._sounds.pop(key, None)
        if task := self._tasks.pop(key, None):
            task.cancel()

    def _is_behind(self) -> bool:
        windows = len(self._ear.waiting) if self._ear else 0
        waiting = sum(sound.waiting_bytes for sound in self._sounds.values())
        return windows > MOST_WAITING_WINDOWS or waiting > MOST_WAITING_BYTES
