"""What a session costs on raw /ws and on a telephone call, beside Realtime over a WebSocket.

Everybody sends 40 ms of speech or of a quiet room 25 times a second; turns are found and answered,
and the next speech interrupts the answer. Raw sound goes as 16 kHz PCM and comes back in real time,
20 ms in a frame; Realtime carries base64 of 24 kHz, a call base64 of mu-law at 8 kHz with marks.
The server's share of its core, divided by the sessions, gives how many fill a core. The ways take
turns, so that what else the machine does falls on all of them.
"""

import asyncio
import time
from statistics import median

from bench.figures import Figure
from bench.microphones import Microphone, speak
from bench.report import run
from bench.served import LONG_ANSWER, SCRIPTED, served
from bench.sound import conversation
from bench.wire import (
    RAW,
    REALTIME,
    TELEPHONY,
    appends,
    connect_many,
    media,
    pieces_of_sound,
)
from vivavoce.audio.formats import RATE, encode
from vivavoce.audio.resample import resample

FRAME_MS = 40
RAW_RATE = 16_000
SESSIONS = 60
ROUNDS = 3
WARM_SECONDS = 2.0
CONFIG = "[server]\nmax_sessions = 5000\n" + SCRIPTED + LONG_ANSWER
WAYS = {"raw /ws": RAW, "Realtime": REALTIME, "telephony": TELEPHONY}


async def measure(quick: bool) -> list[Figure]:
    sessions, rounds, seconds = (20, 1, 3.0) if quick else (SESSIONS, ROUNDS, 10.0)
    pcm = await conversation()
    frames = {
        "Realtime": appends(pcm, FRAME_MS),
        "raw /ws": pieces_of_sound(resample(pcm, RATE, RAW_RATE), 2 * RAW_RATE * FRAME_MS // 1000),
        "telephony": media(encode(pcm, "audio/pcmu"), 8 * FRAME_MS),
    }
    shares: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            shares[way].append(await share_of_core(way, frames[way], sessions, seconds))
    carried = {way: sessions / median(found) for way, found in shares.items()}
    figures = [
        Figure(measure=f"sessions that fill a core, {way}", value=value, unit="sessions")
        for way, value in carried.items()
    ]
    detail = {"shares": shares, "sessions": sessions}
    figures += [
        Figure(
            measure="… raw /ws to Realtime",
            value=carried["raw /ws"] / carried["Realtime"],
            unit="times",
            target=1.0,
            at_least=True,
            detail=detail,
        ),
        Figure(
            measure="… telephony to Realtime",
            value=carried["telephony"] / carried["Realtime"],
            unit="times",
        ),
    ]
    return figures


async def share_of_core(way: str, frames: list[bytes], sessions: int, seconds: float) -> float:
    """The server's CPU time in a second, while so many people talk to it."""
    async with served(CONFIG) as server:
        lines = await connect_many(server.port, sessions, at=WAYS[way])
        people = [
            Microphone(line, frames, first=n * 61 % len(frames)) for n, line in enumerate(lines)
        ]
        talk = asyncio.create_task(speak(people, WARM_SECONDS + seconds, FRAME_MS))
        await asyncio.sleep(WARM_SECONDS)
        cpu, began = server.cpu_seconds, time.perf_counter()
        await talk
        share = (server.cpu_seconds - cpu) / (time.perf_counter() - began)
        if not sum(line.deltas for line in lines):
            raise RuntimeError(f"{way}: nobody was answered")
        for line in lines:
            line.close()
    return share


if __name__ == "__main__":
    run(measure)
