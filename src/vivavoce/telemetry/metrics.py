"""Prometheus metrics of a process, and where their values come from."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vivavoce.audio.formats import RATE
from vivavoce.limits.prices import NANO, Quantities
from vivavoce.protocol.session import SessionObject
from vivavoce.store.base import UsageRow
from vivavoce.telemetry.families import (
    ClusterFamilies,
    Families,
    PassingFamilies,
    SessionFamilies,
    UpstreamFamilies,
    UsageFamilies,
)
from vivavoce.telemetry.metering import Metering
from vivavoce.telemetry.session_metrics import SessionMetrics

MAX_MODELS = 64
"""Names of models among the labels; a client of a relay may name its recogniser."""
KEY_STATES = ("available", "unreachable", "refused", "rate_limited", "quota", "overloaded")
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class MeasuredSessions(Protocol):
    """All sessions of a server."""

    def __len__(self) -> int: ...

    @property
    def backlog(self) -> tuple[int, int]:
        """Bytes that wait for clients, and for recognisers and upstream servers."""
        ...

    @property
    def audio_samples(self) -> tuple[int, int]:
        """Of users and of answers, at 24 kHz, so far."""
        ...


class MeasuredCluster(Protocol):
    """The cluster of a process."""

    away: bool
    """Redis cannot be reached."""
    forwarded: Counter[str]
    """Requests that were passed to other nodes, by what came of it."""
    received: Counter[str]
    """Messages by their kind."""

    @property
    def nodes(self) -> Sequence[object]: ...


class UpstreamHold(Protocol):
    """Until when an upstream server is not asked."""

    @property
    def seconds(self) -> float: ...

    @property
    def state(self) -> str:
        """One of KEY_STATES."""
        ...


class MeasuredMember(Protocol):
    """A server of a pool."""

    @property
    def problem(self) -> str: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def answered(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def waited_s(self) -> float: ...


class MeasuredPool(Protocol):
    """Servers of one service."""

    @property
    def statuses(self) -> Mapping[str, MeasuredMember]:
        """The status of each server by its name."""
        ...


class Metrics:
    """All metrics of a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = Families(self.registry)
        self.sessions = SessionFamilies(make)
        self.upstream = UpstreamFamilies(make)
        self.usage = UsageFamilies(make)
        self.passing = PassingFamilies(make)
        self._models: set[str] = set()
        self._pools = PoolCollector()
        self.registry.register(self._pools)
        self.lag = make.histogram("event_loop_lag_seconds", "How late timers fire", _LAG)

    def watch_sessions(self, sessions: MeasuredSessions) -> None:
        """Read what is known of all sessions, whenever metrics are read."""
        self.sessions.active.set_function(lambda: float(len(sessions)))
        queued = self.passing.queued.labels
        queued("output").set_function(lambda: float(sessions.backlog[0]))
        queued("input").set_function(lambda: float(sessions.backlog[1]))
        text = "Audio of users (input) and of answers (output)"
        read = partial(_audio_seconds, sessions)
        self.registry.register(_CountedElsewhere("audio_seconds", text, "direction", read))

    def watch_cluster(self, cluster: MeasuredCluster) -> None:
        """Read what is known of the cluster, whenever metrics are read."""
        families = ClusterFamilies(Families(self.registry))
        families.reached.set_function(lambda: float(not cluster.away))
        families.nodes.set_function(lambda: float(len(cluster.nodes)))
        text = "Requests that were passed to another node"
        forwarded = _CountedElsewhere(
            "cluster_forwarded", text, "result", lambda: cluster.forwarded
        )
        self.registry.register(forwarded)
        text = "Messages that came from other processes"
        received = _CountedElsewhere("cluster_messages", text, "kind", lambda: cluster.received)
        self.registry.register(received)

    def watch_accounts(self, meter: Metering) -> None:
        """Count what is booked, reserved and refused."""
        meter.on_row.append(self.on_row)
        meter.on_refusal.append(self.on_refusal)
        meter.on_overrun.append(
            lambda model, nano_usd: self.usage.overrun.labels(model).inc(nano_usd / NANO)
        )
        text = "Reservations that were ended since their holder had died"
        self.registry.register(
            _CountedElsewhere(
                "reservations_expired", text, "", lambda: {"": meter.expired_reservations}
            )
        )
        self.usage.reservations.set_function(lambda: float(meter.open_reservations))
        self.usage.store_away.set_function(lambda: float(meter.store.away))
        self.usage.waiting.set_function(lambda: float(meter.store.waiting))

    def on_session_refused(self, reason: str) -> None:
        """Count a session that was refused: draining, full, overloaded, away."""
        self.sessions.refusals.labels(reason).inc()

    def on_forward(self, direction: str, seconds: float) -> None:
        """A frame was passed on."""
        self.passing.forward.labels(direction).observe(seconds)

    def on_tool(self, name: str, outcome: str, seconds: float) -> None:
        """A function of this server was called."""
        self.passing.tools.labels(name, outcome).inc()
        self.passing.tool_seconds.labels(name).observe(seconds)

    def watch_upstreams(self, holds: Mapping[str, UpstreamHold]) -> None:
        """Read by model whether its upstream server is asked, and why not; no other models."""
        self.upstream.available.clear()
        self.upstream.key_state.clear()
        for model, hold in holds.items():
            self.upstream.available.labels(model).set_function(partial(_is_asked, hold))
            for state in KEY_STATES:
                gauge = self.upstream.key_state.labels(model, state)
                gauge.set_function(partial(_is_state, hold, state))

    def watch_pools(self, pools: Mapping[str, MeasuredPool]) -> None:
        """Read the servers of these pools, by the names of their engines, and of no others."""
        self._pools.pools = pools

    def _label(self, model: str) -> str:
        """The name of a model, or "other" where there are many."""
        if model not in self._models:
            if len(self._models) >= MAX_MODELS:
                return "other"
            self._models.add(model)
        return model

    def session(self, settings: SessionObject, _who: str) -> "SessionMetrics":
        """The observer of a session."""
        return SessionMetrics(self.sessions, self.upstream, settings)

    def on_row(self, row: UsageRow) -> None:
        """Count a row that was booked."""
        used, model = msgspec.convert(row.used, Quantities), self._label(row.model)
        for modality in ("text", "audio", "image"):
            cached: int = getattr(used, f"{modality}_cached")
            fresh: int = getattr(used, f"{modality}_input") - cached
            made: int = getattr(used, f"{modality}_output", 0)
            for direction, is_cached, count in (
                ("input", "no", fresh),
                ("input", "yes", cached),
                ("output", "no", made),
            ):
                if count > 0:
                    self.usage.tokens.labels(model, modality, direction, is_cached).inc(count)
        if row.kind == "transcription":
            self.usage.transcribed.labels(model).inc(used.audio_ms / 1000)
        self.usage.characters.labels(model).inc(used.characters)
        self.usage.cost.labels(model, row.kind).inc(row.nano_usd / NANO)
        if not row.confirmed:
            self.usage.unconfirmed.labels(model).inc(row.nano_usd / NANO)
        if row.estimated:
            self.usage.rating_errors.labels(model, row.problem or "other").inc()
        if row.kind == "response" and used.input_tokens:
            self.usage.cached.labels(model).observe(used.cached_tokens / used.input_tokens)

    def on_refusal(self, budget: str) -> None:
        """Count a budget that has refused: key:ada:usd:day, sessions:ada."""
        parts = budget.split(":")
        unit = parts[-2] if len(parts) > 2 else parts[0]
        self.usage.refusals.labels(parts[0], unit).inc()

    def text(self) -> bytes:
        """In the Prometheus text format."""
        return generate_latest(self.registry)


class PoolCollector:
    """A collector: what the servers of pools do now and have done."""

    def __init__(self) -> None:
        self.pools: Mapping[str, MeasuredPool] = {}
        """The pools, by the names of their engines, such as llm:openai."""

    def collect(self) -> Iterator[Metric]:
        labels = ("engine", "member")
        up = GaugeMetricFamily(
            "vivavoce_pool_member_up", "0: the server gets no new work", labels=labels
        )
        in_flight = GaugeMetricFamily(
            "vivavoce_pool_member_in_flight", "Requests under way", labels=labels
        )
        requests = CounterMetricFamily(
            "vivavoce_pool_requests", "Requests that have ended", labels=(*labels, "outcome")
        )
        waited = CounterMetricFamily(
            "vivavoce_pool_wait_seconds", "From requests to their first results", labels=labels
        )
        for engine, pool in self.pools.items():
            for member, status in pool.statuses.items():
                of = [engine, member]
                up.add_metric(of, float(not status.problem))
                in_flight.add_metric(of, status.in_flight)
                requests.add_metric([*of, "answered"], status.answered)
                requests.add_metric([*of, "failed"], status.failed)
                waited.add_metric(of, status.waited_s)
        yield from (up, in_flight, requests, waited)


class _CountedElsewhere:
    """A collector: a counter whose values are read when metrics are, by the value of a label."""

    def __init__(
        self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """label: "" for a counter without one; then the key of the value is ""."""
        self._family = partial(
            CounterMetricFamily, f"vivavoce_{name}", text, labels=[label] if label else []
        )
        self._read = read

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = self._family()
        for value, total in self._read().items():
            family.add_metric([value] if value else [], total)
        yield family


def _audio_seconds(sessions: MeasuredSessions) -> dict[str, float]:
    heard, said = sessions.audio_samples
    return {"input": heard / RATE, "output": said / RATE}


def _is_asked(hold: UpstreamHold) -> float:
    return float(not hold.seconds)


def _is_state(hold: UpstreamHold, state: str) -> float:
    return float(hold.state == state)
