"""Two nodes of two workers each behind HAProxy, with one Redis: real processes, to be broken.

The second node runs in a network namespace of its own, where this process may make one (as root,
with `ip`): then its link to Redis can be cut as a network is, without a word to either side.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from bench.served import COMMAND, ROOT, environment, free_port
from vivavoce.limits.accounts import Budget
from vivavoce.secret import Secret
from vivavoce.store.redis import RedisStore

HOST = "127.0.0.1"
KEY_NAME = "load"
WORKERS = 2
DRAIN_S = 30
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = DRAIN_S + 30.0
TOKENS = 10**12
"""The budget of the key: far too much to be spent, but each response is held and booked."""
MISSING = [name for name in ("redis-server", "haproxy") if shutil.which(name) is None]
"""Programs without which nothing of this runs."""
_CONFIG = """
[server]
drain_seconds = {drain}

[store]
url = "redis://{redis}/0"

[keys]
{name} = "{hash}"

[models.default]
vad = "{vad}"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"

[engines.stt.scripted]
transcripts = [{transcripts}]

[engines.llm.scripted]
answers = [{{text = "You said: ", echo = true}}]

[engines.tts.scripted]
realtime_factor = 1.0
chunk_ms = 40
"""
_TRANSCRIPTS = ", ".join(f'"this is sentence {n}"' for n in range(1, 998))


@dataclass(frozen=True, slots=True)
class Link:
    """A pair of virtual network devices: one end here, the other in the namespace."""

    name: str
    here: str
    """Address of the end here."""
    there: str


_TAGS = itertools.count()


class Namespace:
    """A network namespace with two links: one to clients, one to Redis. A context manager."""

    def __init__(self) -> None:
        # one more each time: the kernel removes the devices of a namespace a while after it
        tag = (os.getpid() + next(_TAGS)) % 60_000
        net = f"10.{100 + tag % 100}.{tag // 100 % 250}"
        self.name = f"vv{tag}"
        self.clients = Link(f"vvc{tag}", f"{net}.1", f"{net}.2")
        self.redis = Link(f"vvr{tag}", f"{net}.5", f"{net}.6")

    def __enter__(self) -> "Namespace":
        _ip("netns", "add", self.name)
        try:
            self._add_links()
        except BaseException:
            _ip("netns", "del", self.name)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        _ip("netns", "del", self.name)  # and with it both pairs

    def _add_links(self) -> None:
        for link in (self.clients, self.redis):
            peer = f"{link.name}p"
            _ip("link", "add", link.name, "type", "veth", "peer", "name", peer)
            _ip("link", "set", peer, "netns", self.name)
            _ip("addr", "add", f"{link.here}/30", "dev", link.name)
            _ip("link", "set", link.name, "up")
            _ip("-n", self.name, "addr", "add", f"{link.there}/30", "dev", peer)
            _ip("-n", self.name, "link", "set", peer, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def cut(self) -> None:
        """From now on no packet goes between the node and Redis."""
        _ip("link", "set", self.redis.name, "down")

    def mend(self) -> None:
        _ip("link", "set", self.redis.name, "up")


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True)


def can_cut() -> bool:
    """Whether network namespaces can be made here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with Namespace():
            return True
    except subprocess.CalledProcessError:
        return False


@dataclass(eq=False, slots=True)
class Process:
    """A program that is started, killed and started again. Output goes to a log."""

    command: tuple[str, ...]
    log: Path
    variables: dict[str, str] = field(default_factory=dict)
    _running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self.command,
                cwd=self.log.parent,
                env={**environment(), **self.variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither killed nor stopped since."""
        return self._running is not None

    @property
    def pid(self) -> int:
        assert self._running
        return self._running.pid

    def everyone(self) -> list[int]:
        """The process and all that come of it."""
        found = [self.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def kill(self) -> None:
        """As a machine dies: all at once, and nobody closes anything."""
        everyone = self.everyone()
        for signal_ in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: none sees another die
            for pid in everyone:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal_)
        assert self._running
        self._running.wait()
        self._running = None

    async def stop(self) -> float:
        """SIGTERM; the seconds until it has ended."""
        assert self._running
        began, running = time.perf_counter(), self._running
        running.terminate()
        await asyncio.to_thread(running.wait, STOP_TIMEOUT_S)
        self._running = None
        return time.perf_counter() - began

    def end(self) -> None:
        """At the end, whatever state it is in."""
        if self._running is not None:
            self.kill()


@dataclass(frozen=True, slots=True)
class Node:
    """One machine: `vivavoce serve --workers 2`."""

    process: Process
    address: str
    """Host and port."""

    async def start(self) -> None:
        """Start it, and wait until all its workers serve: the banner says so."""
        before = self._banners
        self.process.start()
        async with asyncio.timeout(READY_TIMEOUT_S):
            while self._banners == before:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await answers_ready(self.address)

    @property
    def _banners(self) -> int:
        log = self.process.log
        return log.read_bytes().count(b"Vivavoce listens at") if log.exists() else 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """All of it, running."""

    nodes: tuple[Node, Node]
    redis: Process
    redis_port: int
    port: int
    """Of HAProxy."""
    namespace: Namespace | None
    """Of the second node."""

    @property
    def redis_url(self) -> str:
        return f"redis://{HOST}:{self.redis_port}/0"

    async def start_missing(self) -> None:
        """Start the nodes that were killed."""
        for node in self.nodes:
            if not node.process.is_running:
                await node.start()

    def complaints(self) -> list[str]:
        """What nodes have logged as errors."""
        lines = [
            line
            for node in self.nodes
            for line in node.process.log.read_text(encoding="utf-8", errors="replace").splitlines()
        ]
        return [line for line in lines if "ERROR" in line or "Traceback" in line]


async def answers_ready(address: str) -> None:
    """Wait until a server takes sessions."""
    async with asyncio.timeout(READY_TIMEOUT_S), aiohttp.ClientSession() as http:
        while not await _is_ready(http, address):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_port_accepts(port: int) -> None:
    async with asyncio.timeout(READY_TIMEOUT_S):
        while not await _accepts(port):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _is_ready(http: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with http.get(f"http://{address}/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def cluster(
    key_hash: str, *, vad: str = "silero", cuts: bool = True
) -> AsyncIterator[Cluster]:
    """Start everything; kill what is left of it at the end. cuts: with a namespace."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        namespace = stack.enter_context(Namespace()) if cuts and can_cut() else None
        redis_port = free_port()
        redis = Process(_redis_command(folder, redis_port, namespace), folder / "redis.log")
        redis_hosts = [HOST, namespace.redis.here if namespace else HOST]
        nodes = []
        for index, redis_host in enumerate(redis_hosts):
            config = folder / f"node{index}.toml"
            text = _CONFIG.format(
                drain=DRAIN_S,
                redis=f"{redis_host}:{redis_port}",
                name=KEY_NAME,
                hash=key_hash,
                vad=vad,
                transcripts=_TRANSCRIPTS,
            )
            config.write_text(text, encoding="utf-8")
            nodes.append(_node(folder, index, config, namespace if index else None))
        port = free_port()
        proxy = _haproxy(folder, port, [node.address for node in nodes])
        for process in (redis, proxy, *(node.process for node in nodes)):
            stack.callback(process.end)
        running = Cluster((nodes[0], nodes[1]), redis, redis_port, port, namespace)
        redis.start()
        await until_port_accepts(redis_port)
        await _set_budget(running.redis_url)
        await asyncio.gather(*(node.start() for node in nodes))
        proxy.start()
        await answers_ready(f"{HOST}:{port}")
        yield running


def _redis_command(folder: Path, port: int, namespace: Namespace | None) -> tuple[str, ...]:
    hosts = [HOST, *([namespace.redis.here] if namespace else [])]
    kept = ("--appendonly", "yes", "--save", "", "--dir", str(folder))
    return ("redis-server", "--port", str(port), "--bind", *hosts, "--protected-mode", "no", *kept)


def _node(folder: Path, index: int, config: Path, namespace: Namespace | None) -> Node:
    host, port = namespace.clients.there if namespace else HOST, free_port()
    inside = ("ip", "netns", "exec", namespace.name) if namespace else ()
    options = ("--host", host, "--port", str(port), "--workers", str(WORKERS))
    command = (*inside, *COMMAND, *options, "--config", str(config), "--log-level", "warning")
    state = {"XDG_STATE_HOME": str(folder / f"state{index}")}
    return Node(Process(command, folder / f"node{index}.log", state), f"{host}:{port}")


def _haproxy(folder: Path, port: int, gateways: Sequence[str]) -> Process:
    """With the rules of deploy/haproxy.cfg."""
    text = (ROOT / "deploy" / "haproxy.cfg").read_text(encoding="utf-8")
    file = folder / "haproxy.cfg"
    file.write_text(text.replace("bind :8080", f"bind {HOST}:{port}"), encoding="utf-8")
    variables = {f"GATEWAY_{n}": address for n, address in enumerate(gateways, 1)}
    return Process(("haproxy", "-db", "-f", str(file)), folder / "haproxy.log", variables)


async def _set_budget(redis_url: str) -> None:
    """Every response of the key is held to a budget, and so to the ledger."""
    budget = Budget(scope="key", owner=KEY_NAME, unit="tokens", period="total", limit=TOKENS)
    async with RedisStore(Secret(redis_url)) as store:
        await store.save("budget", budget.id, msgspec.json.encode(budget))
