"""Many sessions at once: 1,000 are opened and idle, then the server is killed and all come back.

Every client that is refused or cut off tries again after a pause that doubles, from 0.25 to 4 s, a
random half of it left out. The server has two workers, and is started again at once, as a process
manager does; the time counts from the kill.
"""

import asyncio
import random
import sys
import time

from bench.figures import Figure, percentile
from bench.report import run
from bench.served import SCRIPTED, USABLE, served
from bench.wire import Line, connect

SESSIONS = 1000
OPEN_TARGET_S = 10.0
RETURN_TARGET_S = 15.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 4.0
GIVE_UP_S = 120.0
CONFIG = "[server]\nworkers = 2\nmax_sessions = 5000\n" + SCRIPTED


async def measure(quick: bool) -> list[Figure]:
    sessions = SESSIONS // 5 if quick else SESSIONS
    cores = frozenset(USABLE)
    async with served(CONFIG, cores) as server:
        port = server.port
        opened, lines = await _open_all(port, sessions)
        print(f"  {sessions} sessions are open after {max(opened):.1f} s", file=sys.stderr)
        await asyncio.sleep(1.0 if quick else 5.0)
        lost = sum(line.closed for line in lines)
        server.kill()
        returning = asyncio.create_task(_open_all(port, sessions))
    while await _listens(port):  # noqa: ASYNC110  its workers end in processes of their own
        await asyncio.sleep(0.05)
    async with served(CONFIG, cores, port=port):
        back, again = await returning
        for line in (*lines, *again):
            line.abort()
    return [
        Figure(
            measure=f"{sessions} sessions at once: the last one is open",
            value=max(opened),
            unit="s",
            target=OPEN_TARGET_S,
            detail={"p50": percentile(opened, 50), "p99": percentile(opened, 99)},
        ),
        Figure(measure="… of which were lost while idle", value=lost, unit="sessions", target=0),
        Figure(
            measure=f"{sessions} come back after a kill: the last one is served",
            value=max(back),
            unit="s",
            target=RETURN_TARGET_S,
            detail={"p50": percentile(back, 50), "p99": percentile(back, 99)},
        ),
    ]


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def _open_all(port: int, sessions: int) -> tuple[list[float], list[Line]]:
    """Seconds until each has its session, and the connections."""
    began = time.perf_counter()
    chance = random.Random(7)
    every = [_open(port, began, chance) for _ in range(sessions)]
    async with asyncio.timeout(GIVE_UP_S):
        found = await asyncio.gather(*every)
    return [seconds for seconds, _ in found], [line for _, line in found]


async def _open(port: int, began: float, chance: random.Random) -> tuple[float, Line]:
    pause = FIRST_PAUSE_S
    while True:
        try:
            line = await connect(port)
        except (OSError, TimeoutError):
            await asyncio.sleep(pause * (0.5 + chance.random() / 2))
            pause = min(MAX_PAUSE_S, 2 * pause)
        else:
            return time.perf_counter() - began, line


if __name__ == "__main__":
    run(measure)
