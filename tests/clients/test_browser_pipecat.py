"""@pipecat-ai/client-js in Chromium, as published, over both of its own transports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page

from tests.clients.browser_stage import FOLDER, KEY, PACKAGES, behind_a_key, holds, page_with
from tests.console.browser import awaited, needs_chromium
from tests.server import Server, scripted, serving
from tests.transports.webrtc.caller import until
from vivavoce.settings import Settings

ESBUILD = PACKAGES / ".bin" / "esbuild"
LONG = "One more word. " * 100
MAX_HEARD_MS = 20_000
"""Of an answer, after the server has noticed that the user speaks: of a minute, under any load."""
SILENCE_MS = 1500
"""Longer than what is missing of a hum where a browser is late: it would be two turns."""
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(not ESBUILD.exists(), reason="esbuild is not installed here"),
]


@asynccontextmanager
async def page_of_client() -> AsyncIterator[Page]:
    """A page with the client, whose packages have to be bundled first."""
    bundle = FOLDER / "node_modules" / "rtvi-bundle.js"
    process = await asyncio.create_subprocess_exec(
        *(ESBUILD, "rtvi.js", "--bundle", "--format=esm", f"--outfile={bundle}"),
        cwd=FOLDER,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    async with page_with(
        f"/node_modules/{bundle.name}", None, "--autoplay-policy=no-user-gesture-required"
    ) as page:
        yield page


def conversation() -> Settings:
    """A long answer to speech, a short one, and a tool for what is typed."""
    call = {"calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}
    return behind_a_key(
        scripted(
            stt={"transcripts": ["who is there", "stop it"]},
            llm={"answers": [LONG, "Nobody is.", call, "It is clear.", "Again."]},
            session={"silence_duration_ms": SILENCE_MS},
        )
    )


async def converse(page: Page, server: Server, transport: str) -> None:
    """A spoken turn, one that interrupts its answer, a typed turn with a tool, and a refusal."""
    await page.evaluate("([...all]) => connect(...all)", [transport, server.http, KEY])
    assert await page.evaluate("seen.version") == "2.2.0"
    assert await page.evaluate("seen.session.tools[0].name") == "weather"
    await page.evaluate("speak(0.6)")
    await holds(page, "seen.events.includes('bot-started') && heard.loud > 300")
    assert await page.evaluate("seen.heard") == ["who is there"]
    assert await page.evaluate("seen.events") == ["user-started", "user-stopped", "bot-started"]
    await page.evaluate("speak(0.6)")
    await holds(page, "seen.events.includes('bot-stopped')")
    stopped = await page.evaluate("heard.loud - seen.loudAtStart")
    assert stopped < MAX_HEARD_MS
    await holds(
        page, "seen.outputs.some(([text, how]) => text === 'Nobody is.' && how === 'completed')"
    )
    assert await page.evaluate("seen.heard[1]") == "stop it"
    assert await page.evaluate("seen.metrics") >= 1
    await page.evaluate("client.sendText('The weather?')")
    await holds(page, "seen.said.includes('It is clear.')")
    assert await page.evaluate("seen.call") == {"city": "Paris"}
    await page.evaluate("refused()")
    await holds(page, "seen.refused")


async def connect_again(page: Page, server: Server, transport: str) -> None:
    """Leave, and begin another session from the same page."""
    await page.evaluate("client.disconnect()")
    await until(lambda: len(server.sessions) == 0)
    await page.evaluate("([...all]) => connect(...all)", [transport, server.http, KEY])
    await page.evaluate("client.sendText('Once more.')")
    await holds(page, "seen.said.includes('Again.')")


@awaited
async def test_pipecat_client_converses_over_its_websocket() -> None:
    async with serving(conversation()) as server, page_of_client() as page:
        await converse(page, server, "websocket")
        # the client looks for its microphone's device beside; disconnected before, it fails
        async with page.expect_console_message(lambda said: said.text.startswith("current device")):
            await connect_again(page, server, "websocket")
        await page.evaluate("client.disconnect()")
        await until(lambda: len(server.sessions) == 0)


@awaited
async def test_pipecat_client_converses_over_webrtc_and_survives_a_lost_connection() -> None:
    async with serving(conversation()) as server, page_of_client() as page:
        await converse(page, server, "webrtc")
        await page.evaluate("loseConnection()")
        await page.wait_for_function("isConnectedAgain()")
        assert len(server.sessions) == 1
        await page.evaluate("client.sendText('Are you there?')")
        await holds(page, "seen.said.includes('Again.')")
        await page.evaluate("client.disconnectBot()")
        await holds(page, "seen.events.includes('bot-left')")
        await until(lambda: len(server.sessions) == 0)
