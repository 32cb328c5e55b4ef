"""Accessibility, layout, themes, tools and settings of the page."""

import re
import time
from pathlib import Path
from typing import Literal

from playwright.async_api import expect

from tests.console.browser import DESKTOP, PHONE, needs_chromium, open_console, run
from tests.server import EMBEDDED, HOST, scripted, serving, serving_beside
from vivavoce.limits.prices import NANO
from vivavoce.store.base import UsageRow
from vivavoce.store.sqlite import SQLiteStore

pytestmark = needs_chromium
Role = Literal["button", "checkbox", "combobox", "textbox"]
_WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
_UNLABELLED = """
    [...document.querySelectorAll('button, input, select, textarea, meter, canvas, [role]')]
      .filter((one) => !(one.labels?.length || one.getAttribute('aria-label')
        || one.getAttribute('aria-labelledby') || one.title
        || (one.matches('button, [role=alert], [role=status]'))))
      .map((one) => one.outerHTML)
"""


_STATUS_WIDTHS = """() => {
  const status = document.getElementById('status-text');
  status.textContent = 'Running a tool · 12.34 s';
  return [status.clientWidth, status.scrollWidth];
}"""


def test_every_tab_is_labelled_fits_and_is_reached_by_keyboard_and_the_theme_is_kept() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            open_console(
                server.http,
                expected=["Failed to load resource"],  # of usage, which is not kept here
            ) as console,
        ):
            page = console.page
            for size in (DESKTOP, PHONE):
                await page.set_viewport_size(size)
                await page.reload()
                await expect(page).to_have_title("Vivavoce")
                await page.get_by_role("tab", name="Talk").focus()
                for name in ("Timeline", "Tools", "Usage", "Sessions", "Talk"):
                    await page.keyboard.press("ArrowRight")
                    await expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
                    width, available = await page.evaluate(_WIDTHS)
                    assert width <= available
                    roles: tuple[Role, ...] = ("button", "textbox", "combobox", "checkbox")
                    for role in roles:
                        for one in await page.get_by_role(role).all():
                            await expect(one).to_have_accessible_name(re.compile(r"\S"))
                assert await page.evaluate(_UNLABELLED) == []
                shown, needed = await page.evaluate(_STATUS_WIDTHS)
                assert needed <= shown

            background = "getComputedStyle(document.body).backgroundColor"
            await page.emulate_media(color_scheme="light")
            light = await page.evaluate(background)
            await page.emulate_media(color_scheme="dark")
            assert await page.evaluate(background) != light
            await page.get_by_role("button", name="Theme").click()
            assert await page.evaluate(background) == light
            await page.reload()
            assert await page.evaluate(background) == light

    run(main())


def test_usage_is_plotted_from_what_was_booked(tmp_path: Path) -> None:
    path, now = tmp_path / "accounts.db", time.time()
    used = {"text_input": 100, "text_cached": 50, "audio_output": 40}
    rows = [
        UsageRow(
            id=f"{user}:{kind}",
            at=now,
            kind=kind,
            model="gpt",
            user=user,
            used={"session_ms": 60_000} if kind == "session" else used,
            nano_usd=0 if kind == "session" else NANO // 2,
            mode="relay",
        )
        for user in ("ada", "bob")
        for kind in ("session", "response")
    ]

    async def main() -> None:
        async with SQLiteStore(path) as store:
            await store.book(rows)
        config = f'{EMBEDDED}\n[store]\nurl = "sqlite:{path}"\n'
        async with (
            serving_beside(config) as port,
            open_console(f"http://{HOST}:{port}") as console,
        ):
            page = console.page
            await console.show_tab("Usage")
            await expect(page.locator("#usage-status")).to_contain_text("$1.00 for")
            plots = page.get_by_role("img", name="The table has all figures")
            await expect(plots).to_have_count(4)
            figure = page.locator("figure", has_text="Cache hit rate")
            await figure.get_by_text("Table").click()
            await expect(figure.get_by_role("cell", name="50 %")).to_be_visible()
            row = page.get_by_role("row", name="gpt relay $1.00 $0.5000")
            await expect(row).to_be_visible()
            async with page.expect_download() as downloading:
                await console.click("Download CSV")
            csv = (await (await downloading.value).path()).read_text()
            assert csv.startswith("day,user,model,mode,")
            assert ",ada,gpt,relay," in csv
            async with page.expect_download() as downloading:
                await console.click("Save Cost per user as SVG")
            svg = (await (await downloading.value).path()).read_text()
            assert 'xmlns="http://www.w3.org/2000/svg"' in svg
            assert "ada: $0.5000" in svg
            assert 'fill="rgb' in svg
            await page.set_viewport_size(PHONE)
            await page.reload()
            await console.show_tab("Usage")
            await expect(page.locator("#usage-status")).to_contain_text("$1.00 for")
            label = await page.locator(".plot text").first.bounding_box()
            assert label
            assert label["height"] > 12

    run(main())


def test_tool_call_gets_its_fixed_or_typed_result() -> None:
    call = {"name": "weather", "arguments": {"city": "Rome"}}
    settings = scripted(
        llm={
            "answers": [
                {"calls": [call]},
                "It is clear.",
            ]
        }
    )

    async def main() -> None:
        async with serving(settings) as server, open_console(server.http) as console:
            page = console.page
            await console.show_tab("Tools")
            form = page.locator("#tool-form")
            await form.get_by_label("Name").fill("the weather")
            await expect(page.locator("#tool-name-error")).to_contain_text("letters, digits")
            await form.get_by_label("Name").fill("wether")
            await page.get_by_label("Parameters").fill('{"type": "objekt"}')
            await expect(page.locator("#tool-error")).to_contain_text('"type": "object"')
            await page.get_by_label("Parameters").fill("{")
            await console.click("Save tool")
            await expect(page.locator("#tool-error")).to_contain_text("aren't valid JSON")
            await expect(page.get_by_label("Parameters")).to_be_focused()
            await page.get_by_label("Parameters").fill('{"type": "object"}')
            await page.get_by_label("Fixed result").fill('{"sky": "clear"}')
            await console.click("Save tool")
            await console.click("Edit wether")
            await form.get_by_label("Name").fill("weather")
            await console.click("Save tool")
            await expect(page.locator("#tool-list li")).to_have_count(1)
            await console.show_tab("Talk")
            await console.type("How is the <b>weather</b>?")
            await console.wait_for_transcript("How is the <b>weather</b>?")
            await console.wait_for_transcript(
                "Tool call: weather", '{"sky": "clear"}', "It is clear."
            )
            await console.click("End")

    run(main())


def test_tool_call_waits_for_a_typed_result_in_every_tab() -> None:
    call = {"name": "weather", "arguments": {"city": "Rome"}}
    settings = scripted(llm={"answers": [{"calls": [call]}, "It rains.", {"calls": [call]}]})

    async def main() -> None:
        async with serving(settings) as server, open_console(server.http) as console:
            page = console.page
            await console.show_tab("Tools")
            await page.get_by_label("Begin with a template").select_option("Weather")
            await console.click("Try it")
            await expect(page.locator("#trial-result")).to_have_text(
                'weather({"city":"text"}) → {"sky": "clear", "celsius": 21}'
            )
            await page.get_by_role("combobox", name="Result").select_option("typed")
            await console.click("Save tool")
            await console.show_tab("Talk")
            await console.type("And now?")
            await expect(page.get_by_role("tab", name="Tools (1 waiting)")).to_be_visible()
            await expect(console.status).to_have_text(re.compile("^Running a tool"))
            await expect(page.get_by_role("log").get_by_label("Result of weather")).to_be_visible()
            await console.show_tab("Timeline")
            await expect(console.banner).to_contain_text("weather is waiting for your result.")
            await console.click("Enter result")
            await expect(page.locator("#calls li")).to_have_count(1)
            field = page.locator("#calls").get_by_label("Result of weather")
            await expect(field).to_be_focused()
            await field.fill("rain")
            await page.keyboard.press("Enter")
            await console.show_tab("Talk")
            await console.wait_for_transcript("→ rain", "It rains.")
            await console.type("And tomorrow?")
            await expect(page.get_by_role("log").get_by_label("Result of weather")).to_be_visible()
            await console.click("End")
            await expect(page.get_by_label("Result of weather")).to_have_count(0)
            await expect(page.locator("#calls")).to_contain_text("No result")

    run(main())


def test_text_answers_are_announced_and_wrong_settings_and_voices_are_reported() -> None:
    async def main() -> None:
        async with serving() as server, open_console(server.http) as console:
            page = console.page
            await page.get_by_label("Voice", exact=True).fill("nobody")
            await console.type("Hello")
            await console.wait_for_transcript("Voice “nobody” isn't available.")
            await page.get_by_text("Advanced").click()
            await page.get_by_label("Prompt again after").fill("100")
            await expect(page.locator("#settings-error")).to_contain_text(
                "Using 0 until you fix it"
            )
            await page.get_by_label("Prompt again after").fill("0")
            await page.get_by_label("End of turn after silence").fill("520")
            await expect(page.locator("#settings-error")).to_be_empty()
            await page.get_by_label("Reply with").select_option("false")
            await page.set_viewport_size({"width": 768, "height": 900})
            await console.click("End and start new")
            await console.type("Hello")
            await expect(page.get_by_role("log")).to_have_attribute("aria-live", "off")
            await expect(page.locator("#announcer")).to_have_text(re.compile("^Hello! .*script"))
            box = await page.get_by_label("Type instead of speaking").bounding_box()
            assert box is not None
            assert box["width"] > 150

    run(main())
