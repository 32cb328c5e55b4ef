"""Two nodes, broken in every way while people talk: what is lost, and for how long.

Real processes (bench/cluster_nodes.py): Redis, HAProxy with the rules of deploy/haproxy.cfg, two
nodes of two workers each. Scripted engines, and Silero for the voice activity. People (bench/
cluster_talk.py) speak, are answered, and check what they get. In turn:

    kill     a node is killed, all its processes at once
    redis    Redis is killed, and started again after some seconds
    rolling  both nodes are stopped by SIGTERM and started again, one after the other
    cut      the network between the second node and Redis is cut; conversations of that node are
             taken over through the other one meanwhile

In the end every client loses its connection once more and compares all items, and the ledger in
Redis is compared with the answers that were seen.

    python -m bench.cluster [--conversations 200] [--only PHASE] [--vad silero] [--out FILE]

Ends with 1 where a promise was broken.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.cluster_nodes import (
    DRAIN_S,
    KEY_NAME,
    MISSING,
    Cluster,
    Node,
    cluster,
    until_port_accepts,
)
from bench.cluster_talk import (
    FRAME_MS,
    SHUTDOWN_CLOSE,
    TAKEN_OVER_CLOSE,
    Talker,
    Totals,
    sentence,
    talk,
)
from bench.figures import Figure, percentile, spread
from bench.report import parser_of, perform, show, write
from bench.sound import silence
from bench.wire import NO_CLOSE, appends
from vivavoce.limits.keys import hash_of
from vivavoce.limits.prices import Quantities
from vivavoce.secret import Secret
from vivavoce.store.redis import RedisStore

CONVERSATIONS = 200
QUICK_CONVERSATIONS = 20
KEY = "vv-a-key-of-the-load"
TURNS_BEFORE = 2  # of each conversation, on average, between two faults
BACK_TARGET_S = 2.0
NOTICED_S = 0.5  # after the first connection to a killed node was closed: all are
REDIS_AWAY_S = 4.0
CUT_S = 8.0
PROBES = 4  # conversations that are taken over while their node is cut off
OPEN_AT_ONCE = 20
WAIT_TIMEOUT_S = 120.0
LEDGER_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster, and people who talk to it."""

    cluster: Cluster
    talkers: list[Talker]
    totals: Totals

    async def turns(self, each: float) -> None:
        """Wait until so many more turns have been answered, per conversation."""
        wanted = self.totals.turns + int(each * len(self.talkers))
        await until(lambda: self.totals.turns >= wanted)

    async def all_back(self) -> None:
        await until(lambda: all(talker.is_back for talker in self.talkers))

    async def all_rest(self) -> None:
        await until(lambda: all(talker.at_rest for talker in self.talkers))


Phase = Callable[[Scene], Awaitable[list[Figure]]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def kill_node(scene: Scene) -> list[Figure]:
    """A node dies, and everybody speaks again."""
    totals = scene.totals
    victim = scene.cluster.nodes[0]
    before = totals.closes[NO_CLOSE]
    totals.alive.clear()
    killed_at = time.perf_counter()
    victim.process.kill()
    await until(lambda: totals.closes[NO_CLOSE] > before)
    await asyncio.sleep(NOTICED_S)
    await scene.all_back()
    cut_off = totals.closes[NO_CLOSE] - before
    await until(lambda: len(totals.alive) >= cut_off)
    back = [at - killed_at for at in totals.alive]
    await scene.turns(1)
    return [
        Figure(measure="a node is killed: conversations that were on it", value=cut_off, unit=""),
        Figure(
            measure="… they speak again after, p95",
            value=percentile(back, 95),
            unit="s",
            target=BACK_TARGET_S,
            detail=spread(back),
        ),
        Figure(measure="… items that clients gave back", value=totals.unstored, unit=""),
    ]


async def restart_redis(scene: Scene) -> list[Figure]:
    """Redis dies and comes back, and calls go on."""
    before, turns, began = scene.totals.closes.total(), scene.totals.turns, time.perf_counter()
    scene.cluster.redis.kill()
    await asyncio.sleep(REDIS_AWAY_S)
    without = scene.totals.turns - turns
    scene.cluster.redis.start()
    await until_port_accepts(scene.cluster.redis_port)
    await scene.turns(1)
    closed = scene.totals.closes.total() - before
    return [
        Figure(
            measure=f"Redis is away for {REDIS_AWAY_S:.0f} s: conversations cut off",
            value=closed,
            unit="",
            target=0,
        ),
        Figure(
            measure="… turns answered meanwhile", value=without, unit="", at_least=True, target=1
        ),
        _longest_wait("… longest wait for an answer", scene, began),
    ]


async def rolling_restart(scene: Scene) -> list[Figure]:
    """Both nodes are replaced, and nobody is interrupted."""
    totals = scene.totals
    before, began = totals.closes.copy(), time.perf_counter()
    seconds = []
    for node in scene.cluster.nodes:
        seconds.append(await node.process.stop())
        await node.start()
        await scene.all_back()
        await scene.turns(1)
    closes = totals.closes - before
    others = closes.total() - closes[SHUTDOWN_CLOSE]
    return [
        Figure(
            measure="rolling restart: conversations that moved",
            value=closes[SHUTDOWN_CLOSE],
            unit="",
        ),
        Figure(measure="… cut off without a word", value=others, unit="", target=0),
        Figure(
            measure="… closed in the middle of a turn", value=totals.cut_in_turn, unit="", target=0
        ),
        Figure(measure="… longest drain", value=max(seconds), unit="s", target=float(DRAIN_S)),
        _longest_wait("… longest wait for an answer", scene, began),
    ]


async def cut_network(scene: Scene) -> list[Figure]:
    """The second node does not reach Redis: its calls go on, and cannot undo what others did."""
    namespace, totals = scene.cluster.namespace, scene.totals
    if namespace is None:
        print("  cut: left out; it needs root and `ip netns`", file=sys.stderr)
        return []
    first, second = scene.cluster.nodes
    lonely = await _lead(scene, second)
    before, turns, began = totals.closes.copy(), totals.turns, time.perf_counter()
    namespace.cut()
    taken = [talker.twin(_address(first)) for talker in lonely]
    scene.talkers.extend(taken)
    await asyncio.gather(*(twin.come_back() for twin in taken))
    await asyncio.sleep(CUT_S)
    gone = totals.closes.total() - before.total()
    without = totals.turns - turns
    namespace.mend()
    fenced_from = time.perf_counter()
    with suppress(TimeoutError):
        await until(lambda: not any(talker.is_connected for talker in lonely))
    fenced = time.perf_counter() - fenced_from
    for talker in lonely:
        scene.talkers.remove(talker)
        await talker.leave()
    await scene.turns(1)
    return [
        Figure(
            measure=f"a node is cut off from Redis for {CUT_S:.0f} s: conversations cut off",
            value=gone,
            unit="",
            target=0,
        ),
        Figure(
            measure="… turns answered meanwhile", value=without, unit="", at_least=True, target=1
        ),
        Figure(
            measure="… conversations taken over meanwhile, whose older server stops",
            value=sum(talker.close_code == TAKEN_OVER_CLOSE for talker in lonely),
            unit="",
            at_least=True,
            target=len(lonely),
        ),
        Figure(measure="… after the network is back", value=fenced, unit="s"),
        _longest_wait("… longest wait for an answer", scene, began),
    ]


PHASES: dict[str, Phase] = {
    "kill": kill_node,
    "redis": restart_redis,
    "rolling": rolling_restart,
    "cut": cut_network,
}


async def run(
    conversations: int, phases: Iterable[str] = PHASES, *, vad: str = "silero"
) -> tuple[list[Figure], Totals]:
    """The figures of all phases, and what the clients found."""
    totals, chance = Totals(), random.Random(7)
    speech, quiet = await sentence(), appends(silence(2.0), FRAME_MS)
    phases = list(phases)
    figures: list[Figure] = []
    async with cluster(hash_of(KEY), vad=vad, cuts="cut" in phases) as running:
        address = ("127.0.0.1", running.port)
        talkers = [
            Talker(address, KEY, speech, quiet, totals, random.Random(chance.random()))
            for _ in range(conversations)
        ]
        scene = Scene(running, talkers, totals)
        for start in range(0, conversations, OPEN_AT_ONCE):
            await asyncio.gather(*(t.open() for t in talkers[start : start + OPEN_AT_ONCE]))
        talking = asyncio.create_task(talk(talkers))
        try:
            for name in phases:
                await running.start_missing()
                await scene.turns(TURNS_BEFORE)
                print(f"  {name}: {totals.turns} turns so far", file=sys.stderr)
                found = await PHASES[name](scene)
                show(found)
                figures += found
            await _compare_all(scene)
            figures += await _ledger(scene)
        finally:
            for line in (*totals.problems, *running.complaints()[:5], _seen(totals)):
                print(f"  {line}", file=sys.stderr)
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            await asyncio.gather(*(talker.leave() for talker in scene.talkers))
        for talker in scene.talkers:
            talker.check()
    return figures + _promises(totals, len(scene.talkers)), totals


async def measure(quick: bool) -> list[Figure]:
    return (await run(QUICK_CONVERSATIONS if quick else CONVERSATIONS))[0]


def _seen(totals: Totals) -> str:
    return f"closes {dict(totals.closes)}, errors {dict(totals.errors)}"


def _address(node: Node) -> tuple[str, int]:
    parts = urlsplit(f"//{node.address}")
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


async def _lead(scene: Scene, node: Node) -> list[Talker]:
    """Some conversations, brought to a node past the proxy."""
    led = scene.talkers[:PROBES]
    for talker in led:
        talker.resting = True
    await until(lambda: all(talker.at_rest for talker in led))
    for talker in led:
        talker.address = _address(node)
        talker.drop()
    await until(lambda: all(talker.is_back for talker in led))
    for talker in led:
        talker.resting = False
    return led


async def _compare_all(scene: Scene) -> None:
    """Everybody comes to rest, comes back once more, and compares all items.

    Whoever has lost a turn meanwhile says it again.
    """
    for talker in scene.talkers:
        talker.resting = True
    await scene.all_rest()
    for talker in scene.talkers:
        talker.drop()
    await scene.all_back()
    await scene.all_rest()


def _longest_wait(measure: str, scene: Scene, since: float) -> Figure:
    waits = [wait for at, wait in scene.totals.waits if at >= since]
    return Figure(measure=measure, value=max(waits, default=0.0), unit="s", detail=spread(waits))


async def _ledger(scene: Scene) -> list[Figure]:
    """The rows of the ledger with the answers that were seen, and the budget with the rows."""
    totals = scene.totals
    async with RedisStore(Secret(scene.cluster.redis_url)) as store:
        ends_at = time.perf_counter() + LEDGER_TIMEOUT_S
        while True:  # some are booked a moment later
            found = [row async for page in store.usage(0, time.time() + 60) for row in page]
            missing = totals.responses - {row.id for row in found}
            if not missing or time.perf_counter() > ends_at:
                break
            await asyncio.sleep(0.2)
        spent = (await store.balance(f"key:{KEY_NAME}:tokens:total", "total")).spent
    booked = sum(Quantities(**row.used).tokens for row in found)
    rows = [row for row in found if row.kind == "response"]
    unseen = [row for row in rows if row.id not in totals.responses and row.confirmed]
    return [
        Figure(measure="rows of the ledger, for answers", value=len(rows), unit=""),
        Figure(measure="… answers seen that have no row", value=len(missing), unit=""),
        Figure(measure="… rows of answers whose end nobody saw", value=len(unseen), unit=""),
        Figure(
            measure="… tokens charged to the budget beyond the rows",
            value=spent - booked,
            unit="",
            target=0,
        ),
    ]


def _promises(totals: Totals, conversations: int) -> list[Figure]:
    fenced = {"session_taken_over": PROBES, "response cancelled": PROBES}  # on the older server
    errors = totals.errors - Counter(fenced)
    return [
        Figure(measure=f"{conversations} conversations: turns", value=totals.turns, unit=""),
        Figure(
            measure="… wait for an answer after the end of speech, p95",
            value=percentile([wait for _, wait in totals.waits], 95),
            unit="s",
            detail=spread([wait for _, wait in totals.waits]),
        ),
        *(
            Figure(measure=f"… {what}", value=value, unit="", target=0)
            for what, value in (
                ("lost", totals.lost_conversations),
                ("items lost", totals.lost),
                ("items doubled", totals.doubled),
                ("items changed, or answers that are not theirs", totals.changed),
                ("silences", totals.silent),
                ("errors", errors.total()),
            )
        ),
    ]


def main() -> None:
    parser = parser_of("cluster", __doc__)
    parser.add_argument("--conversations", type=int, default=CONVERSATIONS)
    parser.add_argument("--only", action="append", choices=PHASES, metavar="PHASE", default=[])
    parser.add_argument("--vad", choices=("silero", "scripted"), default="silero")
    parser.add_argument("--out", type=Path, default=Path("out/cluster.json"), metavar="FILE")
    given = parser.parse_args()
    if MISSING:
        sys.exit(f"bench.cluster needs {' and '.join(MISSING)}")

    async def measured(_quick: bool) -> list[Figure]:
        return (await run(given.conversations, given.only or PHASES, vad=given.vad))[0]

    figures = perform(measured, quick=False)
    write(given.out, [("cluster", figure) for figure in figures])
    show(figures)
    print(f"written to {given.out}")
    if any(figure.verdict == "MISSED" for figure in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
