"""The npm package `ws`, as published, on /ws and /v1/voice/stream."""

import asyncio
import json
import shutil
from typing import Any

import pytest

from tests.clients.browser_stage import FOLDER, needs_packages
from tests.clients.loop import awaited
from tests.server import scripted, serving
from vivavoce.settings import Settings

NODE = shutil.which("node")
TIMEOUT_S = 60.0
pytestmark = [needs_packages, pytest.mark.skipif(NODE is None, reason="no Node is installed")]


async def printed(settings: Settings, script: str, path: str, *arguments: str) -> dict[str, Any]:
    """What a script of the folder `browser` prints, run against a server."""
    async with serving(settings) as server:
        node = await asyncio.create_subprocess_exec(
            *(str(NODE), script, server.ws + path, *arguments),
            cwd=FOLDER,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output, _ = await node.communicate()
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()
    seen: dict[str, Any] = json.loads(output)
    return seen


@pytest.mark.parametrize(
    ("path", "configuration"),
    [("/ws", ""), ("/v1/voice/stream", '{"model": "gpt-4o", "input": {"stream": true}}')],
)
@awaited
async def test_node_speaks_and_is_answered(path: str, configuration: str) -> None:
    settings = scripted(stt={"transcripts": ["who is there"]}, llm={"answers": ["Nobody."]})
    seen = await printed(settings, "raw.mjs", path, configuration)
    assert (seen["said"], seen["text"]) == ("who is there", "Nobody.")
    assert seen["sound"] > 0
    assert "ErrorFrame" not in seen["kinds"]


@awaited
async def test_node_types_runs_a_function_interrupts_and_connects_again() -> None:
    call = {"calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}
    answers = ["Hi.", call, "It is warm.", "word " * 400, "Hi again."]
    seen = await printed(scripted(llm={"answers": answers}), "raw_session.mjs", "/ws")
    assert seen["turns"] == ["Hi.", "It is warm.", "Hi again."]
    assert seen["call"] == {"city": "Rome"}
    assert seen["heardAfterInterruption"] == 0
    assert len(set(seen["sessions"])) == 2
    assert seen["errors"] == []
