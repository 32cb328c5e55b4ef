"""The helper that starts servers for tests."""

import asyncio
import logging

import aiohttp
import pytest

from tests.server import HOST, scripted, serving, serving_beside


async def get(url: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status


def test_a_server_in_this_process_answers_and_is_given_back() -> None:
    async def main() -> None:
        async with serving(scripted(llm={"answers": ["Hi."]})) as server:
            assert await get(f"{server.http}/health") == 200
            assert server.llm.requests == []
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(f"{server.http}/health")

    asyncio.run(main())


def test_an_error_in_the_log_fails_the_test() -> None:
    async def main() -> None:
        async with serving():
            logging.getLogger("vivavoce.runtime").error("a session failed")

    with pytest.raises(AssertionError, match="a session failed"):
        asyncio.run(main())


def test_a_server_beside_answers_and_ends_well() -> None:
    async def main() -> None:
        async with serving_beside() as port:
            assert await get(f"http://{HOST}:{port}/health") == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(f"http://{HOST}:{port}/health")

    asyncio.run(main())


def test_a_server_that_cannot_start_says_why() -> None:
    async def main() -> None:
        async with serving_beside('[models.default]\nllm = "wisdom"\n'):
            raise AssertionError("it started")

    with pytest.raises(AssertionError, match="no llm engine 'wisdom'"):
        asyncio.run(main())
