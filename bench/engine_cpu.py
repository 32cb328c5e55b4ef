"""CPU time of one utterance by local engines, and of Moonshine's encoder by the size of a batch.

Each is run alone, and the least of some runs is taken, so that other load on the machine changes
little. Of engines in a worker process: its user and system time, of four utterances together, as
the kernel counts it in hundredths of a second.
"""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import onnxruntime

from bench.engines import TEXT, speak
from bench.figures import Figure
from bench.report import run
from bench.sound import recordings
from vivavoce.engines import registry
from vivavoce.engines.moonshine.model import FILES
from vivavoce.engines.packs import weights_folder
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD
from vivavoce.engines.worker import onnx_options

BATCHES = (1, 4, 16)
SECONDS = 3
TOGETHER = 4
MODEL_RATE = 16_000


async def measure(quick: bool) -> list[Figure]:
    rounds = 3 if quick else 9
    speech = sorted(await recordings(), key=lambda each: abs(each.seconds - SECONDS))[0]
    figures = [await _silero(rounds)]
    async with registry.create("turn", "smart-turn", {}) as turn:
        used = await _least(lambda: turn.score_audio(speech.pcm, "", language="en"), rounds)
        figures.append(_figure("smart-turn: one decision", used))
    async with registry.create("tts", "hibari", {}) as tts:
        seconds = (await speak(tts, TEXT))[2]
        used = await _least(lambda: speak(tts, TEXT), rounds)
        figures.append(_figure(f"hibari: 25 words, {seconds:.1f} s of audio", used))
    return figures + _encoder(rounds)


async def _silero(rounds: int) -> Figure:
    """Windows of one stream, each scored alone."""
    async with SileroVAD(SileroSettings()) as vad:
        stream = np.array([vad.open()])
        count = SECONDS * MODEL_RATE // vad.window_samples
        noise = np.random.default_rng(1).standard_normal((count, 1, vad.window_samples))
        windows = (0.1 * noise).astype(np.float32)
        used = []
        for _ in range(rounds):
            began = time.process_time()
            for window in windows:
                vad.score(window, stream)
            used.append(time.process_time() - began)
    return _figure(f"silero: {SECONDS} s of speech, {count} windows", min(used))


async def _least(work: Callable[[], Awaitable[object]], rounds: int) -> float:
    """CPU seconds of the processes that this one has started, ended threads included."""
    await work()  # loads
    used = []
    for _ in range(rounds):
        began = _ticks()
        for _ in range(TOGETHER):
            await work()
        used.append((_ticks() - began) / TOGETHER)
    return min(used) / os.sysconf("SC_CLK_TCK")


def _ticks() -> int:
    pids = [
        pid
        for listed in Path("/proc/self/task").glob("*/children")
        for pid in listed.read_text("ascii").split()
    ]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields)


def _encoder(rounds: int) -> list[Figure]:
    folder = weights_folder("moonshine-tiny-en")
    encoder = onnxruntime.InferenceSession(
        str(folder / FILES[0]), onnx_options(1), providers=["CPUExecutionProvider"]
    )
    names = {given.name for given in encoder.get_inputs()}
    figures = []
    for batch in BATCHES:
        noise = np.random.default_rng(1).standard_normal((batch, SECONDS * MODEL_RATE))
        audio = (0.1 * noise).astype(np.float32)
        feed = {"input_values": audio, "attention_mask": np.ones(audio.shape, np.int64)}
        feed = {name: feed[name] for name in feed if name in names}
        encoder.run(None, feed)
        used = []
        for _ in range(rounds):
            began = time.process_time()
            encoder.run(None, feed)
            used.append(time.process_time() - began)
        what = f"moonshine: encoder, {SECONDS} s, of a batch of {batch}, each"
        figures.append(_figure(what, min(used) / batch))
    return figures


def _figure(what: str, seconds: float) -> Figure:
    return Figure(measure=f"{what}, CPU", value=1000 * seconds, unit="ms")


if __name__ == "__main__":
    run(measure)
