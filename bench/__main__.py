"""`python -m bench`: all measurements, one after the other.

--only NAME     one of them; may be given more than once
--quick         shorter and rougher
--out FILE      where the JSON goes (out/bench.json)
--markdown      print the rows of the table in docs/performance.md, too
"""

import argparse
import importlib
import sys
from pathlib import Path

from bench.figures import Figure
from bench.report import markdown, perform, show, write
from bench.served import APART, take_other_core

MODULES = (
    "yardstick",
    "first_audio",
    "after_speech",
    "barge_in",
    "voice_chat",
    "chat_proxy",
    "vad",
    "density",
    "webrtc",
    "memory",
    "startup",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure the server as its users meet it."
    )
    parser.add_argument("--only", action="append", choices=MODULES, metavar="NAME", default=[])
    parser.add_argument("--quick", action="store_true", help="shorter and rougher")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"), metavar="FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table's rows, too")
    given = parser.parse_args()
    take_other_core()
    if not APART:
        print(
            "only one core: server and load share it, and the figures say little", file=sys.stderr
        )
    found: list[tuple[str, Figure]] = []
    for name in given.only or MODULES:
        print(f"{name} …", file=sys.stderr)
        module = importlib.import_module(f"bench.{name}")
        found += [(name, figure) for figure in perform(module.measure, quick=given.quick)]
        write(given.out, found)
    show([figure for _, figure in found])
    print(f"written to {given.out}")
    if given.markdown:
        print(f"\n{markdown(found)}")


if __name__ == "__main__":
    main()
