"""The command line of the fuzzing: python -m tests.fuzz, or scripts/fuzz."""

import argparse
import asyncio
import sys
import time

from tests.fuzz.entrances import Wrong, fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--only", nargs="*", default=[], metavar="ENTRANCE", help="such as: chat")
    options = parser.parse_args()
    begin = time.perf_counter()
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


if __name__ == "__main__":
    sys.exit(main())
