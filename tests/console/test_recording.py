"""A recording of a call in the console: timeline, waterfall, both tracks, what was heard."""

import asyncio
from pathlib import Path

from playwright.async_api import expect

from tests.console.browser import needs_chromium, open_console, run
from tests.replay.stage import recorded, speak
from tests.server import serving
from vivavoce.telemetry.recorder import RecorderSettings
from vivavoce.telemetry.recording import encode_lines
from vivavoce.testing.fake_server import FakeClient, FakeServer

pytestmark = needs_chromium


async def interrupted_story(server: FakeServer, client: FakeClient) -> None:
    """A spoken question, and a story that is sent at once and interrupted while it is played."""
    server.answers("It is ten past four.", "Once upon a time there was a fox. " * 5, "Yes?")
    await speak(server, "what time is it")
    await server.expect.within(60).said("ten past four")
    client.say("Tell me a story.")
    await server.expect.within(60).event("response.output_audio.delta")
    await asyncio.sleep(3)
    await speak(server, "wait a moment")
    await server.expect.within(60).said("yes")


def test_recording_is_shown_with_its_turns_events_tracks_and_words(tmp_path: Path) -> None:
    whole, silent, wrong = (tmp_path / f"{name}.jsonl" for name in ("whole", "silent", "wrong"))
    with_audio = recorded(interrupted_story, RecorderSettings(audio=True))
    whole.write_bytes(b"".join(encode_lines(with_audio)))
    silent.write_bytes(b"".join(encode_lines(recorded(interrupted_story))))
    wrong.write_text('{"format":"vivavoce-recording","version":9}\n')

    async def main() -> None:
        async with serving() as server, open_console(server.http) as console:
            page, file = console.page, console.page.get_by_label("Recording of a call")
            await console.show_tab("Timeline")
            await file.set_input_files(wrong)
            await expect(page.get_by_role("alert")).to_contain_text("newer than this console")
            await file.set_input_files(whole)
            turns = page.locator("#turn-list > li")
            await expect(turns).to_have_count(3)
            await expect(turns.nth(2)).to_contain_text("what time is it")
            await expect(page.locator("#event-count")).to_contain_text("events")
            await console.show_tab("Talk")
            await console.wait_for_transcript("what time is it", "It is ten past four.", "Yes?")
            await expect(page.locator("#replay")).to_be_visible()
            seconds = "document.querySelector('#replay-audio').duration"
            await page.wait_for_function(f"{seconds} > 5")
            await expect(page.get_by_role("log").locator("s.unspoken")).to_have_count(1)
            await console.show_tab("Timeline")
            await file.set_input_files(silent)
            await expect(turns).to_have_count(3)
            await console.show_tab("Talk")
            await expect(page.locator("#replay")).to_be_hidden()

    run(main())
