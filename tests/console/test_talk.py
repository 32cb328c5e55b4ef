"""Conversations by speech, text and push to talk."""

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.console.browser import needs_chromium, open_console, recorded_hum, run
from tests.server import EMBEDDED, HOST, scripted, serving, serving_beside

pytestmark = needs_chromium
RECORDING = Path(__file__).parents[3] / "shared" / "audio" / "go_forward_ten_meters.wav"
LONG = "This answer goes on for a while, so that somebody may find the time to interrupt it. " * 2
BEGINNING = " ".join(LONG.split()[:5])


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
def test_speech_during_an_answer_interrupts_it(transport: str) -> None:
    run(_interrupt_by_speech(transport))


async def _interrupt_by_speech(transport: str) -> None:
    """Speech, an answer, speech during the answer, a second answer."""
    settings = scripted(
        stt={"transcripts": ["hello there", "what time is it"]},
        llm={"answers": [LONG, "It is noon."]},
    )
    async with serving(settings) as server, open_console(server.http) as console:
        await console.page.get_by_label("Transport").select_option(transport)
        await console.click("Start talking")
        await console.wait_until_live()
        await console.speak(1.0)
        await console.wait_for_transcript("hello there", "This answer goes on")
        await expect(console.page.locator("#captions .spoken").last).to_contain_text("This answer")
        await console.speak(1.0)
        await expect(console.page.locator("#captions span.unspoken")).not_to_be_empty()
        await console.wait_for_transcript("were not played", "what time is it", "It is noon.")
        await console.wait_for_silence()
        unplayed = await console.page.locator("#captions s").inner_text()
        played = await console.page.locator(".entry[data-state=cut] .spoken").inner_text()
        assert len(unplayed) > 20
        assert played.startswith("This answer")
        assert f"{played.strip()} {unplayed}" == LONG.strip()
        context = server.llm.requests[-1].items[1]
        assert context.content[0].transcript.strip() == played.strip()  # type: ignore[union-attr]

        await console.show_tab("Timeline")
        turns = console.page.get_by_role("listitem").filter(has_text="turn ended")
        await expect(turns).to_have_count(2)
        await expect(turns.nth(1)).to_contain_text("interrupted")
        await expect(turns.nth(0)).to_contain_text("first sound")
        await expect(turns.nth(0)).to_contain_text(re.compile(r"why\s*waited \d+ ms: \w"))
        await expect(console.page.locator("#waits")).to_contain_text("Most of the wait: ")
        await console.page.get_by_role("button", name="Events of turn 1").click()
        await expect(console.page.locator("#event-range")).to_have_text("Turn 1 only: show all")
        await console.page.locator("#event-range").click()
        events = console.page.get_by_role("region", name="Events")
        for kind in ("session.created", "session.update", "conversation.item.retrieve"):
            await expect(events.get_by_text(kind, exact=True)).not_to_have_count(0)
        await console.page.get_by_label("Filter").fill("truncated")
        await events.get_by_text("conversation.item.truncated").click()
        await expect(events.locator("pre")).to_contain_text('"audio_end_ms"')
        await console.show_tab("Talk")
        await console.click("End")
        await expect(console.status).to_have_text("Ended")


def test_typed_message_without_microphone_is_answered_with_voice_and_downloads_work() -> None:
    async def main() -> None:
        async with (
            serving(scripted(llm={"answers": ["Glad to hear it."]})) as server,
            open_console(server.http) as console,
        ):
            await console.type("All is well.")
            await console.wait_for_sound()
            await console.wait_for_transcript("All is well.", "Glad to hear it.")
            await console.wait_for_silence()
            await console.click("End")
            await expect(console.status).to_have_text("Ended")
            for kind, name in (("text", "txt"), ("JSON", "json"), ("wav", "wav")):
                async with console.page.expect_download() as downloading:
                    await console.click(kind)
                file = await downloading.value
                assert file.suggested_filename == f"conversation.{name}"
                data = (await file.path()).read_bytes()
                if kind == "text":
                    assert data.decode() == "You: All is well.\nAssistant: Glad to hear it.\n"
                if kind == "wav":
                    assert data[:4] == b"RIFF"
                    assert any(data[44:])

    run(main())


def test_answer_is_interrupted_by_a_message_by_escape_and_by_the_end() -> None:
    slow = {"text": LONG, "tokens_per_second": 10}
    settings = scripted(
        llm={"answers": [slow, "Stopped.", slow, slow]},
        tts={"realtime_factor": 0.5},
    )

    async def main() -> None:
        async with serving(settings) as server, open_console(server.http) as console:
            await console.type("Go on.")
            await console.wait_for_sound()
            await console.type("Stop.")
            await console.wait_for_transcript("were not played", "Stopped.")
            await expect(console.banner).to_be_hidden()

            entries = console.page.locator(".entry")
            await console.type("Once more.")
            await expect(entries.nth(5)).to_contain_text(BEGINNING)
            await console.wait_for_sound()
            await console.page.keyboard.press("Escape")
            await expect(entries.nth(5).locator("s")).to_be_visible()

            await console.type("And again.")
            await expect(entries.nth(7)).to_contain_text(BEGINNING)
            await console.wait_for_sound()
            await console.click("End")
            unplayed = entries.nth(7).locator("s")
            await expect(unplayed).to_be_visible()
            async with console.page.expect_download() as downloading:
                await console.click("text")
            text = (await (await downloading.value).path()).read_text()
            last = text.splitlines()[-1]
            assert last.startswith("Assistant: ")
            assert last.endswith(f"[not played: {await unplayed.inner_text()}]")

    run(main())


def test_push_to_talk_sends_audio_only_while_pressed() -> None:
    async def main() -> None:
        async with (
            # the press that is too short may send a frame of audio, and use up a transcript
            serving(scripted(stt={"transcripts": ["over", "and out", "and out"]})) as server,
            recorded_hum((30, 0.5)) as recording,
            open_console(server.http, recording) as console,
        ):
            page = console.page
            await page.get_by_label("Turn detection").select_option("none")
            await console.click("Start talking")
            button = page.locator("#push-to-talk")
            await expect(button).to_be_focused()  # otherwise the space bar would press "End"
            await expect(button).not_to_have_css("background-color", "rgba(0, 0, 0, 0)")
            await page.keyboard.down(" ")
            await expect(button).to_have_text("Listening …")
            await console.wait_for_audio_frames(10)
            await page.keyboard.up(" ")
            await console.wait_for_transcript("over", "Hello!")

            await button.click()
            await expect(console.banner).to_contain_text("Too short")
            await expect(page.locator(".entry")).to_have_count(2)

            await page.get_by_role("log").focus()
            await page.keyboard.down(" ")
            await console.wait_for_audio_frames(10)
            await page.keyboard.up(" ")
            await console.wait_for_transcript("and out")

            await button.focus()
            await page.keyboard.down(" ")
            await expect(button).to_have_text("Listening …")
            await page.keyboard.press("Tab")
            await expect(button).to_have_text("Hold to talk")

    run(main())


def test_earlier_conversation_can_be_shown_while_another_is_live() -> None:
    settings = scripted(llm={"answers": ["The first.", "The second.", "The third."]})

    async def main() -> None:
        async with serving(settings) as server, open_console(server.http) as console:
            await expect(console.page.get_by_role("button", name="wav")).to_be_disabled()
            await console.type("One")
            await console.wait_for_transcript("The first.")
            await console.click("End")
            await console.type("Two")
            await console.wait_for_transcript("The second.")
            log = console.page.get_by_role("log")
            await expect(log).not_to_contain_text("The first.")
            list_ = console.page.get_by_role("list", name="Conversations")
            await list_.locator(".open", has_text="One").click()
            await expect(log).to_contain_text("The first.")
            await expect(log).not_to_contain_text("The second.")
            await console.type("Three")  # goes to the live one
            await console.wait_for_transcript("The second.", "Three", "The third.")
            await console.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")
            await expect(console.status).to_have_text("Ended")

    run(main())


def test_microphone_refused_then_allowed_then_lost_is_shown() -> None:
    controlled = """
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.allowed = false;
        const decided = new Promise((resolve) => (window.decide = resolve));
        navigator.mediaDevices.getUserMedia = async (wanted) => {
          await decided;
          if (!window.allowed) throw new DOMException("no", "NotAllowedError");
          return (window.opened = await ask(wanted));
        };
    """

    async def main() -> None:
        async with (
            serving(scripted(stt={"transcripts": ["here I am"]})) as server,
            open_console(server.http) as console,
        ):
            page = console.page
            await page.add_init_script(controlled)
            await page.reload()
            await page.get_by_label("Transport").select_option("webrtc")
            await console.click("Start talking")
            await expect(console.status).to_have_text("Waiting for the microphone …")
            await page.evaluate("window.decide()")
            await console.wait_until_live()
            await expect(console.banner).to_contain_text("Microphone blocked")
            await expect(page.locator("#mute")).to_be_hidden()
            await page.evaluate("window.allowed = true")
            await console.click("Use microphone")
            await expect(page.locator("#mute")).to_be_visible()
            await expect(console.banner).to_be_hidden()
            await console.speak(0.6)
            await console.wait_for_transcript("here I am")
            await page.evaluate(
                "window.opened.getAudioTracks()[0].dispatchEvent(new Event('ended'))"
            )
            await expect(console.banner).to_contain_text("The microphone was disconnected")
            await expect(page.locator("#use-microphone")).to_be_visible()

    run(main())


@pytest.mark.skipif(not RECORDING.exists(), reason="there is no recorded speech")
def test_recorded_sentence_is_recognized_and_answered_with_voice() -> None:
    async def main() -> None:
        async with (
            serving_beside(f'{EMBEDDED}stt = "pocketsphinx"\n') as port,
            open_console(f"http://{HOST}:{port}", RECORDING, held=True) as console,
        ):
            await console.click("Start talking")
            await console.wait_until_live()
            await console.page.evaluate("window.play()")
            await console.wait_for_transcript("ten meters")
            await console.wait_for_sound()
            await expect(console.page.locator(".entry[data-role=assistant]")).to_be_visible()

    run(main())
