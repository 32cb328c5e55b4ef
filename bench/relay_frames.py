"""What one frame costs a relay in instructions, ours and the barest: a busy machine changes little.

Each server runs under valgrind (Debian package valgrind), twice: with few and with many frames. The
difference is the cost of the frames alone. It counts the work of the process and not that of the
kernel, which is the same for both: one read and one write for each frame.
"""

import asyncio
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from bench.figures import Figure
from bench.relay import Speaker, configured, connect_all
from bench.report import run
from bench.served import COMMAND, Served, free_port, launched
from bench.upstream import Times, upstream

SESSIONS = 10
FEW, MANY = 50, 250
"""Frames of each session in each direction."""
START_SECONDS = 300.0
REPLY_SECONDS = 120.0
_TOTAL = re.compile(rb"^(?:totals|summary): (\d+)", re.MULTILINE)

Command: TypeAlias = Callable[[int, int], AbstractAsyncContextManager[tuple[str, ...]]]
"""Of a relay, given its own port and that of the upstream server."""


@asynccontextmanager
async def ours(own: int, port: int) -> AsyncIterator[tuple[str, ...]]:
    async with configured(port) as config:
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(config)
            file.flush()
            program = (sys.executable, *COMMAND, "--port", str(own), "--config", file.name)
            yield (*program, "--log-level", "error")


@asynccontextmanager
async def bare(own: int, port: int) -> AsyncIterator[tuple[str, ...]]:
    url = f"ws://127.0.0.1:{port}/v1/realtime"
    yield (sys.executable, "-m", "bench.bare_relay", str(own), url)


RELAYS: dict[str, Command] = {"ours": ours, "bare": bare}


async def measure(quick: bool) -> list[Figure]:
    many = FEW + (MANY - FEW) // (4 if quick else 1)
    figures = []
    for name, command in RELAYS.items():
        few_in_all, many_in_all = [await counted(command, frames) for frames in (FEW, many)]
        figures.append(
            Figure(
                measure=f"relay, {name}: instructions for a frame, the mean of both directions",
                value=(many_in_all - few_in_all) / (2 * SESSIONS * (many - FEW)),
                unit="instructions",
            )
        )
    ratio = figures[0].value / figures[1].value
    figures.append(Figure(measure="… ours to bare", value=ratio, unit="times"))
    return figures


async def counted(command: Command, frames: int) -> int:
    """Instructions of a relay from its start to its end, with so many frames in each session."""
    times = [Times() for _ in range(SESSIONS)]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file, own = Path(folder, "counts"), free_port()
        counting = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={file}")
        async with upstream(times) as port, command(own, port) as program:
            command_line = (*counting, *program)
            async with launched(
                command_line, own, seconds=START_SECONDS, end=signal.SIGTERM
            ) as relay:
                await _talk(relay, times, frames)
        totals = [int(found) for found in _TOTAL.findall(file.read_bytes())]  # noqa: ASYNC240  its writer has ended
    return max(totals)


async def _talk(relay: Served, times: list[Times], frames: int) -> None:
    """Everybody sends a frame; the next follows when each has its delta."""
    lines = await connect_all(relay.port, times, at_once=1)
    people = [Speaker(line, n, times[n]) for n, line in enumerate(lines)]
    for _ in range(frames):
        deltas = [line.coming("response.output_audio.delta") for line in lines]
        for one in people:
            one.send()
        async with asyncio.timeout(REPLY_SECONDS):
            await asyncio.gather(*deltas)
    for line in lines:
        line.close()


if __name__ == "__main__":
    run(measure)
