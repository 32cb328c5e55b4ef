"""The audio of a relayed session, both ways, as far as it is kept here for another brain."""

import base64

from vivavoce.audio.formats import BYTES_PER_SAMPLE, RATE, Decoder, Encoder, Format, to_ms
from vivavoce.protocol.client import InputAudioAppend, ItemTruncate
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.protocol.server import ItemTruncated
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.brain import Handover, Shared
from vivavoce.session.conversation import Entry
from vivavoce.session.options import format_name
from vivavoce.session.relay.outbox import Outbox


class RelayInput:
    """Audio of the client that is in no item yet, and the turn that it belongs to."""

    def __init__(self, shared: Shared, outbox: Outbox) -> None:
        self._shared = shared
        self._outbox = outbox
        self.position = 0
        """Samples that came in this session."""
        self.turn_item: str | None = None
        """Announced by speech_started, not committed."""
        self._pending = bytearray()  # PCM
        self._committed = ("", b"")  # the last turn whose item has not come yet: its id and audio
        self.format: Format = "audio/pcm"
        self._decoder, self._encoder = Decoder(self.format), Encoder(self.format)

    @property
    def pending(self) -> bytes:
        return bytes(self._pending)

    def attach(self, handover: Handover) -> None:
        """Go on where another brain has stopped: what is in no item yet is sent."""
        self.position = handover.position
        self._pending.clear()
        if handover.pending_audio:
            self._pending += handover.pending_audio
            self._append(handover.pending_audio)

    def use_format(self, format_: Format) -> None:
        if format_ != self.format:
            self.format = format_
            self._decoder, self._encoder = Decoder(format_), Encoder(format_)

    def keep(self, audio: bytes) -> None:
        """Audio in the client's format, which is sent as it came."""
        self._keep(self._decoder.feed(audio))

    def add(self, pcm: bytes) -> None:
        """Audio of a media track: it is sent in the format that the settings name."""
        self._keep(pcm)
        self._append(pcm)

    def commit(self, item_id: str) -> None:
        """The upstream server makes the turn an item."""
        self._committed = (item_id, bytes(self._pending))
        self.clear()

    def clear(self) -> None:
        self.turn_item = None
        self._pending.clear()

    def keep_recording(self, entry: Entry, item: Message) -> None:
        """Keep the audio of a turn: its words may never come from the upstream server."""
        item_id, pcm = self._committed
        if item_id != item.id:
            return
        self._committed = ("", b"")
        if any(isinstance(part, InputAudio) for part in item.content[:1]):
            entry.recordings[0] = pcm
            entry.samples = len(pcm) // BYTES_PER_SAMPLE

    def _keep(self, pcm: bytes) -> None:
        """Keep audio of the open turn, and a second before it, for another brain.

        Without turn detection the client says what is a turn: then all of it may be one.
        """
        self._pending += pcm
        self.position += len(pcm) // BYTES_PER_SAMPLE
        in_turn = self.turn_item is not None or self._shared.options.turn_detection is None
        seconds = self._shared.limits.max_buffer_seconds if in_turn else 1.0
        excess = len(self._pending) - int(seconds * RATE) * BYTES_PER_SAMPLE
        if excess > 0:
            del self._pending[:excess]

    def _append(self, pcm: bytes) -> None:
        if audio := self._encoder.feed(pcm):
            self._outbox.queue(InputAudioAppend(audio=audio))


class RelayOutput:
    """Audio of the upstream server's answers: what was heard of each."""

    def __init__(self, shared: Shared, outbox: Outbox) -> None:
        self._shared = shared
        self._outbox = outbox
        self._format: Format = "audio/pcm"
        self._decoder = Decoder(self._format)

    def add(self, event: UpstreamEvent, now: float) -> None:
        """Take an output_audio.delta."""
        try:
            audio = base64.b64decode(event.delta)
        except ValueError:
            return
        format_ = format_name(self._shared.options.realtime.audio.output.format)
        if format_ != self._format:
            self._format, self._decoder = format_, Decoder(format_)
        pcm = self._decoder.feed(audio)
        self._shared.playback.add(event.response_id, event.item_id, pcm, now)
        entry = self._shared.conversation.find(event.item_id)
        if entry and entry.ledger:
            entry.ledger.add(pcm, ())

    def interrupt(self, now: float) -> None:
        """The user speaks: nothing is played any further."""
        self._keep_heard(self._shared.playback.stop(now))

    def clear(self, now: float) -> None:
        """Raises InvalidRequest where the client owns the playback."""
        self._keep_heard(self._shared.playback.clear(now))

    def _keep_heard(self, unplayed: dict[str, int]) -> None:
        """Of answers that are played no further only the words that were heard stay.

        Where the server plays the answers itself, nobody else tells the client and the upstream
        server.
        """
        effects = self._shared.effects
        for item_id, samples in unplayed.items():
            entry = self._shared.conversation.find(item_id)
            if entry is None or entry.ledger is None:
                continue
            heard = entry.ledger.samples - samples
            self._shared.conversation.cut(item_id, heard)
            if self._shared.playback.by_server:
                heard_ms = to_ms(heard)
                effects.send(
                    ItemTruncated(
                        event_id=effects.event_id(),
                        item_id=item_id,
                        content_index=0,
                        audio_end_ms=heard_ms,
                    )
                )
                self._outbox.queue(
                    ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=heard_ms)
                )
