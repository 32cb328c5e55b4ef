"""The sound that a raw client sends: decoded, its format recognised, its rate watched."""

from collections.abc import Callable
from typing import NamedTuple

from vivavoce.audio.samples import (
    Encoding,
    SampleDecoder,
    SampleFormat,
    default_rate,
    nearest_rate,
    recognised,
)
from vivavoce.protocol.raw_config import RAW_RATE, format_of

MAX_AUDIO_BYTES = 256 * 1024  # of one binary message: 8 s of 16-bit PCM at 16 kHz
WATCH_S = 5.0  # of sound, after which its rate is compared with the one that was named
RECOGNITION_S = 0.8  # the same, where no rate was named
MAX_RATE = 48_000
_MIN_RATIO = 1.2  # of rates, above which sound comes too fast
_TOLERANCE = 0.08  # of a measured rate
_BURST = 1.25  # times MAX_RATE: not a microphone but a file
_BURST_S = 0.25  # of sound that a microphone may give at once


class SoundNote(NamedTuple):
    """Something to be logged about the sound; with a code it is a warning for the client, too."""

    text: str
    code: str = ""


class RawInput:
    """One stream. `clock` gives seconds.

    `recognises`: a format that the client does not name is recognised from the bytes, and its rate
    from the time in which they come; sound is held until then. Otherwise 16-bit PCM at 16 kHz.
    """

    def __init__(self, clock: Callable[[], float], *, recognises: bool) -> None:
        self.format = SampleFormat("pcm16", RAW_RATE)
        self.came = False
        self._clock = clock
        self._knows_encoding = self._knows_rate = not recognises
        self._decoder = SampleDecoder(self.format)
        self._held = bytearray()
        self._began = 0.0
        self._counted = 0  # bytes after the first message
        self._watches_rate = self._watches_encoding = True
        self._note: SoundNote | None = None

    def name(self, encoding: Encoding | None, rate: int | None) -> None:
        """Put in force what the client names of the format."""
        own_rate = encoding is not None and default_rate(encoding, 0) > 0
        self._knows_encoding |= encoding is not None
        self._knows_rate |= rate is not None or own_rate
        self._use(format_of(encoding, rate, self.format))

    def feed(self, data: bytes) -> bytes:
        """PCM at 24 kHz; none while the format is being recognised."""
        if not data:
            return b""
        now = self._clock()
        if self.came:
            self._counted += len(data)
        else:
            self.came, self._began = True, now
        elapsed = now - self._began
        if not (self._knows_encoding and self._knows_rate):
            self._held += data
            self._recognise(elapsed)
            return self._taken() if self._knows_encoding and self._knows_rate else b""
        if self._watches_encoding:
            self._watch_encoding(data)
        if self._watches_rate and elapsed >= WATCH_S:
            self._compare(elapsed)
        return self._decoder.feed(data)

    def release(self) -> bytes:
        """The sound that was held, in the most likely format: the client says that it is whole."""
        if not self._held:
            return b""
        self._recognise_as(recognised(bytes(self._held)) or self.format.encoding, 0.0)
        return self._taken()

    def take_note(self) -> SoundNote | None:
        """What is to be said, once."""
        note, self._note = self._note, None
        return note

    def _taken(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return self._decoder.feed(held)

    def _use(self, format_: SampleFormat) -> None:
        if format_ != self.format:
            self.format, self._decoder = format_, SampleDecoder(format_)
            self._watches_encoding = self._watches_rate = True
            self._counted, self._began = 0, self._clock()

    def _recognise(self, elapsed: float) -> None:
        """Decide as soon as the bytes and the time are enough."""
        full = len(self._held) >= MAX_AUDIO_BYTES
        encoding = self.format.encoding if self._knows_encoding else recognised(bytes(self._held))
        if encoding is None:  # silence, in any format
            if full:
                self._held.clear()
            return
        burst = _BURST * MAX_RATE * (elapsed + _BURST_S)
        measured = self._counted / _size(encoding)
        if self._knows_rate or elapsed >= RECOGNITION_S or full or measured > burst:
            self._recognise_as(encoding, measured / elapsed if elapsed >= RECOGNITION_S else 0.0)

    def _recognise_as(self, encoding: Encoding, measured: float) -> None:
        """`measured`: samples in a second, as they came; 0 where that says nothing."""
        rate = self.format.rate
        if not self._knows_rate:
            rate = MAX_RATE if encoding == "f32" else RAW_RATE
            if _is_near(measured, nearest_rate(measured or rate)):
                rate = nearest_rate(measured)
        self._knows_encoding = self._knows_rate = True
        self._use(SampleFormat(encoding, rate))
        self._watches_encoding = False
        self._note = SoundNote(f"its sound is {self.format}, recognised from the bytes")

    def _watch_encoding(self, data: bytes) -> None:
        if self.format.encoding != "pcm16" or (found := recognised(data)) is None:
            return
        self._watches_encoding = False
        if found == "f32":
            self._note = SoundNote(
                f"The audio looks like 32-bit floats, but is taken as {self.format}: convert it, "
                f"or connect with ?format=f32&sample_rate={MAX_RATE}.",
                "format_mismatch",
            )

    def _compare(self, elapsed: float) -> None:
        self._watches_rate = False
        measured = self._counted / _size(self.format.encoding) / elapsed
        nearest = nearest_rate(max(measured, 1.0))
        if measured > _MIN_RATIO * self.format.rate and _is_near(measured, nearest):
            self._note = SoundNote(
                f"The audio comes as fast as sound at {nearest} Hz, but is taken as {self.format}, "
                f"so that speech is not understood: send {self.format}, or connect with "
                f"?sample_rate={nearest}.",
                "sample_rate_mismatch",
            )


def _size(encoding: Encoding) -> int:
    """Bytes of a sample."""
    return SampleFormat(encoding, 1).bytes_per_second


def _is_near(measured: float, rate: int) -> bool:
    return abs(measured - rate) <= _TOLERANCE * rate
