"""What a window of voice activity costs: the fastest of many calls, by windows scored together."""

import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from bench.figures import Figure
from bench.report import run
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD

BATCHES = (1, 8, 24, 64)
CALLS = 400


async def measure(quick: bool) -> list[Figure]:
    figures = []
    async with SileroVAD(SileroSettings()) as vad:
        streams = np.array([vad.open() for _ in range(max(BATCHES))])
        for size in BATCHES:
            noise = np.random.default_rng(size).standard_normal((size, vad.window_samples))
            windows = (0.1 * noise).astype(np.float32)
            seconds = min(
                _seconds(vad, windows, streams[:size])
                for _ in range(CALLS // 8 if quick else CALLS)
            )
            name = f"a window of voice activity, {size} scored together"
            figures.append(Figure(measure=name, value=seconds / size * 1e6, unit="µs"))
    return figures


def _seconds(vad: SileroVAD, windows: np.ndarray, streams: np.ndarray) -> float:
    began = time.perf_counter()
    vad.score(windows, streams)
    return time.perf_counter() - began


if __name__ == "__main__":
    run(measure)
