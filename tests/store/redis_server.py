"""A Redis server of the tests' own, and a store in it."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest

from vivavoce.secret import Secret
from vivavoce.store.base import AccountStore


class RedisServer:
    """On a Unix socket in a folder, with an append-only file: it can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        """Skips the test where there is no server."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            pytest.skip("no redis-server is installed")
        socket = folder / "s"
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--daemonize", "no"]
        kept = ["--dir", str(folder), "--appendonly", "yes", "--appendfsync", "no"]
        self.url = f"unix://{socket}"
        self._command = [program, *options, *kept]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it accepts connections."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        for line in self._process.stdout:
            if "ready to accept connections" in line.lower():
                break

    def stop(self) -> None:
        """Connections are cut."""
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.terminate()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of our own on a Unix socket."""
    pytest.importorskip("redis", reason="the extra redis is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@asynccontextmanager
async def redis_store(url: str) -> AsyncIterator[AccountStore]:
    from redis.asyncio import Redis

    from vivavoce.store.redis import RedisStore

    try:
        async with RedisStore(Secret(url)) as store:
            yield store
    finally:
        client = Redis.from_url(url)
        await client.flushall()
        await client.aclose()
