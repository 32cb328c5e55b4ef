"""The Prometheus metrics of a server, by what they measure.

Labels have few values: models, modes, stages, codes. Never a user, a key or a session.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_LASTED = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
_FORWARD = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


class Families:
    """Makes metrics in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"vivavoce_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"vivavoce_{name}", text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"vivavoce_{name}", text, labels, buckets=buckets, registry=self._registry)


class ClusterFamilies:
    """What is measured of a cluster, in a server that is in one."""

    def __init__(self, make: Families) -> None:
        self.reached = make.gauge(
            "cluster_redis_reached", "Whether the Redis server of the cluster can be reached"
        )
        self.nodes = make.gauge("cluster_nodes", "Nodes whose lease has not ended")


class SessionFamilies:
    """What is measured of sessions."""

    def __init__(self, make: Families) -> None:
        self.active = make.gauge("sessions_active", "Sessions now")
        self.refusals = make.counter(
            "sessions_refused", "Sessions for which there was no room", "reason"
        )
        self.closes = make.counter(
            "client_closes", "Sessions that ended", "model", "code", "reason"
        )
        self.ended = make.counter("sessions", "Sessions that ended, and why", "model", "outcome")
        self.landings = make.counter(
            "budget_landings",
            "Sessions that a budget ended, with a last sentence or without",
            "model",
            "kind",
        )
        self.lasted = make.histogram("session_seconds", "Length of sessions", _LASTED, "model")
        self.first_audio = make.histogram(
            "first_audio_seconds", "End of speech to first audio", _SECONDS, "model"
        )
        self.stages = make.histogram(
            "stage_seconds", "Time of one stage", _SECONDS, "model", "stage"
        )
        self.access_ended = make.counter(
            "access_ended", "Sessions whose budget, key or store ended them", "model", "reason"
        )
        self.blocked = make.counter(
            "content_blocked", "Texts that moderation did not allow", "model", "action"
        )
        self.speech_failures = make.counter(
            "speech_failures", "Answers that went on without sound", "model"
        )
        self.barge_in = make.histogram(
            "barge_in_seconds", "speech_started to the end of that answer", _SECONDS, "model"
        )
        self.refused = make.counter(
            "client_events_blocked", "Events that a policy does not allow", "event", "rule"
        )
        self.slow = make.counter("slow_clients", "Clients cut off for not reading", "model")
        self.dropped = make.counter("frames_dropped", "Frames of clients that went nowhere", "kind")


class PassingFamilies:
    """What is measured of frames, audio and functions, beside the facts of sessions."""

    def __init__(self, make: Families) -> None:
        self.forward = make.histogram(
            "forward_seconds", "A frame came to the frame was sent", _FORWARD, "direction"
        )
        self.queued = make.gauge("queue_bytes", "Bytes that wait", "direction")
        self.tools = make.counter("tool_calls", "Calls of functions here", "name", "outcome")
        self.tool_seconds = make.histogram(
            "tool_seconds", "Time of a function of this server", _SECONDS, "name"
        )


class UpstreamFamilies:
    """What is measured of upstream servers."""

    def __init__(self, make: Families) -> None:
        self.failovers = make.counter(
            "failovers", "Upstream servers that were given up", "model", "to", "reason"
        )
        self.failover = make.histogram(
            "failover_seconds", "Loss of the upstream server to the next audio", _SECONDS, "model"
        )
        self.connect = make.histogram(
            "upstream_connect_seconds", "Time to a session upstream", _SECONDS, "model"
        )
        self.connect_failures = make.counter(
            "upstream_connect_failures",
            "Sessions upstream that did not begin",
            "model",
            "reason",
            "status",
        )
        self.closes = make.counter(
            "upstream_closes", "Connections that upstream servers have ended", "model", "code"
        )
        self.rollovers = make.counter(
            "rollovers", "Upstream sessions replaced before they expired", "model"
        )
        self.remaining = make.gauge(
            "upstream_remaining", "Tokens or requests left by rate limits", "model", "limit"
        )
        self.available = make.gauge(
            "upstream_available", "0: the server is left alone for a while", "model"
        )
        self.key_state = make.gauge(
            "upstream_key_state", "1: the present state of the server's key", "model", "state"
        )


class UsageFamilies:
    """What is counted of usage and money."""

    def __init__(self, make: Families) -> None:
        self.tokens = make.counter(
            "tokens", "Tokens that were booked", "model", "modality", "direction", "cached"
        )
        self.transcribed = make.counter("transcription_seconds", "Audio transcribed", "model")
        self.characters = make.counter("characters", "Characters spoken", "model")
        self.cost = make.counter("cost_usd", "Money that was booked", "model", "kind")
        self.unconfirmed = make.counter("cost_unconfirmed_usd", "Booked without usage", "model")
        self.rating_errors = make.counter(
            "rating_errors", "Rows that are estimates", "model", "reason"
        )
        self.cached = make.histogram(
            "cache_hit_ratio", "Share of a response's input that was cached", _SHARES, "model"
        )
        self.overrun = make.counter(
            "cost_overrun_usd", "Money beyond what was reserved for a response", "model"
        )
        self.capture = make.gauge(
            "spend_capture_ratio", "Money booked of the last day by money billed", "provider"
        )
        self.refusals = make.counter("budget_refusals", "Budgets without room", "scope", "unit")
        self.reservations = make.gauge("reservations_open", "Reservations of this process")
        self.store_away = make.gauge("store_away", "1 while the store cannot be reached")
        self.waiting = make.gauge("usage_waiting", "Rows of usage that wait for the store")
