"""The npm package `openai`, as published, on a relayed session that its budget ends."""

import asyncio
import json
import shutil

import pytest

from tests.clients.browser_stage import FOLDER, needs_packages
from tests.clients.loop import awaited
from tests.fake_upstream import FakeUpstream
from tests.transports.test_relay import TIMEOUT_S, relaying
from tests.transports.test_relay_ending import SPENT

NODE = shutil.which("node")
pytestmark = [needs_packages, pytest.mark.skipif(NODE is None, reason="no Node is installed")]


@awaited
async def test_npm_sdk_does_not_connect_again_after_a_budget_has_ended() -> None:
    fake = FakeUpstream()
    words = {"say_budget_spent": ""}
    async with fake.serve() as url, relaying(url, session=words) as (here, _):
        node = await asyncio.create_subprocess_exec(
            *(str(NODE), "budget.mjs", here.http),
            cwd=FOLDER,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await fake.wait_for_sessions(1)
                (runner,) = here.sessions._runners
                runner.post(SPENT)
                output, _ = await node.communicate()
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()
    seen = json.loads(output)
    assert (seen["code"], seen["again"]) == (4002, 0)
    assert "insufficient_quota" in seen["errors"]
    assert len(fake.sessions) == 1
