"""The process that runs smart-turn, and the features of sound that the model reads.

Features: the log-mel spectrogram of Whisper (Radford et al. 2022, section 2.2): windows of 25 ms
every 10 ms, 80 mel bands on Slaney's scale, each triangle of area one (Slaney 1998, "Auditory
Toolbox"), of eight seconds of which the sound fills the end.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vivavoce.audio.resample import resample
from vivavoce.engines.worker import WorkerStream

Floats = NDArray[np.float32]

RATE = 16_000
SAMPLES = 8 * RATE
WINDOW, HOP, BANDS = 400, 160, 80
FRAMES = SAMPLES // HOP
DYNAMIC_RANGE = 8.0
"""Decades of power below the loudest value that are kept."""
BREAK_HERTZ, BREAK_MEL = 1000.0, 15.0
"""Slaney's scale is linear below, 200/3 Hz a mel, and logarithmic above, 27 mels a factor 6.4."""


def mel_filters() -> Floats:
    """[bands, WINDOW // 2 + 1]: triangles over the frequencies of the spectrum."""
    highest = BREAK_MEL + 27 * np.log(RATE / 2 / BREAK_HERTZ) / np.log(6.4)
    mels = np.linspace(0, highest, BANDS + 2)
    above = BREAK_HERTZ * np.exp((mels - BREAK_MEL) * np.log(6.4) / 27)
    corners = np.where(mels < BREAK_MEL, mels * 200 / 3, above)
    spectrum = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rows = []
    for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
        rows.append(np.interp(spectrum, (low, middle, high), (0, 2 / (high - low), 0)))
    return np.array(rows, np.float32)


FILTERS = mel_filters()
HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def features(samples: Floats) -> Floats:
    """[BANDS, FRAMES] of the last eight seconds of samples [n], 16 kHz; silence before them."""
    sound = samples[-SAMPLES:]
    padded = np.zeros(SAMPLES, np.float32)
    padded[SAMPLES - len(sound) :] = sound
    padded -= padded.mean()
    padded /= np.sqrt(padded.var() + 1e-7)
    framed = sliding_window_view(np.pad(padded, WINDOW // 2, mode="reflect"), WINDOW)[::HOP]
    spectrum = np.fft.rfft(framed[:FRAMES] * HANN, axis=1)
    power = FILTERS @ (np.abs(spectrum) ** 2).T.astype(np.float32)
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
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
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
