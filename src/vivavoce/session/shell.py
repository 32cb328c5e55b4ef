"""A session's whole behaviour. No I/O, no clock, no chance: facts in, effects out."""

from typing import Literal, assert_never

import msgspec

from vivavoce.audio.formats import RATE
from vivavoce.errors import InvalidRequest
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCallOutput
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.session import ServerVad, SessionObject
from vivavoce.session.cascade.input_turns import InputTurns
from vivavoce.session.cascade.responses import STAGES, Responses
from vivavoce.session.cascade.transcriptions import Transcriptions
from vivavoce.session.cascade.turn_detection import Edge
from vivavoce.session.conversation import Conversation, SavedEntry
from vivavoce.session.effect_buffer import EffectBuffer, Ids
from vivavoce.session.effects import CancelTranscription, Close, Effect
from vivavoce.session.facts import (
    AudioArrived,
    AudioGenerated,
    AudioPlayed,
    Disconnected,
    DrainStarted,
    Fact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    InvalidFrame,
    ItemTranscriptionFailed,
    OutputFinished,
    Received,
    TextGenerated,
    TimerFired,
    ToolCallArguments,
    ToolCallStarted,
    TranscriptUpdated,
    TurnScored,
    VadScores,
)
from vivavoce.session.item_validation import entry_of, in_format
from vivavoce.session.limits import SessionLimits, span
from vivavoce.session.options import AvailableModels, Options
from vivavoce.session.output_buffer import OutputBuffer
from vivavoce.session.playout import Playout
from vivavoce.session.reserve import OwnIds
from vivavoce.session.usage import Tally

INFINITY = float("inf")


class Checkpoint(msgspec.Struct, frozen=True):
    """A session between two turns, as it is written down."""

    session: SessionObject
    entries: tuple[SavedEntry, ...]


class Session:
    """One conversation.

    Perform the effects of begin() and of each handle() in order; then arm a timer for `deadline`
    and feed Woken when it fires. After Close, feed nothing more. A session is a pure function of
    what it is given: the same facts at the same times give the same effects. `salt` is a part of
    every id: never give one twice to the same conversation. `owns_playout`: answers are not sent
    as sound but ordered to be played, and what has been is told.
    """

    def __init__(
        self,
        opening: SessionObject,
        offer: AvailableModels,
        limits: SessionLimits,
        *,
        salt: str,
        now: float,
        entries: tuple[SavedEntry, ...] = (),
        owns_playout: bool = False,
    ) -> None:
        self.tally = Tally()
        self._outbox = EffectBuffer(Ids(salt))
        self._reserve = OwnIds(salt)
        self._options = Options(opening, offer)
        self._limits = limits
        kept = int(limits.kept_audio_seconds) * 2 * RATE
        self._conversation = Conversation(kept_bytes=kept)
        self._conversation.load(entries)
        self._hearing = Transcriptions(self._outbox, self.tally, stall_seconds=limits.stall_seconds)
        self._listening = InputTurns(
            self._options,
            self._conversation,
            self._hearing,
            self._outbox,
            max_buffer_seconds=limits.max_buffer_seconds,
            gap_seconds=limits.gap_seconds,
        )
        self._answering = Responses(
            self._options,
            self._conversation,
            self._hearing,
            self._outbox,
            self.tally,
            stall_seconds=limits.stall_seconds,
            playout=OutputBuffer(self._outbox) if owns_playout else Playout(),
        )
        self._expires_at = now + limits.max_seconds
        self._seen_at = now
        self._state: Literal["open", "draining", "closed"] = "open"

    @property
    def deadline(self) -> float:
        """When to feed Woken, if nothing else comes before."""
        return min(
            self._expires_at,
            self._idle_at,
            self._quiet_until,
            self._listening.deadline,
            self._hearing.deadline,
            self._answering.deadline,
        )

    @property
    def settings(self) -> SessionObject:
        """As the client is shown them."""
        return self._options.session

    def begin(self) -> list[Effect]:
        """Greet the client."""
        self._outbox.send(
            says.SessionCreated(event_id=self._outbox.event_id(), session=self._options.session)
        )
        return self._outbox.drain()

    def handle(self, fact: Fact, now: float) -> list[Effect]:
        """Take a fact; return what is to be done about it. After Close: nothing."""
        if self._answering.busy:  # while somebody is being answered, nobody is idle
            self._seen_at = now
        if self._state != "closed":
            self._take(fact, now)
        if self._state != "closed":
            self._settle(now)
        return self._outbox.drain()

    def save(self) -> Checkpoint:
        """Everything that a session needs to go on elsewhere. Call it between turns."""
        return Checkpoint(self._options.session, self._conversation.save())

    def _take(self, fact: Fact, now: float) -> None:
        match fact:
            case Received(event=event):
                self._seen_at = now
                try:
                    self._on_client_event(event, now)
                except InvalidRequest as problem:
                    self._refuse(problem, event.event_id)
            case InvalidFrame(problem=problem):
                self._seen_at = now
                self._refuse(problem, None)
            case AudioArrived(audio=audio):
                self._seen_at = now
                self._listening.hear(audio, now)
            case VadScores(speech=speech):
                for n in range(len(speech)):
                    self._on_edge(self._listening.score(fact, n), now)
                self._listening.catch_up()
            case TurnScored(item_id=item_id, likelihood=likelihood):
                self._on_edge(self._listening.assessed(item_id, likelihood), now)
            case TranscriptUpdated():
                self._on_words(fact, now)
            case ItemTranscriptionFailed(item_id=key, reason=reason):
                self._hearing.fail(key, "stt_failed", reason)
            case (
                GenerationProgress()
                | TextGenerated()
                | ToolCallStarted()
                | ToolCallArguments()
                | GenerationFinished()
                | AudioGenerated()
                | OutputFinished()
                | GenerationFailed()
            ):
                self._answering.take(fact, now)
            case AudioPlayed(item_id=item_id, samples=samples):
                self._answering.played(item_id, samples, now)
            case TimerFired():
                self._on_time(now)
            case DrainStarted():
                self._state = "draining"
            case Disconnected():
                self._close(1000, "the client left", now)
            case _:
                assert_never(fact)

    def _on_client_event(self, event: asks.AnyClientEvent, now: float) -> None:
        match event:
            case asks.InputAudioAppend():
                self._listening.append(event, now)
            case asks.InputAudioCommit():
                self._listening.commit(now)
            case asks.InputAudioClear():
                self._listening.clear()
            case asks.SessionUpdate():
                self._update(event)
            case asks.ItemCreate():
                self._create_item(event, now)
            case asks.ItemRetrieve(item_id=item_id):
                kept = self._conversation.retrieve(item_id)
                item = in_format(kept, self._options.input_format)
                self._outbox.send(says.ItemRetrieved(event_id=self._outbox.event_id(), item=item))
            case asks.ItemTruncate():
                self._truncate(event, now)
            case asks.ItemDelete(item_id=item_id):
                self._delete(item_id, now)
            case asks.ResponseCreate(response=params):
                if self._state == "draining":
                    raise InvalidRequest("The server is shutting down.", code="server_shutdown")
                self._answering.create(params or ResponseParams(), self._conversation_id, now)
            case asks.ResponseCancel(response_id=response_id):
                self._answering.cancel(response_id, now)
            case asks.OutputAudioClear():
                self._answering.clear_output(now)
            case _:
                assert_never(event)

    def _on_edge(self, edge: Edge | None, now: float) -> None:
        vad = self._options.turn_detection
        if edge is not None:
            self._answering.break_silence()
        if edge is Edge.STARTED:
            if vad and vad.interrupt_response is True:
                self._answering.interrupt(now, live=self._listening.live)
        elif edge is Edge.STOPPED:
            self._listening.end_turn(now)
            if vad and vad.create_response is True and self._state == "open":
                self._answering.turn_ended(self._conversation_id, now)

    def _on_words(self, fact: TranscriptUpdated, now: float) -> None:
        dictation = self._hearing.take(fact, now)
        if dictation is None:
            self._listening.heard_more(fact.item_id)
            return
        self._answering.set_words(dictation.item_id, dictation.index, fact.text)
        if entry := self._conversation.find(dictation.item_id):
            entry.words[dictation.index] = fact.text
            if dictation.reported:
                entry.tell_words(dictation.index)
        self._answering.heard(fact.item_id, now)

    def _on_time(self, now: float) -> None:
        if self._expires_at <= now:
            reason = f"Your session hit the maximum duration of {span(self._limits.max_seconds)}."
            self._outbox.error(reason, code="session_expired")
            self._close(1001, reason, now)
            return
        if self._idle_at <= now:
            reason = f"nothing came for {span(self._limits.idle_seconds)}"
            self._outbox.error(f"{reason.capitalize()}.", code="session_idle")
            self._close(1000, reason, now)
            return
        self._on_edge(self._listening.woken(now), now)
        self._answering.woken(now)
        for key in self._hearing.overdue(now):
            waited = f"Nothing came from {STAGES['stt']} for {self._limits.stall_seconds:g} seconds"
            self._outbox.add(CancelTranscription(key))
            self._hearing.fail(key, "stt_stalled", f"{waited}; it was given up.")
        self._pass_on_failures(now)  # what ends with them no longer keeps the silence from ending
        if self._quiet_until <= now:
            self._answering.break_silence()
            self._listening.time_out(self._idle_timeout_ms)
            self._answering.turn_ended(self._conversation_id, now)

    def _pass_on_failures(self, now: float) -> None:
        for key, code, reason in self._hearing.failures():
            self._answering.unheard(key, code, reason, now)

    def _settle(self, now: float) -> None:
        """What is due after any fact."""
        self._pass_on_failures(now)
        if self._state == "open":
            if not self._listening.speaking:  # else the turn under way is answered with it
                self._answering.settle(self._conversation_id, now)
        elif not (
            self._answering.busy or self._answering.playing or self._hearing.deadline < INFINITY
        ):
            self._close(1012, "the server is shutting down", now)

    def _update(self, event: asks.SessionUpdate) -> None:
        pristine = not (len(self._conversation) or self._listening.position or self._answering.busy)
        self._options.update(
            event.session, pristine=pristine, has_spoken=self._answering.has_spoken
        )
        self._listening.adopt()
        self._outbox.send(
            says.SessionUpdated(event_id=self._outbox.event_id(), session=self._options.session)
        )

    def _create_item(self, event: asks.ItemCreate, now: float) -> None:
        entry = entry_of(event.item, self._options.input_format, self._outbox.ids, "item")
        item = entry.item
        if isinstance(item, FunctionCallOutput) and not self._conversation.has_call(item.call_id):
            raise InvalidRequest(
                f"Tool call ID '{item.call_id}' not found in conversation.",
                code="invalid_tool_call_id",
            )
        if self._reserve.holds(event.item.id):
            raise InvalidRequest(
                f"Error adding item: an item with id '{event.item.id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        before = self._conversation.add(entry, event.previous_item_id)
        new_id = self._outbox.event_id
        self._outbox.send(says.ItemAdded(event_id=new_id(), previous_item_id=before, item=item))
        self._outbox.send(says.ItemDone(event_id=new_id(), previous_item_id=before, item=item))
        self._hearing.dictate(entry, self._options, now=now)

    def _truncate(self, event: asks.ItemTruncate, now: float) -> None:
        self._conversation.truncate(event.item_id, event.content_index, event.audio_end_ms)
        self._answering.truncated(event.item_id, now)
        self._outbox.send(
            says.ItemTruncated(
                event_id=self._outbox.event_id(),
                item_id=event.item_id,
                content_index=event.content_index,
                audio_end_ms=event.audio_end_ms,
            )
        )

    def _delete(self, item_id: str, now: float) -> None:
        self._conversation.delete(item_id)
        self._reserve.release(item_id)
        keys = self._hearing.keys_of({item_id})
        self._hearing.forget(item_id)
        self._outbox.send(says.ItemDeleted(event_id=self._outbox.event_id(), item_id=item_id))
        for key in keys:  # a response that waited for its words waits no longer
            self._answering.heard(key, now)

    def _refuse(self, problem: InvalidRequest, event_id: str | None) -> None:
        self._outbox.error(
            problem.message,
            code=problem.code,
            param=problem.param,
            cause=problem.event_id or event_id,
        )

    def _close(self, code: int, reason: str, now: float) -> None:
        self._answering.stop_all(now)
        self._hearing.forget_all()
        self._outbox.add(Close(code, reason))
        self._state = "closed"

    @property
    def _conversation_id(self) -> str:
        return f"conv_{self._options.session.id.removeprefix('sess_')}"

    @property
    def _idle_at(self) -> float:
        """When nobody has been heard or answered for idle_seconds."""
        seconds = self._limits.idle_seconds
        since = max(self._seen_at, self._answering.played_at)
        return since + seconds if seconds and not self._answering.busy else INFINITY

    @property
    def _idle_timeout_ms(self) -> int:
        vad = self._options.turn_detection
        given = isinstance(vad, ServerVad) and vad.idle_timeout_ms
        return given if isinstance(given, int) else 0

    @property
    def _quiet_until(self) -> float:
        """When the user has been silent for idle_timeout_ms after the last answer was played."""
        quiet_at = self._answering.quiet_at
        engaged = self._listening.speaking or self._answering.busy or self._state != "open"
        if quiet_at is None or engaged or not self._idle_timeout_ms:
            return INFINITY
        return quiet_at + self._idle_timeout_ms / 1000
