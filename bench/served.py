"""A server in a process of its own, on a core of its own, and what it uses."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (str(Path(sys.executable).with_name("vivavoce")), "serve")
START_SECONDS = 120.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.002
_KEPT = ("HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
USABLE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
APART = len(USABLE) > 1  # whether server and load each have a core

EMBEDDED = """
[models.default]
llm = "builtin"
"""
SCRIPTED = """
[models.default]
vad = "silero"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"
"""
"""The real voice activity; everything else plays a script."""
LONG_ANSWER = """
[engines.llm.scripted]
answers = ["{answer}"]

[engines.tts.scripted]
realtime_factor = 1.0
chunk_ms = 40
""".replace("{answer}", "This is a sentence of an answer that lasts for a minute. " * 18)
"""An answer that goes on for as long as anything is measured, 25 pieces of sound a second."""


def environment() -> dict[str, str]:
    """That of a server: no settings, no keys, and bytecode is kept as everywhere."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def take_other_core() -> None:
    """From now on this process, the load, stays off the core of the server."""
    if APART:
        os.sched_setaffinity(0, {USABLE[-1]})


def take_server_core() -> None:
    if APART:
        os.sched_setaffinity(0, {USABLE[0]})


class Served:
    """A running server. Figures are of its own process; those of its children stand apart."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        port: int,
        start_seconds: float,
        listening_seconds: float,
    ) -> None:
        self.port = port
        self.start_seconds = start_seconds
        """From the start of the process to the first success of GET /ready."""
        self.listening_seconds = listening_seconds
        """To the first success of GET /health: connections are taken while models load."""
        self.pid = process.pid
        self.listening_cpu_seconds = 0.0
        """CPU of its own process until then."""

    def kill(self) -> None:
        """As the system does when memory runs out; it is over for served(), too."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def rss(self) -> int:
        """Resident bytes."""
        return _rss(self.pid)

    @property
    def descriptors(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    @property
    def cpu_seconds(self) -> float:
        """What the scheduler gave it, all threads."""
        return self._scheduled(0)

    @property
    def kept_waiting_seconds(self) -> float:
        """How long it could have run and did not: others were on its core."""
        return self._scheduled(1)

    def _scheduled(self, field: int) -> float:
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[field]) for task in tasks) / 1e9

    @property
    def children(self) -> dict[str, int]:
        """Resident bytes of each process that it has started, by command."""
        told = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return {f"{_command(int(pid))} {pid}": _rss(int(pid)) for pid in told}


@asynccontextmanager
async def served(
    config: str = EMBEDDED, cores: frozenset[int] | None = None, *, port: int = 0
) -> AsyncIterator[Served]:
    """Start a server with that settings file; stop it at the end.

    cores: those that it may use; None: the first. port: 0 for any free one.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        port, started = port or free_port(), time.perf_counter()
        process = _launch(Path(folder), config, port, cores)
        try:
            await _until_ready(process, port, "/health")
            listening = time.perf_counter() - started
            cpu = Served(process, port, listening, listening).cpu_seconds
            await _until_ready(process, port)
            server = Served(process, port, time.perf_counter() - started, listening)
            server.listening_cpu_seconds = cpu
            yield server
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _show(Path(folder, "log"))


@asynccontextmanager
async def launched(
    command: tuple[str, ...],
    port: int,
    variables: Mapping[str, str] | None = None,
    *,
    ready_path: str = "/ready",
    seconds: float = START_SECONDS,
    end: signal.Signals = signal.SIGKILL,
) -> AsyncIterator[Served]:
    """Another server on the same core, which listens on that port; gets that signal at the end."""
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: ASYNC220  nothing is measured yet
        command,
        cwd=tempfile.gettempdir(),
        env={**environment(), "PYTHONPATH": str(ROOT), **(variables or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=take_server_core,
    )
    try:
        await _until_ready(process, port, ready_path, seconds)
        seconds_taken = time.perf_counter() - started
        yield Served(process, port, seconds_taken, seconds_taken)
    finally:
        process.send_signal(end)
        await asyncio.to_thread(process.wait)


def _launch(
    folder: Path, config: str, port: int, cores: frozenset[int] | None
) -> subprocess.Popen[bytes]:
    def take_cores() -> None:
        os.sched_setaffinity(0, cores or ())

    file = folder / "bench.toml"
    file.write_text(config, encoding="utf-8")
    with Path(folder, "log").open("wb") as log:
        return subprocess.Popen(
            (*COMMAND, "--port", str(port), "--config", str(file), "--log-level", "warning"),
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=take_cores if cores else take_server_core,
        )


async def _until_ready(
    process: subprocess.Popen[bytes],
    port: int,
    path: str = "/ready",
    seconds: float = START_SECONDS,
) -> None:
    async with asyncio.timeout(seconds):
        while not await _is_ready(port, path):
            if process.poll() is not None:
                raise RuntimeError("the server did not start")
            await asyncio.sleep(_POLL_SECONDS)


async def _is_ready(port: int, path: str) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        return b" 200 " in await reader.readline()
    finally:
        writer.close()


def _show(log: Path) -> None:
    """What the server said that it should not have had to say."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    complaints = [line for line in lines if "WARNING" in line or "Error" in line or "ERROR" in line]
    for line in complaints[:5]:
        print(f"  server: {line}", file=sys.stderr)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _command(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    modules = [word for word in words if word.startswith("vivavoce") or "import" in word]
    return (modules or words)[0].rsplit("/", 1)[-1][:60]
