"""The process that runs the voice encoder: a few windows at a time."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from vivavoce.engines.resemblyzer.model import (
    BANDS,
    FRAMES,
    VoiceEncoder,
    clip_windows,
    read_weights,
    unit,
)
from vivavoce.engines.worker import WorkerStream

BATCH_WINDOWS = 8
"""Some 100 ms of work."""


class ResemblyzerOptions(msgspec.Struct, frozen=True):
    """What a process is built from."""

    path: str


class ResemblyzerWorker:
    """Answers clips, 16-bit mono PCM at 16 kHz, with an embedding each: 32-bit floats."""

    Options = ResemblyzerOptions
    Request = list[bytes]

    def __init__(self, options: ResemblyzerOptions) -> None:
        self._encoder = VoiceEncoder(read_weights(Path(options.path)))
        self._encoder.embed(np.zeros((1, FRAMES, BANDS), np.float32))  # the first call is slow

    def serve(self, clips: list[bytes], stream: WorkerStream) -> Iterator[int]:
        windows, owners = [], []
        for number, clip in enumerate(clips):
            samples = np.frombuffer(clip, "<i2").astype(np.float32) / 32768.0
            made = clip_windows(samples)
            windows.append(made)
            owners += [number] * len(made)
            yield 0
        joined = np.concatenate(windows)
        embedded = []
        for start in range(0, len(joined), BATCH_WINDOWS):
            embedded.append(self._encoder.embed(joined[start : start + BATCH_WINDOWS]))
            yield 0
        sums = np.zeros((len(clips), embedded[0].shape[1]), np.float32)
        np.add.at(sums, owners, np.concatenate(embedded))
        for row in unit(sums):
            stream.send(row.astype("<f4").tobytes())
