import asyncio
import re
from contextlib import AsyncExitStack

from playwright.async_api import expect

from tests.console.stage import CUT, console, humming, line, needs_chromium
from tests.server import HOST, scripted, serving

pytestmark = needs_chromium
LONG = "This answer goes on for a while, so that somebody may find the time to interrupt it. " * 2


def test_a_call_is_heard_answered_and_may_be_interrupted() -> None:
    settings = scripted(
        stt={"transcripts": ["hello there", "what time is it"]},
        llm={"answers": [LONG, "It is noon."]},
    )

    async def main() -> None:
        async with (
            serving(settings) as server,
            humming((1.5, 0), (0.6, 0.5), (1.8, 0), (0.6, 0.5), (10, 0)) as recording,
            console(server.http, recording) as stage,
        ):
            await stage.page.get_by_label("Transport").select_option("webrtc")
            await stage.press("Start talking")
            await stage.captions("hello there")
            await stage.hears_an_answer()
            await expect(stage.page.locator("#captions span.rest")).not_to_be_empty()
            await stage.captions("was not heard", "what time is it", "It is noon.")
            heard = await stage.page.locator(".said[data-state=cut] .words").inner_text()
            unheard = await stage.page.locator("#captions s").inner_text()
            assert heard.removesuffix(unheard).startswith("This answer")
            assert len(unheard) > 20
            await stage.look_at("Timeline")
            turns = stage.page.get_by_role("listitem").filter(has_text="first sound")
            await expect(turns).to_have_count(2)
            await stage.look_at("Talk")
            await stage.press("End")
            await expect(stage.status).to_have_text("Ended")

    asyncio.run(main())


def test_a_call_is_taken_up_again_after_a_restart() -> None:
    async def main() -> None:
        async with line() as cable, AsyncExitStack() as before:
            first = await before.enter_async_context(serving(scripted(llm={"answers": [LONG]})))
            cable.lead_to(first.port)
            async with console(f"http://{HOST}:{cable.port}", expected=CUT) as stage:
                await stage.page.get_by_label("Transport").select_option("webrtc")
                await stage.type("Remember seven.")
                unheard = stage.page.locator("#captions span.rest")
                await expect(unheard).to_contain_text("This answer")
                await expect(unheard).not_to_have_text(re.compile(r"^\s*This"))
                cable.cut()
                await before.aclose()
                await stage.captions("was not heard", "What was said is kept.")
                async with serving(scripted(llm={"answers": ["After."]})) as second:
                    cable.lead_to(second.port)
                    await stage.captions("Connected again.")
                    await stage.type("And now?")
                    await stage.captions("After.")
                    await stage.hears_an_answer()
                    told = second.llm.requests[-1].items[1].content[0]  # type: ignore[union-attr]
                    assert LONG.startswith(told.text)  # type: ignore[union-attr]
                    assert len(told.text) < len(LONG) - 20  # type: ignore[union-attr]

    asyncio.run(main())
