import asyncio

import msgspec
import pytest
from playwright.async_api import expect

from tests.console.stage import CUT, console, line, needs_chromium
from tests.server import HOST, scripted, serving
from vivavoce.limits.keys import hash_of

pytestmark = needs_chromium


def test_a_restarted_server_is_found_again_and_told_what_was_said() -> None:
    async def main() -> None:
        async with line() as cable:
            home = f"http://{HOST}:{cable.port}"
            async with serving(scripted(llm={"answers": ["Before."]})) as first:
                cable.lead_to(first.port)
                async with console(home, expected=CUT) as stage:
                    await stage.type("Remember seven.")
                    await stage.captions("Before.")
                    await stage.hears_an_answer()
                    await stage.hears_nothing()
                    await stage.press("Use microphone")
                    mute = stage.page.get_by_role("button", name="Mute")
                    await mute.click()
                    cable.cut()
                    await expect(stage.banner).to_contain_text("Trying again")
                    await stage.captions("What was said is kept.")
                    await stage.type("And now?")  # to nobody, for the moment
                    await stage.captions("And now?")
                    async with serving(scripted(llm={"answers": ["After."]})) as second:
                        cable.lead_to(second.port)
                        await stage.captions("Remember seven.", "Connected again.", "After.")
                        await expect(stage.status).to_have_text("Connected")
                        await expect(mute).to_have_attribute("aria-pressed", "true")
                        told = [item.content[0] for item in second.llm.requests[-1].items]  # type: ignore[union-attr]
                        words = [getattr(part, "text", "") for part in told]
                        assert words == ["Remember seven.", "Before.", "And now?"]
                        await stage.look_at("Timeline")
                        turns = stage.page.locator(".fall h3")
                        await expect(turns).to_have_text(["2And now?", "1Remember seven."])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("limit", "transport"), [("max_seconds", "websocket"), ("idle_seconds", "webrtc")]
)
def test_a_session_that_has_ended_is_not_taken_for_a_lost_connection(
    limit: str, transport: str
) -> None:
    settings = scripted(session={limit: 2})

    async def main() -> None:
        async with serving(settings) as server, console(server.http) as stage:
            await stage.page.get_by_label("Transport").select_option(transport)
            await stage.type("Hello")
            await stage.captions("Hello")
            banner = stage.banner
            await expect(banner).to_contain_text("The session has ended")
            await expect(stage.status).to_have_text("Ended")
            await banner.get_by_role("button", name="New conversation").click()
            await expect(stage.status).to_have_text("Connected")

    asyncio.run(main())


def test_a_key_is_asked_for_once_and_stays_out_of_the_socket() -> None:
    settings = msgspec.structs.replace(scripted(), keys={"me": hash_of("vv-the-right-one")})

    async def main() -> None:
        async with (
            serving(settings) as server,
            console(server.http, expected=("Failed to load resource",)) as stage,
        ):
            sent: list[str] = []
            stage.page.on(
                "request", lambda r: sent.append(r.url) if "vv-the-right" in r.url else None
            )
            await stage.type("Let me in.")
            box = stage.page.get_by_role("dialog", name="This server needs a key")
            await expect(box).to_be_visible()
            assert stage.problems == []
            await box.get_by_role("button", name="Not now").click()
            await expect(stage.page.get_by_label("Type instead")).to_have_value("Let me in.")
            await stage.banner.get_by_role("button", name="Enter a key").click()
            await box.get_by_label("API key").fill("vv-a-wrong-one")
            await box.get_by_role("button", name="Use it").click()
            await expect(box).to_contain_text("Incorrect API key")
            await box.get_by_label("API key").fill("vv-the-right-one")
            await box.get_by_role("button", name="Use it").click()
            await stage.captions("Let me in.", "Hello!")
            shelf = stage.page.get_by_role("list", name="Conversations")
            await expect(shelf.get_by_role("button")).to_have_count(1)
            await stage.press("End")
            await stage.press("Start talking")
            await expect(stage.status).to_have_text("Connected")
            assert not await box.is_visible()
            kept = await stage.page.evaluate("[sessionStorage, localStorage].map(JSON.stringify)")
            assert "vv-the-right-one" in kept[0]
            assert "vv-the-right-one" not in kept[1]
            assert sent == []

    asyncio.run(main())


def test_a_server_without_webrtc_says_so_and_leaves_the_page_usable() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            console(server.http, expected=("Failed to load resource",)) as stage,
        ):
            calls = "**/v1/realtime/calls*"
            full = '{"error": {"message": "no room just now"}}'
            await stage.page.route(calls, lambda route: route.fulfill(status=503, body=full))
            await stage.page.get_by_label("Transport").select_option("webrtc")
            await stage.press("Start talking")
            await expect(stage.banner).to_contain_text("No room just now. Trying again")
            await stage.press("End")
            await stage.page.unroute(calls)
            await stage.page.route(calls, lambda route: route.fulfill(status=404, body="{}"))
            await stage.press("Start talking")
            banner = stage.banner
            await expect(banner).to_contain_text("takes no WebRTC calls. Choose WebSocket")
            await stage.page.get_by_label("Transport").select_option("websocket")
            await stage.type("Hello")
            await stage.captions("Hello!")

    asyncio.run(main())


def test_a_page_that_may_not_listen_or_speak_says_where_it_may() -> None:
    async def main() -> None:
        async with serving() as server:
            home = f"http://voice.test:{server.port}"
            flags = (f"--host-resolver-rules=MAP voice.test {HOST}",)
            async with console(home, flags=flags) as stage:
                await stage.press("Start talking")
                await expect(stage.banner).to_contain_text("pages at https or at localhost")

    asyncio.run(main())
