"""A long recording over HTTP: how fast it is made out, how soon it begins, what memory it takes.

The server's own process is what must stay flat; the recogniser's processes stand apart.
"""

import asyncio
import time
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle

import aiohttp
import msgspec

from bench.figures import Figure
from bench.report import run
from bench.served import EMBEDDED, SCRIPTED, Served, served
from bench.sound import recordings, silence
from vivavoce.media.encoding import FileEncoder

MINUTES = 60.0
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


async def measure(quick: bool) -> list[Figure]:
    minutes = MINUTES / 12 if quick else MINUTES
    file = await _recording(60 * minutes)
    figures = []
    for engine, config in (("scripted", SCRIPTED), ("pocketsphinx", EMBEDDED)):
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


if __name__ == "__main__":
    run(measure)
