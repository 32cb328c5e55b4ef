"""What one frame costs a relay in instructions, ours and the barest: a busy machine changes little.

Each server runs under valgrind (Debian package valgrind), which counts while everybody talks. That
is the work of the process and not that of the kernel, which is the same for both: one read and one
write for each frame.
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
from bench.served import COMMAND, free_port, launched
from bench.upstream import Times, upstream

SESSIONS = 10
FIRST, FRAMES = 10, 200
"""Frames of each session in each direction, before they are counted and then."""
PATIENT = "\n[session]\nstall_seconds = 600\n"
"""A server that counts is slow, and must not give up the upstream server."""
START_SECONDS = 300.0
REPLY_SECONDS = 300.0
_TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)

Command: TypeAlias = Callable[[int, int], AbstractAsyncContextManager[tuple[str, ...]]]
"""Of a relay, given its own port and that of the upstream server."""


@asynccontextmanager
async def ours(own: int, port: int) -> AsyncIterator[tuple[str, ...]]:
    async with configured(port) as config:
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(config + PATIENT)
            file.flush()
            program = (sys.executable, *COMMAND, "--port", str(own), "--config", file.name)
            yield (*program, "--log-level", "error")


@asynccontextmanager
async def bare(own: int, port: int) -> AsyncIterator[tuple[str, ...]]:
    url = f"ws://127.0.0.1:{port}/v1/realtime"
    yield (sys.executable, "-m", "bench.bare_relay", str(own), url)


RELAYS: dict[str, Command] = {"ours": ours, "bare": bare}


async def measure(quick: bool) -> list[Figure]:
    frames = FRAMES // (4 if quick else 1)
    figures = [
        Figure(
            measure=f"relay, {name}: instructions for a frame, the mean of both directions",
            value=await counted(command, frames) / (2 * SESSIONS * frames),
            unit="instructions",
        )
        for name, command in RELAYS.items()
    ]
    ratio = figures[0].value / figures[1].value
    figures.append(Figure(measure="… ours to bare", value=ratio, unit="times"))
    return figures


async def counted(command: Command, frames: int) -> int:
    """Instructions of a relay for so many frames in each session and direction."""
    times = [Times() for _ in range(SESSIONS)]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file, own = Path(folder, "counts"), free_port()
        counting = ("valgrind", "--tool=callgrind", "--instr-atstart=no")
        async with upstream(times) as port, command(own, port) as program:
            line = (*counting, f"--callgrind-out-file={file}", *program)
            async with launched(line, own, seconds=START_SECONDS, end=signal.SIGTERM) as relay:
                lines = await connect_all(relay.port, times, at_once=1)
                people = [Speaker(line, n, times[n]) for n, line in enumerate(lines)]
                await _talk(people, FIRST)
                await _count("on", relay.pid)
                await _talk(people, frames)
                await _count("off", relay.pid)
                for client in lines:
                    client.close()
        text = await asyncio.to_thread(file.read_text)
    return max(int(found) for found in _TOTAL.findall(text))


async def _count(state: str, pid: int) -> None:
    process = await asyncio.create_subprocess_exec(
        "callgrind_control", "-i", state, str(pid), stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(REPLY_SECONDS):
        await process.wait()
    if process.returncode:
        raise RuntimeError("callgrind_control has failed")


async def _talk(people: list[Speaker], frames: int) -> None:
    """Everybody sends a frame; the next follows when each has its delta."""
    for _ in range(frames):
        deltas = [one.line.coming("response.output_audio.delta") for one in people]
        for one in people:
            one.send()
        async with asyncio.timeout(REPLY_SECONDS):
            await asyncio.gather(*deltas)


if __name__ == "__main__":
    run(measure)
