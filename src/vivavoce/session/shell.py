"""A session, as every client sees it with any brain. It takes facts and returns effects.

No I/O, no clock, no randomness. The shell owns settings, items, errors, limits and the end; its
brain owns audio input, turns and responses (see session/brain.py).
"""

from contextlib import suppress
from typing import Literal, assert_never

import msgspec

from vivavoce.audio.formats import BYTES_PER_SAMPLE, G711_RATE, RATE
from vivavoce.errors import InvalidRequest
from vivavoce.protocol import client as events
from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.server import (
    ItemAdded,
    ItemDone,
    SessionCreated,
    SessionUpdated,
)
from vivavoce.protocol.session import SessionObject
from vivavoce.session.announcement import Announcements, Ending
from vivavoce.session.brain import Brain, BrainEvent, BrainFactory, Handover, Shared
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.checkpoint import Checkpoint, Checkpoints
from vivavoce.session.client_items import ClientItems
from vivavoce.session.conversation import Conversation
from vivavoce.session.effects import (
    Close,
    Effect,
    EffectBuffer,
    Ids,
    RecordModel,
    RecordRefusal,
)
from vivavoce.session.endpointing import SpeakerPauses
from vivavoce.session.facts import (
    AccessEnded,
    AudioArrived,
    AudioPlayed,
    BudgetLow,
    ContentBlocked,
    Disconnected,
    DrainStarted,
    Fact,
    InvalidFrame,
    Received,
    TimerFired,
    UpstreamEventReceived,
)
from vivavoce.session.lifetime import ENDING_TIMEOUT_S, Lifetime
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, Options
from vivavoce.session.playback import ClientPlayback, ServerPlayback
from vivavoce.session.usage import UsageMeter, UsageTotals

INFINITY = float("inf")


class SessionStart(msgspec.Struct, frozen=True):
    """What a session is made from, for a recorder; its facts are recorded beside it.

    The parameters of Session describe each field.
    """

    settings: SessionObject
    models: AvailableModels
    limits: SessionLimits
    salt: str
    now: float
    server_plays: bool = False
    relays: bool = False
    """Whether its first brain is the relay, and not the cascade."""
    checkpoint: Checkpoint | None = None
    """The checkpoint from which it continues; None: the session is new."""


class Session:
    """One conversation.

    Perform the effects of begin() and of each handle() in order; then set a timer for `deadline`,
    and pass TimerFired when it fires. After Close, pass no more facts. A session is a pure function
    of what it is given: the same facts at the same times give the same effects. `salt` is part of
    every id: never use one twice for the same conversation. `server_plays`: answers are not sent as
    audio deltas but played by the server, which reports AudioPlayed.
    """

    def __init__(
        self,
        opening: SessionObject,
        models: AvailableModels,
        limits: SessionLimits,
        *,
        salt: str,
        now: float,
        server_plays: bool = False,
        brain: BrainFactory = CascadeBrain,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        effects = EffectBuffer(Ids(salt))
        pauses = SpeakerPauses()
        if checkpoint:
            pauses = SpeakerPauses(checkpoint.pauses, checkpoint.spoken_until)
        kept = int(limits.kept_audio_seconds) * 2 * RATE
        self._shared = Shared(
            options=Options(opening, models),
            conversation=Conversation(kept_bytes=kept, max_items=limits.max_items),
            playback=ServerPlayback(effects) if server_plays else ClientPlayback(),
            effects=effects,
            usage=UsageMeter(effects, checkpoint.usage if checkpoint else None, models.costs, now),
            limits=limits,
            pauses=pauses,
        )
        self._rules = self._shared.options.rules
        self._takes_all_audio = self._rules.takes_all_audio
        self._brain: Brain = brain(self._shared)
        expires_in = checkpoint.expires_in if checkpoint else None
        self._lifetime = Lifetime(limits, now, expires_in=expires_in)
        self._items = ClientItems(self._shared)
        self._state: Literal["open", "draining", "ending", "closed"] = "open"
        self._announcements = Announcements(self._shared)
        self._checkpoints = Checkpoints(self._shared, now)
        self.steady = False
        """Whether the last fact was audio that changed nothing else: then no deadline has moved
        nearer."""
        handover = Handover()
        if checkpoint:
            self._shared.conversation.load(checkpoint.entries)
            quiet_for = checkpoint.quiet_for
            handover = Handover(
                position=checkpoint.position,
                quiet_since=None if quiet_for is None else now - quiet_for,
                owes_response=checkpoint.owes_response,
                cut_item_id=checkpoint.cut_item_id,
            )
        self._brain.attach(handover, now)
        self._opening_effects = effects.drain()

    @property
    def deadline(self) -> float:
        """When TimerFired is due if no other fact comes first."""
        said_at = self._announcements.deadline(self._brain)
        if self._state == "ending":
            return said_at
        lifetime = self._lifetime
        return min(
            lifetime.speaks_at, lifetime.ends_at, self._idle_at, said_at, self._brain.deadline
        )

    @property
    def settings(self) -> SessionObject:
        """The session object as the client sees it."""
        return self._shared.options.session

    def throttle_s(self, now: float) -> float:
        """For how many seconds the client should not be read, because it sends audio too fast."""
        return self._rules.throttle_s(now)

    @property
    def usage(self) -> UsageTotals:
        """The usage of the session so far."""
        return self._shared.usage.totals

    @property
    def audio_samples(self) -> tuple[int, int]:
        """Audio of the user that was received, and audio of answers that was generated, at 24
        kHz."""
        return self._brain.position, self._shared.playback.samples

    @property
    def plays_until(self) -> float:
        """When all audio of answers will have been played; infinite while the server plays."""
        return self._shared.playback.until

    def begin(self) -> list[Effect]:
        """Send `session.created`, then whatever the brain starts with."""
        shared = self._shared
        event_id = shared.effects.event_id()
        shared.effects.send(SessionCreated(event_id=event_id, session=shared.options.session))
        opening, self._opening_effects = self._opening_effects, []
        return shared.effects.drain() + opening

    def handle(self, fact: Fact, now: float) -> list[Effect]:
        """Take a fact; return the effects to perform. After Close there are none."""
        self.steady = self._state == "open" and self._continue_audio(fact, now)
        if self.steady:
            return self._shared.effects.drain()
        # a session is not idle while an answer is generated, or an upstream server gets audio
        if self._brain.busy or type(fact) is UpstreamEventReceived:
            self._lifetime.active_at = now
        if self._state != "closed":
            self._take(fact, now)
        if self._state != "closed":
            self._settle(now)
        effects = self._shared.effects.drain()
        self._checkpoints.see(fact, effects, now)
        return effects

    def pass_input(self, frame: bytes, now: float) -> PassedAudio | None:
        """The audio of a frame of a GA client that goes upstream unchanged, because no rule touches
        it; it is counted. None: nothing was changed; decode the frame, and pass the event to
        handle(). In a relay this replaces handle() 25 times a second.
        """
        if self._state != "open" or (audio := self._brain.pass_input(frame, now)) is None:
            return None
        self._lifetime.active_at = now
        return audio

    def append_of(self, frame: bytes) -> events.InputAudioAppend | None:
        """Decode a frame of a GA client if its bytes are those of an append: pass the event to
        handle(). None: decode the frame in the ordinary way."""
        if self._state != "open" or not self._takes_all_audio:
            return None
        return self._brain.append_of(frame)

    def pass_output(self, frame: bytes, now: float) -> PassedAudio | None:
        """The same for a frame of an upstream server that goes to the client."""
        if self._state != "open" or (audio := self._brain.pass_output(frame, now)) is None:
            return None
        self._lifetime.active_at = now
        self._checkpoints.changed = True
        return audio

    def swap(
        self, brain: BrainFactory, now: float, *, model: str = ""
    ) -> tuple[list[Effect], list[Effect]]:
        """Replace the brain between two facts; the conversation stays the same.

        model: the model that serves the session from now on, whatever its client named. Returns the
        last effects of the old brain and the first ones of the new brain.
        """
        if self._brain.busy:
            self._lifetime.active_at = now
        handover = self._brain.detach(now)
        last = self._shared.effects.drain()
        if model:
            self._shared.options.serve_with(model)
            self._shared.effects.add(RecordModel(model))
        self._brain = brain(self._shared)
        self._brain.attach(handover, now)
        if self._state == "draining":
            self._brain.drain()
        self._settle(now)
        return last, self._shared.effects.drain()

    @property
    def at_rest(self) -> bool:
        """Whether the brain can be replaced without the user noticing."""
        return self._state == "open" and self._brain.at_rest

    @property
    def checkpoint_due(self) -> bool:
        """Whether the session has changed since the last checkpoint, and is at rest or may lose an
        item."""
        return self._checkpoints.changed and (self._checkpoints.due or self.at_rest)

    def checkpoint(self, now: float) -> Checkpoint:
        """Everything that another process needs to continue, at any time.

        `checkpoint_due` says when to store it.
        """
        expires_in = self._lifetime.expires_at - now
        begins_none = self._state in ("draining", "closed")
        return self._checkpoints.make(self._brain, expires_in, now, begins_none=begins_none)

    def repeat_items(self) -> list[Effect]:
        """Send all items of the conversation to a client that has lost them.

        Of an answer in progress, `done` follows when it is.
        """
        shared = self._shared
        for entry in shared.conversation:
            previous, item = shared.conversation.previous(entry.item.id), entry.item
            # ids from the counter are only for events that follow from facts
            event_id = f"event_again_{entry.item.id}"
            told = (ItemAdded,) if item.status == "in_progress" else (ItemAdded, ItemDone)
            for event in told:
                shared.effects.send(event(event_id=event_id, previous_item_id=previous, item=item))
        return shared.effects.drain()

    def _continue_audio(self, fact: Fact, now: float) -> bool:
        """The short path for facts that come 25 times a second or more. False: nothing was done."""
        kind = type(fact)
        if kind is Received or kind is AudioArrived:
            if not (self._takes_all_audio and self._brain.continue_audio(fact, now)):
                return False
            self._lifetime.active_at = now
            return True
        if isinstance(fact, AudioPlayed):
            return not self._checkpoints.late(now) and self._shared.playback.continue_playing(
                fact.item_id, fact.samples
            )
        return self._brain.continue_audio(fact, now)

    def _take(self, fact: Fact, now: float) -> None:
        if self._announcements.take(fact, now):
            return
        if self._state == "ending":
            self._take_at_end(fact, now)
            return
        match fact:
            case Received(event=event, raw=raw):
                self._lifetime.active_at = now
                try:
                    self._on_client(event, raw, now)
                except InvalidRequest as problem:
                    self._refuse(problem, event)
            case InvalidFrame(problem=problem):
                self._lifetime.active_at = now
                self._refuse(problem, None)
            case AudioArrived(audio=audio):
                self._lifetime.active_at = now
                try:
                    self._rules.take_audio(len(audio) // BYTES_PER_SAMPLE, now)
                except InvalidRequest:
                    return
                self._brain.on_audio(audio, now)
            case AudioPlayed(item_id=item_id, samples=samples):
                self._shared.playback.played(item_id, samples, now)
            case TimerFired():
                self._on_timer(now)
            case DrainStarted():
                self._state = "draining"
                self._brain.drain()
            case AccessEnded(code=code, message=message, close_code=close_code):
                limits = self._shared.limits
                words = {
                    "insufficient_quota": limits.say_budget_spent,
                    "store_unavailable": limits.say_store_lost,
                }
                latest = now + ENDING_TIMEOUT_S
                ending = Ending(code, message, close_code, code, latest)
                self._end(ending, words.get(code, ""), now)
            case ContentBlocked():
                self._block(fact, now)
            case BudgetLow():
                self._announcements.warn(self._shared.limits.say_budget_low)
            case Disconnected():
                self._close(1000, "the client left", now)
            case _:
                self._brain.on_fact(fact, now)

    def _take_at_end(self, fact: Fact, now: float) -> None:
        """Take a fact while the last sentence is said."""
        ending = self._announcements.ending
        assert ending
        match fact:
            case Received(event=events.ResponseCreate() | events.ItemCreate() as event):
                self._refuse(InvalidRequest(ending.message, code=ending.code), event)
            case AudioPlayed(item_id=item_id, samples=samples):
                self._shared.playback.played(item_id, samples, now)
            case AccessEnded(code="invalid_api_key" as code, message=message, close_code=close):
                self._shared.effects.error(message, code=code)
                self._close(close, code, now)
            case Disconnected():
                self._close(1000, "the client left", now)
            case _:
                pass  # none of these has an effect any more

    def _block(self, fact: ContentBlocked, now: float) -> None:
        """Stop what moderation does not allow, and announce it."""
        if fact.ends:
            message = "The conversation was ended: what was said is not allowed."
            latest = now + ENDING_TIMEOUT_S
            ending = Ending("content_blocked", message, 1008, "content_blocked", latest)
            self._end(ending, fact.say, now)
            return
        with suppress(InvalidRequest):  # there may be no answer yet
            if self._brain.busy:
                self._brain.on_client(events.ResponseCancel(), None, now)
        if self._shared.playback.by_server:
            self._brain.on_client(events.OutputAudioClear(), None, now)
        if fact.item_id:
            with suppress(InvalidRequest):  # the client may have deleted it
                self._items.delete(events.ItemDelete(item_id=fact.item_id), self._brain, now)
        self._announcements.warn(fact.say)

    def _end(self, ending: Ending, words: str, now: float) -> None:
        """End the session, after this last sentence if there is one."""
        if not words or self._shared.options.transcribes_only:
            self._shared.effects.error(ending.message, code=ending.code)
            self._close(ending.close_code, ending.reason, now)
            return
        self._brain.stop(now)
        self._state = "ending"
        if self._shared.playback.by_server:
            self._shared.playback.stop(now)
        self._announcements.end(ending, words, now)

    def _on_client(self, event: events.AnyClientEvent, raw: bytes | None, now: float) -> None:
        self._rules.check_event(event)
        match event:
            case events.SessionUpdate():
                self._update(event, now)
            case events.ItemCreate():
                self._items.create(event, self._brain, now)
            case events.ItemRetrieve():
                self._items.retrieve(event)
            case events.ItemTruncate():
                self._items.truncate(event, self._brain, now)
            case events.ItemDelete():
                self._items.delete(event, self._brain, now)
            case (
                events.InputAudioAppend()
                | events.InputAudioCommit()
                | events.InputAudioClear()
                | events.ResponseCreate()
                | events.ResponseCancel()
                | events.OutputAudioClear()
            ):
                self._on_brain_event(event, raw, now)
            case _:
                assert_never(event)

    def _on_brain_event(self, event: BrainEvent, raw: bytes | None, now: float) -> None:
        if isinstance(event, events.ResponseCreate):
            if self._state == "draining" and (self._brain.busy or self._server_is_playing):
                raise InvalidRequest("The server is shutting down.", code="server_shutdown")
            allowed = self._rules.response(event)
            if allowed is not event:
                event, raw = allowed, None
        elif isinstance(event, events.InputAudioAppend):
            self._take_audio(event, now)
        self._brain.on_client(event, raw, now)

    def _take_audio(self, event: events.InputAudioAppend, now: float) -> None:
        """Raises InvalidRequest where audio comes much too fast."""
        width = BYTES_PER_SAMPLE if self._shared.options.input_format == "audio/pcm" else 1
        rate = RATE if width == BYTES_PER_SAMPLE else G711_RATE
        self._rules.take_audio(len(event.audio) // width * RATE // rate, now)

    def _on_timer(self, now: float) -> None:
        if self._lifetime.ends_at <= now:
            self._end(*self._lifetime.expired(), now)
        elif self._idle_at <= now:
            self._end(*self._lifetime.idle(now), now)
        elif self._lifetime.speaks_at <= now:
            self._announcements.warn(self._lifetime.speak(now))
        else:
            self._brain.on_timer(now)

    def _settle(self, now: float) -> None:
        """What is due after any fact."""
        ending = self._announcements.settle(now, self._brain)
        if ending is not None:
            self._shared.effects.error(ending.message, code=ending.code)
            self._close(ending.close_code, ending.reason, now)
        if self._state in ("ending", "closed"):
            return
        brain = self._brain
        brain.settle(now)
        under_way = brain.turn_open or brain.busy or brain.transcribing or self._server_is_playing
        if self._state == "draining" and not under_way:
            self._close(1012, "the server is shutting down", now)

    def _update(self, event: events.SessionUpdate, now: float) -> None:
        shared = self._shared
        pristine = self._brain.pristine and not len(shared.conversation)
        patch = self._rules.settings(event.session, shared.options.session)
        shared.options.update(
            patch, pristine=pristine, has_spoken=shared.conversation.has_answer_audio
        )
        self._brain.on_settings(now)
        event_id = shared.effects.event_id()
        shared.effects.send(SessionUpdated(event_id=event_id, session=shared.options.session))

    def _refuse(self, problem: InvalidRequest, event: events.AnyClientEvent | None) -> None:
        """Tell the client why its event had no effect; None: its frame was not valid."""
        self._shared.effects.error(
            problem.message,
            code=problem.code,
            param=problem.param,
            cause=problem.event_id or (event.event_id if event else None),
        )
        if event and problem.rule:
            kind = str(type(event).__struct_config__.tag)
            self._shared.effects.add(RecordRefusal(kind, problem.rule))

    def _close(self, code: int, reason: str, now: float) -> None:
        if self._state != "ending":
            self._brain.stop(now)
        self._shared.effects.add(Close(code, reason))
        self._state = "closed"

    @property
    def _server_is_playing(self) -> bool:
        playback = self._shared.playback
        return playback.by_server and playback.until == INFINITY

    @property
    def _idle_at(self) -> float:
        return self._lifetime.idle_at(self._shared.playback.until, busy=self._brain.busy)
