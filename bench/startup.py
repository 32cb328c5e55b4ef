"""How long a server with the embedded engines takes to start, and how large it is then.

From the start of the process to the first success of GET /health (it listens, and loads its models)
and of GET /ready; files come from the page cache.
"""

import subprocess
import sys
from collections import defaultdict
from statistics import median

from bench.figures import Figure
from bench.report import run
from bench.served import ROOT, environment, served

MIB = 1024 * 1024
HEAVIEST = 12  # packages named in the JSON
_STAY = "import vivavoce.cli.serving, vivavoce.app, vivavoce.engines.silero.vad"
_STAY += ", vivavoce.engines.espeak.tts, vivavoce.engines.pocketsphinx.stt"
_STAY += ", vivavoce.engines.turn.words, vivavoce.engines.builtin.llm, uvloop"


async def measure(quick: bool) -> list[Figure]:
    async with served():  # the first start compiles what has changed, and reads the files
        pass
    listening, cpu, seconds, rss, children = [], [], [], [], {}
    for _ in range(3 if quick else 7):
        async with served() as server:
            listening.append(server.listening_seconds)
            cpu.append(server.listening_cpu_seconds)
            seconds.append(server.start_seconds)
            rss.append(server.rss)
            children = server.children
    detail = {
        "start_seconds": [round(each, 3) for each in seconds],
        "children_mib": {name: round(size / MIB, 1) for name, size in children.items()},
        "imports_ms": imports(),
    }
    return [
        Figure(
            measure="process start → listening, median",
            value=median(listening),
            unit="s",
            target=1.5,
            detail=detail,
        ),
        Figure(measure="… CPU of the server until then, median", value=median(cpu), unit="s"),
        Figure(
            measure="process start → ready, embedded engines, median",
            value=median(seconds),
            unit="s",
        ),
        Figure(measure="process start → ready, fastest", value=min(seconds), unit="s"),
        Figure(measure="memory of the server then", value=max(rss) / MIB, unit="MiB", target=150.0),
        Figure(
            measure=f"memory of its {len(children)} engine processes",
            value=sum(children.values()) / MIB,
            unit="MiB",
        ),
    ]


def imports() -> dict[str, float]:
    """Milliseconds that each package's own modules take to import, the heaviest first."""
    told = subprocess.run(
        (sys.executable, "-X", "importtime", "-c", _STAY),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    packages: defaultdict[str, float] = defaultdict(float)
    for line in told.splitlines():
        cells = line.removeprefix("import time:").split("|")
        if len(cells) == 3 and cells[0].strip().isdigit():
            name = cells[2].strip()
            package = name.split(".")[0]
            package = "standard library" if package in sys.stdlib_module_names else package
            packages[package] += int(cells[0]) / 1000
    heaviest = sorted(packages.items(), key=lambda pair: -pair[1])[:HEAVIEST]
    return {package: round(ms, 1) for package, ms in heaviest}


if __name__ == "__main__":
    run(measure)
