"""What both soaks have in common: how long, samples of a server, and how fast its memory grows."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from operator import attrgetter
from statistics import fmean, linear_regression

SAMPLE_SECONDS = 5.0  # between two looks at RSS
REPORT_SECONDS = 30.0
MEAN_SECONDS = 60.0  # over which RSS is averaged for the slope
MIN_MEANS = 4
WARM_SECONDS = 120.0  # left out of the slope
TURNS_PER_SESSION = 8
SETTLE_SECONDS = 20.0  # after the last session: engines and sockets are given back
KIB = 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at one time."""

    seconds: float
    rss_kib: int
    descriptors: int
    threads: int


def warmed(samples: list[Sample], seconds: float) -> list[Sample]:
    """Those of a run of so many seconds from which its growth is told."""
    return [sample for sample in samples if sample.seconds >= min(WARM_SECONDS, seconds / 4)]


def slope(
    samples: list[Sample], value: Callable[[Sample], float] = attrgetter("rss_kib")
) -> tuple[float, float]:
    """Growth a minute of a value, KiB of RSS: a least-squares line, and its standard error.

    Through the means of MEAN_SECONDS each: samples that are nearer depend on each other, because
    a session lasts for that long, and the error would come out too small.
    """
    length = min(MEAN_SECONDS, (samples[-1].seconds - samples[0].seconds) / MIN_MEANS)
    means: dict[int, list[Sample]] = {}
    for sample in samples:
        means.setdefault(int((sample.seconds - samples[0].seconds) / length), []).append(sample)
    minutes = [fmean(sample.seconds for sample in each) / 60 for each in means.values()]
    sizes = [fmean(map(value, each)) for each in means.values()]
    rise, start = linear_regression(minutes, sizes)
    rest = sum((y - start - rise * x) ** 2 for x, y in zip(minutes, sizes, strict=True))
    middle = sum(minutes) / len(minutes)
    return rise, sqrt(rest / (len(minutes) - 2) / sum((x - middle) ** 2 for x in minutes))
