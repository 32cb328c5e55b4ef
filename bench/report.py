"""Runs measurements, shows their figures, writes them down."""

import argparse
import asyncio
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from bench.served import ROOT, take_other_core

Measurement = Callable[[bool], Awaitable[list[Figure]]]
"""Takes whether to be quick, and so rough."""

VERSIONS = ("vivavoce", "aiohttp", "uvloop", "msgspec", "numpy")


def parser_of(module: str, text: str | None) -> argparse.ArgumentParser:
    """A parser whose --help shows the text of a module as it is written."""
    return argparse.ArgumentParser(
        prog=f"python -m bench.{module}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(measurement: Measurement) -> None:
    """What each module does when run by itself: `--quick` is all it takes."""
    take_other_core()
    show(perform(measurement, quick="--quick" in sys.argv[1:]))


def perform(measurement: Measurement, *, quick: bool) -> list[Figure]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def measured() -> list[Figure]:
            return await measurement(quick)

        return runner.run(measured())


def show(figures: Sequence[Figure]) -> None:
    table = Table("measure", "measured", "target", "verdict")
    for figure in figures:
        colour = {"met": "green", "": "dim"}.get(figure.verdict, "bold red")
        verdict = f"[{colour}]{figure.verdict}[/]" if figure.verdict else ""
        table.add_row(figure.measure, figure.measured, figure.wanted, verdict)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def markdown(figures: Sequence[tuple[str, Figure]]) -> str:
    """Rows for the table of docs/performance.md: figures with the module each came from."""
    return "\n".join(
        f"| {figure.measure} | {figure.wanted or '—'} | "
        f"{f'**{figure.measured}**' if figure.verdict == 'MISSED' else figure.measured} | "
        f"`python -m bench.{module}` |"
        for module, figure in figures
    )


def write(path: Path, figures: Sequence[tuple[str, Figure]]) -> None:
    """All there is to know of a run, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {
        **circumstances(),
        "figures": [
            {"module": module, **msgspec.to_builtins(figure), "verdict": figure.verdict}
            for module, figure in figures
        ],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")


def circumstances() -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(("python -m bench", *sys.argv[1:])),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed_since_commit": bool(_git("status", "--porcelain", "--", "src")),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "load_average": os.getloadavg(),
        },
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
    }


def _git(*words: str) -> str:
    told = subprocess.run(("git", *words), cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
