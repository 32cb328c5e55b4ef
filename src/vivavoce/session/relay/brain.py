"""A relay: an upstream Realtime server hears and answers, and the same conversation is kept here.

Rules:
1. Client events that only a brain can carry out go upstream; audio appends byte for byte.
2. Settings and items belong to the shell, which has answered the client already: they are sent
   upstream, and what the upstream server says of them is not passed on.
3. All other events of the upstream server go to the client as they came. What they say of items,
   transcripts and heard audio is kept, so that another brain can go on at any moment.
"""

import base64
import binascii

import msgspec

from vivavoce.audio.formats import BYTES_PER_SAMPLE, Decoder
from vivavoce.protocol.client import (
    ClientEvent,
    InputAudioAppend,
    InputAudioCommit,
    ItemCreate,
    ItemDelete,
    ItemTruncate,
    OutputAudioClear,
    ResponseCreate,
)
from vivavoce.protocol.items import (
    InputAudio,
    Message,
    Status,
)
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.brain import BrainEvent, Handover, Shared
from vivavoce.session.conversation import Entry, shown
from vivavoce.session.effects import (
    ConnectUpstream,
    DisconnectUpstream,
    RequestFallback,
    SendRaw,
    SendUpstream,
)
from vivavoce.session.facts import (
    BrainFact,
    SpokenWord,
    UpstreamConnected,
    UpstreamEventReceived,
    UpstreamLost,
)
from vivavoce.session.ledger import Ledger
from vivavoce.session.options import format_name
from vivavoce.session.relay.items import as_history, is_text, read_item, without_nulls
from vivavoce.session.relay.response import UpstreamGeneration

INFINITY = float("inf")
MAX_QUEUED_BYTES = 4 * 1024 * 1024  # for the upstream server while it is being connected to
_encoder = msgspec.json.Encoder()


class RelayBrain:
    """See session/brain.py for what a brain is."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._connected = False
        self._queued: list[bytes] = []
        self._queued_bytes = 0
        self._pending = bytearray()  # audio that is in no item yet, PCM
        self._position = 0
        self._turn_item: str | None = None  # announced by speech_started, not committed
        self._open: UpstreamGeneration | None = None
        self._requested = False  # a response.create went upstream; no response came of it yet
        self._decoder = Decoder("audio/pcm")
        self._quiet_since: float | None = None

    def attach(self, handover: Handover, now: float) -> None:
        self._position = handover.position
        self._quiet_since = handover.quiet_since
        self._shared.effects.add(ConnectUpstream(self._shared.options.served_by.model))
        self._queue_settings()
        for item in shown(self._shared.conversation):
            self._queue(ItemCreate(item=as_history(item)))
        if handover.pending_audio:
            self._append(handover.pending_audio)
        if handover.owes_response:
            self._queue(ResponseCreate())
            self._requested = True

    def detach(self, now: float) -> Handover:
        owes_response = self._requested or self._open is not None
        handover = Handover(
            position=self._position,
            pending_audio=bytes(self._pending),
            turn_item_id=self._turn_item,
            owes_response=owes_response,
            quiet_since=self._quiet_since,
        )
        if self._open:
            self._open.close("failed", now)
        self._shared.effects.add(DisconnectUpstream())
        return handover

    @property
    def deadline(self) -> float:
        return INFINITY

    @property
    def busy(self) -> bool:
        return self._open is not None or self._requested

    @property
    def pristine(self) -> bool:
        return not self._position and not self.busy

    @property
    def transcribing(self) -> bool:
        return False

    @property
    def at_rest(self) -> bool:
        return not self.busy and self._turn_item is None

    @property
    def position(self) -> int:
        return self._position

    @property
    def quiet_since(self) -> float | None:
        return self._quiet_since

    @property
    def reserved_id(self) -> str | None:
        return self._turn_item

    def on_client(self, event: BrainEvent, raw: bytes | None, now: float) -> None:
        match event:
            case InputAudioAppend(audio=audio):
                self._keep(self._decoder.feed(audio))
            case InputAudioCommit():
                self._quiet_since = None
            case OutputAudioClear():
                self._clear_output(now)
                return
            case ResponseCreate():
                self._requested = True
                self._quiet_since = None
        if raw is not None:
            self._send(raw)
        else:
            self._queue(event)

    def on_audio(self, audio: bytes, now: float) -> None:
        self._keep(audio)
        self._append(audio)

    def on_settings(self, now: float) -> None:
        self._queue_settings()

    def on_item_added(self, entry: Entry, previous_item_id: str | None, now: float) -> None:
        item = entry.item
        if isinstance(item, Message) and entry.recordings:
            content = tuple(
                InputAudio(audio=entry.recordings[n]) if n in entry.recordings else part
                for n, part in enumerate(item.content)
            )
            item = msgspec.structs.replace(item, content=content)
        self._queue(ItemCreate(item=item, previous_item_id=previous_item_id))

    def on_item_deleted(self, item_id: str, now: float) -> None:
        self._queue(ItemDelete(item_id=item_id))

    def on_item_truncated(self, item_id: str, audio_end_ms: int, now: float) -> None:
        self._queue(ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=audio_end_ms))

    def on_fact(self, fact: BrainFact, now: float) -> None:
        match fact:
            case UpstreamConnected():
                self._connected = True
                for data in self._queued:
                    self._shared.effects.add(SendUpstream(data))
                self._queued.clear()
            case UpstreamEventReceived(event=event, raw=raw):
                if self._take(event, now):
                    self._shared.effects.add(SendRaw(raw))
            case UpstreamLost(reason=reason):
                self._shared.effects.add(RequestFallback(reason))

    def on_timer(self, now: float) -> None:
        """Nothing is due by the clock: the upstream server has its own time limits."""

    def settle(self, now: float) -> None:
        """Nothing is due after a fact."""

    def drain(self) -> None:
        """The upstream server finishes what is under way."""

    def stop(self, now: float) -> None:
        if self._open:
            self._open.close("cancelled", now)
        self._shared.effects.add(DisconnectUpstream())

    def _take(self, event: UpstreamEvent, now: float) -> bool:
        """Keep what an event says of the conversation; return whether the client gets it."""
        match event.type:
            case "" | "session.created" | "session.updated" | "conversation.created":
                return False
            case "conversation.item.deleted" | "conversation.item.truncated":
                return False  # the shell has answered the client
            case "conversation.item.created" | "conversation.item.added":
                return self._add_item(event)
            case "response.output_audio.delta":
                self._add_audio(event, now)
                return not self._shared.playback.by_server
            case "conversation.item.done":
                return self._finish_item(event)
            case "input_audio_buffer.speech_started":
                self._turn_item = event.item_id
                self._quiet_since = None
                self._interrupt(now)
            case "input_audio_buffer.committed" | "input_audio_buffer.cleared":
                self._turn_item = None
                self._pending.clear()
            case "conversation.item.input_audio_transcription.completed":
                self._set_words(event)
            case _:
                self._take_response_event(event, now)
        return True

    def _take_response_event(self, event: UpstreamEvent, now: float) -> None:
        match event.type:
            case "response.created" if event.response:
                self._requested = False
                response = event.response
                self._open = UpstreamGeneration(self._shared, response.id, response.conversation_id)
            case "response.output_audio_transcript.delta":
                entry = self._shared.conversation.find(event.item_id)
                if entry and entry.ledger:
                    word = SpokenWord(event.delta, entry.ledger.samples)
                    entry.ledger.add(b"", (word,))
            case "response.done" if event.response:
                self._open = None
                self._requested = False
                self._quiet_since = now
                self._shared.playback.ended(event.response.id, now)
            case _ if self._open:
                self._open.follow(event)

    def _add_item(self, event: UpstreamEvent) -> bool:
        if event.item is None or event.item.id in self._shared.conversation:
            return False  # one that the client or this conversation has added
        item = read_item(event.item, "in_progress")
        if item is None:
            return True
        entry = Entry(item)
        if isinstance(item, Message) and item.role == "assistant":
            entry.ledger = Ledger()
        previous = event.previous_item_id
        known = previous is not None and previous in self._shared.conversation
        self._shared.conversation.add(entry, previous if known else None)
        return True

    def _finish_item(self, event: UpstreamEvent) -> bool:
        if event.item is None:
            return True
        entry = self._shared.conversation.find(event.item.id)
        if entry is None or entry.item.status == "completed":
            return False
        status: Status = "completed" if event.item.status == "completed" else "incomplete"
        if (item := read_item(event.item, status)) is not None:
            self._shared.conversation.replace(item)
            if isinstance(item, Message) and item.role == "assistant" and is_text(item):
                entry.ledger = None
        return True

    def _set_words(self, event: UpstreamEvent) -> None:
        entry = self._shared.conversation.find(event.item_id)
        if entry is None or event.transcript is None or not isinstance(entry.item, Message):
            return
        entry.words[event.content_index] = event.transcript
        if event.content_index < len(entry.item.content):
            entry.show_words(event.content_index)

    def _add_audio(self, event: UpstreamEvent, now: float) -> None:
        try:
            audio = base64.b64decode(event.delta)
        except binascii.Error:
            return
        format_ = format_name(self._shared.options.realtime.audio.output.format)
        pcm = Decoder(format_).feed(audio)
        self._shared.playback.add(event.response_id, event.item_id, pcm, now)
        entry = self._shared.conversation.find(event.item_id)
        if entry and entry.ledger:
            entry.ledger.add(pcm, ())

    def _interrupt(self, now: float) -> None:
        for item_id, unplayed in self._shared.playback.stop(now).items():
            entry = self._shared.conversation.find(item_id)
            if entry and entry.ledger:
                self._shared.conversation.cut(item_id, entry.ledger.samples - unplayed)

    def _clear_output(self, now: float) -> None:
        for item_id, unplayed in self._shared.playback.clear(now).items():
            entry = self._shared.conversation.find(item_id)
            if entry and entry.ledger:
                heard = entry.ledger.samples - unplayed
                self._shared.conversation.cut(item_id, heard)

    def _queue_settings(self) -> None:
        settings = self._shared.options.session
        kept = msgspec.to_builtins(settings)
        for ours in ("id", "object", "expires_at", "served_by", "model"):
            kept.pop(ours, None)
        self._decoder = Decoder(self._shared.options.input_format)
        self._send(_encoder.encode({"type": "session.update", "session": without_nulls(kept)}))

    def _keep(self, pcm: bytes) -> None:
        """Keep audio of the open turn, and a second before it, for another brain."""
        self._pending += pcm
        self._position += len(pcm) // BYTES_PER_SAMPLE
        seconds = self._shared.limits.max_buffer_seconds if self._turn_item else 1.0
        excess = len(self._pending) - int(seconds * 24_000) * BYTES_PER_SAMPLE
        if excess > 0:
            del self._pending[:excess]

    def _append(self, pcm: bytes) -> None:
        self._queue(InputAudioAppend(audio=pcm))

    def _queue(self, event: ClientEvent) -> None:
        self._send(_encoder.encode(event))

    def _send(self, data: bytes) -> None:
        """Send, or keep until the connection is open; what is beyond the bound is dropped."""
        if self._connected:
            self._shared.effects.add(SendUpstream(data))
        elif self._queued_bytes + len(data) <= MAX_QUEUED_BYTES:
            self._queued.append(data)
            self._queued_bytes += len(data)
