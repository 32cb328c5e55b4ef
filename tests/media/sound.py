"""Sound for the tests of files, and what two sounds have in common."""

from io import BytesIO

import av
import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import RATE


def sweep(seconds: float, rate: int = RATE) -> bytes:
    """A tone that rises, in bursts, with a little noise: no part of it is like another."""
    at = np.arange(int(rate * seconds)) / rate
    rising = 6_000 * np.sin(2 * np.pi * (200 + 40 * at) * at)
    bursts = 0.4 + 0.6 * (np.sin(9 * at) > 0)
    noise = np.random.default_rng(3).standard_normal(len(at)) * 200
    return bytes(np.round(rising * bursts + noise).astype("<i2"))


def samples(pcm: bytes) -> NDArray[np.float64]:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def alike(one: bytes, other: bytes) -> tuple[float, int]:
    """How well the other follows the one where they fit best (1: wholly), and how much later."""
    first, second = samples(one), samples(other)
    size = 1 << (len(first) + len(second)).bit_length()
    product = np.fft.rfft(second, size) * np.conj(np.fft.rfft(first, size))
    lag = int(np.argmax(np.fft.irfft(product, size)[: size // 2]))
    common = min(len(first), len(second) - lag)
    return float(np.corrcoef(first[:common], second[lag : lag + common])[0, 1]), lag


def container(
    kind: str, codec: str, pcm: bytes, *, rate: int = RATE, channels: int = 1, seekable: bool = True
) -> bytes:
    """That sound, of that rate, in a file of that kind."""
    layout = "mono" if channels == 1 else "stereo"
    heard = np.repeat(np.frombuffer(pcm, "<i2"), channels).reshape(1, -1)
    made = BytesIO()
    with av.open(made if seekable else Pipe(made), "w", format=kind) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if codec == "vorbis":
            stream.codec_context.options = {"strict": "experimental"}
        converter = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
        for at in range(0, heard.shape[1], rate):
            frame = av.AudioFrame.from_ndarray(
                heard[:, at * channels : (at + rate) * channels], format="s16", layout=layout
            )
            if not frame.samples:
                break
            frame.sample_rate, frame.pts = rate, at
            for piece in converter.resample(frame):
                file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return made.getvalue()


class Pipe:
    """What can be written and not sought in."""

    def __init__(self, made: BytesIO) -> None:
        self.write = made.write
