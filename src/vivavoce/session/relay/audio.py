"""The audio of a relayed session in both directions, as far as another brain may need it."""

import base64

from vivavoce.audio.formats import (
    BYTES_PER_SAMPLE,
    G711_RATE,
    RATE,
    Decoder,
    Encoder,
    Format,
    to_ms,
)
from vivavoce.protocol.audio_frames import AudioFrames, PassedAudio
from vivavoce.protocol.client import InputAudioAppend, ItemTruncate
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.session.brain import Handover, Shared
from vivavoce.session.conversation import Entry
from vivavoce.session.ledger import Ledger
from vivavoce.session.relay.outbox import Outbox

PIECE_BYTES = 4096
"""The most recent audio is kept in one piece of at least this length, and dropped by as much."""


class RecentAudio:
    """The last PCM of a stream. Dropping its beginning and appending to its end are cheap."""

    __slots__ = ("_bound", "_pieces", "_size")

    def __init__(self) -> None:
        self._bound = 0
        self._pieces: list[bytearray] = []
        self._size = 0  # of all pieces

    @property
    def size(self) -> int:
        """Bytes."""
        return min(self._size, self._bound)

    def keep_last(self, size: int) -> None:
        """From now on, keep so many bytes."""
        self._drop()
        self._bound = size

    def add(self, pcm: bytes) -> None:
        pieces = self._pieces
        if pieces and len(pieces[-1]) < PIECE_BYTES:
            pieces[-1] += pcm
        else:
            pieces.append(bytearray(pcm))
        self._size += len(pcm)
        if self._size - self._bound > PIECE_BYTES:
            self._drop()

    def clear(self) -> None:
        self._pieces.clear()
        self._size = 0

    def _drop(self) -> None:
        """Drop what exceeds the bound."""
        pieces, excess = self._pieces, self._size - self._bound
        while excess > 0:
            first = len(pieces[0])
            if first > excess:
                del pieces[0][:excess]
            else:
                del pieces[0]
            self._size -= min(first, excess)
            excess -= first

    def __bytes__(self) -> bytes:
        self._drop()
        return b"".join(self._pieces)


class RelayInput:
    """The client's audio that is in no item yet, and the turn that it belongs to."""

    def __init__(self, shared: Shared, outbox: Outbox) -> None:
        self._shared = shared
        self._outbox = outbox
        self.position = 0
        """Samples received in this session."""
        self.turn_item: str | None = None
        """The item id of speech_started, if the turn was not committed."""
        self.awaits_response = False
        """Whether a turn was committed, and the upstream server has not begun its answer."""
        self._rules = shared.options.rules
        self._frames = AudioFrames("input_audio_buffer.append")
        self._pending = RecentAudio()
        self._committed = ("", b"")  # the last turn whose item has not come yet: its id and audio
        self.format: Format = "audio/pcm"
        self._decoder, self._encoder = Decoder(self.format), Encoder(self.format)

    @property
    def pending(self) -> bytes:
        return bytes(self._pending)

    def attach(self, handover: Handover) -> None:
        """Continue after another brain: send the audio that is in no item yet."""
        self.position = handover.position
        self._pending.clear()
        if handover.pending_audio:
            self._pending.add(handover.pending_audio)
            self._append(handover.pending_audio)

    def on_settings(self) -> None:
        """The settings of the session are new, or have changed."""
        format_ = self._shared.options.input_format
        if format_ != self.format:
            self.format = format_
            self._decoder, self._encoder = Decoder(format_), Encoder(format_)
        self._bound()

    @property
    def turn_open(self) -> bool:
        """Whether the user is speaking, or a turn has no answer yet."""
        unfinished = self.turn_item is not None or self.awaits_response
        # a media track has no pauses, so it does not show where a turn begins that the client
        # commits
        by_client = self._shared.options.turn_detection is None
        return unfinished or (
            by_client and not self._shared.playback.by_server and self._pending.size > 0
        )

    def begin_turn(self, item_id: str | None) -> None:
        self.turn_item = item_id
        self._bound()

    def passes(self, frame: bytes, now: float) -> PassedAudio | None:
        """The audio of a client's frame, if no rule touches it; then it is counted."""
        if (found := self._frames.read(frame)) is None:
            return None
        size = len(found[2])
        samples = (
            size // BYTES_PER_SAMPLE if self.format == "audio/pcm" else size * RATE // G711_RATE
        )
        if not self._rules.lets_audio_pass(samples, now):
            return None
        self._keep(self._decoder.feed(found[2]))
        return found

    def take(self, audio: bytes, raw: bytes | None) -> None:
        """Take audio that had to be decoded, in the client's format, with its frame if that is a GA
        event."""
        if raw is not None:
            self._frames.learn(raw)
        self._keep(self._decoder.feed(audio))

    def add(self, pcm: bytes) -> None:
        """Take audio of a media track, and send it in the format that the settings name."""
        self._keep(pcm)
        self._append(pcm)

    def commit(self, item_id: str) -> None:
        """The upstream server makes an item of the turn."""
        self._committed = (item_id, bytes(self._pending))
        self.clear()
        vad = self._shared.options.turn_detection
        self.awaits_response = vad is not None and vad.create_response is True

    def clear(self) -> None:
        self._pending.clear()
        self.begin_turn(None)

    def keep_recording(self, entry: Entry, item: Message) -> None:
        """Keep the audio of a turn, because the upstream server may never send its words."""
        item_id, pcm = self._committed
        if item_id != item.id:
            return
        self._committed = ("", b"")
        if any(isinstance(part, InputAudio) for part in item.content[:1]):
            entry.recordings[0] = pcm
            entry.samples = len(pcm) // BYTES_PER_SAMPLE

    def _keep(self, pcm: bytes) -> None:
        """Keep audio for another brain."""
        self._pending.add(pcm)
        self.position += len(pcm) // BYTES_PER_SAMPLE

    def _bound(self) -> None:
        """Keep audio of the open turn, and a second before it.

        Without turn detection the client says what is a turn: then all of it may be one.
        """
        in_turn = self.turn_item is not None or self._shared.options.turn_detection is None
        seconds = self._shared.limits.max_buffer_seconds if in_turn else 1.0
        self._pending.keep_last(int(seconds * RATE) * BYTES_PER_SAMPLE)

    def _append(self, pcm: bytes) -> None:
        if audio := self._encoder.feed(pcm):
            self._outbox.queue(InputAudioAppend(audio=audio))


class RelayOutput:
    """The audio of the upstream server's answers, and how much of each was heard."""

    def __init__(self, shared: Shared, outbox: Outbox) -> None:
        self._shared = shared
        self._outbox = outbox
        self._format: Format = "audio/pcm"
        self._decoder = Decoder(self._format)
        self._frames = AudioFrames("response.output_audio.delta")
        self._passing: tuple[str, str, Ledger | None] = ("", "", None)
        """The response, the item and the ledger of the audio that passes now."""

    def use_format(self, format_: Format) -> None:
        if format_ != self._format:
            self._format, self._decoder = format_, Decoder(format_)

    def add(self, event: UpstreamEvent, now: float) -> None:
        """Take an output_audio.delta."""
        try:
            audio = base64.b64decode(event.delta)
        except ValueError:
            return
        self._add((event.response_id, event.item_id, self._ledger(event.item_id)), audio, now)

    def pass_like(self, event: UpstreamEvent, raw: bytes) -> None:
        """From now on audio of this item passes without being decoded."""
        self._passing = (event.response_id, event.item_id, self._ledger(event.item_id))
        self._frames.learn(raw)

    def pass_nothing(self) -> None:
        self._frames.forget()

    def passes(self, frame: bytes, now: float) -> PassedAudio | None:
        """The audio of a frame that passes without being decoded; it is counted."""
        if (found := self._frames.read(frame)) is None:
            return None
        self._add(self._passing, found[2], now)
        return found

    def _add(self, place: tuple[str, str, Ledger | None], audio: bytes, now: float) -> None:
        response_id, item_id, ledger = place
        pcm = self._decoder.feed(audio)
        self._shared.playback.add(response_id, item_id, pcm, now)
        if ledger is not None:
            ledger.add(pcm, ())

    def _ledger(self, item_id: str) -> Ledger | None:
        entry = self._shared.conversation.find(item_id)
        return entry.ledger if entry else None

    def interrupt(self, now: float) -> None:
        """The user speaks: stop the playback."""
        self._keep_heard(self._shared.playback.stop(now))

    def clear(self, now: float) -> None:
        """Raises InvalidRequest where the client owns the playback."""
        self._keep_heard(self._shared.playback.clear(now))

    def _keep_heard(self, unplayed: dict[str, int]) -> None:
        """Keep only the words that were heard of answers whose playback was stopped.

        Where the server plays the answers itself, it also reports that to the client and to the
        upstream server.
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
                effects.truncated(item_id, heard_ms)
                self._outbox.queue(
                    ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=heard_ms)
                )
