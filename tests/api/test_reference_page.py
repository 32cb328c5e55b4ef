"""/docs in Chromium: it shows every operation and sends requests to this server only."""

import re

from playwright.async_api import expect

from tests.console.browser import needs_chromium, open_console, run
from tests.server import scripted, serving
from vivavoce.api.openapi import openapi_document

SHOWN = """blocks => blocks.map((block) => [
    block.querySelector(".opblock-summary-method").textContent.toLowerCase(),
    block.querySelector("[data-path]").dataset.path])"""


@needs_chromium
def test_docs_page_shows_every_operation_and_tries_one() -> None:
    paths = openapi_document("1")["paths"]
    operations = [(method, path) for path, methods in paths.items() for method in methods]

    async def main() -> None:
        # the stage fails on errors of the page and on requests to other hosts
        async with serving(scripted()) as server, open_console(f"{server.http}/docs") as stage:
            blocks = stage.page.locator(".opblock")
            await expect(blocks).to_have_count(len(operations))
            shown = await blocks.evaluate_all(SHOWN)
            assert {(method, path) for method, path in shown} == set(operations)
            await stage.page.locator("[data-path='/v1/audio/speech']").click()
            speech = stage.page.locator("#operations-Audio-createSpeech")
            await expect(speech).to_contain_text("Audio is sent as it is synthesized")
            await expect(speech.locator(".model-example").first).to_contain_text("input")
            await stage.page.locator("[data-path='/v1/audio/voices/{voice}/sample']").click()
            sample = stage.page.locator("#operations-Audio-sampleVoice")
            await sample.get_by_role("button", name="Try it out").click()
            await sample.get_by_placeholder("voice").fill("alloy")
            await sample.get_by_role("button", name="Execute").click()
            await expect(sample.locator("audio")).to_have_count(1)
            await speech.get_by_role("button", name="Try it out").click()
            await speech.locator("textarea").fill('{"model": "tts-1", "input": "Hi", "voice": ""}')
            await speech.get_by_role("button", name="Execute").click()
            player = speech.locator("audio")
            await expect(player).to_have_count(1)
            await expect(player.locator("source")).to_have_attribute("src", re.compile("^blob:"))
            links = stage.page.get_by_role("navigation", name="Vivavoce")
            await links.get_by_role("link", name="Guides").click()
            await stage.page.get_by_role("link", name="API reference").click()
            await stage.page.get_by_role("link", name="Console").click()
            await expect(stage.page.get_by_role("link", name="API reference")).to_be_visible()

    run(main())
