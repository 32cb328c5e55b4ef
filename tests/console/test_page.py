import asyncio
import re
from typing import Literal

from playwright.async_api import expect

from tests.console.stage import DESKTOP, PHONE, console, needs_chromium
from tests.server import scripted, serving

pytestmark = needs_chromium
Role = Literal["button", "checkbox", "combobox", "textbox"]
_WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
_NAMELESS = """
    [...document.querySelectorAll('button, input, select, textarea, meter, canvas, [role]')]
      .filter((one) => !(one.labels?.length || one.getAttribute('aria-label')
        || one.getAttribute('aria-labelledby') || one.title
        || (one.matches('button, [role=alert], [role=status]'))))
      .map((one) => one.outerHTML)
"""


def test_every_view_is_labelled_fits_is_reached_by_keys_and_follows_the_system() -> None:
    async def main() -> None:
        async with serving() as server, console(server.http) as stage:
            page = stage.page
            for size in (DESKTOP, PHONE):
                await page.set_viewport_size(size)
                await page.reload()
                await expect(page).to_have_title("Vivavoce")
                await page.get_by_role("tab", name="Talk").focus()
                for name in ("Timeline", "Tools", "Talk"):
                    await page.keyboard.press("ArrowRight")
                    await expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
                    wide, room = await page.evaluate(_WIDTHS)
                    assert wide <= room
                    roles: tuple[Role, ...] = ("button", "textbox", "combobox", "checkbox")
                    for role in roles:
                        for one in await page.get_by_role(role).all():
                            await expect(one).to_have_accessible_name(re.compile(r"\S"))
                assert await page.evaluate(_NAMELESS) == []

            paper = "getComputedStyle(document.body).backgroundColor"
            await page.emulate_media(color_scheme="light")
            light = await page.evaluate(paper)
            await page.emulate_media(color_scheme="dark")
            assert await page.evaluate(paper) != light
            await page.get_by_role("button", name="Colours").click()
            assert await page.evaluate(paper) == light
            await page.reload()
            assert await page.evaluate(paper) == light

    asyncio.run(main())


def test_a_declared_function_is_called_shown_and_answered() -> None:
    call = {"name": "weather", "arguments": {"city": "Rome"}}
    settings = scripted(
        llm={
            "answers": [
                {"calls": [call]},
                "It is clear.",
                {"calls": [call]},
                "It rains.",
                {"calls": [call]},
            ]
        }
    )

    async def main() -> None:
        async with serving(settings) as server, console(server.http) as stage:
            page = stage.page
            await stage.look_at("Tools")
            await page.get_by_label("Name").fill("wether")
            await page.get_by_label("Parameters").fill("{")
            await stage.press("Save function")
            await expect(page.locator("#toolerror")).to_contain_text("no JSON schema")
            await page.get_by_label("Parameters").fill('{"type": "object"}')
            await page.get_by_label("Answer", exact=True).fill('{"sky": "clear"}')
            await stage.press("Save function")
            await stage.press("Edit wether")
            await page.get_by_label("Name").fill("weather")
            await stage.press("Save function")
            await expect(page.locator("#toollist li")).to_have_count(1)
            await stage.look_at("Talk")
            await stage.type("How is the <b>weather</b>?")
            await stage.captions("How is the <b>weather</b>?")
            await stage.captions("Called weather", '{"sky": "clear"}', "It is clear.")
            await stage.press("End")

            await stage.look_at("Tools")
            await stage.press("Edit weather")
            await page.get_by_label("Answered").select_option("typed")
            await stage.press("Save function")
            await stage.look_at("Talk")
            await stage.type("And now?")
            await expect(stage.banner).to_contain_text("The answer to weather is yours to type.")
            await expect(page.get_by_role("tab", name="Tools (1 waiting)")).to_be_visible()
            await stage.press("Answer")
            await expect(page.locator("#calls li")).to_have_count(2)
            await expect(page.get_by_label("Answer to weather")).to_be_focused()
            await page.get_by_label("Answer to weather").fill("rain")
            await stage.press("Answer")
            await stage.look_at("Talk")
            await stage.captions("→ rain", "It rains.")
            await stage.type("And tomorrow?")
            await expect(stage.banner).to_contain_text("yours to type")
            await stage.press("End")
            await expect(stage.banner).to_be_hidden()
            await expect(page.locator("#calls")).to_contain_text("not answered")

    asyncio.run(main())


def test_written_answers_are_read_out_whole_and_a_voice_that_is_missing_is_told() -> None:
    async def main() -> None:
        async with serving() as server, console(server.http) as stage:
            page = stage.page
            await page.get_by_label("Voice").fill("nobody")
            await stage.type("Hello")
            await stage.captions("There is no voice “nobody” here")
            await page.get_by_text("Fine tuning").click()
            await page.get_by_label("Idle after").fill("100")
            await expect(page.locator("#wrong")).to_contain_text("Until then the default holds")
            await page.get_by_label("Idle after").fill("0")
            await page.get_by_label("Silence, ms").fill("520")
            await expect(page.locator("#wrong")).to_be_empty()
            await page.get_by_label("Answers").select_option("false")
            await page.set_viewport_size({"width": 768, "height": 900})
            await stage.press("New conversation")
            await stage.type("Hello")
            await expect(page.get_by_role("log")).to_have_attribute("aria-live", "off")
            await expect(page.locator("#voice")).to_have_text(re.compile("^Hello! .*script"))
            box = await page.get_by_label("Type instead of speaking").bounding_box()
            assert box is not None
            assert box["width"] > 150

    asyncio.run(main())
