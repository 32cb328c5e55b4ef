import asyncio
import os

import aiohttp
import pytest

from vivavoce.errors import SettingsError
from vivavoce.talk.server_process import started


def test_a_server_is_ready_inside_the_block_and_gone_after_it() -> None:
    async def main() -> str:
        async with started(
            ["--log-level", "warning"], start_seconds=30.0, stop_seconds=10.0
        ) as server:
            ready = server.url.replace("ws://", "http://").replace("/v1/realtime", "/ready")
            async with aiohttp.ClientSession() as http, http.get(ready) as response:
                assert response.status == 200
            assert "listens at" in server.printed()
        return ready

    ready = asyncio.run(main())

    async def again() -> None:
        async with aiohttp.ClientSession() as http:
            await http.get(ready)

    with pytest.raises(aiohttp.ClientConnectorError):
        asyncio.run(again())


def test_a_server_that_does_not_start_is_quoted() -> None:
    async def main() -> None:
        async with started(["--config", os.devnull + "/no"], start_seconds=30.0, stop_seconds=5.0):
            raise AssertionError("it started")

    with pytest.raises(SettingsError, match=r"ended with status 2 before it was ready; it printed"):
        asyncio.run(main())


def test_a_server_that_takes_too_long_is_given_up() -> None:
    async def main() -> None:
        async with started([], start_seconds=0.0, stop_seconds=10.0):
            raise AssertionError("it started")

    with pytest.raises(SettingsError, match="the server was not ready after 0 s"):
        asyncio.run(main())
