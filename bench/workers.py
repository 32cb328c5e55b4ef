"""How sessions grow with workers: how many live sessions one worker carries, and two.

Everybody speaks and is answered as in bench.density. A server carries so many when the 99th
percentile of the lag of each worker's loop is below 20 ms, as there, and all sound gets through. It
has as many cores as workers, and so has the load: a process for each, on a core of its own. These
are cores beside those of the server where the machine has enough for the most workers. Where it has
not, each worker shares its core with one process of the load, with one worker as with two.
"""

import asyncio
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import uvloop

from bench.density import (
    CONFIG,
    LAG_MS,
    LOSS,
    TRIES,
    WARM_SECONDS,
    Echo,
    _begin_answers,
    _Partner,
    _undisturbed,
)
from bench.figures import Figure, percentile
from bench.microphones import Microphone, speak
from bench.report import run
from bench.search import most_carried
from bench.served import USABLE, served
from bench.sound import conversation
from bench.wire import appends, connect, connect_many

FRAME_MS = 40
STEP = 10  # sessions of each worker
MOST = 2000
ECHOES = 8  # sessions that ask, over all processes of the load: each worker has some of them
TARGET = 0.9


@dataclass(frozen=True, slots=True)
class Load:
    """What came of so many sessions with so many workers. Milliseconds."""

    workers: int
    sessions: int
    echo_p99: float
    deltas: float
    """Of one session in one second; 25 are wanted."""

    @property
    def carried(self) -> bool:
        return self.echo_p99 < LAG_MS and self.deltas > 25 * (1 - LOSS)


async def measure(quick: bool) -> list[Figure]:
    frames = appends(await conversation(), FRAME_MS)
    seconds = 5.0 if quick else 10.0
    counts = _counts()
    points: list[Load] = []
    most: dict[int, int] = {}
    for workers in counts:

        async def carried(sessions: int, workers: int = workers) -> bool:
            for _ in range(2 if quick else TRIES):  # others may have been on the cores
                points.append(point := await measure_load(workers, sessions, frames, seconds))
                print(
                    f"  {workers} workers, {sessions} sessions: echo p99 {point.echo_p99:.1f} ms, "
                    f"{point.deltas:.1f} deltas/s each",
                    file=sys.stderr,
                )
                if point.carried:
                    break
            return points[-1].carried

        step = workers * (4 * STEP if quick else STEP)
        first = 100 * workers
        most[workers] = await most_carried(carried, first=first, step=step, most=MOST)
    found = [
        Figure(
            measure=f"live sessions with {workers} workers, echo p99 < {LAG_MS:.0f} ms",
            value=most[workers],
            unit="sessions",
            detail={"points": [asdict(one) for one in points if one.workers == workers]},
        )
        for workers in counts
    ]
    ratios = [
        Figure(
            measure=f"… of {workers} times those with one",
            value=most[workers] / (workers * max(1, most[1])),
            unit="",
            target=TARGET,
            at_least=True,
        )
        for workers in counts[1:]
    ]
    return found + ratios


async def measure_load(workers: int, sessions: int, frames: list[bytes], seconds: float) -> Load:
    settings = CONFIG.replace("[server]\n", f"[server]\nworkers = {workers}\noverload_lag_ms = 0\n")
    loop, context = asyncio.get_running_loop(), multiprocessing.get_context("spawn")
    async with served(settings, frozenset(USABLE[:workers])) as server:
        with ProcessPoolExecutor(workers, context) as processes:
            of_the_load = [
                loop.run_in_executor(
                    processes,
                    _people,
                    _core_of_load(number, workers),
                    server.port,
                    sessions // workers + (number < sessions % workers),
                    max(1, ECHOES // workers),
                    frames,
                    seconds,
                )
                for number in range(workers)
            ]
            parts = await asyncio.gather(*of_the_load)
    return Load(
        workers,
        sessions,
        echo_p99=max(echo_p99 for echo_p99, _ in parts),
        deltas=sum(deltas for _, deltas in parts) / sessions,
    )


def _core_of_load(number: int, workers: int) -> int:
    enough = len(USABLE) >= 2 * max(_counts())
    return USABLE[workers + number if enough else number]


def _counts() -> list[int]:
    return [count for count in (1, 2, 4) if count <= len(USABLE)]


def _people(
    core: int, port: int, sessions: int, echoes: int, frames: list[bytes], seconds: float
) -> tuple[float, float]:
    """One process of the load. Return the worst p99 of its echoes, in ms, and deltas a second."""
    os.sched_setaffinity(0, {core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_talk(port, sessions, echoes, frames, seconds))


async def _talk(
    port: int, sessions: int, echoes: int, frames: list[bytes], seconds: float
) -> tuple[float, float]:
    lines = await connect_many(port, sessions)
    asking = [Echo(await connect(port)) for _ in range(echoes)]
    people = [Microphone(line, frames, first=n * 61 % len(frames)) for n, line in enumerate(lines)]
    for person in people:
        person.line.heard = _Partner(person, []).heard
        person.line.write(_undisturbed())
    talk = asyncio.create_task(speak(people, WARM_SECONDS + seconds, FRAME_MS))
    await _begin_answers(lines)
    async with asyncio.timeout(WARM_SECONDS + seconds + 60):
        before, began = sum(line.deltas for line in lines), time.perf_counter()
        trips = await asyncio.gather(*(echo.measure(seconds) for echo in asking))
        took = time.perf_counter() - began
        deltas = (sum(line.deltas for line in lines) - before) / took
        await talk
    for line in (*lines, *(echo.line for echo in asking)):
        line.close()
    return max(percentile(trip, 99) for trip in trips), deltas


if __name__ == "__main__":
    run(measure)
