"""Microphone audio on its way to an upstream server, of which the last seconds are kept here."""

from vivavoce.audio.formats import BYTES_PER_SAMPLE, RATE, Decoder, Encoder, Format
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.session.brain import Shared
from vivavoce.session.relay.outbox import Outbox


class RelayInput:
    """Keeps audio of the open turn, and a second before it, for another brain."""

    def __init__(self, shared: Shared, outbox: Outbox) -> None:
        self.pending = bytearray()
        """Audio that is in no item yet, PCM."""
        self.position = 0
        """Samples that came."""
        self._limits, self._options = shared.limits, shared.options
        self._outbox = outbox
        self.format: Format = "audio/pcm"
        """Of the client's audio."""
        self._decoder, self._encoder = Decoder(self.format), Encoder(self.format)

    def set_format(self, format_: Format) -> None:
        if format_ != self.format:
            self.format = format_
            self._decoder, self._encoder = Decoder(format_), Encoder(format_)

    def keep_frame(self, audio: bytes, *, in_turn: bool) -> None:
        """Keep audio in the client's format."""
        self.keep(self._decoder.feed(audio), in_turn=in_turn)

    def keep(self, pcm: bytes, *, in_turn: bool) -> None:
        """Without turn detection the client says what is a turn: then all of it may be one."""
        self.pending += pcm
        self.position += len(pcm) // BYTES_PER_SAMPLE
        in_turn = in_turn or self._options.turn_detection is None
        seconds = self._limits.max_buffer_seconds if in_turn else 1.0
        excess = len(self.pending) - int(seconds * RATE) * BYTES_PER_SAMPLE
        if excess > 0:
            del self.pending[:excess]

    def send(self, pcm: bytes) -> None:
        """Send PCM in the client's format."""
        if audio := self._encoder.feed(pcm):
            self._outbox.queue(InputAudioAppend(audio=audio))
