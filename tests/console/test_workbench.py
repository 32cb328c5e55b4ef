"""What the console offers beside talking: history, playback, settings, devices, operators."""

import re

from playwright.async_api import Page, expect

from tests.console.browser import needs_chromium, open_console, run
from tests.server import EMBEDDED, HOST, scripted, serving, serving_beside

pytestmark = needs_chromium
LIT = "[...(CSS.highlights.get('sounding') ?? [])].map(String)[0]"


def test_first_visit_comes_to_a_spoken_answer_with_one_click() -> None:
    async def main() -> None:
        async with (
            serving_beside(EMBEDDED) as port,
            open_console(f"http://{HOST}:{port}") as console,
        ):
            await expect(console.page.locator("#engines")).to_contain_text("Thinks: built-in rules")
            await console.page.get_by_text("Connect a model").click()
            await expect(console.page.locator("#connect-code")).to_contain_text("BASE_URL")
            await expect(console.page.locator("#connect-probed")).to_contain_text("11434")
            await console.click("Count to ten")
            await console.wait_for_sound()

    run(main())


async def until_kept(page: Page, count: int) -> None:
    """Wait until the browser keeps so many conversations."""
    await page.wait_for_function(
        "async (count) => (await new Promise((done) => { const opening = "
        "indexedDB.open('vivavoce'); opening.onsuccess = () => { const all = opening.result"
        ".transaction('summaries').objectStore('summaries').count(); "
        "all.onsuccess = () => done(all.result); }; })) === count",
        arg=count,
    )


def test_conversation_is_kept_over_a_reload_searched_played_and_deleted() -> None:
    settings = scripted(llm={"answers": ["One two three four five.", "The second."]})

    async def main() -> None:
        async with serving(settings) as server, open_console(server.http) as console:
            page = console.page
            await console.type("Count, please.")
            spoken = page.locator(".entry[data-role=assistant] .spoken")
            await expect(spoken).to_have_text("One two three four five.")
            await console.wait_for_silence()
            await expect(page.locator("#usage-line")).to_contain_text("1 turn · ")
            await console.click("End")
            kept = page.get_by_role("list", name="Conversations").locator(".open")
            await expect(page.get_by_role("button", name="Delete Count, please.")).to_be_visible()
            await console.type("Another one")
            await console.wait_for_transcript("The second.")
            await console.click("End")
            await expect(page.locator("#delete-all")).to_be_enabled()
            await until_kept(page, 2)
            await page.reload()
            await expect(kept).to_have_count(2)
            await page.get_by_label("Search conversations").fill("four FIVE")
            await expect(kept).to_have_count(1)
            await kept.click()
            await console.wait_for_transcript("One two three four five.")
            await expect(page.locator("#usage-line")).to_contain_text("tokens")
            await page.locator(".entry[data-role=assistant] .play").click()
            await page.wait_for_function(f"() => /^(two|three|four)$/.test({LIT} ?? '')")
            await expect(page.locator(".entry.sounding")).to_have_attribute(
                "data-role", "assistant"
            )
            await console.show_tab("Timeline")
            await expect(page.locator(".turn h3")).to_have_text(["1Count, please."])
            await console.show_tab("Talk")
            await console.click("Delete Count, please.")
            await until_kept(page, 1)
            await page.reload()
            await expect(kept).to_have_count(1)

    run(main())


def test_changed_settings_are_applied_to_the_live_session() -> None:
    async def main() -> None:
        async with serving(scripted()) as server, open_console(server.http) as console:
            page = console.page
            await console.type("Hello")
            await console.wait_for_transcript("Hello!")
            await expect(page.locator("#serving")).to_contain_text("default")
            await page.get_by_label("Preset", exact=True).select_option("Terse assistant")
            await page.get_by_label("Transport").select_option("webrtc")
            await expect(page.locator("#settings-hint")).to_have_text(
                "Changed: Instructions. From the next conversation on: Transport."
            )
            await console.click("Apply now")
            await expect(page.locator("#apply")).to_be_hidden()
            await console.type("And now?")
            await console.wait_for_transcript("And now?")
            await expect(page.locator(".entry[data-role=assistant]")).to_have_count(2)
            assert "at most ten words" in server.llm.requests[-1].instructions

    run(main())


def test_settings_travel_in_a_link_and_as_code_without_a_key() -> None:
    async def main() -> None:
        async with serving(scripted()) as server, open_console(server.http) as console:
            page = console.page
            await page.get_by_label("Instructions", exact=True).fill("Be brief.")
            await page.get_by_label("Turn detection").select_option("semantic_vad")
            await console.click("Copy link")
            link = await page.evaluate("navigator.clipboard.readText()")
            await console.click("Copy as code")
            for kind in ("Python", "JavaScript (client.js)", "curl"):
                await page.locator("#code-kind").select_option(label=kind)
                await expect(page.locator("#code")).to_contain_text("Be brief.")
            await page.keyboard.press("Escape")
            await page.get_by_text("Advanced").click()
            await page.get_by_label("Name of a new preset").fill("Mine")
            await console.click("Save preset")
            await page.get_by_label("Instructions", exact=True).fill("")
            await page.get_by_label("Preset", exact=True).select_option("Receptionist")
            await page.get_by_label("Preset", exact=True).select_option("Mine")
            await expect(page.get_by_label("Instructions", exact=True)).to_have_value("Be brief.")
            await page.evaluate("localStorage.clear()")
            await page.goto("about:blank")
            await page.goto(link)
            await expect(page.locator("#link-text")).to_have_text("This link sets 2 settings.")
            await console.click("Use")
            await expect(page.get_by_label("Instructions", exact=True)).to_have_value("Be brief.")
            assert "#" not in page.url

    run(main())


def test_operator_watches_and_ends_a_session() -> None:
    settings = scripted(llm={"answers": ["Good evening."] * 3}, server={"watch": "captions"})

    async def main() -> None:
        async with (
            serving(settings) as server,
            open_console(server.http) as user,
            open_console(server.http) as operator,
        ):
            page = operator.page
            await user.type("Hello")
            await user.wait_for_transcript("Good evening.")
            await operator.show_tab("Sessions")
            await expect(page.locator("#sessions-status")).to_contain_text("1 of 1000 sessions")
            await page.get_by_role("button", name="Watch").click()
            await expect(page.locator("#watch-state")).to_have_text("Listening")
            await user.type("Hello again")
            await expect(page.locator("#watch-captions")).to_contain_text("Good evening.")
            page.on("dialog", lambda dialog: dialog.accept())
            await page.get_by_role("button", name=re.compile("^End sess_")).click()
            await expect(user.status).to_have_text("Ended")
            await expect(user.banner).to_contain_text("An operator ended the session.")
            await expect(page.locator("#watch-state")).to_have_text("Ended")

    run(main())


def test_microphone_is_checked_and_switched_without_ending() -> None:
    async def main() -> None:
        async with (
            serving(scripted(stt={"transcripts": ["one", "two"]})) as server,
            open_console(server.http) as console,
        ):
            page = console.page
            await console.click("Check microphone")
            await expect(page.locator("#check-status")).to_have_text("Speak: the bar moves.")
            await page.get_by_role("button", name="Record 4 seconds").click()
            await console.speak(3.0)
            await expect(page.locator("#check-level")).not_to_have_js_property("value", 0)
            await expect(page.locator("#check-status")).to_contain_text("what was recorded")
            await page.keyboard.press("Escape")
            await console.click("Start talking")
            await console.wait_until_live()
            await console.speak(1.0)
            await console.wait_for_transcript("one")
            await page.evaluate(
                "document.querySelector('[name=device]').append(new Option('Other', 'other'))"
            )
            await page.locator("[name=device]").select_option("other")
            await console.click("Apply now")
            await expect(console.status).to_have_attribute("data-state", "listening")
            await console.speak(1.0)
            await console.wait_for_transcript("two")

    run(main())


def test_voice_is_heard_and_chosen() -> None:
    async def main() -> None:
        async with (
            serving_beside(EMBEDDED) as port,
            open_console(f"http://{HOST}:{port}") as console,
        ):
            page = console.page
            await console.click("Browse voices")
            dialog = page.get_by_role("dialog", name="Voices")
            await expect(dialog.locator("h3").first).to_be_visible()
            voice = await dialog.locator("li bdi").first.inner_text()
            await page.get_by_label("Search voices").fill(voice)
            await dialog.get_by_role("button", name=f"Play a sample of {voice}", exact=True).click()
            await expect(page.locator("#voices-status")).to_have_text(f"Playing {voice}")
            await dialog.get_by_role("button", name=f"Use {voice}", exact=True).click()
            await expect(page.get_by_label("Voice", exact=True)).to_have_value(voice)

    run(main())


def test_two_settings_are_compared_on_the_same_spoken_utterance() -> None:
    settings = scripted(
        stt={"transcripts": ["how are you", "how are you", "how are you"]},
        llm={"answers": ["Fine.", "Quite well.", "Very well."]},
    )

    async def main() -> None:
        async with serving(settings) as server, open_console(server.http) as console:
            page = console.page
            await console.click("Start talking")
            await console.wait_until_live()
            await console.speak(1.0)
            await console.wait_for_transcript("how are you", "Fine.")
            await console.wait_for_silence()
            await console.click("End")
            await console.click("Compare")
            dialog = page.get_by_role("dialog", name="Compare")
            await dialog.get_by_label("Instructions of B").fill("Be very brief.")
            await dialog.get_by_role("button", name="Compare", exact=True).click()
            await expect(page.locator("#compare-status")).to_contain_text("to the first sound")
            await expect(dialog.get_by_role("region", name="A")).to_contain_text("Quite well.")
            second = dialog.get_by_role("region", name="B")
            await expect(second).to_contain_text("Very well.")
            await expect(second.locator("audio")).to_be_visible()
            assert server.llm.requests[-1].instructions == "Be very brief."
            assert server.llm.requests[-2].instructions != "Be very brief."

    run(main())
