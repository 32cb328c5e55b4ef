"""The process that runs smart-turn, and the features of sound that the model reads.

Features: the log-mel spectrogram of Whisper (Radford et al. 2022, section 2.2): windows of 25 ms
every 10 ms, 80 mel bands (audio/mel.py), of eight seconds of which the sound fills the end.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
import onnxruntime

from vivavoce.audio.mel import HOP, RATE, WINDOW, Floats, mel_filters, mel_power
from vivavoce.audio.resample import resample
from vivavoce.engines.worker import WorkerStream, onnx_options

SAMPLES = 8 * RATE
BANDS = 80
FRAMES = SAMPLES // HOP
DYNAMIC_RANGE = 8.0
"""Decades of power below the loudest value that are kept."""
FILTERS = mel_filters(BANDS)


def features(samples: Floats) -> Floats:
    """[BANDS, FRAMES] of the last eight seconds of samples [n], 16 kHz; silence before them."""
    sound = samples[-SAMPLES:]
    padded = np.zeros(SAMPLES, np.float32)
    padded[SAMPLES - len(sound) :] = sound
    padded -= padded.mean()
    padded /= np.sqrt(padded.var() + 1e-7)
    power = mel_power(np.pad(padded, WINDOW // 2, mode="reflect"), FILTERS)[:FRAMES].T
    decades = np.log10(np.maximum(power, 1e-10))
    scaled: Floats = (np.maximum(decades, decades.max() - DYNAMIC_RANGE) + 4.0) / 4.0
    return scaled.astype(np.float32)


class SmartTurnOptions(msgspec.Struct, frozen=True):
    """What a process is built from."""

    path: str
    threads: int


class SmartTurnWorker:
    """Answers 16-bit mono PCM at 24 kHz with the probability that its turn is finished."""

    Options = SmartTurnOptions
    Request = bytes

    def __init__(self, options: SmartTurnOptions) -> None:
        settings = onnx_options(options.threads)
        self._model = onnxruntime.InferenceSession(
            options.path, settings, providers=["CPUExecutionProvider"]
        )
        self._probability(bytes(48_000))  # the first call is slow

    def serve(self, pcm: bytes, stream: WorkerStream) -> Iterator[int]:
        yield 0
        stream.send(self._probability(pcm))

    def _probability(self, pcm24: bytes) -> float:
        pcm = resample(pcm24, 24_000, RATE)
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768.0
        made = self._model.run(None, {"input_features": features(samples)[None]})
        return float(np.clip(np.asarray(made[0]).ravel()[0], 0.0, 1.0))
