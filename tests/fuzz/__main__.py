"""The command line of the fuzzing: python -m tests.fuzz, or scripts/fuzz."""

import argparse
import asyncio
import sys
import time

from tests.fuzz.entrances import fuzz
from tests.fuzz.hostile import MAX_GROWTH_BYTES, attack
from tests.fuzz.requests import Wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--only", nargs="*", default=[], metavar="ENTRANCE", help="such as: chat")
    parser.add_argument(
        "--hostile", type=int, default=0, metavar="FRAMES", help="send hostile frames instead"
    )
    options = parser.parse_args()
    begin = time.perf_counter()
    if options.hostile:
        return hostile(options.hostile, options.seed)
    try:
        counts = asyncio.run(fuzz(options.cases, options.seed, options.first, options.only))
    except Wrong as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    for (name, answer), count in sorted(counts.items()):
        sys.stdout.write(f"{name:<28} {answer:<12} {count:>6}\n")
    seconds = time.perf_counter() - begin
    sys.stdout.write(f"{sum(counts.values())} cases in {seconds:.0f} s, none wrong\n")
    return 0


def hostile(frames: int, seed: int) -> int:
    """Send hostile frames; print how connections ended and how much memory is left in use."""
    try:
        run = asyncio.run(attack(frames, seed))
    except Wrong as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    for (path, code), count in sorted(run.ends.items()):
        sys.stdout.write(f"{path:<28} closed {code:<6} {count:>6}\n")
    sys.stdout.write(f"{frames} frames, {run.growth} bytes more in use than after the warm-up\n")
    return int(run.growth >= MAX_GROWTH_BYTES)


if __name__ == "__main__":
    sys.exit(main())
