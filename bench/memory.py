"""What a session that does nothing costs, and whether listening to silence costs more and more.

The core counts time in samples, so ten minutes of sound are ten minutes to it at whatever speed
they come: here as fast as the server takes them.
"""

import asyncio

from bench.figures import Figure
from bench.report import run
from bench.served import served
from bench.sound import silence
from bench.wire import Line, appends, connect_many, event

IDLE_SESSIONS = 200
LISTENING_SESSIONS = 50
APPEND_MS = 200
SECONDS = 600
STRETCH_SECONDS = 30  # of sound, after which memory is looked at
FIRST = 2  # stretches, until all that grows to its size has done so
KIB = 1024
PAGE_KIB = 4.0
TAKEN_SECONDS = 120.0
CONFIG = """
[models.default]
vad = "silero"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"
"""


async def measure(quick: bool) -> list[Figure]:
    idle = await _idle()
    looks = await _listening((SECONDS if not quick else SECONDS // 4) // STRETCH_SECONDS)
    # the allocator's own ups and downs are larger than what is looked for: the least of some looks
    few = max(2, len(looks) // 4)
    growth = (min(looks[-few:]) - min(looks[:few])) / LISTENING_SESSIONS / KIB
    minutes = len(looks) * STRETCH_SECONDS / 60
    detail = {
        "sessions": LISTENING_SESSIONS,
        "seconds_between_looks": STRETCH_SECONDS,
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
            measure=f"growth of a session in {minutes:g} minutes of silence (none: below a page)",
            value=growth,
            unit="KiB",
            target=PAGE_KIB,
            detail=detail,
        ),
    ]


async def _idle() -> float:
    """Bytes a session, with the first few left out: they also warm the server up."""
    async with served(CONFIG) as server:
        some = await connect_many(server.port, 20)
        await asyncio.sleep(0.5)
        before = server.rss
        others = await connect_many(server.port, IDLE_SESSIONS)
        await asyncio.sleep(0.5)
        each = (server.rss - before) / IDLE_SESSIONS
        for line in (*some, *others):
            line.close()
    return each


async def _listening(stretches: int) -> list[int]:
    """Resident bytes after each stretch of silence."""
    frames = appends(silence(10.0), APPEND_MS)
    looks: list[int] = []
    async with served(CONFIG) as server:
        lines = await connect_many(server.port, LISTENING_SESSIONS)
        await _send(lines, frames, FIRST * STRETCH_SECONDS)
        for _ in range(stretches):
            await _send(lines, frames, STRETCH_SECONDS)
            looks.append(server.rss)
        for line in lines:
            line.close()
    return looks


async def _send(lines: list[Line], frames: list[bytes], seconds: float) -> None:
    """Send so much sound on each line, a second at a time, and wait until all of it was taken.

    That is known by the answer to a question that waits its turn behind the sound.
    """
    second = b"".join(frames[: 1000 // APPEND_MS])
    probe = event("conversation.item.retrieve", item_id="item_none")
    async with asyncio.timeout(TAKEN_SECONDS):
        for _ in range(int(seconds)):
            taken = [line.coming("error") for line in lines]
            for line in lines:
                line.write(second)
                line.write(probe)
            await asyncio.gather(*taken)
    await asyncio.sleep(1.0)  # what still waits to be judged is two seconds of sound at the most


if __name__ == "__main__":
    run(measure)
