"""With real speech and the embedded engines: what a person sees who has just installed this."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.console.stage import console, needs_chromium
from tests.server import HOST, serving_beside

pytestmark = needs_chromium
RECORDING = Path(__file__).parents[3] / "shared" / "audio" / "go_forward_ten_meters.wav"


@pytest.mark.skipif(not RECORDING.exists(), reason="no recorded speech is here")
def test_a_spoken_sentence_is_understood_and_answered_aloud() -> None:
    async def main() -> None:
        async with (
            serving_beside() as port,
            console(f"http://{HOST}:{port}", RECORDING) as stage,
        ):
            await stage.press("Start talking")
            await stage.captions("ten meters")
            await stage.hears_an_answer()
            await expect(stage.page.locator(".said[data-role=assistant]")).to_be_visible()

    asyncio.run(main())
