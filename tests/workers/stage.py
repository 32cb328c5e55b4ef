"""A server of several workers for tests, started by the command as an operator starts it."""

import asyncio
import os
import re
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from scripts.clients.plumbing import without_settings

from tests.transports.webrtc.caller import Caller

WAIT_S = 110.0
SCRIPTED = """
[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"
"""
_ADDRESS = re.compile(r"ws://([\d.]+:\d+)/")


@dataclass(frozen=True, slots=True)
class Together:
    """A running server of several workers."""

    process: Process
    address: str
    """Host and port."""
    http: aiohttp.ClientSession

    @property
    def workers(self) -> set[int]:
        """The processes that the supervisor has started."""
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    async def get(self, path: str) -> dict[str, Any]:
        async with self.http.get(f"http://{self.address}{path}") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def metrics(self) -> str:
        async with self.http.get(f"http://{self.address}/metrics") as answer:
            assert answer.status == 200
            return await answer.text()

    @asynccontextmanager
    async def caller(self, query: str = "") -> AsyncIterator[Caller]:
        url = f"ws://{self.address}/v1/realtime{query}"
        async with self.http.ws_connect(url) as socket:
            caller = Caller(socket)
            yield caller


@asynccontextmanager
async def together(
    config: str = SCRIPTED, *options: str, workers: int = 2
) -> AsyncIterator[Together]:
    """A server of so many workers; killed at the end, where it has not ended before."""
    with tempfile.TemporaryDirectory(prefix="vivavoce-") as folder:
        Path(folder, "vivavoce.toml").write_text(config, encoding="utf-8")  # noqa: ASYNC240
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("vivavoce")), "serve", "--port", "0"),
            *("--workers", str(workers), *options),
            cwd=folder,
            env=without_settings(os.environ) | {"XDG_STATE_HOME": folder},
            stdout=PIPE,
        )
        try:
            async with asyncio.timeout(WAIT_S), aiohttp.ClientSession() as http:
                assert process.stdout is not None
                banner = (await process.stdout.readline()).decode()
                assert f", {workers} workers" in banner
                found = _ADDRESS.search(banner)
                assert found, banner
                yield Together(process, found[1], http)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()  # its workers have ended, too, when nobody has its stdout


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """For what happens in other processes."""
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
