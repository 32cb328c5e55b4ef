"""Percentiles of measured times, for the scorecard and for the project's own measurements."""

from collections.abc import Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """What there is to know of many values. Without any, n is 0 and the rest null."""

    n: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed; nan of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def spread_of(values: Sequence[float]) -> Spread:
    """The percentiles of values, to a tenth."""
    if not values:
        return Spread(0)
    p50, p95, p99 = (round(percentile(values, each), 1) for each in (50, 95, 99))
    return Spread(len(values), p50, p95, p99, round(max(values), 1))
