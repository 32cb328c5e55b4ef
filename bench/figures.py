"""What a measurement finds, and whether that is what was wanted."""

from collections.abc import Sequence
from math import isnan
from typing import Any

import msgspec

from vivavoce.scorecard.figures import percentile

__all__ = ["Figure", "percentile", "rounded", "spread"]


class Figure(msgspec.Struct, kw_only=True):
    """One measured number. Without a target it is there to explain another."""

    measure: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    """Whether the target is a lower bound; otherwise it is an upper one."""
    detail: dict[str, Any] = {}

    @property
    def verdict(self) -> str:
        if self.target is None or isnan(self.value):
            return ""
        good = self.value >= self.target if self.at_least else self.value <= self.target
        return "met" if good else "MISSED"

    @property
    def measured(self) -> str:
        return f"{rounded(self.value)} {self.unit}"

    @property
    def wanted(self) -> str:
        if self.target is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {rounded(self.target)} {self.unit}"


def rounded(value: float) -> str:
    """Three figures that mean something, and no more; "—" for NaN: nothing was measured."""
    if isnan(value):
        return "—"
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> dict[str, float]:
    """What there is to know of many values, for the JSON."""
    return {
        "n": len(values),
        "p50": round(percentile(values, 50), 3),
        "p90": round(percentile(values, 90), 3),
        "p99": round(percentile(values, 99), 3),
        "max": round(max(values, default=float("nan")), 3),
    }
