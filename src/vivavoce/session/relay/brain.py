"""A relay: an upstream Realtime server recognises and answers, and the same conversation is kept
here.

Rules:
1. Client events that only a brain can carry out go upstream; audio appends byte for byte.
2. Settings and items belong to the shell, which has answered the client already. They are sent
   upstream, and the upstream server's events about them are not passed on.
3. All other events of the upstream server go to the client unchanged, except that errors lose what
   names this server's account. Items, transcripts and the audio that was heard are kept, so that
   another brain can continue at any moment.
"""

from typing import Literal

import msgspec
from msgspec import UNSET

from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioCommit,
    ItemCreate,
    ItemDelete,
    ItemTruncate,
    OutputAudioClear,
    ResponseCreate,
)
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.upstream import UpstreamEvent, UpstreamResponse
from vivavoce.session.brain import CONTINUE_INSTRUCTIONS, BrainEvent, Handover, Shared
from vivavoce.session.conversation import Entry, shown
from vivavoce.session.effects import (
    ConnectUpstream,
    DisconnectUpstream,
    HoldUpstream,
    RequestFallback,
    SendRaw,
)
from vivavoce.session.facts import (
    BrainFact,
    Fact,
    SpokenWord,
    ToolFinished,
    UpstreamConnected,
    UpstreamEventReceived,
    UpstreamLost,
)
from vivavoce.session.item_validation import in_format
from vivavoce.session.options import format_name
from vivavoce.session.relay.audio import RelayInput, RelayOutput
from vivavoce.session.relay.faults import MAX_RETRY_WAIT_S, Fault, fault_of, is_failure, masked
from vivavoce.session.relay.items import as_history, upstream_settings, with_fields
from vivavoce.session.relay.outbox import Outbox, encoded
from vivavoce.session.relay.response import UpstreamGeneration
from vivavoce.session.relay.tools import HiddenCalls
from vivavoce.session.relay.upstream_items import UpstreamItems
from vivavoce.session.relay.usage import RelayUsage, usage_of

INFINITY = float("inf")
# before the upstream server's session expires; then it is replaced at the end of a turn
RENEW_BEFORE_S = 300.0


class ResponseRequest(msgspec.Struct):
    """The response.create that has no response yet."""

    sent: bool = False
    """It was sent upstream, and no response to it has come."""
    data: bytes | None = None
    """The event; None: the brain before has left it."""
    retried: bool = False
    retry_at: float = INFINITY


class RelayBrain:
    """See session/brain.py for what a brain is."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._outbox = Outbox(shared.effects)
        self._input = RelayInput(shared, self._outbox)
        self._output = RelayOutput(shared, self._outbox)
        self._items = UpstreamItems(shared, self._input)
        self._usage = RelayUsage(shared)
        self._open: dict[str, UpstreamGeneration] = {}  # by response id
        self._request = ResponseRequest()
        self._calls = HiddenCalls(shared, self._outbox)
        self._quiet_since: float | None = None
        self._renew_at = INFINITY  # a new session replaces this one at the next end of a turn
        # when the upstream server last sent an event, or was last sent a request
        self._heard_at = 0.0
        self._lost = False

    def attach(self, handover: Handover, now: float) -> None:
        self._quiet_since = handover.quiet_since
        self._heard_at = now
        self._shared.effects.add(self._connection())
        self._queue_settings()
        for item in shown(self._shared.conversation):
            self._outbox.queue(ItemCreate(item=as_history(item)))
        self._input.attach(handover)
        if handover.owes_response or handover.cut_item_id:
            self._outbox.queue(ResponseCreate(response=self._params(handover.cut_item_id)))
            self._request.sent = True
        self._outbox.reset_bound()

    def _connection(self) -> ConnectUpstream:
        options = self._shared.options
        return ConnectUpstream(options.served_by.model, options.transcribes_only)

    def detach(self, now: float) -> Handover:
        handover = Handover(
            position=self._input.position,
            pending_audio=self._input.pending,
            turn_item_id=self._input.turn_item,
            owes_response=self.owes_response,
            quiet_since=self._quiet_since,
        )
        self._close_responses("failed", now)
        self._calls.stop()
        self._shared.effects.add(DisconnectUpstream())
        return handover

    @property
    def deadline(self) -> float:
        if self._lost:
            return INFINITY
        if self.busy:
            return min(self._request.retry_at, self._silent_at)
        return min(self._renew_at, self._result_at) if self.at_rest else INFINITY

    @property
    def _result_at(self) -> float:
        """When a response to the result of a background function is requested."""
        return self._shared.playback.until if self._calls.result_due else INFINITY

    @property
    def _silent_at(self) -> float:
        """When the upstream server has taken too long to answer."""
        runs = self._calls.waiting and not (self._open or self._request.sent)
        waits = runs or self._request.retry_at < INFINITY
        return INFINITY if waits else self._heard_at + self._shared.limits.stall_seconds

    @property
    def busy(self) -> bool:
        return bool(self._open) or self._request.sent or self._calls.waiting

    @property
    def pristine(self) -> bool:
        return not self._input.position and not self.busy

    @property
    def turn_open(self) -> bool:
        return self._input.turn_open

    @property
    def transcribing(self) -> bool:
        return False

    @property
    def owes_response(self) -> bool:
        return self.busy

    @property
    def at_rest(self) -> bool:
        return not self.busy and self._input.turn_item is None

    @property
    def position(self) -> int:
        return self._input.position

    @property
    def quiet_since(self) -> float | None:
        return self._quiet_since

    @property
    def reserved_id(self) -> str | None:
        return self._input.turn_item

    def on_client(self, event: BrainEvent, raw: bytes | None, now: float) -> None:
        match event:
            case InputAudioAppend(audio=audio):
                self._input.take(audio, raw)
            case InputAudioCommit():
                self._quiet_since = None
            case OutputAudioClear():
                self._output.clear(now)
                return
            case ResponseCreate():
                if not self.busy:
                    self._heard_at = now
                self._quiet_since = None
                raw = self._with_tools(event, raw)
                if self._calls.defer(raw):
                    return
                self._request = ResponseRequest(sent=True, data=raw)
        is_audio = isinstance(event, InputAudioAppend)
        self._outbox.send(raw if raw is not None else encoded(event), is_audio=is_audio)

    def on_audio(self, audio: bytes, now: float) -> None:
        self._input.add(audio)

    def on_settings(self, now: float) -> None:
        self._queue_settings()

    def on_item_added(self, entry: Entry, previous_item_id: str | None, now: float) -> None:
        item = entry.item
        if isinstance(item, Message) and entry.recordings:
            content = tuple(
                InputAudio(audio=entry.recordings[n]) if n in entry.recordings else part
                for n, part in enumerate(item.content)
            )
            item = in_format(msgspec.structs.replace(item, content=content), self._input.format)
        self._outbox.queue(ItemCreate(item=item, previous_item_id=previous_item_id))

    def on_item_deleted(self, item_id: str, now: float) -> None:
        self._outbox.queue(ItemDelete(item_id=item_id))

    def on_item_truncated(self, item_id: str, audio_end_ms: int, now: float) -> None:
        self._outbox.queue(
            ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=audio_end_ms)
        )

    def pass_input(self, frame: bytes, now: float) -> PassedAudio | None:
        if self._lost or not self._outbox.is_open:
            return None
        return self._input.passes(frame, now)

    def append_of(self, frame: bytes) -> InputAudioAppend | None:
        return None

    def pass_output(self, frame: bytes, now: float) -> PassedAudio | None:
        if self._lost or (audio := self._output.passes(frame, now)) is None:
            return None
        self._heard_at = now
        return audio

    def continue_audio(self, fact: Fact, now: float) -> bool:
        return False

    def on_fact(self, fact: BrainFact, now: float) -> None:
        match fact:
            case UpstreamConnected(expires_in=expires_in):
                self._renew_at = now + max(expires_in - RENEW_BEFORE_S, expires_in / 2)
                self._heard_at = now
                self._outbox.open()
            case UpstreamEventReceived() if self._lost:
                return
            case UpstreamEventReceived(event=event, raw=raw):
                self._heard_at = now
                if not self._calls.takes(event) and self._take(event, raw, now):
                    raw = self._as_shown(event, raw, now)
                    self._send_raw(self._calls.shown(event, raw))
                self._request_next(now)
            case ToolFinished():
                self._calls.answer(fact)
                self._request_next(now)
            case UpstreamLost(reason=reason, kind=kind):
                self._lose(Fault(kind, reason))

    def _as_shown(self, event: UpstreamEvent, raw: bytes, now: float) -> bytes:
        raw = masked(raw) if is_failure(event) else raw
        if event.type == "response.done" and self._shared.options.includes_usage:
            raw = with_fields(raw, x_usage=self._shared.shown_usage(now))
        return raw

    def _params(self, cut_item_id: str) -> ResponseParams | None:
        """The parameters of the response that is due; None: those of the session."""
        entry = self._shared.conversation.find(cut_item_id)
        if entry is None or entry.ledger is None or not entry.ledger.heard_text:
            return None
        instructions = self._shared.options.realtime.instructions
        return ResponseParams(instructions=f"{instructions}\n\n{CONTINUE_INSTRUCTIONS}".strip())

    def _send_raw(self, frames: tuple[bytes, ...]) -> None:
        for frame in frames:
            self._shared.effects.add(SendRaw(frame))

    def _request_next(self, now: float) -> None:
        """Request the response that uses the results of this server's functions."""
        if (data := self._calls.next_request()) is not None:
            self._ask(data, now)

    def _ask(self, request: bytes, now: float) -> None:
        self._request = ResponseRequest(sent=True, data=request)
        self._heard_at = now
        self._outbox.send(request)

    def _with_tools(self, event: ResponseCreate, raw: bytes | None) -> bytes:
        """The event as it is sent upstream: functions in it replace those of the session."""
        hidden, params = self._shared.options.rules.tools, event.response
        if hidden and params is not None and params.tools not in (UNSET, None):
            assert isinstance(params.tools, tuple)
            params = msgspec.structs.replace(params, tools=params.tools + hidden)
            event, raw = msgspec.structs.replace(event, response=params), None
        return encoded(event) if raw is None else raw

    def on_timer(self, now: float) -> None:
        if self._lost or not self.busy:
            return
        if self._request.retry_at <= now:
            self._request.retry_at, self._heard_at = INFINITY, now
            self._outbox.send(self._request.data or encoded(ResponseCreate()))
        elif self._silent_at <= now:
            span_ = f"{self._shared.limits.stall_seconds:g} s"
            self._lose(Fault("silent", f"the upstream server was silent for {span_}"))

    def settle(self, now: float) -> None:
        if self._outbox.overflowed:
            reason = "the upstream server opens no session in time"
            self._lose(Fault("unreachable", reason, close_code=1013))
        if not self._lost and self.at_rest:
            if self._renew_at <= now:
                self._renew(now)
            elif self._result_at <= now:
                self._ask(self._calls.result_request(), now)

    def _lose(self, fault: Fault) -> None:
        """This upstream server cannot go on with the conversation."""
        if self._lost:
            return
        self._lost = True
        if fault.hold_s:
            self._shared.effects.add(HoldUpstream(fault.hold_s, fault.kind))
        self._shared.effects.add(RequestFallback(fault.reason, fault.close_code, fault.kind))

    def _renew(self, now: float) -> None:
        """Continue the conversation in a new session of the upstream server."""
        self._shared.effects.add(DisconnectUpstream())
        handover = Handover(
            position=self._input.position,
            pending_audio=self._input.pending,
            quiet_since=self._quiet_since,
        )
        self._outbox.shut()
        self._renew_at = INFINITY
        self.attach(handover, now)

    def drain(self) -> None:
        """Nothing is to be done: the upstream server finishes what is in progress."""

    def stop(self, now: float) -> None:
        self._close_responses("cancelled", now)
        self._calls.stop()
        self._shared.effects.add(DisconnectUpstream())

    def _take(self, event: UpstreamEvent, raw: bytes, now: float) -> bool:
        """Store what an event says about the conversation; return whether the client gets the
        event."""
        if event.type != "response.output_audio_transcript.delta":
            self._output.pass_nothing()
        match event.type:
            case "" | "session.created" | "session.updated" | "conversation.created":
                return False
            case "conversation.item.deleted" | "conversation.item.truncated":
                return False  # the shell has answered the client
            case "conversation.item.created" | "conversation.item.added":
                return self._items.add(event)
            case "response.output_audio.delta":
                self._output.add(event, now)
                if self._shared.playback.by_server:
                    return False
                if not self._shared.options.rules.tool_names:
                    self._output.pass_like(event, raw)
            case "conversation.item.done":
                return self._items.finish(event)
            case "input_audio_buffer.speech_started":
                self._input.begin_turn(event.item_id or None)
                self._quiet_since = None
                vad = self._shared.options.turn_detection
                if vad and vad.interrupt_response is True:
                    self._output.interrupt(now)
            case "input_audio_buffer.committed":
                self._input.commit(event.item_id)
            case "input_audio_buffer.cleared":
                self._input.clear()
            case "error":
                return self._take_error(event)
            case "conversation.item.input_audio_transcription.completed":
                self._items.set_words(event)
                self._usage.add_transcription(event)
            case _:
                return self._take_response_event(event, now)
        return True

    def _take_error(self, event: UpstreamEvent) -> bool:
        """Drop an error that answers an event of this server, and not of the client."""
        if fault := fault_of(event.error):
            self._lose(fault)
            return False
        cause = event.error.get("event_id") if isinstance(event.error, dict) else None
        if self._outbox.is_own(cause):
            if self._request.data and f'"{cause}"'.encode() in self._request.data:
                self._request.sent = False
            return False
        # it may be the answer to response.create, or to the end of a turn
        self._request.sent = self._input.awaits_response = False
        return True

    def _fails(self, response: UpstreamResponse, now: float) -> bool:
        """Whether a response failed by a fault of the upstream server, so that it is still due."""
        details = response.status_details
        if response.status != "failed" or not isinstance(details, dict):
            return False
        if (fault := fault_of(details.get("error"))) is None:
            return False
        self._close_responses("failed", now)
        self._request.sent = True
        if fault.retry_s is None or fault.retry_s > MAX_RETRY_WAIT_S or self._request.retried:
            self._lose(fault)
        else:
            self._request.retried = True
            self._request.retry_at = now + fault.retry_s
        return True

    def _take_response_event(self, event: UpstreamEvent, now: float) -> bool:
        response = event.response
        match event.type:
            case "response.created" if response:
                self._request.sent = self._input.awaits_response = False
                self._calls.another_began(in_conversation=response.conversation_id is not None)
                self._open[response.id] = UpstreamGeneration(
                    self._shared, response.id, response.conversation_id
                )
            case "response.done" if response and self._fails(response, now):
                return False
            case "response.done" if response:
                self._open.pop(response.id, None)
                self._request.sent = False
                self._request = ResponseRequest()
                self._quiet_since = now
                self._shared.playback.ended(response.id, now)
                self._usage.add(response.id, usage_of(response))
            case "response.output_audio_transcript.delta":
                entry = self._shared.conversation.find(event.item_id)
                if entry and entry.ledger:
                    word = SpokenWord(event.delta, entry.ledger.samples)
                    entry.ledger.add(b"", (word,))
        if generation := self._open.get(event.response_id):
            generation.follow(event)
        return True

    def _close_responses(self, status: Literal["failed", "cancelled"], now: float) -> None:
        for response_id, generation in self._open.items():
            self._send_raw(self._calls.release(response_id))
            self._usage.add(response_id, None)
            generation.close(status, now)
        self._open.clear()

    def _queue_settings(self) -> None:
        settings = upstream_settings(self._shared.options.upstream)
        self._input.on_settings()
        self._output.use_format(format_name(self._shared.options.realtime.audio.output.format))
        self._outbox.send_own({"type": "session.update", "session": settings})
