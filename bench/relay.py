"""What a relay adds to a conversation, and how many one core carries: ours, the barest, LiteLLM's.

Every client sends an append of 40 ms 25 times a second, and the upstream server answers each with
a delta. Client and upstream server are one process, so the time of a frame in each direction is
known; what a relay adds is that beyond a connection without one. Ours has metering on, with a
budget in money on a SQLite store, and a policy. A number of sessions is carried when a frame takes
less than 20 ms (p99, each direction) and 98 % of the deltas come. The relays take turns.

Memory of a session is that of sessions after the first 20: with those comes what belongs to the
server, and ours also loads its noise reduction, 13 MiB, after it has begun to listen. The memory of
the server without sessions stands apart.

LiteLLM is measured where $BENCH_LITELLM names its command, .../bin/litellm.
"""

import asyncio
import base64
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec

from bench.figures import Figure, percentile
from bench.microphones import Microphone, speak
from bench.report import run
from bench.search import most_carried
from bench.served import Served, free_port, launched, served
from bench.upstream import FRAME_MS, Times, upstream
from bench.wire import Line, Way, connect, event
from vivavoce.limits.accounts import ApiKey, Budget
from vivavoce.limits.keys import hash_of
from vivavoce.store.sqlite import SQLiteStore

LAG_MS = 20.0
LOSS = 0.02
SESSIONS = 100  # at which latency, CPU and memory are read
MANY = 200  # at which the time of a delta is read again
STEP = 40
FIRST = 20  # sessions, after which memory is compared
SETTLED_SECONDS, MOST_SETTLING_SECONDS = 0.5, 5.0
MOST = 1600
WARM_SECONDS = 1.5
KEY = "sk-of-the-client"
CONFIG = """
[server]
max_sessions = 5000

[models.far]
type = "relay"
upstream = "ws://127.0.0.1:{upstream}/v1/realtime"
model = "gpt-realtime-2.1"
api_key = "sk-upstream"
fallback = "default"
policy = "shop"

[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"

[policies.shop.pinned]
instructions = "Be brief."

[store]
url = "sqlite:{store}"
"""
LITELLM = """
model_list:
  - model_name: far
    litellm_params:
      model: openai/gpt-realtime-2.1
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-upstream
general_settings:
  master_key: {key}
"""


@dataclass(frozen=True, slots=True)
class Point:
    """What came of so many sessions. Milliseconds; of both directions together."""

    sessions: int
    p50: float
    p99: float
    delta_p50: float
    """Of the direction to the client."""
    delta_p99: float
    deltas: float
    """Of those that should have come."""
    cpu: float
    """Share of the relay's core."""
    kept_waiting: float
    """Share of the time in which others were on that core."""
    load_late_p99: float
    idle_kib: float
    """Of a session that is open and silent."""
    talking_kib: float
    """Of a session that has talked for as long as was measured."""
    server_mib: float
    """Of the relay, less its sessions."""

    @property
    def carried(self) -> bool:
        return self.p99 < LAG_MS and self.deltas > 1 - LOSS


StartRelay: TypeAlias = Callable[[int], AbstractAsyncContextManager[Served | None]]
"""A relay before the upstream server on that port; None: there is none between."""


@asynccontextmanager
async def configured(port: int) -> AsyncIterator[str]:
    """The settings file of our relay; its store has the key of the clients and their budget."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder, "accounts.db")
        key = ApiKey(name="load", hash=hash_of(KEY))
        budget = Budget(scope="key", owner="load", unit="usd", period="day", limit=10**15)
        async with SQLiteStore(file) as store:
            await store.save("key", key.name, msgspec.json.encode(key))
            await store.save("budget", budget.id, msgspec.json.encode(budget))
        yield CONFIG.format(upstream=port, store=file)


@asynccontextmanager
async def ours(port: int) -> AsyncIterator[Served]:
    async with configured(port) as config, served(config) as server:
        yield server


@asynccontextmanager
async def bare(port: int) -> AsyncIterator[Served]:
    own = free_port()
    url = f"ws://127.0.0.1:{port}/v1/realtime"
    command = (sys.executable, "-m", "bench.bare_relay", str(own), url)
    async with launched(command, own) as server:
        yield server


@asynccontextmanager
async def litellm(port: int) -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file, own = Path(folder, "config.yaml"), free_port()
        config = LITELLM.format(upstream=port, key=KEY)
        file.write_text(config, encoding="utf-8")  # noqa: ASYNC240  small
        program = os.environ["BENCH_LITELLM"]
        command = (program, "--config", str(file), "--host", "127.0.0.1", "--port", str(own))
        variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        path = "/health/liveliness"
        async with launched(command, own, variables, ready_path=path, seconds=90.0) as server:
            yield server


@asynccontextmanager
async def none(_port: int) -> AsyncIterator[None]:
    yield None


RELAYS: dict[str, StartRelay] = {"ours": ours, "bare": bare, "LiteLLM": litellm}


async def measure(quick: bool) -> list[Figure]:
    seconds = 2.0 if quick else 5.0
    names = [name for name in RELAYS if name != "LiteLLM" or os.environ.get("BENCH_LITELLM")]
    if len(names) < len(RELAYS):
        print("LiteLLM is left out: $BENCH_LITELLM names no command", file=sys.stderr)
    direct = await point("none", none, SESSIONS, seconds)
    at_100 = {name: await point(name, RELAYS[name], SESSIONS, seconds) for name in names}
    many = await point("ours", ours, MANY, seconds)
    most = {name: await capacity(name, at_100[name], quick=quick) for name in names}
    detail = {name: asdict(found) for name, found in {**at_100, "none": direct}.items()}
    figures = []
    for name in names:
        found, is_ours = at_100[name], name == "ours"
        figures += [
            Figure(
                measure=f"relay, {name}: time added to a frame, {SESSIONS} sessions, {which}",
                value=value - direct.p50,
                unit="ms",
                target=target if is_ours else None,
                detail=detail if which == "p50" else {},
            )
            for which, value, target in (("p50", found.p50, 0.2), ("p99", found.p99, 1.0))
        ]
        figures += [
            Figure(measure=f"… {name}, CPU", value=100 * found.cpu, unit="% of a core"),
            Figure(
                measure=f"… {name}, memory of an open session",
                value=found.idle_kib,
                unit="KiB",
                target=60.0 if is_ours else None,
            ),
            Figure(
                measure=f"… {name}, memory without sessions", value=found.server_mib, unit="MiB"
            ),
            Figure(
                measure=f"… {name}, sessions on one core, frame p99 < 20 ms",
                value=most[name],
                unit="sessions",
            ),
        ]
    figures += [
        Figure(
            measure=f"relay, ours: time added to a delta, {MANY} sessions, {which}",
            value=value - direct.delta_p50,
            unit="ms",
            target=target,
        )
        for which, value, target in (("p50", many.delta_p50, 1.0), ("p99", many.delta_p99, 5.0))
    ]
    for name, target in (("bare", 0.75), ("LiteLLM", 3.0)):
        if name in names:
            figures.append(
                Figure(
                    measure=f"relay: sessions on one core, ours to {name}",
                    value=most["ours"] / max(1, most[name]),
                    unit="times",
                    target=target,
                    at_least=True,
                )
            )
    return figures


async def capacity(name: str, at_100: Point, *, quick: bool) -> int:
    """By bisection, from where the CPU of 100 sessions would fill the core."""
    likely = max(STEP, int(SESSIONS / max(at_100.cpu, 0.02)) // STEP * STEP)

    async def carried(sessions: int) -> bool:
        return (await point(name, RELAYS[name], sessions, 1.5 if quick else 3.0)).carried

    step = 4 * STEP if quick else max(STEP // 2, likely // 16)
    return await most_carried(carried, first=min(likely, MOST), step=step, most=MOST)


async def point(name: str, start: StartRelay, sessions: int, seconds: float) -> Point:
    times = [Times() for _ in range(sessions)]
    first = min(FIRST, sessions // 2)
    async with upstream(times) as port, start(port) as relay:
        own = relay.port if relay else port
        lines = await connect_all(own, times[:first])
        before = await _settled_rss(relay)
        lines += await connect_all(own, times[first:])
        idle = (await _settled_rss(relay) - before) / (sessions - first)
        before -= int(first * idle)
        people = [Speaker(line, n, times[n]) for n, line in enumerate(lines)]
        talk = asyncio.create_task(speak(people, WARM_SECONDS + seconds, FRAME_MS))
        await asyncio.sleep(WARM_SECONDS)
        for one in times:
            one.up.clear()
            one.down.clear()
            one.deltas = 0
        cpu, waited, began = *_cpu(relay), time.perf_counter()
        late = await talk
        took = time.perf_counter() - began
        used, kept = (now - then for now, then in zip(_cpu(relay), (cpu, waited), strict=True))
        both = [ms for one in times for ms in (*one.up, *one.down)]
        talking = (relay.rss - before if relay else 0) / sessions
        for line in lines:
            line.close()
    down = [ms for one in times for ms in one.down]
    found = Point(
        sessions=sessions,
        p50=1000 * percentile(both, 50),
        p99=1000 * percentile(both, 99),
        delta_p50=1000 * percentile(down, 50),
        delta_p99=1000 * percentile(down, 99),
        deltas=sum(one.deltas for one in times) / (sessions * took * 1000 / FRAME_MS),
        cpu=used / took,
        kept_waiting=kept / took,
        load_late_p99=1000 * percentile(late, 99),
        idle_kib=idle / 1024,
        talking_kib=talking / 1024,
        server_mib=before / 1024 / 1024,
    )
    print(f"  {name}: {_told(found)}", file=sys.stderr)
    return found


async def connect_all(port: int, times: list[Times], at_once: int = 20) -> list[Line]:
    """A client of each, whose deltas are counted there."""
    at = Way("/v1/realtime?model=far", "session.created", key=KEY)
    lines: list[Line] = []
    while len(lines) < len(times):
        some = min(at_once, len(times) - len(lines))
        lines += await asyncio.gather(*(connect(port, at=at) for _ in range(some)))
    for line, one in zip(lines, times, strict=True):
        line.heard = _Heard(one).heard
    return lines


class _Heard:
    def __init__(self, times: Times) -> None:
        self._times = times

    def heard(self, kind: bytes, _payload: bytes, at: float) -> None:
        if kind == b"response.output_audio.delta":
            times = self._times
            times.deltas += 1
            times.down.append(at - times.answered.popleft())


class Speaker(Microphone):
    """Notes when each append was sent, and says whose it is."""

    def __init__(self, line: Line, number: int, times: Times) -> None:
        audio = base64.b64encode(bytes(48 * FRAME_MS)).decode()
        append = event("input_audio_buffer.append", event_id=f"s{number:05d}", audio=audio)
        super().__init__(line, [append])
        self._append, self._times = append, times

    def send(self) -> None:
        self._times.appended.append(time.perf_counter())
        self.line.write(self._append)


async def _settled_rss(relay: Served | None) -> int:
    """Resident bytes, when they have not grown for a while."""
    if relay is None:
        return 0
    most = relay.rss
    for _ in range(int(MOST_SETTLING_SECONDS / SETTLED_SECONDS)):
        await asyncio.sleep(SETTLED_SECONDS)
        before, most = most, max(most, relay.rss)
        if most == before:
            break
    return most


def _cpu(relay: Served | None) -> tuple[float, float]:
    return (relay.cpu_seconds, relay.kept_waiting_seconds) if relay else (0.0, 0.0)


def _told(found: Point) -> str:
    return (
        f"{found.sessions} sessions: frame p50 {found.p50:.2f} p99 {found.p99:.2f} ms, deltas "
        f"{found.deltas:.1%}, CPU {found.cpu:.0%}, kept waiting {found.kept_waiting:.1%}, load "
        f"late p99 {found.load_late_p99:.1f} ms, {found.idle_kib:.0f} KiB each, "
        f"{found.talking_kib:.0f} while talking, {found.server_mib:.0f} MiB without sessions"
    )


if __name__ == "__main__":
    run(measure)
