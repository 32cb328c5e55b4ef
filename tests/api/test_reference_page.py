"""/docs in Chromium: it shows every operation and sends requests to this server only."""

from playwright.async_api import expect

from tests.console.browser import needs_chromium, open_console, run
from tests.server import scripted, serving
from vivavoce.api.openapi import openapi_document


@needs_chromium
def test_docs_page_shows_every_operation_and_tries_one() -> None:
    paths = openapi_document("1")["paths"]
    operations = [(method, path) for path, methods in paths.items() for method in methods]

    async def main() -> None:
        # the stage fails on errors of the page and on requests to other hosts
        async with serving(scripted()) as server, open_console(f"{server.http}/docs") as stage:
            blocks = stage.page.locator(".opblock")
            await expect(blocks).to_have_count(len(operations))
            for method, path in operations:
                named = stage.page.locator(f".opblock-{method} [data-path='{path}']")
                await expect(named).to_have_count(1)
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

    run(main())
