"""Sound formats of the wire, and of all sound inside: 16-bit little-endian mono PCM at 24 kHz.

On the wire there is the same PCM, or G.711: one byte a sample at 8 kHz, mu-law or A-law.
"""

from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.resample import Resampler, resample

Format: TypeAlias = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]

RATE = 24_000
"""Hertz of all sound inside."""
BYTES_PER_SAMPLE = 2
BYTES_PER_MS = BYTES_PER_SAMPLE * RATE // 1000
G711_RATE = 8_000

_PCM16 = np.dtype("<i2")
_BITS16 = np.dtype("<u2")


def ms(pcm24: bytes | int) -> int:
    """Whole milliseconds that PCM, or so many bytes of it, lasts."""
    return (pcm24 if isinstance(pcm24, int) else len(pcm24)) // BYTES_PER_MS


def to_ms(samples: int) -> int:
    """Whole milliseconds of so many samples at RATE."""
    return samples * 1000 // RATE


def to_samples(ms: int) -> int:
    """Samples at RATE of so many milliseconds."""
    return ms * RATE // 1000


class Decoder:
    """Wire to PCM, one stream.

    G.711 comes out 1.9 ms late, as much as the filter looks ahead: so every byte fed makes its
    three samples at once, and what a client counts as sent is what is counted here.
    """

    def __init__(self, format: Format) -> None:  # noqa: A002  the wire's own word
        self._law = None if format == "audio/pcm" else _expansion(format)
        self._resampler = Resampler(RATE if self._law is None else G711_RATE, RATE)
        self._resampler.feed(bytes(2 * self._resampler.lag))
        self._half = b""

    @property
    def carrying(self) -> bool:
        """Whether half a sample waits for its other half."""
        return bool(self._half)

    def drop_half(self) -> None:
        """Drop the half sample: the next data starts with a whole sample."""
        self._half = b""

    def feed(self, data: bytes) -> bytes:
        """Whole samples of PCM. An odd byte at the end waits for the next call."""
        if self._law is not None:
            return self._resampler.feed(_expanded(self._law, data))
        if self._half:
            data = self._half + data
            self._half = b""
        if len(data) % 2:
            self._half = data[-1:]
            return data[:-1]
        return data


class Encoder:
    """PCM to wire, one stream. Feed whole samples."""

    def __init__(self, format: Format) -> None:  # noqa: A002  the wire's own word
        self._law = None if format == "audio/pcm" else _compression(format)
        self._resampler = Resampler(RATE, RATE if self._law is None else G711_RATE)

    def feed(self, pcm24: bytes) -> bytes:
        """Encode as much as possible. G.711 holds back 1.9 ms until more data, or flush()."""
        return self._encoded(self._resampler.feed(pcm24))

    def flush(self) -> bytes:
        """The end of the sound: the rest of it. Then a new stream may begin."""
        return self._encoded(self._resampler.flush())

    def _encoded(self, pcm: bytes) -> bytes:
        if self._law is None:
            return pcm
        return self._law[np.frombuffer(pcm, _BITS16)].tobytes()


def decode(data: bytes, format: Format) -> bytes:  # noqa: A002  the wire's own word
    """A whole piece of sound to PCM, nothing late. Half a sample at the end is dropped."""
    if format == "audio/pcm":
        return data[: len(data) // 2 * 2]
    return resample(_expanded(_expansion(format), data), G711_RATE, RATE)


def encode(pcm24: bytes, format: Format) -> bytes:  # noqa: A002  the wire's own word
    """A whole piece of PCM to the wire: the same, or round(samples / 3) bytes of G.711."""
    encoder = Encoder(format)
    return encoder.feed(pcm24) + encoder.flush()


def _expanded(law: NDArray[np.int16], data: bytes) -> bytes:
    return law[np.frombuffer(data, np.uint8)].tobytes()


@cache
def _expansion(law: Literal["audio/pcmu", "audio/pcma"]) -> NDArray[np.int16]:
    """[256], the sample of each code. ITU-T G.711, tables 1 and 2, in 16 bits."""
    code = np.arange(256)
    if law == "audio/pcmu":
        code ^= 0xFF  # every bit is inverted on the wire
        segment, step = code >> 4 & 7, code & 15
        size = ((step << 3) + 0x84 << segment) - 0x84
        positive = code < 0x80
    else:
        code ^= 0x55  # the even bits are
        segment, step = code >> 4 & 7, code & 15
        size = np.where(segment == 0, (step << 4) + 8, (step << 4) + 0x108 << segment >> 1)
        positive = code >= 0x80
    return np.where(positive, size, -size).astype(_PCM16)


@cache
def _compression(law: Literal["audio/pcmu", "audio/pcma"]) -> NDArray[np.uint8]:
    """[65536], the code of each sample, at the index that its 16 bits make when read unsigned."""
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    if law == "audio/pcmu":
        # A bias of 33 (of 14 bits; here of 16) makes every segment begin at a power of two.
        size = np.minimum(np.abs(sample), 32635) + 0x84
        segment = _exponent(size) - 7
        code = (segment << 4 | size >> segment + 3 & 15) ^ 0xFF
        code -= np.where(sample < 0, 0x80, 0)
    else:
        size = np.where(sample < 0, ~sample, sample)  # so that -1 lies in the step below zero
        segment = np.maximum(_exponent(size) - 7, 0)
        code = (segment << 4 | size >> np.maximum(segment, 1) + 3 & 15) ^ 0x55
        code += np.where(sample < 0, 0, 0x80)
    return code.astype(np.uint8)


def _exponent(size: NDArray[np.int32]) -> NDArray[np.int32]:
    """The largest power of two that is not above `size`; -1 for 0."""
    return np.frexp(size)[1] - 1
