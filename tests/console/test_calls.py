import asyncio
import re
from contextlib import AsyncExitStack

from playwright.async_api import expect

from tests.console.stage import CUT, console, line, needs_chromium
from tests.server import HOST, scripted, serving

pytestmark = needs_chromium
LONG = "This answer goes on for a while, so that somebody may find the time to interrupt it. " * 2


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
