import asyncio
from pathlib import Path

from aiohttp import web
from playwright.async_api import async_playwright, expect

from tests.console.stage import CHROMIUM, FLAGS, PATIENCE_MS, humming, needs_chromium
from tests.server import HOST, scripted, serving

pytestmark = needs_chromium
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_plain_example_talks_from_a_page_of_another_origin() -> None:
    settings = scripted(stt={"transcripts": ["evening"]}, llm={"answers": ["Good evening."]})
    source = (EXAMPLES / "plain.html").read_text(encoding="utf-8")

    async def main() -> None:
        async with (
            serving(settings) as server,
            humming((0.5, 0), (0.8, 0.5), (10, 0)) as recording,
            async_playwright() as playwright,
        ):
            here = source.replace("http://localhost:8080", server.http)

            async def page_of_others(_request: web.Request) -> web.Response:
                return web.Response(text=here, content_type="text/html")

            elsewhere = web.Application()
            elsewhere.router.add_get("/page", page_of_others)
            runner = web.AppRunner(elsewhere)
            await runner.setup()
            voice = f"--use-file-for-fake-audio-capture={recording}%noloop"
            browser = await playwright.chromium.launch(
                executable_path=CHROMIUM, args=[*FLAGS, voice], timeout=PATIENCE_MS
            )
            try:
                await web.TCPSite(runner, HOST, 0).start()
                context = await browser.new_context(permissions=["microphone"])
                page = await context.new_page()
                problems: list[str] = []
                page.on("pageerror", lambda error: problems.append(str(error)))
                await page.goto(f"http://{HOST}:{runner.addresses[0][1]}/page")
                await page.get_by_role("button", name="Talk").click()
                await expect(page.locator("#state")).to_have_text("live")
                await expect(page.locator("#said")).to_contain_text("evening")
                await expect(page.locator("#said")).to_contain_text("Good evening.")
                assert problems == []
            finally:
                await browser.close()
                await runner.cleanup()

    asyncio.run(main())
