"""Drives one session: passes facts to it, and performs its effects."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, TypeAlias

from vivavoce.errors import QuotaExceeded, StoreError, Unauthorized
from vivavoce.protocol.server import SessionCreated
from vivavoce.protocol.session import SessionObject
from vivavoce.runtime.client_errors import (
    TAKEN_OVER,
    TAKEN_OVER_CLOSE,
    error_event,
    refusal_of,
    taken_over,
)
from vivavoce.runtime.drivers import Driver, Fallbacks
from vivavoce.runtime.parts import CallObserver, Keeper, Observer, Peer, Player
from vivavoce.runtime.performers import MakePerformer, Performer
from vivavoce.runtime.tasks import NOTHING, Signal, Tasks, Timer
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.session.effects import (
    CancelTool,
    ClearPlayback,
    Close,
    DuckPlayback,
    Effect,
    FeedAudio,
    ObserverEffect,
    PlayAudio,
    RequestEnd,
    RequestFallback,
    RunTool,
    RunVad,
    Say,
    Send,
    SendRaw,
)
from vivavoce.session.facts import (
    DisconnectCause,
    Disconnected,
    Fact,
    GenerationFailed,
    Received,
    TimerFired,
    ToolFinished,
)
from vivavoce.session.shell import Session

log = logging.getLogger(__name__)

SHUTDOWN_CLOSE = 1012  # RFC 6455, 7.4: the client may connect again
TAKE_TIMEOUT_S = 10.0  # queued input that was not taken for this long is dropped
MEASURED_FRAMES = 64
"""How many frames pass for each that is measured: a relay passes fifty a second for each
session."""
ForwardDirection: TypeAlias = Literal["input", "output"]


class Runner:
    """One running session.

    Post facts to it while run() runs. player: for a session whose playback the server owns, and
    only for those.
    """

    def __init__(
        self,
        session: Session,
        peer: Peer,
        performer: MakePerformer,
        *,
        player: Player | None = None,
        fallbacks: Fallbacks | None = None,
        observers: Iterable[Observer] = (),
        recorder: CallObserver | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._id = session.settings.id
        self._session = session  # until run() ends
        self._peer = peer
        self._player = player
        self._make_performer: MakePerformer | None = performer
        self._performer: Performer | None = None  # while run() runs
        self._group: asyncio.TaskGroup | None = None
        self._tasks: Tasks | None = None
        self._fallbacks = fallbacks
        self._recorder = recorder
        self._observers = tuple(observers) if recorder is None else (recorder, *observers)
        self._see_audio = tuple(o for o in self._observers if not getattr(o, "skips_audio", False))
        self._keeper = keeper
        self.on_forward: Callable[[ForwardDirection, float], None] | None = None
        """Called for some of the frames that pass, with the time that each took, in seconds."""
        self._forwarded = 0  # frames
        self._last_audio = (0, 0)  # audio_samples, when the session has ended
        self._facts: list[Fact] = []  # mostly one: an empty deque takes 760 bytes
        self._given: Fact | None = None  # to the session, which has not returned yet
        self._begun = False
        self._busy = False
        # looked up once: each look-up costs as much as a fact
        self._clock = asyncio.get_running_loop().time
        self._progress = Signal()  # set when queued input was taken
        self._next: Driver | None = None  # replaces the brain as soon as the session is at rest
        self._closing = False  # the session has ended, and its last checkpoint is being stored
        self._closed = Signal()
        self._close_reason: tuple[int, str] | None = None
        self._timer = Timer(self._on_timer)

    async def run(self) -> None:
        """Serve until the session closes, then give back all resources."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._tasks = Tasks(group, self.fail, self.progressed)
                try:
                    assert self._make_performer
                    self._performer = self._make_performer(self, group)
                    self._begin()
                    await self._closed.wait()
                finally:
                    self._end()
                    self._tasks.cancel_all()
                    if self._performer:
                        self._performer.close()
        finally:
            # Tracebacks of cancelled tasks keep this runner in reference cycles until the next
            # full garbage collection. The session with its audio must not wait for that.
            self._timer.cancel()
            self._last_audio = self._session.audio_samples
            del self._session
            self._performer = self._make_performer = self._group = self._tasks = None

    def post(self, fact: Fact) -> None:
        """Pass a fact to the session and perform the effects.

        Never waits. Facts that come before the session has begun are kept until then.
        """
        if self._closed.is_set or self._closing:
            return
        self._facts.append(fact)
        if self._begun and not self._busy:
            self._take_all()

    def pass_input(self, frame: bytes) -> bool:
        """Take a frame of a GA client if its bytes are those of an audio append.

        A relay sends it upstream unchanged, if no rule touches it. False: nothing was done; decode
        it, and post the event. Never waits.
        """
        performer = self._performer
        if self._busy or not self._begun or self._closed.is_set or performer is None:
            return False
        try:
            if performer.behind:
                return False
            if not performer.passes_frames:
                if (event := self._session.append_of(frame)) is None:
                    return False
                self.post(Received(event))
                return True
            clock = self._clock
            now = clock()
            if (audio := self._session.pass_input(frame, now)) is None:
                return False
            if self._recorder is not None:
                self._recorder.passed(frame, audio, now, output=False)
            performer.pass_input(frame)
            self._forwarded += 1
            if not self._forwarded % MEASURED_FRAMES:
                self._measure("input", now)
        except Exception as exc:  # noqa: BLE001  see fail()
            self.fail(exc)
        return True

    def pass_output(self, frame: bytes) -> bool:
        """Send a frame of the upstream server to the client unchanged: see pass_input()."""
        if self._busy or not self._begun or self._closed.is_set:
            return False
        try:
            peer, clock = self._peer, self._clock
            now = clock()
            if not peer.is_writable:
                return False
            if (audio := self._session.pass_output(frame, now)) is None:
                return False
            if self._recorder is not None:
                self._recorder.passed(frame, audio, now, output=True)
            peer.send_raw(frame, audio)
            self._forwarded += 1
            if not self._forwarded % MEASURED_FRAMES:
                self._measure("output", now)
        except Exception as exc:  # noqa: BLE001  see fail()
            self.fail(exc)
        return True

    @property
    def waiting_bytes(self) -> tuple[int, int]:
        """Bytes queued for the client, and for recognisers or the upstream server."""
        return self._peer.waiting_bytes, self._performer.waiting_bytes if self._performer else 0

    @property
    def audio_samples(self) -> tuple[int, int]:
        """See Session.audio_samples."""
        return self._session.audio_samples if self._group else self._last_audio

    @property
    def plays_until(self) -> float:
        """See Session.plays_until."""
        return self._session.plays_until if self._group else -math.inf

    @property
    def settings(self) -> SessionObject:
        """The session object as the client sees it, while the session lasts."""
        return self._session.settings

    @property
    def behind(self) -> bool:
        """Whether VAD or STT is behind the audio, or the session has not begun."""
        return not self._begun or (self._performer is not None and self._performer.behind)

    def show_audio(self, observer: Observer, *, shown: bool) -> None:
        """Whether an observer that skips audio is to be called for it from now on."""
        others = tuple(each for each in self._see_audio if each is not observer)
        self._see_audio = (*others, observer) if shown else others

    def swap(self, driver: Driver) -> None:
        """Replace the brain; the conversation continues. Never waits."""
        assert self._performer
        assert self._group
        now = self._clock()
        if self._recorder is not None:
            self._recorder.swapping(relays=driver.relays, model=driver.model, now=now)
        last, first = self._session.swap(driver.brain, now, model=driver.model)
        self._observe(None, last + first, now)
        self._perform_all(last, now)
        self._performer.close()
        self._performer = driver.performer(self, self._group)
        self._perform_all(first, now)

    def checkpoint(self) -> Checkpoint:
        """Everything that another process needs to continue, while the session lasts."""
        return self._session.checkpoint(self._clock())

    def repeat_items(self) -> None:
        """Send all items to the client again. Never waits."""
        if self._begun and not self._closed.is_set:
            self._perform_all(self._session.repeat_items(), self._clock())

    def end(self, code: int, reason: str, cause: DisconnectCause = "client") -> None:
        """End the session although its connection is open."""
        self._close_reason = (code, reason)
        self.post(Disconnected(code, cause))

    def give_way(self) -> None:
        """End the session, because its conversation continues elsewhere, and tell the client so."""
        self._peer.send(taken_over())
        self._keeper = None
        self.end(TAKEN_OVER_CLOSE, TAKEN_OVER, "taken_over")

    def fail(
        self, exc: Exception, *, code: str = "internal_error", what: str = "The server had an error"
    ) -> None:
        """Report a bug, wherever it occurred: it ends this session and no other."""
        if not self._closed.is_set:
            if self._recorder is not None:
                self._recorder.failed(self._given, exc, self._clock())
            log.error("session %s failed", self._id, exc_info=exc)
            with contextlib.suppress(Exception):  # the bug may be in the code that sends
                self._peer.send(error_event(code, f"{what}; the session ends.", "server_error"))
            close = Close(1011, "the server had an error")
            for observer in self._observers:
                if observer is not self._recorder:  # it has seen failed()
                    with contextlib.suppress(Exception):  # the bug may be in the observer
                        observer.on(None, [close], self._clock())
            self._peer.close(close.code, close.reason)
            self._end()

    def refuse(self, exc: QuotaExceeded | Unauthorized | StoreError) -> None:
        """Tell the client why the session cannot begin."""
        if isinstance(exc, StoreError):
            log.error("%s was refused: %s", self._id, exc)
        event, close_code = refusal_of(exc)
        self._peer.send(event)
        self._peer.close(close_code, event.error.code or "")
        self._end()

    def progressed(self) -> None:
        """Some queued input was taken."""
        if not self._progress.is_set:
            self._progress.set()

    def writable(self) -> Awaitable[None]:
        """Wait until the client has taken most of what was sent."""
        return NOTHING if self._peer.is_writable else self._peer.wait_writable()

    async def wait_caught_up(self) -> None:
        """Backpressure: wait until VAD, recognition or the upstream server have caught up.

        A client that sends audio faster than its model allows is made to wait, too.
        """
        if not self._closed.is_set and (delay := self._session.throttle_s(self._clock())) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._closed.wait()
        while not self._closed.is_set and self.behind:
            self._progress.clear()
            try:
                async with asyncio.timeout(TAKE_TIMEOUT_S):
                    await self._progress.wait()
            except TimeoutError:
                if self._performer:
                    self._performer.give_up()

    def _measure(self, direction: ForwardDirection, since: float) -> None:
        """Measure a frame that was passed on and had come at `since`."""
        if self.on_forward:
            self.on_forward(direction, self._clock() - since)

    def _begin(self) -> None:
        try:
            now = self._clock()
            effects = self._session.begin()
            self._observe(None, effects, now)
            if self._keeper and isinstance(first := effects[0], Send):
                assert isinstance(first.event, SessionCreated)
                self._peer.send(self._keeper.announced(first.event))
                if self._keeper.repeats_items:
                    self._perform_all(self._session.repeat_items(), now)
                del effects[0]
            self._perform_all(effects, now)
            self._begun = True
            self.progressed()
            self._take_all()
        except Exception as exc:  # noqa: BLE001  see fail()
            self.fail(exc)

    def _take_all(self) -> None:
        self._busy, steady = True, bool(self._facts)
        session = self._session
        try:
            while self._facts and not self._closed.is_set:
                fact, now = self._facts.pop(0), self._clock()
                if type(fact) is Disconnected and self._keeper:
                    self._keeper.keep(session.checkpoint(now))
                self._given = fact
                effects = session.handle(fact, now)
                self._given = None
                if session.steady:
                    observers = self._see_audio
                else:
                    observers, steady = self._observers, False
                for observer in observers:
                    observer.on(fact, effects, now)
                for effect in effects:
                    if type(effect) is Send:  # by far the most frequent, and then the audio
                        self._peer.send(effect.event)
                    elif self._performer and (type(effect) is FeedAudio or type(effect) is RunVad):
                        self._performer.perform(effect, now)
                    else:
                        self._perform(effect, now)
            if steady:  # the timer fires early enough
                return
            self._swap_at_rest()
            if not (self._closed.is_set or self._closing):
                self._timer.set(self._session.deadline)
                if self._keeper and self._session.checkpoint_due:
                    self._keeper.keep(self._session.checkpoint(self._clock()))
        except Exception as exc:  # noqa: BLE001  see fail()
            self.fail(exc)
        finally:
            self._busy = False

    def _observe(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        for observer in self._observers:
            observer.on(fact, effects, now)

    def _end(self) -> None:
        if self._recorder is not None:
            self._recorder.leave()
        self._closed.set()
        self._progress.set()
        self._facts.clear()

    def _on_timer(self) -> None:
        self.post(TimerFired())

    def _perform_all(self, effects: list[Effect], now: float) -> None:
        for effect in effects:
            self._perform(effect, now)

    def _perform(self, effect: Effect, now: float) -> None:
        match effect:
            case Send(event=event):
                self._peer.send(event)
            case SendRaw(data=data):
                self._peer.send_raw(data)
            case PlayAudio(item_id=item_id, audio=audio):
                assert self._player
                self._player.play(item_id, audio)
            case ClearPlayback():
                assert self._player
                self._player.flush()
            case DuckPlayback(ducked=ducked):
                assert self._player
                self._player.duck(ducked)
            case Say():
                self._say(effect)
            case RunTool() | CancelTool():
                self._on_tool(effect)
            case _ if isinstance(effect, ObserverEffect):
                pass
            case RequestEnd(reason=reason):
                self.post(reason)
            case RequestFallback(reason=why, close_code=close_code):
                self._fall_back(why, close_code)
            case Close(code=code, reason=reason):
                if code == SHUTDOWN_CLOSE and self._keeper:
                    self._keeper.keep(self._session.checkpoint(now))
                self._close(*(self._close_reason or (code, reason)))
            case _:
                if self._performer:
                    self._performer.perform(effect, now)

    def _close(self, code: int, reason: str) -> None:
        """Close the connection; before a restart only when another process will find the
        conversation."""
        if code == SHUTDOWN_CLOSE and self._keeper and self._tasks is not None:
            self._closing = True
            self._facts.clear()
            self._tasks.start("close", self._close_when_kept(self._keeper, code, reason))
        else:
            self._peer.close(code, reason)
            self._end()

    async def _close_when_kept(self, keeper: Keeper, code: int, reason: str) -> None:
        await keeper.wait_kept()
        self._peer.close(code, reason)
        self._end()

    def _say(self, order: Say) -> None:
        if self._fallbacks is None or self._tasks is None:
            self.post(GenerationFailed(order.order.response_id, "tts", "nothing speaks here"))
        else:
            work = self._fallbacks.say(order, self.post, self.writable)
            self._tasks.start(order.order.response_id, work)

    async def run_tool(self, order: RunTool) -> str:
        """Return the result of a function of this server, for the model."""
        assert self._fallbacks  # only a policy that names functions leads here
        return await self._fallbacks.run_tool(order, self._id)

    def _on_tool(self, effect: RunTool | CancelTool) -> None:
        assert self._tasks is not None
        if isinstance(effect, RunTool):
            self._tasks.start(("tool", effect.call_id), self._run_tool(effect))
        else:
            self._tasks.cancel(("tool", effect.call_id))

    async def _run_tool(self, order: RunTool) -> None:
        self.post(ToolFinished(order.call_id, await self.run_tool(order)))

    def _fall_back(self, reason: str, close_code: int) -> None:
        settings = self._session.settings
        driver = self._fallbacks.fallback(settings) if self._fallbacks else None
        if driver is None:
            log.error("%s: %s; there is no fallback", self._id, reason)
            message = "The server that answers for this model is not available."
            self._peer.send(error_event("upstream_unavailable", message, "server_error"))
            self.end(close_code, reason, "upstream")
        else:
            log.warning("%s: %s; model %s continues", self._id, reason, driver.model)
            self.swap(driver)
            if self._tasks is not None:
                self._tasks.start("recovery", self._recover())

    async def _recover(self) -> None:
        assert self._fallbacks
        self._next = await self._fallbacks.recovered(self.settings)
        if not self._busy and not self._closed.is_set:
            self._swap_at_rest()
            self._timer.set(self._session.deadline)

    def _swap_at_rest(self) -> None:
        driver = self._next
        if driver and not self._closed.is_set and self._session.at_rest:
            self._next = None
            log.info("%s: model %s answers again", self._id, driver.model)
            self.swap(driver)
