"""Sound as raw bytes of clients that are not Realtime clients: encodings, rates, recognition."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from vivavoce.audio.formats import G711_RATE, RATE, Decoder, Encoder, Format
from vivavoce.audio.resample import Resampler

Encoding: TypeAlias = Literal["pcm16", "f32", "g711_ulaw", "g711_alaw"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Hertz; each has a short resampling filter from and to RATE."""
MIN_RECOGNISED_BYTES = 1024
MAX_FLOAT = 1.5  # above any sound in floats; a loud 16-bit sample read as a float is above 2
_MIN_FLOAT = 1e-9
_G711: dict[Encoding, Format] = {"g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_FLOAT32 = np.dtype("<f4")
_PCM16 = np.dtype("<i2")


class SampleFormat(NamedTuple):
    """Mono sound: how a sample is written, and samples in a second."""

    encoding: Encoding
    rate: int

    @property
    def bytes_per_second(self) -> int:
        return self.rate * {"pcm16": 2, "f32": 4}.get(self.encoding, 1)

    def __str__(self) -> str:
        names = {"pcm16": "16-bit PCM", "f32": "32-bit floats"}
        return f"{names.get(self.encoding, self.encoding)} at {self.rate} Hz"


def default_rate(encoding: Encoding, otherwise: int) -> int:
    """The rate of an encoding for which a client gives none."""
    return G711_RATE if encoding in _G711 else otherwise


class SampleDecoder:
    """Bytes of a client to 16-bit PCM at RATE, one stream. Samples may be cut at any byte."""

    def __init__(self, format_: SampleFormat) -> None:
        law = _G711.get(format_.encoding)
        self._g711 = Decoder(law) if law else None
        self._floats = format_.encoding == "f32"
        self._resampler = Resampler(format_.rate, RATE)
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        if self._g711:
            return self._g711.feed(data)
        size = 4 if self._floats else 2
        if self._rest:
            data = self._rest + data
        whole = len(data) // size * size
        self._rest = data[whole:]
        data = data[:whole]
        return self._resampler.feed(_from_floats(data) if self._floats else data)


class SampleEncoder:
    """16-bit PCM at RATE to bytes for a client, one stream."""

    def __init__(self, format_: SampleFormat) -> None:
        law = _G711.get(format_.encoding)
        self._g711 = Encoder(law) if law else None
        self._floats = format_.encoding == "f32"
        self._resampler = Resampler(RATE, format_.rate)

    def feed(self, pcm24: bytes) -> bytes:
        """As much as can be encoded: the filter holds back up to 2 ms until more comes."""
        if self._g711:
            return self._g711.feed(pcm24)
        return self._written(self._resampler.feed(pcm24))

    def flush(self) -> bytes:
        """The rest of a sound that has ended. Then another may begin."""
        if self._g711:
            return self._g711.flush()
        return self._written(self._resampler.flush())

    def _written(self, pcm: bytes) -> bytes:
        if not self._floats:
            return pcm
        return (np.frombuffer(pcm, _PCM16).astype(_FLOAT32) / 32768).astype(_FLOAT32).tobytes()


def recognised(data: bytes) -> Encoding | None:
    """Whether bytes are 32-bit floats or 16-bit PCM; None: too few, or nothing but zeros.

    Half of all small 16-bit samples are negative (0xFFxx), which makes a float that is not finite;
    sound in floats is finite and lies between -1 and 1.
    """
    if len(data) < MIN_RECOGNISED_BYTES or not any(data):
        return None
    values = np.abs(np.frombuffer(data[: len(data) // 4 * 4], _FLOAT32))
    heard = values[values != 0]  # a NaN is not 0
    if not len(heard):
        return None
    with np.errstate(invalid="ignore"):
        floats = bool(np.all(heard <= MAX_FLOAT)) and float(np.median(heard)) >= _MIN_FLOAT
    return "f32" if floats else "pcm16"


def nearest_rate(rate: float) -> int:
    """The usual rate that is nearest to a measured one, by ratio."""
    return min(RATES, key=lambda each: max(each / rate, rate / each))


def _from_floats(data: bytes) -> bytes:
    """Floats of which 1 is full scale; what is louder is clipped, and no number is silence."""
    values = np.nan_to_num(np.frombuffer(data, _FLOAT32), nan=0.0, posinf=1.0, neginf=-1.0)
    return np.rint(np.clip(values, -1.0, 1.0) * 32767).astype(_PCM16).tobytes()
