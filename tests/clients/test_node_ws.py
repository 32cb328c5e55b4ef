"""The npm package `ws`, as published, on /ws and /v1/voice/stream: a spoken turn each."""

import asyncio
import json
import shutil

import pytest

from tests.clients.browser_stage import FOLDER, needs_packages
from tests.clients.loop import awaited
from tests.server import scripted, serving

NODE = shutil.which("node")
TIMEOUT_S = 30.0
pytestmark = [needs_packages, pytest.mark.skipif(NODE is None, reason="no Node is installed")]


@pytest.mark.parametrize(
    ("path", "configuration"),
    [("/ws", ""), ("/v1/voice/stream", '{"model": "gpt-4o", "input": {"stream": true}}')],
)
@awaited
async def test_node_speaks_and_is_answered(path: str, configuration: str) -> None:
    settings = scripted(stt={"transcripts": ["who is there"]}, llm={"answers": ["Nobody."]})
    async with serving(settings) as server:
        node = await asyncio.create_subprocess_exec(
            *(str(NODE), "raw.mjs", server.ws + path, configuration),
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
    seen = json.loads(output)
    assert (seen["said"], seen["text"]) == ("who is there", "Nobody.")
    assert seen["sound"] > 0
    assert "ErrorFrame" not in seen["kinds"]
