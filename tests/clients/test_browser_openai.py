"""The npm package `openai` in Chromium, as it is published: REST for the call, its own WebRTC."""

from tests.clients.browser_stage import (
    behind_a_key,
    holds,
    needs_packages,
    page_with,
    short_lived_key,
)
from tests.clients.loop import awaited
from tests.console.stage import humming, needs_chromium
from tests.server import scripted, serving
from tests.transports.caller import until

pytestmark = [needs_chromium, needs_packages]


@awaited
async def test_a_call_is_made_heard_and_hung_up() -> None:
    settings = scripted(stt={"transcripts": ["who is there"]}, llm={"answers": ["Nobody."]})
    async with (
        serving(behind_a_key(settings)) as server,
        humming((0.8, 0), (0.6, 0.5), (10, 0)) as recording,
        page_with("openai.js", recording) as page,
    ):
        key = await short_lived_key(server)
        await page.evaluate("([server, key]) => call(server, key)", [server.http, key])
        await holds(page, "seen.events[0] === 'session.created'")
        await holds(page, "seen.answer === 'Nobody.'")
        await holds(page, "seen.events.includes('output_audio_buffer.stopped')")
        assert await page.evaluate("seen.problems") == []
        await page.evaluate("hangUp()")
        await holds(page, "seen.closed === 'remote'")
        await until(lambda: server.hub.sessions == 0)
