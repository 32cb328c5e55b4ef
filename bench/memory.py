"""What a session that does nothing costs, and whether listening to silence costs more and more.

The core counts time in samples, so ten minutes of sound are ten minutes to it at whatever speed
they come: here as fast as the server takes them.
"""

import asyncio
from math import sqrt
from statistics import linear_regression

from bench.figures import Figure
from bench.report import run
from bench.served import SCRIPTED, served
from bench.sound import silence
from bench.wire import Line, appends, connect_many, event

IDLE_SESSIONS = 200
LISTENING_SESSIONS = 50
APPEND_MS = 200
SECONDS = 600
LOOK_SECONDS = 10  # of sound, after which memory is looked at
WARM_SECONDS = 60  # of sound, until all that grows to its size has done so
KIB = 1024
SURE = 2.0  # standard errors. No verdict hangs on them: a noisy machine would always meet it
TAKEN_SECONDS = 120.0
REST_SECONDS = 0.3


async def measure(quick: bool) -> list[Figure]:
    idle = await _idle()
    seconds = SECONDS // 4 if quick else SECONDS
    looks = await _listening(seconds)
    growth, error = _trend([look / LISTENING_SESSIONS / KIB for look in looks])
    detail = {
        "sessions": LISTENING_SESSIONS,
        "seconds_between_looks": LOOK_SECONDS,
        "standard_error_kib": round(error, 1),
        "rss_kib": [look // KIB for look in looks],
    }
    return [
        Figure(
            measure=f"memory of an idle session, {IDLE_SESSIONS} of them",
            value=idle / KIB,
            unit="KiB",
            target=150.0,
        ),
        Figure(
            measure=f"growth of a session in {seconds / 60:g} minutes of silence",
            value=growth,
            unit="KiB",
            detail=detail,
        ),
        Figure(
            measure="… at the most, with two standard errors",
            value=growth + SURE * error,
            unit="KiB",
        ),
    ]


async def _idle() -> float:
    """Bytes a session, with the first few left out: they also warm the server up."""
    async with served(SCRIPTED) as server:
        some = await connect_many(server.port, 20)
        await asyncio.sleep(0.5)
        before = server.rss
        others = await connect_many(server.port, IDLE_SESSIONS)
        await asyncio.sleep(0.5)
        each = (server.rss - before) / IDLE_SESSIONS
        for line in (*some, *others):
            line.close()
    return each


async def _listening(seconds: int) -> list[int]:
    """Resident bytes, looked at every now and then in so many seconds of silence."""
    frames = appends(silence(APPEND_MS / 1000 * 50), APPEND_MS)
    async with served(SCRIPTED) as server:
        lines = await connect_many(server.port, LISTENING_SESSIONS)
        await _send(lines, frames, WARM_SECONDS)
        looks = []
        for _ in range(seconds // LOOK_SECONDS):
            await _send(lines, frames, LOOK_SECONDS)
            looks.append(server.rss)
        for line in lines:
            line.close()
    return looks


async def _send(lines: list[Line], frames: list[bytes], seconds: int) -> None:
    """Send so much sound on each line, an append at a time, and wait until it was taken.

    That is known by the answer to a question that waits its turn behind the sound.
    """
    probe = event("conversation.item.retrieve", item_id="item_none")
    async with asyncio.timeout(TAKEN_SECONDS):
        for n in range(seconds * 1000 // APPEND_MS):
            taken = [line.coming("error") for line in lines]
            for line in lines:
                line.write(frames[n % len(frames)])
                line.write(probe)
            await asyncio.gather(*taken)
    await asyncio.sleep(REST_SECONDS)  # what still waits to be judged is two seconds of sound


def _trend(looks: list[float]) -> tuple[float, float]:
    """By how much a straight line through them rises, and the standard error of that."""
    times = [n / (len(looks) - 1) for n in range(len(looks))]
    rise, start = linear_regression(times, looks)
    rest = sum((y - start - rise * x) ** 2 for x, y in zip(times, looks, strict=True))
    spread = sum((x - 0.5) ** 2 for x in times)
    return rise, sqrt(rest / (len(looks) - 2) / spread)


if __name__ == "__main__":
    run(measure)
