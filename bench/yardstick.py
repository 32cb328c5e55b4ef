"""What kind of machine this is: how long it takes over work that never changes.

Figures of two runs are comparable as far as these are. Two cores that are threads of one slow each
other down; and a server of many sessions works on memory that no cache holds, which on a rented
machine depends on the neighbours.
"""

import asyncio
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from bench.figures import Figure
from bench.report import run
from bench.served import take_other_core, take_server_core

TRIES = 9
THINGS = 600_000
_EVENT = {"type": "input_audio_buffer.append", "audio": "AAAA" * 640, "numbers": list(range(40))}


async def measure(quick: bool) -> list[Figure]:
    tries = 3 if quick else TRIES
    near, far = await _on_the_servers_core(tries)
    with _other_core_busy():
        near_beside, far_beside = await _on_the_servers_core(tries)
    return [
        Figure(measure="yardstick: JSON, small objects, small matrices", value=near, unit="ms"),
        Figure(measure="… while the other core is busy", value=near_beside, unit="ms"),
        Figure(measure="yardstick: objects that no cache holds", value=far, unit="ms"),
        Figure(measure="… while the other core is busy", value=far_beside, unit="ms"),
    ]


def work() -> None:
    """Some of what a server does."""
    matrix, rows = np.ones((256, 192), np.float32), np.ones((32, 256), np.float32)
    for _ in range(600):
        seen = {}
        for n, part in enumerate(json.loads(json.dumps(_EVENT))["numbers"]):
            seen[f"item_{part}"] = (n, part)
        sorted(seen.values(), reverse=True)
        (rows @ matrix).sum()


def wander(things: list[dict[str, int]]) -> None:
    """From one to the next, which is always far away."""
    at = 0
    for _ in range(len(things)):
        at = things[at]["next"]


def scattered(count: int) -> list[dict[str, int]]:
    """Some 150 MB of them, each of which names another, in one large circle."""
    order = list(range(count))
    random.Random(1).shuffle(order)
    things: list[dict[str, int]] = [{} for _ in order]
    for here, there in zip(order, (*order[1:], order[0]), strict=True):
        things[here]["next"] = there
    return things


async def _on_the_servers_core(tries: int) -> tuple[float, float]:
    """Milliseconds of CPU of the fastest tries, in a process there: who else waits is no matter."""
    asked = (sys.executable, "-m", "bench.yardstick", "work", str(tries))
    process = await asyncio.create_subprocess_exec(*asked, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    near, far = map(float, told.split())
    return near, far


@contextmanager
def _other_core_busy() -> Iterator[None]:
    spinner = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    spinner.start()
    try:
        yield
    finally:
        spinner.terminate()
        spinner.join()


def _spin() -> None:
    take_other_core()
    while True:
        work()


def _fastest(tries: int, what: Callable[[], None]) -> float:
    times = []
    for _ in range(tries):
        began = time.process_time()
        what()
        times.append(1000 * (time.process_time() - began))
    return min(times)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        take_server_core()
        tries, things = int(sys.argv[2]), scattered(THINGS)
        print(_fastest(tries, work), _fastest(tries, lambda: wander(things)))
    else:
        run(measure)
