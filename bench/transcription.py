"""A long recording over HTTP: how fast it is made out, how soon it begins, what memory it takes.

    python -m bench.transcription [--quick] [--engine NAME]...

NAME: a recogniser, as settings name it. The server's own process is what must stay flat; the
recogniser's processes stand apart.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import cycle

import aiohttp
import msgspec

from bench.figures import Figure
from bench.report import perform, show
from bench.served import SCRIPTED, Served, served, take_other_core
from bench.sound import recordings, silence
from vivavoce.media.encoding import FileEncoder

MINUTES = 60.0
ENGINES = ("scripted", "moonshine")
MIB = 1 << 20
PAUSE_SECONDS = 1.2  # between two recordings
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """One recording, uploaded and made out."""

    first_seconds: float
    """From the request to the first words."""
    seconds: float
    words: int
    peak: int
    """Resident bytes of the server's own process; `before`: when it had done nothing."""
    before: int
    of_children: int


async def measure(quick: bool, *, engines: Sequence[str] = ENGINES) -> list[Figure]:
    minutes = MINUTES / 12 if quick else MINUTES
    file = await _recording(60 * minutes)
    figures = []
    for engine in engines:
        config = SCRIPTED.replace('stt = "scripted"', f'stt = "{engine}"')
        async with served(config) as server:
            run_ = await _transcribe(server, file)
        name = f"{minutes:g} minutes of speech in opus ({engine})"
        figures += [
            Figure(measure=f"{name}: first words", value=run_.first_seconds, unit="s"),
            Figure(measure=f"{name}: speed", value=60 * minutes / run_.seconds, unit="x real time"),
            Figure(
                measure=f"{name}: peak memory of the server",
                value=run_.peak / MIB,
                unit="MiB",
                target=300,
                detail={
                    "words": run_.words,
                    "file_mib": round(len(file) / MIB, 1),
                    "idle_mib": round(run_.before / MIB, 1),
                    "children_mib": round(run_.of_children / MIB, 1),
                },
            ),
        ]
    return figures


async def _recording(seconds: float) -> bytes:
    """Recordings one after the other, over and over."""
    encoder, made, length = FileEncoder("opus"), bytearray(), 0.0
    for recording in cycle(await recordings()):
        for pcm in (recording.pcm, silence(PAUSE_SECONDS)):
            made += encoder.feed(pcm)
        length += recording.seconds + PAUSE_SECONDS
        if length >= seconds:
            break
    return bytes(made + encoder.finish())


async def _transcribe(server: Served, file: bytes) -> Run:
    before, peak, of_children = server.rss, 0, 0

    async def look() -> None:
        nonlocal peak, of_children
        while True:
            peak = max(peak, server.rss)
            of_children = max(of_children, sum(server.children.values()))
            await asyncio.sleep(LOOK_SECONDS)

    form = aiohttp.FormData({"model": "whisper-1", "stream": "true"})
    form.add_field("file", BytesIO(file), filename="talk.ogg")
    url = f"http://127.0.0.1:{server.port}/v1/audio/transcriptions"
    looking = asyncio.create_task(look())
    first, text, started = 0.0, "", time.perf_counter()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as http,
            http.post(url, data=form) as response,
        ):
            response.raise_for_status()
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                first = first or time.perf_counter() - started
                event = msgspec.json.decode(line.removeprefix(b"data: "))
                text = event.get("text", text)
    finally:
        looking.cancel()
    assert text, "the recording was not made out"
    took = time.perf_counter() - started
    return Run(first, took, len(text.split()), peak, before, of_children)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.transcription")
    parser.add_argument("--quick", action="store_true", help="5 minutes in place of 60")
    parser.add_argument("--engine", action="append", metavar="NAME", default=[])
    given = parser.parse_args()
    take_other_core()
    work = partial(measure, engines=given.engine or ENGINES)
    show(perform(work, quick=given.quick))


if __name__ == "__main__":
    main()
