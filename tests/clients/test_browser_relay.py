"""Pages in Chromium: one that expects a relay to OpenAI's beta API, and that of docs/ws.md."""

import re
from pathlib import Path

from tests.clients.browser_stage import holds, page_with
from tests.console.browser import awaited, needs_chromium, recorded_hum
from tests.server import scripted, serving
from tests.transports.webrtc.caller import until

pytestmark = needs_chromium


@awaited
async def test_page_speaks_the_beta_at_the_address_of_its_relay() -> None:
    call = {"calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}
    settings = scripted(
        stt={"transcripts": ["how is it"]}, llm={"answers": [call, "Warm.", "Again."]}
    )
    async with (
        serving(settings) as server,
        recorded_hum((0.8, 0), (0.6, 0.5), (20, 0)) as recording,
        page_with("relay.js", recording) as page,
    ):
        await page.evaluate("address => speak(address)", f"{server.ws}/api/realtime")
        await holds(page, "seen.said === 'how is it'")
        await holds(page, "seen.answer === 'Warm.' && seen.sound > 0")
        assert await page.evaluate("seen.calls") == [["weather", {"city": "Rome"}]]
        assert "error" not in await page.evaluate("seen.events")
        await page.evaluate("socket.close()")
        await until(lambda: len(server.sessions) == 0)


@awaited
async def test_page_calls_with_a_key_that_it_fetched() -> None:
    settings = scripted(stt={"transcripts": ["who is there"]}, llm={"answers": ["Nobody."]})
    async with (
        serving(settings) as server,
        recorded_hum((0.8, 0), (0.6, 0.5), (20, 0)) as recording,
        page_with("relay.js", recording) as page,
    ):
        await page.evaluate("server => call(server)", server.http)
        await holds(page, "seen.events[0] === 'session.created'")
        await holds(page, "seen.answer === 'Nobody.' && seen.tracks === 1")
        await page.evaluate("line.close()")


@awaited
async def test_page_of_the_documentation_talks_over_raw_sound() -> None:
    settings = scripted(stt={"transcripts": ["who is there"]}, llm={"answers": ["Nobody."]})
    text = (Path(__file__).parents[2] / "docs" / "ws.md").read_text(encoding="utf-8")
    found = re.search(r"```html\n(.*?)```", text, re.DOTALL)
    assert found
    async with (
        serving(settings) as server,
        recorded_hum((0.8, 0), (0.6, 0.5), (20, 0)) as recording,
        page_with("relay.js", recording) as page,
    ):
        await page.set_content(found[1].replace("ws://localhost:8080", server.ws))
        await page.click("button")
        await holds(page, "log.textContent.includes('BotStoppedSpeakingFrame')")
        shown = await page.inner_text("#log")
        assert '"text":"who is there"' in shown
        assert '"text":"Nobody."' in shown
