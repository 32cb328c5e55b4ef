"""A soak in which something fails all the time: is anybody left in silence, does memory stay flat?

A server of two workers with an engine in a process of its own (espeak), Redis, and an upstream
server to which half of the conversations are relayed. In turn a worker is killed, the engine's
process is killed, Redis is killed and started again, and the upstream server is gone for a while.
The conversations are those of bench/cluster_talk.py, each of TURNS_PER_SESSION turns; then another
begins. Run it by `python -m bench.soak --faults`.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cluster_nodes import HOST, Process, answers_ready, until_port_accepts
from bench.cluster_talk import FRAME_MS, SILENCE_S, Talker, Totals, sentence, talk
from bench.figures import Figure, spread
from bench.served import COMMAND, SCRIPTED, free_port
from bench.soak_figures import (
    KIB,
    REPORT_SECONDS,
    SAMPLE_SECONDS,
    SETTLE_SECONDS,
    TURNS_PER_SESSION,
    Sample,
    slope,
    warmed,
)
from bench.sound import silence
from bench.wire import appends

REDIS_AWAY_S = 2.0
UPSTREAM_AWAY_S = 20.0
ERRORS_OF_SLOPE = 2.0  # a growth below so many standard errors is none
_CONFIG = """
[server]
workers = 2

[store]
url = "redis://{redis}/0"

[session]
kept_audio_seconds = 20  # with 600, the default, memory grows for ten minutes

[models.default]
vad = "silero"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "espeak"

[models.far]
type = "relay"
upstream = "ws://{upstream}/v1/realtime"
model = "gpt-realtime"
api_key = "sk-upstream"
fallback = "default"

[engines.llm.scripted]
answers = [{{text = "You said: ", echo = true}}]
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """The processes, running."""

    server: Process
    redis: Process
    upstream: Process
    port: int
    redis_port: int
    upstream_port: int

    def sample(self, seconds: float) -> Sample:
        """The server with its workers and engines."""
        rss = descriptors = threads = 0
        for pid in self.server.everyone():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                figures = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
                rss += int(figures.get("VmRSS", "0 kB").split()[0])
                threads += int(figures["Threads"])
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        return Sample(seconds, rss, descriptors, threads)

    async def kill_worker(self) -> None:
        self._kill("vivavoce.workers.worker")

    async def kill_engine(self) -> None:
        self._kill("espeak")

    async def restart_redis(self) -> None:
        self.redis.kill()
        await asyncio.sleep(REDIS_AWAY_S)
        self.redis.start()
        await until_port_accepts(self.redis_port)

    async def stop_upstream(self) -> None:
        self.upstream.kill()
        await asyncio.sleep(UPSTREAM_AWAY_S)
        self.upstream.start()
        await answers_ready(f"{HOST}:{self.upstream_port}")

    def _kill(self, word: str) -> None:
        """A process of the server in whose command that word stands."""
        for pid in self.server.everyone()[1:]:
            with contextlib.suppress(OSError):
                if word in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)
                    return
        raise RuntimeError(f"the server has no process of {word}")


@asynccontextmanager
async def _stage() -> AsyncIterator[Stage]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        port, redis_port, upstream_port = free_port(), free_port(), free_port()
        text = _CONFIG.format(redis=f"{HOST}:{redis_port}", upstream=f"{HOST}:{upstream_port}")
        (folder / "server.toml").write_text(text, encoding="utf-8")
        (folder / "upstream.toml").write_text(SCRIPTED, encoding="utf-8")
        kept = ("--appendonly", "yes", "--save", "", "--dir", str(folder))
        redis_command = ("redis-server", "--port", str(redis_port), "--bind", HOST, *kept)
        running = Stage(
            _server(folder, "server", port),
            Process(redis_command, folder / "redis.log"),
            _server(folder, "upstream", upstream_port),
            port,
            redis_port,
            upstream_port,
        )
        for process in (running.redis, running.upstream, running.server):
            stack.callback(process.end)
        running.redis.start()
        await until_port_accepts(redis_port)
        running.upstream.start()
        running.server.start()
        for each in (upstream_port, port):
            await answers_ready(f"{HOST}:{each}")
        yield running


def _server(folder: Path, name: str, port: int) -> Process:
    options = ("--port", str(port), "--config", str(folder / f"{name}.toml"))
    state = {"XDG_STATE_HOME": str(folder / name)}
    command = (*COMMAND, *options, "--log-level", "warning")
    return Process(command, folder / f"{name}.log", state)


async def soak(seconds: float, sessions: int, every_s: float) -> list[Figure]:
    """All figures of one run."""
    totals, samples, failed = Totals(), list[Sample](), list[str]()
    speech, quiet = await sentence(), appends(silence(2.0), FRAME_MS)
    async with _stage() as stage:
        chance = random.Random(0)

        def talker(n: int) -> Talker:
            model = ("default", "far")[n % 2]
            address, seed = (HOST, stage.port), chance.random()
            return Talker(address, "", speech, quiet, totals, random.Random(seed), model=model)

        talkers = [talker(n) for n in range(sessions)]
        await asyncio.gather(*(talker.open() for talker in talkers))
        until = time.perf_counter() + seconds
        beside = [
            asyncio.create_task(talk(talkers)),
            asyncio.create_task(_renew(talkers, talker)),
            asyncio.create_task(_watch(stage, totals, samples)),
        ]
        try:
            await _break(stage, until, every_s, failed)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await asyncio.gather(*(talker.leave() for talker in talkers))
        await asyncio.sleep(min(SETTLE_SECONDS, seconds / 4))
        end = stage.sample(seconds)
    for problem in totals.problems:
        print(f"  {problem}", file=sys.stderr)
    return _figures(seconds, sessions, totals, samples, end, failed)


async def _break(stage: Stage, until: float, every_s: float, failed: list[str]) -> None:
    """Let one thing after the other fail, until that time."""
    faults: list[Callable[[], Awaitable[None]]] = [
        stage.kill_worker,
        stage.kill_engine,
        stage.restart_redis,
        stage.stop_upstream,
    ]
    while True:
        fault = faults[len(failed) % len(faults)]
        next_at = time.perf_counter() + every_s
        if next_at > until:
            await asyncio.sleep(max(0.0, until - time.perf_counter()))
            return
        await asyncio.sleep(every_s)
        print(f"  {fault.__name__}", file=sys.stderr, flush=True)
        await fault()
        failed.append(fault.__name__)


async def _renew(talkers: list[Talker], talker: Callable[[int], Talker]) -> None:
    """Let another conversation begin in the place of each that has had its turns."""
    while True:
        for n, old in enumerate(talkers):
            old.resting = old.uttered >= TURNS_PER_SESSION
            if old.resting and old.at_rest:
                await old.leave()
                talkers[n] = talker(n)
                await talkers[n].come_back()
        await asyncio.sleep(1.0)


async def _watch(stage: Stage, totals: Totals, samples: list[Sample]) -> None:
    """Take a sample every SAMPLE_SECONDS, print one line every REPORT_SECONDS."""
    began = time.perf_counter()
    while True:
        sample = stage.sample(time.perf_counter() - began)
        if len(samples) % int(REPORT_SECONDS / SAMPLE_SECONDS) == 0:
            print(
                f"  {sample.seconds:4.0f} s  RSS {sample.rss_kib / KIB:.1f} MiB, "
                f"{sample.descriptors} descriptors, {totals.turns} turns, "
                f"{totals.silent} silences, errors {dict(totals.errors)}",
                file=sys.stderr,
                flush=True,
            )
        samples.append(sample)
        await asyncio.sleep(SAMPLE_SECONDS)


def _figures(
    seconds: float,
    sessions: int,
    totals: Totals,
    samples: list[Sample],
    end: Sample,
    failed: list[str],
) -> list[Figure]:
    warm = warmed(samples, seconds)
    rise, error = slope(warm)
    opened, opened_error = slope(warm, lambda sample: sample.descriptors)
    waits = [wait for _, wait in totals.waits]
    detail = {
        "samples": [asdict(sample) for sample in samples],
        "after_the_last_session": asdict(end),
        "faults": failed,
        "errors": dict(totals.errors),
        "closes": dict(totals.closes),
    }
    over = f"{sessions} conversations, {seconds / 60:.0f} min, {len(failed)} faults"
    return [
        Figure(
            measure=f"{over}: turns",
            value=totals.turns,
            unit="",
            detail=detail,
        ),
        Figure(
            measure=f"… longer than {SILENCE_S:.0f} s in silence",
            value=totals.silent,
            unit="",
            target=0,
        ),
        Figure(measure="… lost", value=totals.lost_conversations, unit="", target=0),
        Figure(
            measure="… longest wait for an answer",
            value=max(waits, default=0.0),
            unit="s",
            detail=spread(waits),
        ),
        Figure(measure="… errors that clients were sent", value=totals.errors.total(), unit=""),
        Figure(measure="growth of memory, all processes", value=rise, unit="KiB/min"),
        Figure(measure="… its standard error", value=error, unit="KiB/min"),
        Figure(
            measure=f"… beyond {ERRORS_OF_SLOPE:.0f} of them",
            value=max(0.0, rise - ERRORS_OF_SLOPE * error),
            unit="KiB/min",
            target=0,
        ),
        Figure(
            measure="growth of descriptors beyond the same",
            value=max(0.0, opened - ERRORS_OF_SLOPE * opened_error),
            unit="/min",
            target=0,
            detail={"slope": opened, "standard_error": opened_error},
        ),
        Figure(measure="RSS without sessions", value=end.rss_kib / KIB, unit="MiB"),
        Figure(measure="descriptors without sessions", value=end.descriptors, unit=""),
    ]
