"""axe-core, keyboard, narrow pages, reduced motion and right-to-left, on every tab and on /docs."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, ViewportSize, expect

from tests.clients.browser_stage import PACKAGES
from tests.console.browser import (
    DESKTOP,
    PHONE,
    ConsolePage,
    needs_chromium,
    open_console,
    run,
)
from tests.server import scripted, serving

AXE = PACKAGES / "axe-core" / "axe.min.js"
TABS = ("Talk", "Timeline", "Tools", "Usage", "Sessions")
DIALOGS = ("Keys and help", "Copy as code", "Check microphone", "Browse voices", "Compare")
NARROW = ViewportSize(width=320, height=640)
VIOLATIONS = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, nodes }) => [id, ...nodes.map(({ html, any }) =>
    `${html.slice(0, 120)}: ${any.map(({ message }) => message)}`)]);
}"""
WATCH_THEME = """(theme) => {
  const query = matchMedia(`(prefers-color-scheme: ${theme})`);
  window.followed = new Promise((followed) => {
    if (query.matches) followed();
    else query.addEventListener("change", followed, { once: true });
  });
}"""
"""`followed` resolves after the page's own listeners have seen the theme change."""
SETTLED = """async () => {
  await new Promise(requestAnimationFrame);
  await Promise.allSettled(document.getAnimations().map(({ finished }) => finished));
}"""
"""Resolves when no colour changes any more."""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="no npm was here when make test installed")
pytestmark = needs_chromium


async def violations(page: Page, *sizes: ViewportSize) -> list[Any]:
    """What axe-core finds, in both themes at each size, with where it was found."""
    found = []
    for size in sizes:
        await page.set_viewport_size(size)
        for theme in ("light", "dark"):
            await page.evaluate(WATCH_THEME, theme)
            await page.emulate_media(color_scheme="light" if theme == "light" else "dark")
            await page.evaluate("window.followed")
            await page.evaluate(SETTLED)
            shown: list[Any] = await page.evaluate(VIOLATIONS)
            found += [[size["width"], theme, *one] for one in shown]
    return found


async def have_a_conversation(console: ConsolePage) -> None:
    """One answer that was played, and one that was interrupted."""
    await console.type("Hello")
    await console.wait_for_transcript("Good evening.")
    await console.type("Tell me more.")
    await console.wait_for_sound()
    await console.page.keyboard.press("Escape")
    await console.wait_for_transcript("were not played")


@needs_axe
def test_axe_finds_nothing_in_any_tab_or_dialog() -> None:
    long = "This answer goes on for a while, so that it can be interrupted at some time. " * 2
    settings = scripted(llm={"answers": ["Good evening.", long]})

    async def main() -> None:
        async with (
            serving(settings) as server,
            open_console(server.http, expected=["Failed to load resource"]) as console,
        ):
            page = console.page
            await page.evaluate(AXE.read_text(encoding="utf-8"))
            await expect(page.locator("#about")).to_be_visible()
            assert await violations(page, DESKTOP, PHONE) == []
            await page.set_viewport_size(DESKTOP)
            await have_a_conversation(console)
            for tab in TABS:
                await console.show_tab(tab)
                assert await violations(page, DESKTOP, PHONE) == []
            await page.set_viewport_size(DESKTOP)
            await console.show_tab("Talk")
            await console.click("End")
            await expect(page.locator("#replay")).to_be_visible()
            assert await violations(page, DESKTOP) == []
            for name in DIALOGS:
                await page.get_by_role("button", name=name).click()
                await expect(page.locator("dialog[open]")).to_have_count(1)
                assert await violations(page, DESKTOP) == []
                await page.keyboard.press("Escape")

    run(main())


@needs_axe
def test_axe_finds_nothing_in_the_reference_and_the_guides() -> None:
    async def main() -> None:
        async with serving(scripted()) as server, open_console(f"{server.http}/docs") as stage:
            for address, ready in (("/docs", ".opblock"), ("/docs/guides/console.md", "h1")):
                await stage.page.goto(server.http + address)
                await expect(stage.page.locator(ready).first).to_be_visible()
                await stage.page.evaluate(AXE.read_text(encoding="utf-8"))
                assert await violations(stage.page, DESKTOP, PHONE) == []

    run(main())


def test_page_of_320_px_and_of_right_to_left_text_needs_no_sideways_scrolling() -> None:
    async def main() -> None:
        async with (
            serving(scripted(llm={"answers": ["Good evening."]})) as server,
            open_console(server.http, expected=["Failed to load resource"]) as console,
        ):
            page = console.page
            await console.type("كيف الطقس اليوم؟")
            await console.wait_for_transcript("Good evening.")
            for direction in ("ltr", "rtl"):
                await page.evaluate(f"document.documentElement.dir = '{direction}'")
                for size in (NARROW, DESKTOP):
                    await page.set_viewport_size(size)
                    for tab in TABS:
                        await console.show_tab(tab)
                        assert await page.evaluate(WIDER) <= 0, (direction, size, tab)
            sidebar = page.locator(".sidebar")
            await console.show_tab("Talk")
            await expect(sidebar).to_have_css("border-right-width", "1px")  # beside the transcript
            await expect(page.locator(".entry[data-role=user] .text")).to_have_attribute(
                "dir", "auto"
            )

    run(main())


def test_conversation_is_held_by_keyboard_alone_and_nothing_moves() -> None:
    async def main() -> None:
        async with (
            serving(scripted(llm={"answers": ["Good evening.", "Good night."]})) as server,
            open_console(server.http, expected=["Failed to load resource"]) as console,
        ):
            page = console.page
            await page.emulate_media(reduced_motion="reduce")
            await page.keyboard.press("/")
            await page.keyboard.type("Hello?")  # "?" is a key of the page outside of fields only
            await page.keyboard.press("Enter")
            await console.wait_for_transcript("Hello?", "Good evening.")
            assert await page.evaluate("document.getAnimations().length") == 0
            await page.get_by_role("log").focus()
            await page.keyboard.press("2")
            await expect(page.get_by_role("tabpanel", name="Timeline")).to_be_visible()
            await expect(page.get_by_role("region", name="Live conversation")).to_be_visible()
            await page.keyboard.press("?")
            sheet = page.get_by_role("dialog", name="Keys")
            await expect(sheet).to_be_visible()
            await sheet.get_by_label("Use the keys that are single characters").uncheck()
            await page.keyboard.press("Escape")
            await page.keyboard.press("1")
            await expect(page.get_by_role("tabpanel", name="Timeline")).to_be_visible()
            await page.keyboard.press("Control+Enter")
            await expect(console.status).to_have_text("Ended")
            await page.keyboard.press("Control+Enter")
            await console.wait_until_live()
            await expect(page).to_have_title(re.compile("^● "))

    run(main())
