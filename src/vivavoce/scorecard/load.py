"""The load curve of a server: more and more callers, until it breaks or the bound is reached."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from vivavoce.limits.prices import NANO, PriceTable
from vivavoce.protocol.responses import Usage
from vivavoce.scorecard.caller import STAGES, BenchTarget, StageTimes, calling
from vivavoce.scorecard.figures import Spread, percentile, spread_of
from vivavoce.session.effects import RecordUsage
from vivavoce.talk.client import ServerLost
from vivavoce.telemetry.rating import PriceRef, Rater, Tariff

MAX_FAILED: Final = 0.05
"""The share of failed turns above which a level counts as failed."""
MAX_LATE_MS: Final = 50.0
"""The lateness of sent frames (p99) above which the load generator itself is too slow."""
INTERRUPTIONS: Final = 3
FORMAT_VERSION: Final = 1


class LoadLevel(msgspec.Struct, frozen=True, kw_only=True):
    """What came of so many callers. Milliseconds."""

    sessions: int
    turns: int
    failed: int
    latency: Spread
    """From the end of a turn to the first audio, or text where turns are written."""
    late_p99: float
    """How late this machine sent audio."""
    problem: str = ""
    """Why it is broken; empty: it is not."""


class TurnCost(msgspec.Struct, frozen=True, kw_only=True):
    """What turns use, as the server reports it, and what that costs by a price list."""

    model: str
    """Whose prices are used."""
    turns: int
    input_tokens: int
    output_tokens: int
    usd_per_turn: str
    """Empty: the price list has no such model."""


class Scorecard(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured of one server."""

    version: int = FORMAT_VERSION
    url: str
    began_at: str
    spoken: bool
    limit_ms: float
    levels: list[LoadLevel]
    waterfall: dict[str, Spread]
    """The stages of a turn, from its end, with one caller alone."""
    interruption: Spread
    """From the first sound over an answer to the server's word of it."""
    cost: TurnCost
    stopped: str
    """Why the curve ends."""

    @property
    def carried(self) -> int:
        """The most callers that it carried."""
        return max((level.sessions for level in self.levels if not level.problem), default=0)


@dataclass(frozen=True, slots=True)
class LoadBounds:
    """How far a load curve goes."""

    max_sessions: int
    level_s: float
    max_s: float
    limit_ms: float


@dataclass(slots=True)
class _Tally:
    """What the callers of one level found."""

    times: list[StageTimes]
    late: list[float]
    failures: list[str]


async def measured(
    target: BenchTarget,
    bounds: LoadBounds,
    prices: PriceTable,
    price_model: str,
    notes: Callable[[str], None],
) -> Scorecard:
    """Measure a server. Raises ServerLost where the first caller is not answered."""
    began = time.perf_counter()
    began_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    levels: list[LoadLevel] = []
    alone: list[StageTimes] = []
    stopped, sessions = "", 1
    async with _http() as http:
        while not stopped:
            notes(f"{sessions} session{'s' * (sessions > 1)} …")
            tally = await _level(http, target, sessions, bounds.level_s)
            level = _judged(tally, sessions, target, bounds.limit_ms)
            if sessions == 1:
                alone = tally.times
                if not alone:
                    raise ServerLost(tally.failures[0] if tally.failures else level.problem)
            levels.append(level)
            sessions *= 2
            if level.problem:
                stopped = f"{level.sessions} sessions: {level.problem}"
            elif sessions > bounds.max_sessions:
                stopped = f"--max-sessions {bounds.max_sessions} is reached"
            elif time.perf_counter() - began + bounds.level_s > bounds.max_s:
                stopped = f"--max-seconds {bounds.max_s:g} is reached"
        stops = await _interruptions(http, target) if target.spoken else []
    stages = [name for name, _ in STAGES]
    return Scorecard(
        url=target.url.partition("?")[0],
        began_at=began_at,
        spoken=target.spoken,
        limit_ms=bounds.limit_ms,
        levels=levels,
        waterfall={
            name: spread_of([one.stages[name] for one in alone if name in one.stages])
            for name in stages
        },
        interruption=spread_of(stops),
        cost=cost_of(alone, prices, price_model),
        stopped=stopped,
    )


def _http() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))


async def _level(
    http: aiohttp.ClientSession, target: BenchTarget, sessions: int, seconds: float
) -> _Tally:
    """So many callers take turns for so long; a turn that has begun is ended."""
    tally = _Tally([], [], [])

    async def call(number: int) -> None:
        await asyncio.sleep(number / sessions * min(1.0, seconds / 2))  # out of step
        try:
            async with calling(http, target) as caller:
                until = time.perf_counter() + seconds
                while True:
                    tally.times.append(await caller.turn())
                    tally.late += caller.late
                    caller.late.clear()
                    if time.perf_counter() >= until:
                        return
        except ServerLost as exc:
            tally.failures.append(str(exc))

    async with asyncio.TaskGroup() as group:
        for number in range(sessions):
            group.create_task(call(number))
    return tally


def _judged(tally: _Tally, sessions: int, target: BenchTarget, limit_ms: float) -> LoadLevel:
    first = "first_audio" if target.spoken else "first_text"
    latencies = [one.stages[first] for one in tally.times]
    turns, failed = len(tally.times), len(tally.failures)
    late_ms = percentile(tally.late, 99) * 1000 if tally.late else 0.0
    spread = spread_of(latencies)
    problem = ""
    if failed > MAX_FAILED * (turns + failed):
        problem = f"{failed} of {turns + failed} turns failed: {tally.failures[0]}"
    elif late_ms > MAX_LATE_MS:
        problem = f"this machine cannot speak for so many: {late_ms:.0f} ms late"
    elif (spread.p95 or 0.0) > limit_ms:
        problem = f"95 % of the answers took up to {spread.p95:.0f} ms (--limit-ms {limit_ms:g})"
    return LoadLevel(
        sessions=sessions,
        turns=turns,
        failed=failed,
        latency=spread,
        late_p99=round(late_ms, 1),
        problem=problem,
    )


async def _interruptions(http: aiohttp.ClientSession, target: BenchTarget) -> list[float]:
    """Each in a session of its own; those that the server does not notice are left out."""
    found = []
    for _ in range(INTERRUPTIONS):
        try:
            async with calling(http, target) as caller:
                found.append(await caller.interrupt())
        except ServerLost:
            continue
    return found


def cost_of(times: list[StageTimes], prices: PriceTable, model: str) -> TurnCost:
    """What the turns cost by the prices of a model."""
    rater = Rater(prices, {model: Tariff("relay", PriceRef(model))})
    now, nano, used = time.time(), 0, list[Usage]()
    for number, one in enumerate(times):
        if (usage := _usage_of(one.usage)) is not None:
            used.append(usage)
            record = RecordUsage(str(number), model, usage)
            nano += rater.record(record, now).nano_usd
    priced = bool(used) and prices.find(model, now) is not None
    return TurnCost(
        model=model,
        turns=len(used),
        input_tokens=sum(usage.input_tokens for usage in used),
        output_tokens=sum(usage.output_tokens for usage in used),
        usd_per_turn=f"{nano / len(used) / NANO:.6f}" if priced else "",
    )


def _usage_of(reported: Any) -> Usage | None:
    try:
        return msgspec.convert(reported, Usage)
    except msgspec.ValidationError:
        return None
