"""Speech over HTTP: when its first byte comes, against the time that the whole takes."""

import time

import aiohttp

from bench.figures import Figure, percentile, spread
from bench.report import run
from bench.served import EMBEDDED, served

TEXT = (
    "Once upon a time a small dragon lived on a hill, and it was afraid of the dark. Every evening "
    "it lit a lamp, read a book, and waited for the morning. One night the lamp went out, and the "
    "dragon saw the stars for the first time, bright and many. From then on it slept outside, and "
    "it was never afraid again."
)
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
DEFAULT = "mp3"
"""What is promised of. What needs no encoding is made as a whole in 20 ms by espeak."""
MIDDLE = 50


async def measure(quick: bool) -> list[Figure]:
    figures = []
    async with served(EMBEDDED) as server, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{server.port}/v1/audio/speech"
        for kind in FORMATS:
            body = {"input": TEXT, "voice": "alloy", "response_format": kind}
            await _to_first_and_last(http, url, body)  # imports and connections
            times = [await _to_first_and_last(http, url, body) for _ in range(5 if quick else 50)]
            figures += _figures(kind, times)
    return figures


def _figures(kind: str, times: list[tuple[float, float]]) -> list[Figure]:
    first = [1000 * one for one, _ in times]
    whole = [1000 * one for _, one in times]
    share = [100 * one / all_of_it for one, all_of_it in times]
    words = len(TEXT.split())
    return [
        Figure(
            measure=f"speech of {words} words, first byte of {kind}, p{MIDDLE}",
            value=percentile(first, MIDDLE),
            unit="ms",
        ),
        Figure(
            measure=f"the same, of the time for the whole, p{MIDDLE}",
            value=percentile(share, MIDDLE),
            unit="%",
            target=10 if kind == DEFAULT else None,
            detail={"first_ms": spread(first), "whole_ms": spread(whole), "share": spread(share)},
        ),
    ]


async def _to_first_and_last(
    http: aiohttp.ClientSession, url: str, body: dict[str, str]
) -> tuple[float, float]:
    started = time.perf_counter()
    async with http.post(url, json=body) as response:
        response.raise_for_status()
        await response.content.readany()
        first = time.perf_counter() - started
        await response.read()
    return first, time.perf_counter() - started


if __name__ == "__main__":
    run(measure)
