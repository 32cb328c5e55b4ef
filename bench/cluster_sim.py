"""How a cluster of gateways behaves up to 100,000 sessions: a simulation of discrete events.

    python -m bench.cluster_sim [--sessions N …] [--cores N] [--seconds S]

Each session speaks in turns. A turn ends at a worker, which is one queue; goes to an engine, which
is one of a pool; and is written to Redis, which is one queue for all. Audio and voice activity are
a steady load that slows every worker down. In the middle of the run a node is killed, and its
sessions come back after a random pause. What is measured is the time that each of these takes, how
busy each part is and how many operations Redis does; the part nearest to its limit is named.

The service times can be given as arguments; what they stand for, and whether they were measured
(docs/performance.md) or estimated, is said beside them.
"""

import argparse
import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

from bench.figures import percentile

REPORT_SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)


@dataclass(frozen=True, slots=True)
class Costs:
    """Service times, and what a conversation is like."""

    sessions_per_core: float = 300.0
    """Live sessions that keep one core busy: bench.density, machine A."""
    turn_ms: float = 1.5
    """CPU of a worker for the end of a turn and the beginning of its answer: at most, from
    bench.first_audio."""
    open_ms: float = 6.0
    """CPU of a worker for a new session, with its checkpoint: estimated."""
    engine_ms: float = 150.0
    """Of one place of the engines, for a turn, its words and first clause: estimated."""
    engine_places: int = 32
    """Places of the engines beside each node; 0: services elsewhere, without a limit here."""
    redis_us: float = 12.0
    """Of Redis for one operation, a script of budgets being three: estimated."""
    redis_trip_ms: float = 0.4
    """Of the network, there and back."""
    turn_seconds: float = 12.0
    """From the end of a turn to that of the next, on average."""
    session_seconds: float = 180.0
    """Of one conversation, on average."""
    node_usd_hour: float = 0.04
    """Of one core of a node, rented."""


@dataclass(frozen=True, slots=True)
class Operations:
    """What a session does in Redis."""

    opened: int = 6
    """A lease, a hint of the load, the key, its budgets (a script), a checkpoint."""
    turn: int = 8
    """A reservation (a script), its beginning and settlement (a script), a checkpoint."""
    renewals_second: float = 0.05
    """The lease of a session, every 20 s; in one pipeline for all sessions of a worker."""


@dataclass(slots=True)
class Queue:
    """A server of one thing at a time. Seconds."""

    busy_until: float = 0.0
    worked: float = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When work that arrives now is done."""
        self.busy_until = max(now, self.busy_until) + seconds
        self.worked += seconds
        return self.busy_until


@dataclass(slots=True)
class Pool:
    """Some places: work takes the one that is free first. None: there is no limit."""

    free_at: list[float] | None

    def serve(self, now: float, seconds: float) -> float:
        if self.free_at is None:
            return now + seconds
        done = max(now, heapq.heappop(self.free_at)) + seconds
        heapq.heappush(self.free_at, done)
        return done


@dataclass(slots=True)
class Worker:
    """One core of a node."""

    queue: Queue = field(default_factory=Queue)
    engines: Pool = field(default_factory=lambda: Pool(None))
    sessions: int = 0
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. Milliseconds, but for `back_s`."""

    sessions: int
    nodes: int
    turn_p99: float
    """From the end of a turn to its answer, without the engines."""
    engine_p99: float
    """Waiting for a place of an engine."""
    redis_p99: float
    redis_busy: float
    worker_busy: float
    """Share of a core, of the busiest worker."""
    redis_ops: float
    """A second."""
    back_s: float
    """From the death of a node to the last of its sessions being served again."""
    usd_hour: float

    @property
    def first_limit(self) -> str:
        """What is over its limit, or nearest to it."""
        shares = {
            "workers": max(self.worker_busy / 0.9, self.turn_p99 / 100),
            "engines": self.engine_p99 / 500,
            "Redis": max(self.redis_busy / 0.7, self.redis_p99 / 20),
            "coming back": self.back_s / 15,
        }
        name = max(shares, key=lambda one: shares[one])
        return f"{name} ({shares[name]:.0%})"


class Simulation:
    """One run. `after` schedules; everything happens in order of time."""

    def __init__(
        self,
        sessions: int,
        nodes: int,
        cores: int,
        costs: Costs,
        operations: Operations | None = None,
        *,
        seed: int = 1,
    ) -> None:
        self._costs = costs
        self._operations = operations or Operations()
        self._count = sessions
        self._cores = cores
        self._chance = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._now = 0.0
        self._redis = Queue()
        self._nodes = [self._node() for _ in range(nodes)]
        self._turns: list[float] = []
        self._engines: list[float] = []
        self._trips: list[float] = []
        self._back: list[float] = []
        self._done_operations = 0

    def _node(self) -> list[Worker]:
        places = self._costs.engine_places
        pool = Pool([0.0] * places if places else None)
        return [Worker(engines=pool) for _ in range(self._cores)]

    def run(self, seconds: float) -> Outcome:
        """A steady state for half of the time; then a node dies, where there are several."""
        for _ in range(self._count):
            self._begin(self._chance.expovariate(1 / self._costs.turn_seconds), self._place())
        self._later(1.0, self._renew)
        killed_at = seconds / 2
        if len(self._nodes) > 1:
            self._later(killed_at, self._kill)
        while self._events and self._events[0][0] < seconds:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
        workers = [worker for node in self._nodes for worker in node if worker.alive]
        return Outcome(
            sessions=self._count,
            nodes=len(self._nodes),
            turn_p99=1000 * percentile(self._turns, 99),
            engine_p99=1000 * percentile(self._engines, 99),
            redis_p99=1000 * percentile(self._trips, 99),
            redis_busy=self._redis.worked / seconds,
            worker_busy=max(one.queue.worked / seconds + self._steady(one) for one in workers),
            redis_ops=self._done_operations / seconds,
            back_s=max(self._back, default=0.0),
            usd_hour=len(self._nodes) * self._cores * self._costs.node_usd_hour,
        )

    def _later(self, seconds: float, happen: Callable[[], None]) -> None:
        self._scheduled += 1  # events of the same time happen in the order in which they were made
        heapq.heappush(self._events, (self._now + seconds, self._scheduled, happen))

    def _place(self) -> Worker:
        """The less loaded of two nodes, and any worker of it, as a proxy and the system choose."""
        alive = [node for node in self._nodes if node[0].alive]
        some = self._chance.sample(alive, min(2, len(alive)))
        node = min(some, key=lambda one: sum(worker.sessions for worker in one))
        return self._chance.choice(node)

    def _steady(self, worker: Worker) -> float:
        """Share of a core for the audio of the sessions of a worker."""
        return worker.sessions / self._costs.sessions_per_core

    def _work(self, worker: Worker, ms: float) -> float:
        """When a worker has done it, slowed down by the audio of its sessions."""
        slowed = max(0.02, 1 - self._steady(worker))
        done = worker.queue.serve(self._now, ms / 1000 / slowed)
        worker.queue.worked -= ms / 1000 * (1 / slowed - 1)  # that is the steady load's
        return done

    def _operate(self, count: int) -> float:
        """When Redis has done so many operations that were sent together."""
        self._done_operations += count
        done = self._redis.serve(self._now, count * self._costs.redis_us / 1e6)
        done += self._costs.redis_trip_ms / 1000
        self._trips.append(done - self._now)
        return done

    def _begin(self, first_turn: float, worker: Worker) -> None:
        """A session is open at a worker."""
        worker.sessions += 1
        self._later(first_turn, lambda: self._turn(worker))

    def _turn(self, worker: Worker) -> None:
        if not worker.alive:
            return
        costs, chance = self._costs, self._chance
        done = self._work(worker, costs.turn_ms)
        stored = self._operate(self._operations.turn)
        self._turns.append(max(done, stored) - self._now)
        spoken = worker.engines.serve(self._now, costs.engine_ms / 1000)
        self._engines.append(spoken - self._now - costs.engine_ms / 1000)
        if chance.random() < costs.turn_seconds / costs.session_seconds:  # somebody else follows
            worker.sessions -= 1
            self._open()
        else:
            wait = chance.expovariate(1 / costs.turn_seconds)
            self._later(wait, lambda: self._turn(worker))

    def _open(self) -> float:
        """A new session; when it is served."""
        worker = self._place()
        done = max(self._work(worker, self._costs.open_ms), self._operate(self._operations.opened))
        wait = self._chance.expovariate(1 / self._costs.turn_seconds)
        self._begin(done - self._now + wait, worker)
        return done

    def _renew(self) -> None:
        each = self._operations.renewals_second
        for worker in self._alive():
            self._operate(max(1, round(worker.sessions * each)))
        self._later(1.0, self._renew)

    def _alive(self) -> Iterator[Worker]:
        return (worker for node in self._nodes for worker in node if worker.alive)

    def _kill(self) -> None:
        """A node dies: its sessions come back after a pause of up to a second, all random."""
        dead, killed_at = self._nodes[0], self._now
        for worker in dead:
            worker.alive = False
        for _ in range(sum(worker.sessions for worker in dead)):
            self._later(
                self._chance.uniform(0.1, 1.0),
                lambda: self._back.append(self._open() - killed_at),
            )


def nodes_for(sessions: int, cores: int, costs: Costs, busy: float = 0.6) -> int:
    """Nodes that carry so many sessions at that share of their cores; one more may die."""
    needed = sessions / (costs.sessions_per_core * cores * busy)
    return max(2, int(-(-needed // 1)) + 1)


def table(outcomes: list[Outcome]) -> str:
    """Rows of Markdown."""
    head = (
        "| sessions | nodes | busiest worker | turn p99 | wait for an engine p99 | Redis ops/s | "
        "Redis busy | a node dies: all are back after | nearest limit | USD an hour |"
    )
    rows = [
        f"| {one.sessions:,} | {one.nodes} | {one.worker_busy:.0%} | {one.turn_p99:.1f} ms | "
        f"{one.engine_p99:.0f} ms | {one.redis_ops:,.0f} | {one.redis_busy:.0%} | "
        f"{one.back_s:.1f} s | {one.first_limit} | {one.usd_hour:.2f} |"
        for one in outcomes
    ]
    return "\n".join((head, "|---" * 10 + "|", *rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cluster_sim", description="Simulate a cluster of gateways."
    )
    parser.add_argument("--sessions", type=int, nargs="+", default=REPORT_SIZES)
    parser.add_argument("--cores", type=int, default=8, help="of one node, each with a worker")
    parser.add_argument("--seconds", type=float, default=40.0, help="that are simulated")
    for each in fields(Costs):
        kind = int if isinstance(each.default, int) else float
        option = f"--{each.name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=each.default, dest=each.name)
    given = parser.parse_args()
    costs = Costs(**{each.name: getattr(given, each.name) for each in fields(Costs)})
    outcomes = []
    for sessions in given.sessions:
        nodes = nodes_for(sessions, given.cores, costs)
        outcomes.append(Simulation(sessions, nodes, given.cores, costs).run(given.seconds))
    print(table(outcomes))


if __name__ == "__main__":
    main()
