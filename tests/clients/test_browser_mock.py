"""The mocked server for tests of web pages: in Node's test runner, and in Chromium."""

import asyncio
import os
import shutil

import pytest

from tests.clients.browser_stage import FOLDER, holds, needs_packages, page_with
from tests.console.browser import awaited, needs_chromium
from tests.server import serving
from vivavoce.api.public import TESTING

NODE = shutil.which("node")
TIMEOUT_S = 40.0
pytestmark = needs_packages


@pytest.mark.skipif(NODE is None, reason="no Node is installed")
@awaited
async def test_mocked_server_in_node_passes_its_tests() -> None:
    node = await asyncio.create_subprocess_exec(
        *(str(NODE), "--test", "mock.test.mjs"),
        cwd=FOLDER,
        env={**os.environ, "TESTING_MODULE": (TESTING / "index.js").as_uri()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await node.communicate()
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()
    assert node.returncode == 0, output.decode()


@needs_chromium
@awaited
async def test_mocked_server_in_chromium_plays_a_scenario_to_the_official_client() -> None:
    async with serving() as server, page_with("mock.js") as page:
        await page.evaluate("(home) => begin(home)", server.http)
        await page.evaluate(
            """() => server.play([
              { user: "What is the weather in Rome?" },
              { call: "get_weather", arguments: { city: "Rome" } },
              { expect: { type: "conversation.item.create", item: { output: "21 degrees" } } },
              { answer: "In Rome it is sunny, and warm.", interruptedAfter: "sunny", by: "Stop." },
              { answer: "Yes?" },
              { error: "The model is overloaded." },
              { expire: true },
            ])"""
        )
        await holds(page, "seen.closed === 1001")
        seen = await page.evaluate("seen")
    assert seen["calls"] == [["get_weather", '{"city":"Rome"}']]
    assert seen["answers"] == ["In Rome it is sunny,", "Yes?"]
    assert [problem.partition(".")[0] for problem in seen["problems"]] == [
        "The model is overloaded",
        "Your session hit the maximum duration of 60 minutes",
    ]
    assert seen["events"].count("response.done") == 3
