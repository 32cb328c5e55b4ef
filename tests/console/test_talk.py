import asyncio

from playwright.async_api import expect

from tests.console.stage import console, humming, needs_chromium
from tests.server import scripted, serving

pytestmark = needs_chromium
LONG = "This answer goes on for a while, so that somebody may find the time to interrupt it. " * 2


def test_a_recorded_voice_is_heard_answered_and_may_interrupt() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as both:  # they take the time of the recording
            for transport in ("websocket", "webrtc"):
                both.create_task(_interrupted(transport))

    asyncio.run(main())


async def _interrupted(transport: str) -> None:
    """Somebody speaks, is answered, speaks into the answer, and is answered again."""
    settings = scripted(
        stt={"transcripts": ["hello there", "what time is it"]},
        llm={"answers": [LONG, "It is noon."]},
    )
    voice = humming((1.5, 0), (0.6, 0.5), (1.8, 0), (0.6, 0.5), (10, 0))
    async with (
        serving(settings) as server,
        voice as recording,
        console(server.http, recording) as stage,
    ):
        await stage.page.get_by_label("Transport").select_option(transport)
        await stage.press("Start talking")
        await expect(stage.status).to_have_text("Connected")
        await stage.captions("hello there", "This answer goes on")
        await stage.hears_an_answer()
        await expect(stage.page.locator("#captions span.rest")).not_to_be_empty()
        await stage.captions("was not heard", "what time is it", "It is noon.")
        await stage.hears_nothing()
        unheard = await stage.page.locator("#captions s").inner_text()
        whole = await stage.page.locator(".said[data-state=cut] .words").inner_text()
        heard = whole.removesuffix(unheard).strip()
        assert len(unheard) > 20
        assert heard.startswith("This answer")
        assert f"{heard} {unheard}" == LONG.strip()
        told = server.llm.requests[-1].items[1]
        assert told.content[0].transcript.strip() == heard  # type: ignore[union-attr]

        await stage.look_at("Timeline")
        turns = stage.page.get_by_role("listitem").filter(has_text="decided")
        await expect(turns).to_have_count(2)
        await expect(turns.nth(1)).to_contain_text("interrupted")
        await expect(turns.nth(0)).to_contain_text("first sound")
        events = stage.page.get_by_role("region", name="Events")
        for kind in ("session.created", "session.update", "conversation.item.retrieve"):
            await expect(events.get_by_text(kind, exact=True)).not_to_have_count(0)
        await stage.page.get_by_label("Filter").fill("truncated")
        await events.get_by_text("conversation.item.truncated").click()
        await expect(events.locator("pre")).to_contain_text('"audio_end_ms"')
        await stage.look_at("Talk")
        await stage.press("End")
        await expect(stage.status).to_have_text("Ended")


def test_what_is_typed_is_answered_aloud_without_a_microphone() -> None:
    async def main() -> None:
        async with (
            serving(scripted(llm={"answers": ["Glad to hear it."]})) as server,
            console(server.http) as stage,
        ):
            await stage.type("All is well.")
            await stage.captions("All is well.", "Glad to hear it.")
            await stage.hears_an_answer()
            await stage.hears_nothing()
            await stage.press("End")
            await expect(stage.status).to_have_text("Ended")
            for kind, name in (("text", "txt"), ("JSON", "json"), ("wav", "wav")):
                async with stage.page.expect_download() as offered:
                    await stage.press(kind)
                file = await offered.value
                assert file.suggested_filename == f"conversation.{name}"
                data = (await file.path()).read_bytes()
                if kind == "text":
                    assert data.decode() == "You: All is well.\nAnswer: Glad to hear it.\n"
                if kind == "wav":
                    assert data[:4] == b"RIFF"
                    assert any(data[44:])

    asyncio.run(main())


def test_an_answer_stops_for_what_is_typed_for_a_key_and_for_the_end() -> None:
    slow = {"text": LONG, "tokens_per_second": 10}
    settings = scripted(
        llm={"answers": [slow, "Stopped.", slow, slow]},
        tts={"realtime_factor": 0.5},
    )

    async def main() -> None:
        async with serving(settings) as server, console(server.http) as stage:
            await stage.type("Go on.")
            await stage.hears_an_answer()
            await stage.type("Stop.")
            await stage.captions("was not heard", "Stopped.")
            await expect(stage.banner).to_be_hidden()

            said = stage.page.locator(".said")
            await stage.type("Once more.")
            await expect(said).to_have_count(6)
            await stage.hears_an_answer()
            await stage.page.keyboard.press("Escape")
            await expect(said.nth(5).locator("s")).to_be_visible()

            await stage.type("And again.")
            await expect(said).to_have_count(8)
            await stage.hears_an_answer()
            await stage.press("End")
            unheard = said.nth(7).locator("s")
            await expect(unheard).to_be_visible()
            async with stage.page.expect_download() as offered:
                await stage.press("text")
            text = (await (await offered.value).path()).read_text()
            last = text.splitlines()[-1]
            assert last.startswith("Answer: ")
            assert last.endswith(f"[unheard: {await unheard.inner_text()}]")

    asyncio.run(main())


def test_push_to_talk_sends_what_is_said_while_it_is_held() -> None:
    async def main() -> None:
        async with (
            serving(scripted(stt={"transcripts": ["over", "and out"]})) as server,
            humming((30, 0.5)) as recording,
            console(server.http, recording) as stage,
        ):
            page = stage.page
            await page.get_by_label("Turns").select_option("none")
            await stage.press("Start talking")
            button = page.locator("#press")
            await expect(button).to_be_focused()  # the space bar must not find "End" there
            await expect(button).not_to_have_css("background-color", "rgba(0, 0, 0, 0)")
            await page.keyboard.down(" ")
            await expect(button).to_have_text("Listening …")
            await stage.speaks(10)
            await page.keyboard.up(" ")
            await stage.captions("over", "Hello!")

            await button.click()
            await expect(stage.banner).to_contain_text("too short to be heard")
            await expect(page.locator(".said")).to_have_count(2)

            await page.get_by_role("log").focus()
            await page.keyboard.down(" ")
            await stage.speaks(10)
            await page.keyboard.up(" ")
            await stage.captions("and out")

            await button.focus()
            await page.keyboard.down(" ")
            await expect(button).to_have_text("Listening …")
            await page.keyboard.press("Tab")
            await expect(button).to_have_text("Hold to talk")

    asyncio.run(main())


def test_conversations_follow_each_other_and_the_earlier_one_stays() -> None:
    settings = scripted(llm={"answers": ["The first.", "The second.", "The third."]})

    async def main() -> None:
        async with serving(settings) as server, console(server.http) as stage:
            await expect(stage.page.get_by_role("button", name="wav")).to_be_disabled()
            await stage.type("One")
            await stage.captions("The first.")
            await stage.press("End")
            await stage.type("Two")
            await stage.captions("The second.")
            log = stage.page.get_by_role("log")
            await expect(log).not_to_contain_text("The first.")
            shelf = stage.page.get_by_role("list", name="Conversations")
            await shelf.get_by_role("button", name="One").click()
            await expect(log).to_contain_text("The first.")
            await expect(log).not_to_contain_text("The second.")
            await stage.type("Three")  # to the one that goes on
            await stage.captions("The second.", "Three", "The third.")
            await stage.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")
            await expect(stage.status).to_have_text("Ended")

    asyncio.run(main())


def test_a_microphone_may_be_refused_come_later_and_go() -> None:
    tamed = """
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.allowed = false;
        const decided = new Promise((resolve) => (window.decide = resolve));
        navigator.mediaDevices.getUserMedia = async (wanted) => {
          await decided;
          if (!window.allowed) throw new DOMException("no", "NotAllowedError");
          return (window.microphone = await ask(wanted));
        };
    """

    async def main() -> None:
        async with (
            serving(scripted(stt={"transcripts": ["here I am"]})) as server,
            humming((0.5, 0), (0.6, 0.5), (10, 0)) as recording,
            console(server.http, recording) as stage,
        ):
            page = stage.page
            await page.add_init_script(tamed)
            await page.reload()
            await page.get_by_label("Transport").select_option("webrtc")
            await stage.press("Start talking")
            await expect(stage.status).to_have_text("Waiting for the microphone …")
            await page.evaluate("window.decide()")
            await expect(stage.status).to_have_text("Connected")
            await expect(stage.banner).to_contain_text("The microphone is not allowed")
            await expect(page.locator("#mute")).to_be_hidden()
            await page.evaluate("window.allowed = true")
            await stage.press("Use microphone")
            await expect(page.locator("#mute")).to_be_visible()
            await expect(stage.banner).to_be_hidden()
            await stage.captions("here I am")
            await page.evaluate(
                "window.microphone.getAudioTracks()[0].dispatchEvent(new Event('ended'))"
            )
            await expect(stage.banner).to_contain_text("The microphone is gone")
            await expect(page.locator("#hear")).to_be_visible()

    asyncio.run(main())
