"""Whoever watches over the server learns that it lives, and whether it takes sessions."""

import asyncio

import aiohttp

from tests.server import scripted, serving
from tests.transports.webrtc.caller import calling
from vivavoce import __version__


def test_it_lives_and_counts_its_sessions() -> None:
    async def main() -> None:
        async with serving() as server, aiohttp.ClientSession(server.http) as http:
            async with http.get("/health") as health:
                alive = {"status": "ok", "version": __version__, "sessions": 0}
                assert (health.status, await health.json()) == (200, alive)
            async with calling(server), http.get("/health") as health:
                assert (await health.json())["sessions"] == 1

    asyncio.run(main())


def test_a_full_house_is_not_ready() -> None:
    async def main() -> None:
        settings = scripted(server={"max_sessions": 1})
        async with serving(settings) as server, aiohttp.ClientSession(server.http) as http:
            async with http.get("/ready") as ready:
                assert (ready.status, await ready.json()) == (
                    200,
                    {"status": "ready", "sessions": 0},
                )
            async with calling(server), http.get("/ready") as ready:
                full = {"status": "not ready", "sessions": 1}
                assert (ready.status, await ready.json()) == (503, full)

    asyncio.run(main())
