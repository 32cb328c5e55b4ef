"""Metrics of several processes are added up into one text."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from vivavoce.telemetry.metrics import Metrics
from vivavoce.workers.merging import added, merged


def process(sessions: int, seconds: tuple[float, ...], available: int = 1) -> str:
    """The metrics of a process with so many sessions now, which have lasted so long."""
    registry = CollectorRegistry()
    Gauge("vivavoce_sessions_active", "Sessions now", registry=registry).set(sessions)
    lasted = Histogram(
        "vivavoce_session_seconds", "Length", ["model"], buckets=(1.0, 10.0), registry=registry
    )
    closes = Counter("vivavoce_client_closes", "Ended", ["model", "code"], registry=registry)
    for each in seconds:
        lasted.labels("default").observe(each)
        closes.labels("default", "1000").inc()
    gauge = Gauge("vivavoce_upstream_available", "Answers", ["model"], registry=registry)
    gauge.labels("relay").set(available)
    return generate_latest(registry).decode()


def values(text: str) -> dict[str, float]:
    """By name and labels; without the times of creation."""
    return {
        sample.name
        + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_counters_histograms_and_gauges_are_added_up() -> None:
    found = values(merged([process(2, (0.5, 5.0)), process(3, (0.6,))]))
    assert found["vivavoce_sessions_active"] == 5
    assert found["vivavoce_client_closes_total 1000 default"] == 3
    assert found["vivavoce_session_seconds_bucket 1.0 default"] == 2
    assert found["vivavoce_session_seconds_bucket +Inf default"] == 3
    assert found["vivavoce_session_seconds_sum default"] == 6.1


def test_upstream_server_is_available_only_if_every_process_says_so() -> None:
    found = values(merged([process(0, (), 1), process(0, (), 0)]))
    assert found["vivavoce_upstream_available relay"] == 0


def test_counters_of_a_process_that_has_ended_stay_and_its_gauges_do_not() -> None:
    ended = added("", process(7, (0.5, 0.5)))
    ended = added(ended, process(1, (2.0,)))
    found = values(merged([process(2, (0.5,))], ended))
    assert found["vivavoce_sessions_active"] == 2
    assert found["vivavoce_client_closes_total 1000 default"] == 4
    assert found["vivavoce_session_seconds_count default"] == 4


def test_sum_of_one_process_has_every_metric_with_its_type() -> None:
    text = Metrics().text().decode()
    types = {line for line in text.splitlines() if line.startswith("# TYPE")}
    assert {line for line in merged([text]).splitlines() if line.startswith("# TYPE")} == types
