"""A Redis server of the tests' own, and a store in it."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from vivavoce.secret import Secret
from vivavoce.store.base import AccountStore


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of our own on a Unix socket."""
    pytest.importorskip("redis", reason="the extra redis is not installed")
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("no redis-server is installed")
    socket = tmp_path_factory.mktemp("redis") / "s"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--daemonize", "no"]
    with subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            for line in server.stdout:
                if "ready to accept connections" in line.lower():
                    break
            yield f"unix://{socket}"
        finally:
            server.terminate()


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
