"""A server of our own in a child process, from its start to its certain end."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import IO

import aiohttp

from vivavoce.errors import SettingsError
from vivavoce.secret import Secret

HOST = "127.0.0.1"
NO_SECRET = Secret()
_POLL_SECONDS = 0.05
_SHOWN_BYTES = 4000


class ServerProcess:
    """A running child. What it prints is kept."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, output: IO[bytes]) -> None:
        self.url = f"ws://{HOST}:{port}/v1/realtime"
        self._ready_url = f"http://{HOST}:{port}/ready"
        self._process = process
        self._output = output

    def printed(self) -> str:
        """The end of what it has printed so far."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _SHOWN_BYTES))
        return self._output.read().decode(errors="replace").strip()

    async def ended(self) -> None:
        """Wait until it ends by itself."""
        await self._process.wait()

    async def ready(self, seconds: float) -> None:
        """Wait until it takes sessions. Raises SettingsError with what it printed."""
        try:
            async with asyncio.timeout(seconds), aiohttp.ClientSession() as http:
                while self._process.returncode is None:
                    if await self._answers(http):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            reason = f"was not ready after {seconds:g} s"
        else:
            reason = f"ended with status {self._process.returncode} before it was ready"
        raise SettingsError(f"the server {reason}; it printed: {self.printed() or 'nothing'}")

    async def stop(self, seconds: float) -> None:
        """End it, and whatever it started."""
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:  # also when we are interrupted a second time
            self._signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        await self._process.wait()

    async def _answers(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(self._ready_url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        """To its whole group, of which it is the first."""
        try:
            if sys.platform == "win32":
                self._process.terminate()
            else:
                os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nobody is left; macOS says it the second way of a group of zombies


@asynccontextmanager
async def started(
    arguments: Sequence[str],
    *,
    start_seconds: float,
    stop_seconds: float,
    secret: Secret = NO_SECRET,
) -> AsyncIterator[ServerProcess]:
    """A server that takes sessions: `python -m vivavoce serve` with these arguments and a port.

    It speaks plain ws, whatever its settings say; `secret` signs its short-lived keys. Raises
    SettingsError. It is stopped when the block is left, however that happens.
    """
    plain = {"VIVAVOCE_SERVER_TLS_CERTIFICATE": "", "VIVAVOCE_SERVER_TLS_KEY": ""}
    signing = {"VIVAVOCE_SERVER_SECRET": secret.reveal()} if secret else {}
    port = free_port()
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vivavoce", "serve", *arguments),
            *("--host", HOST, "--port", str(port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **plain, **signing},
        )
        server = ServerProcess(process, port, output)
        try:
            await server.ready(start_seconds)
            yield server
        finally:
            await server.stop(stop_seconds)


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        port: int = listening.getsockname()[1]
        return port
