"""How many live sessions one core carries.

Everybody sends 40 ms of speech or of a quiet room 25 times a second, Silero judges every window,
recognition runs, and everybody is sent an answer, 25 pieces of sound a second. The lag of the
server's loop is known by an echo: a session of its own clears its input buffer and is told so. So
many are carried when the 99th percentile of the echo is below 20 ms, the ends of turns are told
within 100 ms, and all sound gets through. The same is asked of a server that does nothing but what
cannot be left out (bare_voice.py): the share of its sessions does not depend on the machine.
"""

import asyncio
import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass

import msgspec

from bench.figures import Figure, percentile
from bench.microphones import Microphone, speak
from bench.report import run
from bench.search import most_carried
from bench.served import LONG_ANSWER, SCRIPTED, Served, free_port, launched, served
from bench.sound import conversation
from bench.wire import Line, appends, connect, connect_many, event

FRAME_MS = 40
LAG_MS = 20.0
TARGET = 300.0
EDGE_MS = 100.0  # most between the append that ends a turn and the word of it
LOSS = 0.02  # of the sound that should have come back
STEP = 20  # sessions: how closely the limit is looked for
MOST = 2000
TRIES = 3  # of a point that failed while others were on the server's core
QUIET = 0.002  # of the time: 1 % of it, in one piece, is the p99 of an echo
ECHO_SECONDS = 0.02
WARM_SECONDS = 3.0
CONFIG = "[server]\nmax_sessions = 5000\n" + SCRIPTED + LONG_ANSWER


@dataclass(frozen=True, slots=True)
class Point:
    """What came of so many sessions. Milliseconds."""

    sessions: int
    echo_p50: float
    echo_p99: float
    deltas: float
    """Of one session in one second; 25 are wanted."""
    edges_late_p99: float
    """From the append that decides that a turn has ended to speech_stopped; NaN: no turn ended."""
    server_cpu: float
    """Share of its core."""
    kept_waiting: float
    """Share of the time in which others were on its core: above a few percent, a noisy moment."""
    load_cpu: float
    load_late_p99: float
    rss_each_kib: float

    @property
    def carried(self) -> bool:
        heard = math.isnan(self.edges_late_p99) or self.edges_late_p99 < EDGE_MS
        return self.echo_p99 < LAG_MS and heard and self.deltas > 25 * (1 - LOSS)


async def measure(quick: bool) -> list[Figure]:
    most, points = await _most(_ours, quick=quick)
    bound, _ = await _most(_bare, quick=quick)
    best = max((p for p in points if p.carried), key=lambda p: p.sessions, default=points[0])
    tried = {"points": [asdict(point) for point in points]}
    return [
        Figure(
            measure="live cascade sessions on one core, echo p99 < 20 ms",
            value=most,
            unit="sessions",
            target=TARGET,
            at_least=True,
            detail=tried,
        ),
        Figure(measure="… their echo, p99", value=best.echo_p99, unit="ms"),
        Figure(
            measure="… append that ends a turn → speech_stopped, p99",
            value=best.edges_late_p99,
            unit="ms",
        ),
        Figure(measure="… CPU of the server", value=100 * best.server_cpu, unit="% of a core"),
        Figure(measure="… CPU of the load", value=100 * best.load_cpu, unit="% of a core"),
        Figure(
            measure="… share of a bare server's sessions",
            value=most / max(1, bound),
            unit="times",
            target=0.5,
            at_least=True,
            detail={"bare": bound},
        ),
    ]


Start = Callable[[], AbstractAsyncContextManager[Served]]


def _ours() -> AbstractAsyncContextManager[Served]:
    return served(CONFIG)


def _bare() -> AbstractAsyncContextManager[Served]:
    port = free_port()
    return launched((sys.executable, "-m", "bench.bare_voice", str(port)), port)


async def _most(start: Start, *, quick: bool) -> tuple[int, list[Point]]:
    """The most sessions that a server carries, and the points that were tried."""
    frames = appends(await conversation(), FRAME_MS)
    points: list[Point] = []

    async def carried(sessions: int) -> bool:
        for _ in range(2 if quick else TRIES):
            point = await measure_point(sessions, frames, 5.0 if quick else 8.0, start)
            points.append(point)
            print(f"  {_told(point)}", file=sys.stderr)
            if point.carried or point.kept_waiting < QUIET:
                break
        return points[-1].carried

    step = 4 * STEP if quick else STEP
    return await most_carried(carried, first=int(TARGET), step=step, most=MOST), points


async def measure_point(
    sessions: int, frames: list[bytes], seconds: float, start: Start = _ours
) -> Point:
    async with start() as server:
        idle = server.rss
        lines = await connect_many(server.port, sessions)
        echo = Echo(await connect(server.port))
        people = [
            Microphone(line, frames, first=n * 61 % len(frames)) for n, line in enumerate(lines)
        ]
        late_edges: list[float] = []
        for person in people:
            person.line.heard = _Partner(person, late_edges).heard
            person.line.write(_undisturbed())
        talk = asyncio.create_task(speak(people, WARM_SECONDS + seconds, FRAME_MS))
        await _begin_answers(lines)
        async with asyncio.timeout(WARM_SECONDS + seconds + 60):
            late_edges.clear()
            before, cpu = sum(line.deltas for line in lines), server.cpu_seconds
            waiting = server.kept_waiting_seconds
            own, began = _own_cpu(), time.perf_counter()
            echoes = await echo.measure(seconds)
            took = time.perf_counter() - began
            deltas = (sum(line.deltas for line in lines) - before) / took / sessions
            server_cpu = (server.cpu_seconds - cpu) / took
            kept_waiting = (server.kept_waiting_seconds - waiting) / took
            load_cpu = (_own_cpu() - own) / took
            each = (server.rss - idle) / sessions / 1024
            late = await talk
        for line in (*lines, echo.line):
            line.close()
    return Point(
        sessions=sessions,
        echo_p50=percentile(echoes, 50),
        echo_p99=percentile(echoes, 99),
        deltas=deltas,
        edges_late_p99=percentile(late_edges, 99),
        server_cpu=server_cpu,
        kept_waiting=kept_waiting,
        load_cpu=load_cpu,
        load_late_p99=percentile(late, 99) * 1000,
        rss_each_kib=each,
    )


class Echo:
    """Asks the server for next to nothing and sees how long it takes."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._ask = event("input_audio_buffer.clear")

    async def measure(self, seconds: float) -> list[float]:
        """Milliseconds of each round trip."""
        trips: list[float] = []
        until = time.perf_counter() + seconds
        while (asked := time.perf_counter()) < until:
            answer = self.line.coming("input_audio_buffer.cleared")
            self.line.write(self._ask)
            _, at = await answer
            trips.append((at - asked) * 1000)
            await asyncio.sleep(max(0.0, asked + ECHO_SECONDS - time.perf_counter()))
        return trips


class _Partner:
    """Keeps an answer coming, and notes how late the ends of turns are told."""

    def __init__(self, person: Microphone, late_edges: list[float]) -> None:
        self._person = person
        self._late_edges = late_edges
        self._ask = event("response.create")

    def heard(self, kind: bytes, payload: bytes, at: float) -> None:
        if kind == b"input_audio_buffer.speech_stopped":
            ms = msgspec.json.decode(payload)["audio_end_ms"]
            self._late_edges.append((at - self._person.heard_at(ms, FRAME_MS)) * 1000)
        elif kind == b"response.done":
            self._person.line.write(self._ask)


async def _begin_answers(lines: list[Line]) -> None:
    """One after the other, as long as the warming up lasts, so that they stay out of step."""
    ask, began = event("response.create"), time.perf_counter()
    for n, line in enumerate(lines):
        line.write(ask)
        due = began + n * (WARM_SECONDS - 0.5) / len(lines)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
    await asyncio.sleep(0.5)


def _undisturbed() -> bytes:
    """Turns are judged and written down, but the answer goes on meanwhile: sound both ways."""
    vad = {"type": "server_vad", "create_response": False, "interrupt_response": False}
    audio = {"input": {"turn_detection": vad}}
    return event("session.update", session={"type": "realtime", "audio": audio})


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _told(point: Point) -> str:
    return (
        f"{point.sessions} sessions: echo p50 {point.echo_p50:.1f} p99 {point.echo_p99:.1f} ms, "
        f"{point.deltas:.1f} deltas/s each, edges late p99 {point.edges_late_p99:.1f} ms, "
        f"server {point.server_cpu:.0%} and kept waiting {point.kept_waiting:.1%}, "
        f"load {point.load_cpu:.0%} (late p99 {point.load_late_p99:.1f} ms), "
        f"{point.rss_each_kib:.0f} KiB each"
    )


if __name__ == "__main__":
    run(measure)
