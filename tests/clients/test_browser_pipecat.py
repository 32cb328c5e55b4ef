"""@pipecat-ai/client-js in Chromium, as published, over its WebSocket transport."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.clients.browser_stage import FOLDER, KEY, PACKAGES, behind_a_key, holds, page_with
from tests.clients.loop import awaited
from tests.console.browser import needs_chromium, recorded_hum
from tests.server import scripted, serving
from tests.transports.webrtc.caller import until

ESBUILD = PACKAGES / ".bin" / "esbuild"
TOOL = {"type": "function", "name": "weather"}
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(not ESBUILD.exists(), reason="esbuild is not installed here"),
]


@asynccontextmanager
async def page_of_client(recording: Path | None = None) -> AsyncIterator[Page]:
    """A page with the client, whose packages have to be bundled first."""
    bundle = FOLDER / "node_modules" / "rtvi-bundle.js"
    process = await asyncio.create_subprocess_exec(
        *(ESBUILD, "rtvi.js", "--bundle", "--format=esm", f"--outfile={bundle}"),
        cwd=FOLDER,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    async with page_with(f"/node_modules/{bundle.name}", recording) as page:
        yield page


@awaited
async def test_pipecat_client_has_a_spoken_turn_a_typed_turn_and_a_tool() -> None:
    call = {"calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}
    settings = scripted(
        stt={"transcripts": ["who is there"]},
        llm={"answers": ["Nobody is.", call, "It is clear."]},
    )
    async with (
        serving(behind_a_key(settings)) as server,
        recorded_hum((2.5, 0), (0.8, 0.5), (60, 0)) as recording,
        page_of_client(recording) as page,
    ):
        address = f"{server.ws}/ws?rtvi=1&token={KEY}"
        await page.evaluate("([...all]) => connect(...all)", [address, [TOOL]])
        assert await page.evaluate("seen.version") == "2.2.0"
        assert await page.evaluate("seen.session.tools[0].name") == "weather"
        await holds(page, "seen.events.includes('bot-stopped')")
        assert await page.evaluate("seen.heard") == ["who is there"]
        assert await page.evaluate("seen.said") == ["Nobody is."]
        assert await page.evaluate("seen.events.slice(0, 4)") == [
            *("user-started", "user-stopped", "bot-started", "bot-stopped")
        ]
        assert await page.evaluate("seen.metrics") >= 1
        await page.evaluate("client.sendText('The weather?')")
        await holds(page, "seen.said.includes('It is clear.')")
        assert await page.evaluate("seen.call") == {"city": "Paris"}
        await page.evaluate("refused()")
        await holds(page, "seen.refused")
        await page.evaluate("client.disconnect()")
        await until(lambda: len(server.sessions) == 0)


@awaited
async def test_pipecat_client_is_interrupted_and_connects_again() -> None:
    settings = scripted(llm={"answers": ["One more word. " * 100, "Short."]})
    async with serving(settings) as server, page_of_client() as page:
        address = f"{server.ws}/ws?rtvi=1"
        await page.evaluate("address => connect(address)", address)
        await page.evaluate("client.sendText('Talk.')")
        await holds(page, "seen.events.includes('bot-started')")
        await page.evaluate("client.sendText('Stop.')")
        await holds(page, "seen.outputs.some(([text]) => text === 'Short.')")
        assert "bot-stopped" in await page.evaluate("seen.events")
        await page.evaluate("client.disconnect()")
        await until(lambda: len(server.sessions) == 0)
        await page.evaluate("address => connect(address)", address)
        await page.evaluate("client.sendText('Again.')")
        await holds(page, "seen.events.at(-1) === 'bot-stopped'")
        await page.evaluate("client.disconnect()")
        await until(lambda: len(server.sessions) == 0)
