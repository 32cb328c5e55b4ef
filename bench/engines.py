"""Each speech engine by itself: how fast, how soon, how large, and how many at once.

    python -m bench.engines [--quick] [--stt NAME]... [--tts NAME]... [--base-url URL]

Real-time factor: seconds of work for a second of audio, one stream, audio given at once. First
words: from the first audio, given as fast as it is spoken, to the first transcript; final: from the
end of that audio. First sound: from the text to the first audio. Memory: of the engine's processes.
Throughput: seconds of audio a second, of so many streams at once. All processes share one core,
unless there is only one.

--base-url measures the recogniser and the voice behind OpenAI's audio endpoints as well, such as
those of deploy/ray_serve.py; where that server runs is its own affair.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

from bench.figures import Figure, percentile
from bench.quality import RECOGNISERS, VOICES
from bench.report import perform, show, write
from bench.served import take_other_core
from bench.sound import recordings
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.engines import registry
from vivavoce.engines.base import STT, TTS
from vivavoce.errors import VoiceError

STREAMS = (1, 4, 16)
PACED_MS = 40
MIB = 1 << 20
TEXT = (
    "Your appointment is on Tuesday at half past nine. Please bring your card with you. "
    "Is there anything else that I can do for you?"
)


def processes_rss() -> int:
    """Resident bytes of the processes that this one has started: those of the one open engine."""
    total = 0
    for listed in Path("/proc/self/task").glob("*/children"):
        for pid in listed.read_text("ascii").split():
            status = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
            total += sum(1024 * int(line.split()[1]) for line in status if line[:6] == "VmRSS:")
    return total


async def pieces(pcm: bytes, rate: int, *, paced: bool) -> AsyncIterator[bytes]:
    size = 2 * rate * PACED_MS // 1000
    began = time.perf_counter()
    for i, start in enumerate(range(0, len(pcm), size), 1):
        yield pcm[start : start + size]
        if paced:
            await asyncio.sleep(max(0.0, began + i * PACED_MS / 1000 - time.perf_counter()))


async def recognise(stt: STT, pcm: bytes, *, paced: bool = False) -> tuple[float, float]:
    """Seconds from the first audio to the first words, and to the final transcript."""
    began, first = time.perf_counter(), 0.0
    heard = stt.transcribe(pieces(pcm, stt.sample_rate, paced=paced), language="en", prompt="")
    async with aclosing(heard):
        async for transcript in heard:
            if transcript.text and not first:
                first = time.perf_counter() - began
    return first, time.perf_counter() - began


async def speak(tts: TTS, text: str) -> tuple[float, float, float]:
    """Seconds to the first sound, to the end, and of audio."""
    began, first, size = time.perf_counter(), 0.0, 0
    how = {"voice": tts.default_voice, "language": "en", "instructions": ""}
    async with aclosing(tts.synthesize(text, speed=1.0, **how)) as made:
        async for piece in made:
            size += len(piece.audio)
            if size and not first:
                first = time.perf_counter() - began
    return first, time.perf_counter() - began, size / (2 * tts.sample_rate)


async def throughput(work: Callable[[], Awaitable[float]], streams: int) -> float:
    """Seconds of audio a second of the clock; each call does one utterance, and says how long."""
    began = time.perf_counter()
    tasks = [asyncio.ensure_future(work()) for _ in range(streams)]
    try:
        seconds = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return sum(seconds) / (time.perf_counter() - began)


async def throughputs(name: str, work: Callable[[], Awaitable[float]]) -> list[Figure]:
    """Up to the number of streams at which the engine refuses one."""
    figures: list[Figure] = []
    for streams in STREAMS:
        try:
            value = await throughput(work, streams)
        except VoiceError as exc:
            print(f"{name}, {streams} streams: {exc}")
            break
        figures.append(_figure(name, f"throughput, {streams} streams", value, "x real time"))
    return figures


async def of_stt(name: str, stt: STT, rounds: int) -> list[Figure]:
    found = sorted(await recordings(), key=lambda each: each.seconds)
    speech = found[len(found) // 2]
    pcm = resample(speech.pcm, RATE, stt.sample_rate)
    await recognise(stt, pcm)  # loads
    took = [(await recognise(stt, pcm))[1] for _ in range(rounds)]
    paced = [await recognise(stt, pcm, paced=True) for _ in range(rounds)]
    figures = [
        _figure(name, "real-time factor", percentile(took, 50) / speech.seconds, ""),
        _figure(name, "first words, live", 1000 * percentile([p[0] for p in paced], 50), "ms"),
        _figure(
            name,
            "end of audio → final, live",
            1000 * percentile([p[1] - speech.seconds for p in paced], 50),
            "ms",
        ),
        *_memory(name),
    ]

    async def one() -> float:
        await recognise(stt, pcm)
        return speech.seconds

    return figures + await throughputs(name, one)


async def of_tts(name: str, tts: TTS, rounds: int) -> list[Figure]:
    await speak(tts, TEXT)  # loads
    made = [await speak(tts, TEXT) for _ in range(rounds)]
    figures = [
        _figure(name, "real-time factor", percentile([m[1] / m[2] for m in made], 50), ""),
        _figure(name, "first sound", 1000 * percentile([m[0] for m in made], 50), "ms"),
        *_memory(name),
    ]

    async def one() -> float:
        return (await speak(tts, TEXT))[2]

    return figures + await throughputs(name, one)


def _memory(name: str) -> list[Figure]:
    rss = processes_rss()  # 0: it is a server that was not started here
    return [_figure(name, "memory of its processes", rss / MIB, "MiB")] if rss else []


def _figure(name: str, what: str, value: float, unit: str) -> Figure:
    return Figure(measure=f"{name}: {what}", value=value, unit=unit)


async def measure(
    quick: bool,
    *,
    recognisers: Sequence[str] = RECOGNISERS,
    speakers: Sequence[str] = VOICES,
    base_url: str = "",
) -> list[Figure]:
    rounds = 1 if quick else 5
    figures: list[Figure] = []
    named = [*(("stt", each, "") for each in recognisers), *(("tts", n, "") for n in speakers)]
    remote = [(kind, "openai", base_url) for kind in ("stt", "tts") if base_url]
    for kind, name, url in (*named, *remote):
        try:
            async with registry.create(kind, name, {"base_url": url} if url else {}) as engine:
                of = of_stt if kind == "stt" else of_tts
                figures += await of(f"{kind} at {url}" if url else name, engine, rounds)
        except VoiceError as exc:
            print(f"without {kind}:{name}: {exc}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engines")
    parser.add_argument("--quick", action="store_true", help="one round in place of five")
    parser.add_argument("--stt", action="append", metavar="NAME", default=[])
    parser.add_argument("--tts", action="append", metavar="NAME", default=[])
    parser.add_argument("--base-url", metavar="URL", default="", help="http://…/v1")
    parser.add_argument("--out", type=Path, default=Path("out/engines.json"), metavar="FILE")
    given = parser.parse_args()
    take_other_core()
    work = partial(
        measure,
        recognisers=given.stt or RECOGNISERS,
        speakers=given.tts or VOICES,
        base_url=given.base_url,
    )
    figures = perform(work, quick=given.quick)
    write(given.out, [("engines", figure) for figure in figures])
    show(figures)


if __name__ == "__main__":
    main()
