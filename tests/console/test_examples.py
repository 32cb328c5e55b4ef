"""The pages in examples/, each served from another origin, with a recorded voice."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web
from playwright.async_api import Page, Route, expect

from tests.clients.browser_stage import PACKAGES, needs_packages
from tests.console.browser import needs_chromium, recorded_hum, run, shared_browser
from tests.server import HOST, Server, scripted, serving

EXAMPLES = Path(__file__).parents[2] / "examples"
LONG = "This answer goes on for a while, so that somebody may find the time to interrupt it. " * 2
REACT: Final = {
    "https://esm.sh/react@19": "react",
    "https://esm.sh/react-dom@19/client": "react-dom-client",
}
PARTS: Final = {
    "scheduler": "scheduler/cjs/scheduler.production.js",
    "react": "react/cjs/react.production.js",
    "react-dom": "react-dom/cjs/react-dom.production.js",
    "react-dom-client": "react-dom/cjs/react-dom-client.production.js",
}


@asynccontextmanager
async def page_of(example: str, server: Server, recording: Path) -> AsyncIterator[Page]:
    """The example in Chromium, connected to that server. Page errors fail the test."""
    source = (EXAMPLES / example).read_text(encoding="utf-8")
    assert "http://localhost:8080" in source
    html = source.replace("http://localhost:8080", server.http)

    async def example_page(_request: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html")

    site = web.Application()
    site.router.add_get("/page", example_page)
    runner = web.AppRunner(site)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        async with shared_browser.context(recording) as context:
            await context.route("https://esm.sh/**", serve_react)
            page = await context.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            await page.goto(f"http://{HOST}:{runner.addresses[0][1]}/page")
            yield page
            assert errors == []
    finally:
        await runner.cleanup()


async def serve_react(route: Route) -> None:
    """React as installed by npm, as a module in the form of esm.sh."""
    await route.fulfill(body=module_of(REACT[route.request.url]), content_type="text/javascript")


def module_of(module: str) -> str:
    """One of PARTS as an ES module. All modules share their requirements."""
    sources = {name: (PACKAGES / path).read_text(encoding="utf-8") for name, path in PARTS.items()}
    parts = "".join(
        f"parts[{name!r}] ??= (exports, require) => {{ {source}\n}};\n"
        for name, source in sources.items()
    )
    names = sorted(set(re.findall(r"^exports\.([a-z]\w*) =", sources[module], re.MULTILINE)))
    return (
        "const parts = (globalThis.reactParts ??= {}), made = (globalThis.reactMade ??= {});\n"
        "const require = (name) => {\n"
        "  if (!made[name]) parts[name]((made[name] = {}), require);\n"
        "  return made[name];\n"
        "};\n"
        f"{parts}export const {{ {', '.join(names)} }} = require({module!r});\n"
    )


@needs_chromium
def test_plain_example_holds_a_conversation() -> None:
    settings = scripted(stt={"transcripts": ["evening"]}, llm={"answers": ["Good evening."]})

    async def main() -> None:
        async with (
            serving(settings) as server,
            recorded_hum((0.5, 0), (0.8, 0.5), (10, 0)) as recording,
            page_of("plain.html", server, recording) as page,
        ):
            await page.get_by_role("button", name="Talk").click()
            await expect(page.locator("#state")).to_have_text("live")
            await expect(page.locator("#said")).to_contain_text("evening")
            await expect(page.locator("#said")).to_contain_text("Good evening.")

    run(main())


@needs_chromium
def test_captions_example_shows_speech_and_is_never_answered() -> None:
    settings = scripted(stt={"transcripts": ["good evening everybody"]})

    async def main() -> None:
        async with (
            serving(settings) as server,
            recorded_hum((0.5, 0), (0.8, 0.5), (10, 0)) as recording,
            page_of("captions.html", server, recording) as page,
        ):
            await page.get_by_role("button", name="Start captions").click()
            captions = page.get_by_role("log", name="Captions")
            await expect(captions).to_contain_text("good evening everybody")
            await expect(page.locator("#state")).to_have_text("Listening")
            await page.get_by_role("button", name="Stop").click()
            await expect(page.get_by_role("button", name="Start captions")).to_be_visible()
            assert server.llm.requests == []

    run(main())


@needs_chromium
@needs_packages
def test_react_example_runs_its_tool_and_is_interrupted() -> None:
    settings = scripted(
        stt={"transcripts": ["how is the wind"]},
        llm={"answers": [{"calls": [{"name": "weather"}]}, LONG]},
    )

    async def main() -> None:
        async with (
            serving(settings) as server,
            recorded_hum((0.5, 0), (0.8, 0.5), (10, 0)) as recording,
            page_of("react.html", server, recording) as page,
        ):
            interrupt = page.get_by_role("button", name="Interrupt")
            await expect(interrupt).to_be_disabled()
            await page.get_by_role("button", name="Talk").click()
            await expect(page.get_by_role("status")).to_have_text("live")
            await expect(page.locator("main")).to_contain_text("how is the wind")
            await expect(page.locator("main")).to_contain_text("This answer goes on")
            assert "west, 5" in str(server.llm.requests[-1].items)
            await interrupt.click()
            unplayed = page.locator("s").filter(has_text="interrupt it.")
            await expect(unplayed).to_be_visible()
            await page.get_by_role("button", name="Stop").click()
            await expect(page.get_by_role("status")).not_to_have_text("live")

    run(main())
