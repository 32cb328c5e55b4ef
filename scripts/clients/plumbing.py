"""What the scripts of this folder share: an environment for the client, a server, speech.

Standard library only: the part of a script that drives a client runs in the client's environment,
where Vivavoce is not installed. The server runs in the environment that started the script.
"""

import array
import asyncio
import contextlib
import importlib.metadata
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

REPOSITORY = Path(__file__).resolve().parents[2]
RATE = 24_000  # Hz, of the 16-bit mono PCM that the protocol carries by default
KEY = "sk-no-key-is-checked"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
INSTALL_TIMEOUT_S = 900.0
DRIVE_TIMEOUT_S = 120.0
FOLDER = "VIVAVOCE_CLIENTS"
"""Environment variable: where the environments are kept."""
COMMAND = "VIVAVOCE_COMMAND"
"""Environment variable, set for the inner run: the server's command."""
RELAY = "VIVAVOCE_CLIENTS_RELAY"
"""Environment variable: where set, the default model is a relay to a server of the tests."""
QUESTION = "What is the weather in Rome?"
CONFIG = f"""
[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "builtin"
tts = "scripted"

[engines.turn.scripted]
default = 1.0

[engines.stt.scripted]
transcripts = ["{QUESTION}"]

[engines.tts.scripted]
realtime_factor = 0.5
"""
"""Every utterance is QUESTION; built-in rules answer it, with tools where the client has any."""
_ADDRESS = re.compile(r"wss?://([\d.]+:\d+)/")
_SETTINGS = ("VIVAVOCE_", "OPENAI_", "AZURE_", "CHAT_COMPLETION_")


class FailedError(Exception):
    """The client did not get what it needs."""


class SkippedError(Exception):
    """The client cannot be run here."""


@dataclass(slots=True)
class Trial:
    """One run of a client. `http` and `ws` are the beginnings of the server's addresses."""

    http: str
    ws: str
    passed: list[str] = field(default_factory=list)

    def expect(self, holds: object, what: str) -> None:
        """Note what holds; raise FailedError where it does not."""
        if not holds:
            raise FailedError(what)
        self.passed.append(what)


Drive: TypeAlias = Callable[[Trial], Coroutine[Any, Any, None]]


def main(packages: Sequence[str], drive: Drive, config: str = CONFIG) -> None:
    """Drive a client in an environment that holds `packages`; print its result; exit.

    packages: pinned, as for pip; the first one is the client. Prints `SKIP reason` where it cannot
    be installed (exit code 0), else `OK` or `FAIL` with the version and what was checked.
    """
    client = re.split(r"[\[=]", packages[0])[0]
    try:
        if COMMAND in os.environ:
            _drive(client, drive, config)
            return
        python = environment(Path(sys.argv[0]).stem.removeprefix("with_"), packages)
    except SkippedError as reason:
        print(f"SKIP {reason}")
        return
    inner = os.environ | {COMMAND: str(Path(sys.executable).with_name("vivavoce"))}
    sys.exit(subprocess.run((python, *sys.argv), env=inner, check=False).returncode)


def main_node(packages: Sequence[str], config: str = CONFIG) -> None:
    """As main(), of a client for Node: drive it by the .mjs file beside the script.

    packages: pinned, as for npm. The program gets the HTTP address of the server as its argument
    and prints a line for each thing that it has checked.
    """
    script = Path(sys.argv[0]).resolve().with_suffix(".mjs")
    client, version = packages[0].rsplit("@", 1)
    try:
        folder = node_environment(script.stem.removeprefix("with_"), packages)
        shutil.copy(script, folder)

        async def drive(trial: Trial) -> None:
            program = await asyncio.create_subprocess_exec(
                *("node", script.name, trial.http),
                cwd=folder,
                env=without_settings(os.environ),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                printed, complaints = await program.communicate()
            finally:
                if program.returncode is None:
                    program.kill()
                    await program.wait()
            trial.passed += printed.decode().splitlines()
            if program.returncode:
                raise FailedError(f"after {trial.passed}: {complaints.decode().strip()[-500:]}")

        passed = asyncio.run(run(drive, config))
    except SkippedError as reason:
        print(f"SKIP {reason}")
    except FailedError as error:
        sys.exit(f"FAIL {client} {version}: {error}")
    else:
        print(f"OK {client} {version}: {', '.join(passed)}")


def node_environment(name: str, packages: Sequence[str]) -> Path:
    """A folder with exactly these npm packages, kept as environment() does. Raises SkippedError."""
    if shutil.which("npm") is None:
        raise SkippedError("npm is not installed")
    command = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")

    def install(folder: Path) -> None:
        _run((*command, "--prefix", folder, *packages))

    return _kept(name, packages, install)


def environment(name: str, packages: Sequence[str]) -> Path:
    """The Python of an environment with exactly these requirements. Raises SkippedError.

    It is made once and kept in $VIVAVOCE_CLIENTS, or in the user's cache folder.
    """

    def install(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        _run((folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages))

    return _kept(name, packages, install) / "bin" / "python"


def _kept(name: str, packages: Sequence[str], install: Callable[[Path], None]) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(FOLDER) or Path(cache, "vivavoce-clients")) / name
    wanted, stamp = "\n".join(packages), folder / "requirements.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        install(folder)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or ["no reason given"]
        raise SkippedError(f"cannot install {' '.join(packages)}: {lines[-1]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SkippedError(f"cannot install {' '.join(packages)}: {error}") from None
    stamp.write_text(wanted, encoding="utf-8")
    return folder


def _run(command: Sequence[str | Path]) -> None:
    subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=True)


def _drive(client: str, drive: Drive, config: str) -> None:
    version = importlib.metadata.version(client)
    try:
        passed = asyncio.run(run(drive, config))
    except SkippedError as reason:
        print(f"SKIP {client} {version}: {reason}")
    except FailedError as error:
        sys.exit(f"FAIL {client} {version}: {error}")
    else:
        print(f"OK {client} {version}: {', '.join(passed)}", flush=True)
        os._exit(0)  # some clients leave threads behind that never end


async def run(drive: Drive, config: str = CONFIG) -> list[str]:
    """Drive a client against a server of its own; return what was checked. Raises FailedError."""
    over = relayed(config) if RELAY in os.environ else contextlib.nullcontext(config)
    async with over as config, served(config) as (http, ws):
        trial = Trial(http, ws)
        try:
            async with asyncio.timeout(DRIVE_TIMEOUT_S):
                await drive(trial)
        except TimeoutError:
            raise FailedError(f"timed out after: {', '.join(trial.passed) or 'start'}") from None
        return trial.passed


@asynccontextmanager
async def relayed(config: str) -> AsyncIterator[str]:
    """Settings whose default model is a relay to an upstream server that answers by rules.

    Its fallback, which serves HTTP too, is the default model of `config`.
    """
    python = Path(os.environ.get(COMMAND) or sys.executable).with_name("python")
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "tests.upstream_by_rules", QUESTION),
        cwd=REPOSITORY,
        env=without_settings(os.environ),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            address = (await process.stdout.readline()).decode().strip()
        relay = f'default_model = "far"\n[models.far]\ntype = "relay"\nupstream = "{address}"\n'
        relay += 'model = "gpt-realtime"\nfallback = "local"\n'
        yield relay + config.replace("[models.default]", "[models.local]")
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def served(
    config: str = CONFIG, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[str, str]]:
    """A server on a free port of loopback: the beginnings of its HTTP and WebSocket addresses.

    config: what its vivavoce.toml says. environment: variables in addition to those of this
    process, of which none is passed on that would configure a server or a client.
    Raises FailedError where it does not start, or does not end well when it is terminated.
    """
    with tempfile.TemporaryDirectory(prefix="vivavoce-") as folder, tempfile.TemporaryFile() as log:
        Path(folder, "vivavoce.toml").write_text(config, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(os.environ.get(COMMAND) or str(Path(sys.executable).with_name("vivavoce")), "serve"),
            *("--port", "0"),
            cwd=folder,
            env=without_settings(os.environ) | dict(environment or {}),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
        try:
            address = await _announced(process)
            if address is None:
                raise FailedError(f"the server did not start: {_end_of(log)}")
            yield f"http://{address}", f"ws://{address}"
            process.terminate()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                if code := await process.wait():
                    raise FailedError(f"the server ended with {code}: {_end_of(log)}")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-500:]


async def _announced(process: asyncio.subprocess.Process) -> str | None:
    """Host and port from the server's first lines; None where it ended without them."""
    assert process.stdout is not None
    async with asyncio.timeout(START_TIMEOUT_S):
        async for line in process.stdout:
            if found := _ADDRESS.search(line.decode()):
                return found[1]
    return None


def without_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables but those that would configure a server or a client."""
    return {k: v for k, v in variables.items() if not k.startswith(_SETTINGS)}


def tone(ms: int, hertz: int = 200, rate: int = RATE) -> bytes:
    """16-bit mono PCM that the scripted voice activity detection takes for speech."""
    step = 2 * math.pi * hertz / rate
    return array.array(
        "h", (int(20_000 * math.sin(step * n)) for n in range(rate * ms // 1000))
    ).tobytes()


def silence(ms: int, rate: int = RATE) -> bytes:
    return bytes(2 * (rate * ms // 1000))


def utterance(rate: int = RATE) -> bytes:
    """A spoken turn and the pause that ends it."""
    return tone(600, rate=rate) + silence(1200, rate)


def pieces(pcm: bytes, ms: int = 20, rate: int = RATE) -> list[bytes]:
    """Frames of `ms` each; what is left over is the last one."""
    size = 2 * rate * ms // 1000
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


def mulaw(pcm: bytes) -> bytes:
    """G.711 mu-law of 16-bit PCM (ITU-T G.711, table 2a; bias 33 in 14 bits)."""
    return bytes(_mulaw_of(sample) for sample in array.array("h", pcm))


def _mulaw_of(sample: int) -> int:
    magnitude = min(abs(sample), 32_635) + 132
    exponent = magnitude.bit_length() - 8
    return ~((0x80 if sample < 0 else 0) | exponent << 4 | (magnitude >> (exponent + 3)) & 15) & 255


async def get(url: str) -> bytes:
    """The body of an HTTP GET."""

    def body() -> bytes:
        with urllib.request.urlopen(url, timeout=START_TIMEOUT_S) as response:
            data: bytes = response.read()
            return data

    return await asyncio.to_thread(body)
