"""All sessions of a server: opened, counted, and ended at shutdown."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, Protocol, TypeAlias

import msgspec
from msgspec import UNSET

from vivavoce.errors import LimitReached, QuotaExceeded, StoreError, Unauthorized
from vivavoce.limits.accounts import Owner
from vivavoce.protocol.session import RealtimeSession, SessionObject
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.admission import Admission
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.drivers import Driver
from vivavoce.runtime.inventory import Inventory
from vivavoce.runtime.live_sessions import LiveSession, LiveSessions
from vivavoce.runtime.load import LoadProbe
from vivavoce.runtime.moderation import Moderation, Moderator
from vivavoce.runtime.parts import CallObserver, Observer, Peer, Player
from vivavoce.runtime.reload import Counted
from vivavoce.runtime.resume import Resumption, Ticket
from vivavoce.runtime.runner import ForwardDirection, Runner
from vivavoce.runtime.session_defaults import asked_model, begin, opening_again, with_voice
from vivavoce.runtime.session_drivers import Drivers
from vivavoce.runtime.speaker_gate import SpeakerGate
from vivavoce.runtime.tools import ServerTool, ToolOutcome
from vivavoce.runtime.upstream import Relay
from vivavoce.runtime.upstream_calls import PassedOffer
from vivavoce.runtime.voice_rules import VoiceSettings, ruled_voice
from vivavoce.session.facts import DrainStarted, Fact
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels
from vivavoce.session.policy import Policy, Rules
from vivavoce.session.shell import Session, SessionStart
from vivavoce.session.usage import Costs

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0  # between the request to end and the end of a session
MakeObserver = Callable[[SessionObject, str], Observer]
"""Makes an observer for a session and the name of the key that opened it."""


Refusal: TypeAlias = Literal["draining", "full", "overloaded", "away"]
_REFUSALS: Mapping[Refusal, str] = {
    "draining": "is shutting down",
    "full": "has reached max_sessions",
    "overloaded": "has more work than it does in time; try again in a few seconds",
    "away": "cannot reach the Redis server of its cluster; try again in a few seconds",
}


class Meter(Observer, Costs, Protocol):
    """Counts what a session uses, and ends the session when its owner may use nothing more."""

    post: Callable[[Fact], None]
    """Passes a fact to the session. Set before enter()."""
    serving: str
    """Set before enter(): "" for a new session; another name each time it is resumed, which is
    booked separately."""
    former: str
    """`serving` of the process that had a resumed session before."""
    confirm_claim: Callable[[], Awaitable[object]] | None
    """Ends the session here if another process has taken its conversation over; called before it
    is ended because a budget is spent. None: no other process can."""

    async def enter(self) -> None:
        """Called before the session begins. Raises QuotaExceeded, Unauthorized and StoreError."""
        ...

    def leave(self) -> None:
        """The session has ended, or was refused. Never waits."""
        ...


class CallRecorder(CallObserver, Protocol):
    """Records a session."""

    @property
    def models(self) -> AvailableModels:
        """The options that the session uses instead of these, so that its lookups of names are
        recorded."""
        ...


MakeMeter = Callable[[SessionObject, str], Meter]
"""Makes the meter of a session and the name of the key that opened it."""


class Measurements(Protocol):
    """Receives measurements that are no part of the facts of sessions."""

    def on_forward(self, direction: ForwardDirection, seconds: float) -> None:
        """A frame was passed on undecoded."""
        ...

    def on_tool(self, name: str, outcome: ToolOutcome, seconds: float) -> None:
        """A call of a function of this server has ended."""
        ...


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What all sessions of a server share."""

    catalog: ModelCatalog
    models: AvailableModels
    limits: SessionLimits
    template: RealtimeSession
    """The session object with which sessions begin, without its id, model and expiry."""
    max_sessions: int = 1000
    max_upload_bytes: int = 25 * 1024 * 1024
    """The most bytes in the body of one HTTP request."""
    observers: tuple[MakeObserver, ...] = ()
    meter: MakeMeter | None = None
    measurements: Measurements | None = None
    record: Callable[[SessionStart], CallRecorder] | None = None
    """Makes the recording of a session that begins."""
    policies: Mapping[str, Policy] = field(default_factory=dict)
    """The policies, by the name of the model that uses them."""
    tools: Mapping[str, ServerTool] = field(default_factory=dict)
    """Functions of this server that policies name."""
    moderation: Mapping[str, Moderation] = field(default_factory=dict)
    """Checks that policies name."""
    voices: VoiceSettings = field(default_factory=VoiceSettings)
    """The rules for the voice with which a session begins."""
    owner_of: Callable[[str], Owner] = Owner
    """The user and team of a key, by its name."""
    key_models: Callable[[str], frozenset[str] | None] = lambda _: None
    """The models that a key allows, by the name of the key; None: all."""
    resumption: Resumption | None = None
    """Lets clients come back to their conversations."""
    takes_images: Callable[[str, str], bool] = lambda model, key: True
    """Whether the owner of a key may send pictures to a model: see Metering.takes_images()."""
    place: str = ""
    """The name of this process among several, which is part of the ids of sessions and calls."""
    engines: Mapping[str, object] = field(default_factory=dict)
    """The engines of all models by `kind:name`, for health checks."""
    inventory: Inventory | None = None
    """These engines, and those that can be loaded on demand."""
    gate: SpeakerGate | None = None
    """The speaker gate; None: everybody is accepted."""
    watch_captions: bool = False
    """Whether operators who watch a session see what is said."""


class _OpenSession(msgspec.Struct, frozen=True):
    """What is connected to the runner of a session, and released at its end."""

    context: Counted[ServerContext]
    live: LiveSession
    meter: Meter | None
    moderator: Moderator | None
    ticket: Ticket | None

    def observers(self, *others: Observer) -> list[Observer]:
        """All observers of the session, in the order in which they are called."""
        optional = (self.moderator, self.meter)
        return [self.live, *others, *(one for one in optional if one is not None)]

    def begin(self, runner: Runner) -> None:
        self.live.runner = runner
        if self.ticket:
            self.ticket.service.begin(self.ticket, runner)
        if measurements := self.context.value.measurements:
            runner.on_forward = measurements.on_forward
        if self.meter:
            self.meter.post = runner.post
            if ticket := self.ticket:
                self.meter.confirm_claim = partial(
                    ticket.service.still_served, ticket.key, retries=True
                )
                if ticket.checkpoint:
                    self.meter.serving, self.meter.former = ticket.serving, ticket.former
        if self.moderator:
            self.moderator.post = runner.post

    def end(self) -> None:
        if self.meter:
            self.meter.leave()
        if self.moderator:
            self.moderator.leave()
        if self.ticket:
            self.ticket.service.end(self.ticket)


class Sessions:
    """Opens sessions, counts them, and ends them all at shutdown."""

    def __init__(
        self, context: ServerContext, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._context = Counted(context)
        self._wall_clock = wall_clock
        self._runners: dict[Runner, _OpenSession] = {}
        self.ended = 0
        """Sessions that have ended so far."""
        self._ended_audio = (0, 0)  # samples of input and output, of sessions that have ended
        self.admission: Admission | None = None
        """Measures whether this process is overloaded; None: that is not measured."""
        self.load = LoadProbe()
        """Not entered: no load is measured."""
        self.is_cut_off: Callable[[], bool] = lambda: False
        """Whether new sessions are refused because the Redis server of the cluster cannot be
        reached."""
        self.on_refusal: Callable[[Refusal], None] = lambda _: None
        """Called with the reason when a session is refused."""
        self.live = LiveSessions(lambda: self.context.watch_captions, wall_clock)
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._runners)

    def __bool__(self) -> bool:
        return True

    @property
    def context(self) -> ServerContext:
        """The context with which the next session begins."""
        return self._context.value

    def hold_context(self) -> AbstractContextManager[ServerContext]:
        """That context, in use until the block ends."""
        return self._context.hold()

    def replace_context(self, context: ServerContext) -> Counted[ServerContext]:
        """Use another context for sessions that begin from now on. Returns the former one."""
        earlier, self._context = self._context, Counted(context)
        return earlier

    @property
    def accepts(self) -> bool:
        """Whether one more session would be accepted."""
        return self._refusal is None

    @property
    def _refusal(self) -> Refusal | None:
        if self._draining:
            return "draining"
        if len(self._runners) >= self.context.max_sessions:
            return "full"
        if self.admission is not None and self.admission.overloaded:
            return "overloaded"
        return "away" if self.is_cut_off() else None

    def _is_busy(self) -> bool:
        """Whether nothing is to begin early."""
        return self.load.share > self.context.models.turns.anticipation_max_load

    @property
    def draining(self) -> bool:
        """Whether all sessions are being ended."""
        return self._draining

    def check_room(self, *, in_place: bool = False) -> None:
        """Raise LimitReached if one more session would be refused, and count the refusal.

        in_place: the session replaces one of this process.
        """
        if (refusal := self._refusal) is not None and not (in_place and refusal == "full"):
            self.on_refusal(refusal)
            raise LimitReached(f"the server {_REFUSALS[refusal]}")

    async def take_over(self, ticket: Ticket) -> None:
        """Claim the conversation of a ticket for the session that is opened next, without a wait in
        between. Raises InvalidRequest, and LimitReached if that session would be refused."""
        self.check_room(in_place=ticket.ends_another)
        await ticket.service.load(ticket)

    @property
    def backlog(self) -> tuple[int, int]:
        """Bytes queued for clients, and for recognisers and upstream servers."""
        waiting = [runner.waiting_bytes for runner in self._runners]
        return sum(out for out, _ in waiting), sum(in_ for _, in_ in waiting)

    @property
    def audio_samples(self) -> tuple[int, int]:
        """Of users and of answers, at 24 kHz, in all sessions so far."""
        return self._summed(*self._runners)

    def _summed(self, *runners: Runner) -> tuple[int, int]:
        heard, said = self._ended_audio
        for runner in runners:
            samples = runner.audio_samples
            heard, said = heard + samples[0], said + samples[1]
        return heard, said

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
        """Make a session for a client. Raises LimitReached, and InvalidRequest for its settings.

        player: plays the answers, if the client does not. observers: of this session, in addition
        to those of the server. ticket: with which the client can come back, or has come back.
        offer: the call, if its media does not pass through this server; such a session is not
        recorded. The caller runs the session with serve().
        """
        self.check_room()
        salt, context = self.new_id(6), self.context
        checkpoint = ticket.checkpoint if ticket else None
        if checkpoint:
            opening = opening_again(opening, checkpoint.session)
            settings = checkpoint.session
        else:
            settings = self.initial_settings(opening, salt)
        _log_opened(settings, asked_model(opening))
        drivers = Drivers(context, opening.who, self._is_busy, offer)
        driver = drivers.first(asked_model(opening))
        opened = _OpenSession(
            self._context,
            LiveSession(opening, self.live),
            context.meter(settings, opening.who) if context.meter else None,
            self._moderator(opening, settings.id),
            ticket,
        )
        made = [make(settings, opening.who) for make in context.observers]
        start = SessionStart(
            settings,
            replace(self._offer(opening), costs=opened.meter),
            context.limits if offer is None else context.limits.without_announcements,
            salt=salt,
            now=asyncio.get_running_loop().time(),
            server_plays=player is not None,
            relays=driver.relays,
            checkpoint=checkpoint,
        )
        recorder = context.record(start) if context.record and offer is None else None
        runner = Runner(
            _session_of(start, recorder.models if recorder else start.models, driver),
            peer,
            driver.performer,
            player=player,
            fallbacks=drivers,
            observers=opened.observers(*made, *observers),
            keeper=ticket,
            recorder=recorder,
        )
        self._add(runner, opened)
        return runner

    def _add(self, runner: Runner, opened: _OpenSession) -> None:
        opened.begin(runner)
        self.live.add(runner.settings.id, opened.live)
        self._context.take()
        self._runners[runner] = opened
        self._empty.clear()

    async def serve(self, runner: Runner) -> None:
        """Run a session to its end. It is refused if its owner may not begin one."""
        opened, session_id = self._runners[runner], runner.settings.id
        try:
            if opened.meter:
                await opened.meter.enter()
            await runner.run()
        except (QuotaExceeded, Unauthorized, StoreError) as exc:
            runner.refuse(exc)
        finally:
            opened.end()
            if self._runners.pop(runner, None):
                opened.context.give_back()
            self.ended += 1
            self._ended_audio = self._summed(runner)
            self.live.remove(session_id)
            if not self._runners:
                self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Let turns and answers in progress end within this time; then end all sessions.

        A session whose client is away ends at once: nobody would hear the rest of its answer. When
        the client comes back, the answer is continued.
        """
        self._draining = True
        for runner, opened in tuple(self._runners.items()):
            if opened.ticket and opened.ticket.client_away:
                _shut_down(runner)
            else:
                runner.post(DrainStarted())
        await self._wait_until_empty(seconds)
        for runner in tuple(self._runners):
            _shut_down(runner)
        await self._wait_until_empty(CLOSE_TIMEOUT_S)
        if self._runners:
            log.warning("%d sessions did not end: an engine does not stop", len(self))

    def initial_settings(self, opening: Opening, salt: str = "") -> SessionObject:
        """The session object with which a session begins. Raises InvalidRequest."""
        context = self.context
        expires_at = int(self._wall_clock() + context.limits.max_seconds)
        salt = salt or self.new_id(6)
        offer, template = self._offer(opening), context.template
        model = asked_model(opening) or context.models.default_model
        if voice := ruled_voice(context.voices, opening, context.owner_of(opening.who), model):
            template = with_voice(template, voice)
        return begin(opening, template, offer, salt=salt, expires_at=expires_at)

    def direct_relay(self, opening: Opening) -> Relay | None:
        """The relay of a session whose media does not pass through this server; None: the media
        does."""
        if opening.kind != "realtime":
            return None
        relay = Drivers(self.context, opening.who, self._is_busy).relay(asked_model(opening))
        return relay if relay is not None and relay.media == "direct" else None

    def new_id(self, size: int) -> str:
        """Random bytes in hexadecimal, after the name of this process, if it has one."""
        place = self.context.place
        return f"{place}_{secrets.token_hex(size)}" if place else secrets.token_hex(size)

    def _offer(self, opening: Opening) -> AvailableModels:
        """The options of a new session. Raises InvalidRequest for a model that its key forbids."""
        context = self.context
        model = asked_model(opening) or context.models.default_model
        policy = self._policy(model)
        tools = [context.tools[name] for name in (policy.tools if policy else ())]
        served = context.models.served_by(model, "").model
        rules = Rules(
            policy,
            context.key_models(opening.who),
            tuple(tool.declared for tool in tools),
            frozenset(tool.declared.name for tool in tools if tool.background),
            takes_images=context.takes_images(served, opening.who),
        )
        rules.check_model(model)
        return replace(context.models, rules=rules)

    def _policy(self, model: str) -> Policy | None:
        return self.context.policies.get(self.context.models.served_by(model, "").model)

    def _moderator(self, opening: Opening, session_id: str) -> Moderator | None:
        policy = self._policy(asked_model(opening) or self.context.models.default_model)
        if policy is None or not policy.moderation:
            return None
        return Moderator(self.context.moderation[policy.moderation], session_id, opening.who)

    async def _wait_until_empty(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()


def _session_of(start: SessionStart, models: AvailableModels, driver: Driver) -> Session:
    """models: those of `start`, or a recorder's, which keeps their answers."""
    return Session(
        start.settings,
        models,
        start.limits,
        salt=start.salt,
        now=start.now,
        server_plays=start.server_plays,
        brain=driver.brain,
        checkpoint=start.checkpoint,
    )


def _log_opened(session: SessionObject, asked: str) -> None:
    """Log the model that serves a session, which for an unknown name is the default."""
    if not isinstance(session, RealtimeSession) or session.served_by is UNSET:
        log.info("%s opened, for transcription", session.id)
    elif asked in ("", session.served_by.model):
        log.info("%s opened, model %s", session.id, session.served_by.model)
    else:
        log.info(
            "%s opened, model %s in place of %.100r", session.id, session.served_by.model, asked
        )


def _shut_down(runner: Runner) -> None:
    runner.end(1012, "the server is shutting down", "shutdown")
