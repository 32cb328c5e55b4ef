"""What kind of machine this is: how long it takes over a piece of work that never changes.

Figures of two runs are comparable as far as these are. Two cores that are threads of one slow each
other down: then the load costs the server something even though each has "its own".
"""

import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from bench.figures import Figure
from bench.report import run
from bench.served import take_other_core, take_server_core

TRIES = 9
_EVENT = {"type": "input_audio_buffer.append", "audio": "AAAA" * 640, "numbers": list(range(40))}


async def measure(quick: bool) -> list[Figure]:
    tries = 3 if quick else TRIES
    alone = await _on_the_servers_core(tries)
    with _other_core_busy():
        beside = await _on_the_servers_core(tries)
    return [
        Figure(measure="yardstick, the other core idle, best", value=alone, unit="ms"),
        Figure(measure="… the other core busy", value=beside, unit="ms"),
    ]


def work() -> None:
    """Some of what a server does: JSON, small objects, small products of matrices."""
    matrix, rows = np.ones((256, 192), np.float32), np.ones((32, 256), np.float32)
    for _ in range(600):
        seen = {}
        for n, part in enumerate(json.loads(json.dumps(_EVENT))["numbers"]):
            seen[f"item_{part}"] = (n, part)
        sorted(seen.values(), reverse=True)
        (rows @ matrix).sum()


async def _on_the_servers_core(tries: int) -> float:
    """Milliseconds of CPU of the fastest try, in a process there: who else waits does not count."""
    asked = (sys.executable, "-m", "bench.yardstick", "work", str(tries))
    process = await asyncio.create_subprocess_exec(*asked, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    return float(told)


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


def _timed(tries: int) -> float:
    times = []
    for _ in range(tries):
        began = time.process_time()
        work()
        times.append(1000 * (time.process_time() - began))
    return min(times)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        take_server_core()
        print(_timed(int(sys.argv[2])))
    else:
        run(measure)
