"""@openai/agents-realtime in Chromium, as it is published, over both of its transports."""

from playwright.async_api import Page

from tests.clients.browser_stage import (
    behind_a_key,
    holds,
    needs_packages,
    page_with,
    short_lived_key,
)
from tests.console.browser import awaited, needs_chromium
from tests.server import Server, scripted, serving
from tests.transports.webrtc.caller import until

pytestmark = [needs_chromium, needs_packages]
LONG = "This answer goes on for a while, so that somebody may find the time to interrupt it. " * 2
ENDLESS = 12 * LONG
"""It is still being made when it is interrupted: at most 20 s of sound wait to be played."""
CALL = {"calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}
HISTORY = "seen.history.map((item) => item.output ?? item.content?.[0].transcript)"
PLAYED = "Date.now() - session.transport._firstAudioTimestamp"  # ms, as the SDK reckons


def settings_with_a_tool(long: str) -> dict[str, dict[str, object]]:
    return {
        "stt": {"transcripts": ["how is the weather", "and now"]},
        "llm": {"answers": [CALL, long, long]},
    }


async def ends_well(page: Page, server: Server, long: str) -> None:
    """Both answers were cut off, the history holds what was said and heard, all is given back."""
    await holds(page, f"{HISTORY}.at(-1).length < {len(long)}")
    first, output, cut, second, cut_again = await page.evaluate(HISTORY)
    assert (first, output, second) == ("how is the weather", "It rains in Rome.", "and now")
    assert long.startswith(cut)
    assert long.startswith(cut_again)
    assert len(cut) < len(long)
    assert await page.evaluate("seen.errors") == []
    await page.evaluate("session.close()")
    await until(lambda: len(server.sessions) == 0)
    assert await page.evaluate("seen.state") == "disconnected"


@awaited
async def test_agents_webrtc_call_with_a_tool_is_interrupted_by_voice_and_button() -> None:
    async with (
        serving(behind_a_key(scripted(**settings_with_a_tool(ENDLESS)))) as server,
        page_with("agents.js", None, "--autoplay-policy=no-user-gesture-required") as page,
    ):
        key = await short_lived_key(server)
        await page.evaluate("([server, key]) => call(server, key)", [server.http, key])
        assert str(await page.evaluate("seen.callId")).startswith("rtc_")
        assert "session.updated" in await page.evaluate("seen.events")
        await page.evaluate("hum(0.6)")
        await holds(page, "count('output_audio_buffer.started') === 1")
        assert await page.evaluate("seen.tools") == ["Rome"]
        await page.evaluate("hear()")
        await page.evaluate("hum(1.6)")
        await holds(page, "count('output_audio_buffer.cleared') === 1")
        await holds(page, "count('output_audio_buffer.started') === 2")
        await page.evaluate("hear()")
        await page.evaluate("session.interrupt()")
        await holds(page, "count('output_audio_buffer.cleared') === 2")
        await ends_well(page, server, ENDLESS)


@awaited
async def test_agents_websocket_with_a_tool_is_interrupted_by_voice_and_button() -> None:
    async with (
        serving(behind_a_key(scripted(**settings_with_a_tool(LONG)))) as server,
        page_with("agents.js") as page,
    ):
        key = await short_lived_key(server)
        await page.evaluate("([server, key]) => connect(server, key)", [server.ws, key])
        await holds(page, "count('session.updated') > 0")
        await page.evaluate("speak()")
        await holds(page, f"count('response.done') === 2 && {PLAYED} > 900")
        assert await page.evaluate("seen.loudest") > 10_000
        assert await page.evaluate("seen.tools") == ["Rome"]
        await page.evaluate("speak()")
        await holds(page, "count('conversation.item.truncated') === 1")
        await holds(page, f"count('response.done') === 3 && {PLAYED} > 900")
        await page.evaluate("session.interrupt()")
        await holds(page, "count('conversation.item.truncated') === 2")
        await ends_well(page, server, LONG)
