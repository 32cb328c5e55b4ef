"""Lost connections, expired sessions, API keys, and servers without WebRTC."""

import re
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import expect

from tests.console.browser import (
    CONNECTION_ERRORS,
    TIMEOUT_MS,
    needs_chromium,
    open_console,
    run,
    tcp_proxy,
)
from tests.server import HOST, scripted, serving, serving_until_killed, wait_until_answer_is_stored
from vivavoce.limits.keys import hash_of
from vivavoce.store.sqlite import SQLiteStore

pytestmark = needs_chromium
LONG = "This answer goes on for a while, so that somebody may find the time to interrupt it. " * 2

RESUMED = """
[store]
url = "sqlite:{store}"

[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"

[engines.llm.scripted]
answers = ["{answer}"]
"""


def test_restarted_server_gets_the_transcript_and_the_unanswered_message() -> None:
    async def main() -> None:
        async with tcp_proxy() as proxy:
            home = f"http://{HOST}:{proxy.port}"
            async with serving(scripted(llm={"answers": ["Before."]})) as first:
                proxy.forward_to(first.port)
                async with open_console(home, expected=CONNECTION_ERRORS) as console:
                    await console.type("Remember seven.")
                    await console.wait_for_transcript("Before.")
                    spoken = console.page.locator(".entry[data-role=assistant] .spoken")
                    await expect(spoken).to_have_text("Before.")  # it was played
                    await console.click("Use microphone")
                    mute = console.page.get_by_role("button", name="Mute")
                    await mute.click()
                    proxy.cut()
                    await expect(console.banner).to_contain_text("Retrying in")
                    await console.wait_for_transcript("The transcript is kept.")
                    await console.type("And now?")  # there is no connection
                    await console.wait_for_transcript("And now?")
                    async with serving(scripted(llm={"answers": ["After."]})) as second:
                        proxy.forward_to(second.port)
                        await console.wait_for_transcript(
                            "Remember seven.", "Connected again.", "After."
                        )
                        await expect(console.status).to_have_text(re.compile("^Muted"))
                        await expect(mute).to_have_attribute("aria-pressed", "true")
                        contents = [item.content[0] for item in second.llm.requests[-1].items]  # type: ignore[union-attr]
                        texts = [getattr(part, "text", "") for part in contents]
                        assert texts == ["Remember seven.", "Before.", "And now?"]
                        await console.show_tab("Timeline")
                        turns = console.page.locator(".turn h3")
                        await expect(turns).to_have_text(["2And now?", "1Remember seven."])

    run(main())


@pytest.mark.parametrize(
    ("limit", "transport"), [("max_seconds", "websocket"), ("idle_seconds", "webrtc")]
)
def test_expired_session_is_not_resumed(limit: str, transport: str) -> None:
    settings = scripted(session={limit: 2})

    async def main() -> None:
        async with serving(settings) as server, open_console(server.http) as console:
            await console.page.get_by_label("Transport").select_option(transport)
            await console.type("Hello")
            await console.wait_for_transcript("Hello")
            banner = console.banner
            await expect(banner).to_contain_text("The session has ended")
            await expect(console.status).to_have_text("Ended")
            await banner.get_by_role("button", name="New conversation").click()
            await console.wait_until_live()

    run(main())


def test_api_key_is_asked_for_once_and_never_in_a_url() -> None:
    settings = msgspec.structs.replace(scripted(), keys={"me": hash_of("vv-the-right-one")})

    async def main() -> None:
        async with (
            serving(settings) as server,
            open_console(server.http, expected=("Failed to load resource",)) as console,
        ):
            sent: list[str] = []
            console.page.on(
                "request", lambda r: sent.append(r.url) if "vv-the-right" in r.url else None
            )
            await console.type("Let me in.")
            dialog = console.page.get_by_role("dialog", name="This server needs an API key")
            await expect(dialog).to_be_visible()
            assert console.errors == []
            await dialog.get_by_role("button", name="Cancel").click()
            await expect(console.page.get_by_label("Type instead")).to_have_value("Let me in.")
            await console.banner.get_by_role("button", name="Enter a key").click()
            await dialog.get_by_label("API key").fill("vv-a-wrong-one")
            await dialog.get_by_role("button", name="Continue").click()
            await expect(dialog).to_contain_text("Incorrect API key")
            await dialog.get_by_label("API key").fill("vv-the-right-one")
            await dialog.get_by_role("button", name="Continue").click()
            await console.wait_for_transcript("Let me in.", "Hello!")
            list_ = console.page.get_by_role("list", name="Conversations")
            await expect(list_.get_by_role("button")).to_have_count(1)
            await console.click("End")
            await console.click("Start talking")
            await console.wait_until_live()
            assert not await dialog.is_visible()
            kept = await console.page.evaluate("[sessionStorage, localStorage].map(JSON.stringify)")
            assert "vv-the-right-one" in kept[0]
            assert "vv-the-right-one" not in kept[1]
            assert sent == []

    run(main())


def test_server_without_webrtc_is_reported_and_websocket_still_works() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            open_console(server.http, expected=("Failed to load resource",)) as console,
        ):
            calls = "**/v1/realtime/calls*"
            full = '{"error": {"message": "no room just now"}}'
            await console.page.route(calls, lambda route: route.fulfill(status=503, body=full))
            await console.page.get_by_label("Transport").select_option("webrtc")
            await console.click("Start talking")
            await expect(console.banner).to_contain_text("No room just now. Retrying")
            await console.click("End")
            await console.page.unroute(calls)
            await console.page.route(calls, lambda route: route.fulfill(status=404, body="{}"))
            await console.click("Start talking")
            banner = console.banner
            await expect(banner).to_contain_text("has no WebRTC. Choose WebSocket")
            await console.page.get_by_label("Transport").select_option("websocket")
            await console.type("Hello")
            await console.wait_for_transcript("Hello!")

    run(main())


def test_page_without_secure_context_says_which_addresses_allow_audio() -> None:
    async def main() -> None:
        async with serving(scripted(server={"hosts": ["voice.test"]})) as server:
            home = f"http://voice.test:{server.port}"
            async with open_console(home) as console:
                await console.click("Start talking")
                await expect(console.banner).to_contain_text("pages at https or at localhost")

    run(main())


def test_webrtc_call_is_resumed_after_a_restart() -> None:
    async def main() -> None:
        async with tcp_proxy() as proxy, AsyncExitStack() as before:
            first = await before.enter_async_context(serving(scripted(llm={"answers": [LONG]})))
            proxy.forward_to(first.port)
            async with open_console(
                f"http://{HOST}:{proxy.port}", expected=CONNECTION_ERRORS
            ) as console:
                await console.page.get_by_label("Transport").select_option("webrtc")
                await console.type("Remember seven.")
                unplayed = console.page.locator("#captions span.unspoken")
                await expect(unplayed).to_contain_text("This answer")
                await expect(unplayed).not_to_have_text(re.compile(r"^\s*This"))
                proxy.cut()
                await before.aclose()
                await console.wait_for_transcript("were not played", "The transcript is kept.")
                async with serving(scripted(llm={"answers": ["After."]})) as second:
                    proxy.forward_to(second.port)
                    await console.wait_for_transcript("Connected again.")
                    await console.type("And now?")
                    await console.wait_for_sound()
                    await console.wait_for_transcript("After.")
                    message = second.llm.requests[-1].items[1].content[0]  # type: ignore[union-attr]
                    assert LONG.startswith(message.text)  # type: ignore[union-attr]
                    assert len(message.text) < len(LONG) - 20  # type: ignore[union-attr]

    run(main())


def test_conversation_goes_on_after_its_server_is_killed_in_mid_answer(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    config = RESUMED.format(store=store, answer=LONG)

    async def main() -> None:
        async with (
            serving_until_killed(config, tmp_path) as doomed,
            tcp_proxy() as proxy,
            SQLiteStore(store) as same,
            serving(scripted(llm={"answers": ["After."]}), store=same) as second,
        ):
            proxy.forward_to(doomed.port)
            home = f"http://{HOST}:{proxy.port}"
            async with open_console(home, expected=CONNECTION_ERRORS) as console:
                await console.type("Remember seven.")
                await console.wait_for_sound()
                await wait_until_answer_is_stored(store)
                await doomed.kill()
                proxy.cut()
                await console.wait_for_transcript("The transcript is kept.")
                level = console.page.get_by_label("Level of the assistant")
                await expect(level).to_have_js_property("value", 0, timeout=TIMEOUT_MS)
                proxy.forward_to(second.port)
                await console.wait_for_transcript("Connected again.")
                resumption = second.sessions.context.resumption
                assert resumption is not None
                (ticket,) = resumption._served.values()
                assert ticket.checkpoint is not None
                await console.wait_for_sound()  # the words that were not played, without the model
                assert not second.llm.requests
                await console.type("And now?")
                await console.wait_for_transcript("After.")
                contents = [item.content[0] for item in second.llm.requests[-1].items]  # type: ignore[union-attr]
                texts = [getattr(part, "text", "") for part in contents]
                assert (texts[0], texts[-1]) == ("Remember seven.", "And now?")
                assert texts.count("Remember seven.") == 1

    run(main())


def test_server_down_at_start_is_reported_and_retried() -> None:
    async def main() -> None:
        async with serving(scripted(llm={"answers": [LONG]})) as server, tcp_proxy() as proxy:
            proxy.forward_to(server.port)
            home = f"http://{HOST}:{proxy.port}"
            async with open_console(home, expected=CONNECTION_ERRORS) as console:
                proxy.cut()
                await console.click("Start talking")
                await expect(console.banner).to_contain_text(f"reach the server at {HOST}")
                await expect(console.banner).to_contain_text("Retrying in")
                proxy.forward_to(server.port)
                await console.banner.get_by_role("button", name="Try now").click()
                await console.wait_until_live()
                await console.type("Are you there?")
                await console.wait_for_transcript("This answer")
                await console.wait_for_sound()

    run(main())


def test_full_server_is_reported_as_full() -> None:
    settings = msgspec.structs.replace(
        scripted(), server=msgspec.structs.replace(scripted().server, max_sessions=1)
    )

    async def main() -> None:
        async with (
            serving(settings) as server,
            open_console(server.http) as first,
            open_console(server.http, expected=CONNECTION_ERRORS) as second,
        ):
            await first.type("Hello")
            await first.wait_until_live()
            await second.type("Hello")
            await expect(second.banner).to_contain_text("The server is full")

    run(main())
