"""A streamed voice chat: from the request to the first sound, against its stages one by one.

The engines play a script: 300 ms to hear, 500 ms to the first token and 40 tokens a second from
then on, 300 ms before a clause sounds. The sum of the stages is what a server takes that waits for
each of them to end.
"""

import io
import time
import wave
from base64 import b64encode

import aiohttp
import msgspec

from bench.figures import Figure, percentile, spread
from bench.report import run
from bench.served import served
from bench.sound import tone
from vivavoce.audio.formats import RATE
from vivavoce.runtime.clauses import Clauses

HEAR, FIRST_TOKEN, TOKENS_PER_SECOND, CLAUSE = 0.3, 0.5, 40.0, 0.3
ANSWER = (
    "The market opens at eight in the morning, and it closes at one. "
    "You will find the fishmonger at the far end, next to the fountain. "
    "If you want the best of it, come early and bring a bag."
)
CONFIG = f"""
[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"

[engines.stt.scripted]
transcripts = [{{text = "when does the market open", delay_seconds = {HEAR}}}]

[[engines.llm.scripted.answers]]
text = "{ANSWER}"
first_token_seconds = {FIRST_TOKEN}
tokens_per_second = {TOKENS_PER_SECOND}

[engines.tts.scripted]
first_audio_seconds = {CLAUSE}
"""


async def measure(quick: bool) -> list[Figure]:
    first, whole = [], []
    async with served(CONFIG) as server, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
        await _to_first_and_last(http, url, _asked(0))  # imports and connections
        for number in range(1, 4 if quick else 16):
            seconds = await _to_first_and_last(http, url, _asked(number))
            first.append(seconds[0] * 1000)
            whole.append(seconds[1] * 1000)
    total = _sum_of_stages() * 1000
    detail = {"first_ms": spread(first), "whole_ms": spread(whole), "sum_ms": round(total, 1)}
    name = "streamed voice chat, request → first audio"
    return [
        Figure(measure=f"{name}, p50", value=percentile(first, 50), unit="ms"),
        Figure(measure="the same, sum of its stages one after the other", value=total, unit="ms"),
        *(
            Figure(
                measure=f"{name}, p{percent}, of that sum",
                value=percentile(first, percent) / total * 100,
                unit="%",
                target=50,
                detail=detail,
            )
            for percent in (50, 99)
        ),
    ]


def _sum_of_stages() -> float:
    cutter, tokens, clauses = Clauses(), ANSWER.split(), 0
    for token in tokens:
        clauses += len(cutter.feed(f"{token} "))
    clauses += bool(cutter.flush())
    return HEAR + FIRST_TOKEN + (len(tokens) - 1) / TOKENS_PER_SECOND + CLAUSE * clauses


def _asked(number: int) -> bytes:
    """A request with a recording that was not sent before."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(tone(2.0 + number / 100))
    recording = {"data": b64encode(file.getvalue()).decode(), "format": "wav"}
    part = {"type": "input_audio", "input_audio": recording}
    return msgspec.json.encode(
        {
            "model": "default",
            "messages": [{"role": "user", "content": [part]}],
            "modalities": ["text", "audio"],
            "audio": {"voice": "alloy", "format": "pcm16"},
            "stream": True,
        }
    )


async def _to_first_and_last(
    http: aiohttp.ClientSession, url: str, body: bytes
) -> tuple[float, float]:
    first = 0.0
    started = time.perf_counter()
    async with http.post(url, data=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not first and b'"data":"' in line:
                first = time.perf_counter() - started
    return first, time.perf_counter() - started


if __name__ == "__main__":
    run(measure)
