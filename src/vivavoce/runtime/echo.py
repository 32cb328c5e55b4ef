"""Echo cancellation of one microphone: what is played, aligned with what is recorded."""

import logging

from vivavoce.audio.formats import RATE
from vivavoce.engines.base import Cleaner, CleanStream
from vivavoce.errors import EngineError

log = logging.getLogger(__name__)

LATE_SECONDS = 0.5  # a microphone that is further behind has been switched off
MAX_REFERENCE_BYTES = 2 * RATE * 600  # of audio that is not played yet


class EchoCanceller:
    """Cleans microphone audio, 16-bit mono PCM at 24 kHz, with the audio that the client plays.

    The microphone is the clock: each of its samples is paired with the next sample of what was
    sent before. The echo is then always later than its reference, by the time that audio takes to
    the client and back, however unevenly the network carries it.
    """

    def __init__(self, cleaner: Cleaner) -> None:
        self._cleaner = cleaner
        self._stream: CleanStream | None = None
        self._reference = bytearray()
        self._until = float("-inf")  # when all of the reference will have been played

    def configure(self, field: str | None) -> None:
        """Begin a stream for a "near_field" or "far_field" microphone; None: stop cleaning."""
        self.close()
        if field is not None:
            self._stream = self._cleaner.open("near" if field == "near_field" else "far")

    def close(self) -> None:
        """Give the stream back."""
        self.clear_reference()
        if self._stream:
            self._stream.close()
            self._stream = None

    def add_reference(self, pcm: bytes, now: float) -> None:
        """The client plays this behind what it plays already."""
        if self._stream and len(self._reference) + len(pcm) <= MAX_REFERENCE_BYTES:
            self._reference += pcm
            self._until = max(self._until, now) + len(pcm) / (2 * RATE)

    def clear_reference(self) -> None:
        """The client has stopped playing."""
        self._reference.clear()
        self._until = float("-inf")

    def clean(self, pcm: bytes, now: float) -> bytes:
        """Return the same amount of audio, cleaned; unchanged once the engine has failed."""
        if self._stream is None:
            return pcm
        self._skip_unrecorded(now)
        played = bytes(self._reference[: len(pcm)])
        del self._reference[: len(pcm)]
        try:
            self._stream.play(played.ljust(len(pcm), b"\0"))
            return self._stream.process(pcm)
        except EngineError as exc:
            log.warning("echo cancellation failed and is off for this session: %s", exc)
            self.close()
            return pcm

    def _skip_unrecorded(self, now: float) -> None:
        """Drop what the client has played while its microphone was off."""
        left = 2 * round(max(0.0, self._until - now + LATE_SECONDS) * RATE)
        del self._reference[: max(0, len(self._reference) - left)]
