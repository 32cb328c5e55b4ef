"""The audio that a raw client sends: decodes it, recognises its format, checks its rate."""

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
WATCH_S = 5.0  # of audio, after which its rate is compared with the named rate
RECOGNITION_S = 0.8  # the same, if no rate was named
MAX_RATE = 48_000
_MIN_RATIO = 1.2  # measured rate / named rate, above which the audio arrives too fast
_TOLERANCE = 0.08  # of a measured rate
_BURST = 1.25  # times MAX_RATE: not a microphone but a file
_BURST_S = 0.25  # of audio that a microphone may deliver at once


class SoundNote(NamedTuple):
    """A note about the audio for the log; with a code, it is also a warning for the client."""

    text: str
    code: str = ""


class RawInput:
    """One stream. `clock` gives seconds.

    `recognises`: a format that the client does not name is recognised from the bytes, and the rate
    from their arrival; the audio is held until then. Otherwise it is 16-bit PCM at 16 kHz.
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
        """Apply what the client names of the format."""
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
        """The held audio, in its most likely format: the client says that it is complete."""
        if not self._held:
            return b""
        self._recognise_as(recognised(bytes(self._held)) or self.format.encoding, 0.0)
        return self._taken()

    def take_note(self) -> SoundNote | None:
        """The note, once."""
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
        """Decide as soon as there are enough bytes and enough time has passed."""
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
        """`measured`: the samples that arrived in a second; 0: not known."""
        rate = self.format.rate
        if not self._knows_rate:
            rate = MAX_RATE if encoding == "f32" else RAW_RATE
            if _is_near(measured, nearest_rate(measured or rate)):
                rate = nearest_rate(measured)
        self._knows_encoding = self._knows_rate = True
        self._use(SampleFormat(encoding, rate))
        self._watches_encoding = False
        self._note = SoundNote(f"its audio is {self.format}, recognised from the bytes")

    def _watch_encoding(self, data: bytes) -> None:
        if self.format.encoding != "pcm16" or (found := recognised(data)) is None:
            return
        self._watches_encoding = False
        if found == "f32":
            self._note = SoundNote(
                f"The audio looks like 32-bit floats, but is decoded as {self.format}: convert it, "
                f"or connect with ?format=f32&sample_rate={MAX_RATE}.",
                "format_mismatch",
            )

    def _compare(self, elapsed: float) -> None:
        self._watches_rate = False
        measured = self._counted / _size(self.format.encoding) / elapsed
        nearest = nearest_rate(max(measured, 1.0))
        if measured > _MIN_RATIO * self.format.rate and _is_near(measured, nearest):
            self._note = SoundNote(
                f"The audio arrives at the rate of {nearest} Hz, but is decoded as {self.format}. "
                f"So speech is not understood: send {self.format}, or connect with "
                f"?sample_rate={nearest}.",
                "sample_rate_mismatch",
            )


def _size(encoding: Encoding) -> int:
    """Bytes of a sample."""
    return SampleFormat(encoding, 1).bytes_per_second


def _is_near(measured: float, rate: int) -> bool:
    return abs(measured - rate) <= _TOLERANCE * rate
