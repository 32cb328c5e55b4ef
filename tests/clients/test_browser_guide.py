"""The browser code of a guide to OpenAI's Realtime API, changed only in host and port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.clients.browser_stage import FOLDER, holds, page_with
from tests.clients.test_browser_pipecat import ESBUILD
from tests.console.browser import awaited, needs_chromium
from tests.server import scripted, serving
from tests.transports.webrtc.caller import until

GUIDE = Path(__file__).parents[3] / "shared" / "guides" / "3_realtime_applications_2026.txt"
START = """
import { createRoot } from "react-dom/client";
createRoot(document.body.appendChild(document.createElement("div"))).render(<VoiceChat />);
"""
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(not ESBUILD.exists(), reason="esbuild is not installed here"),
    pytest.mark.skipif(not GUIDE.exists(), reason="the guide is not beside the project"),
]


def part(first: str, end: str) -> str:
    """The lines of the guide from the one with `first` on, up to the one with `end`."""
    _, _, rest = GUIDE.read_text(encoding="utf-8").partition(first)
    return first + rest.partition(end)[0]


@asynccontextmanager
async def page_of(source: str) -> AsyncIterator[Page]:
    """A page with that TypeScript, whose microphone hums when it is told to."""
    bundle = FOLDER / "node_modules" / "guide-bundle.js"
    process = await asyncio.create_subprocess_exec(
        *(ESBUILD, "--bundle", "--format=esm", "--loader=tsx", "--jsx=automatic"),
        f"--outfile={bundle}",
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate(f'import "./sound.js";\n{source}'.encode())
    assert process.returncode == 0, errors.decode()
    async with page_with(
        f"/node_modules/{bundle.name}", None, "--autoplay-policy=no-user-gesture-required"
    ) as page:
        yield page


@awaited
async def test_component_of_the_guide_talks() -> None:
    component = part("import { useEffect", "Handling Interruptions")
    async with serving(scripted(llm={"answers": ["It is warm."]})) as server:
        source = component.replace("ws://localhost:3001", server.ws)
        assert server.ws in source
        async with page_of(f"{source}\n{START}") as page:
            await page.click("button")
            await page.wait_for_selector("text=Listening")
            await page.evaluate("speak(0.6)")
            await page.wait_for_function("heard.loud > 100")
        await until(lambda: len(server.sessions) == 0)


@awaited
async def test_call_of_the_guide_talks_with_the_key_that_it_fetched() -> None:
    snippet = part("const { token } = await fetch", "// Audio flows directly")
    async with serving(scripted(llm={"answers": ["It is warm."]})) as server:
        source = snippet.replace("'/api/", f"'{server.http}/api/")
        source = source.replace("https://api.openai.com", server.http)
        ear = 'import { play } from "./sound.js";\nplay(pc.getReceivers()[0].track);'
        watch = "window.seen = { pc: 0 }; dc.onopen = () => (seen.pc = 1);"
        async with page_of(f"{source}\n{ear}\n{watch}") as page:
            await holds(page, "window.seen?.pc === 1")
            await page.evaluate("speak(0.6)")
            await page.wait_for_function("heard.loud > 100")
            assert len(server.sessions) == 1
        await until(lambda: len(server.sessions) == 0)
