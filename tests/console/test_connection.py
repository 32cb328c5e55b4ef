import asyncio

import msgspec
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
                    cable.cut()
                    await expect(stage.page.get_by_role("alert").first).to_contain_text(
                        "Trying again"
                    )
                    await expect(stage.page.get_by_role("status")).to_have_text("Connection lost")
                    await stage.captions("What was said is kept.")
                    async with serving(scripted(llm={"answers": ["After."]})) as second:
                        cable.lead_to(second.port)
                        await stage.captions("Remember seven.", "Connected again.")
                        await expect(stage.page.get_by_role("status")).to_have_text("Connected")
                        await stage.type("And now?")
                        await stage.captions("After.")
                        told = [item.content[0] for item in second.llm.requests[-1].items]  # type: ignore[union-attr]
                        words = [getattr(part, "text", "") for part in told]
                        assert words == ["Remember seven.", "Before.", "And now?"]

    asyncio.run(main())


def test_a_session_that_has_ended_is_not_taken_for_a_lost_connection() -> None:
    settings = scripted(session={"max_seconds": 2})

    async def main() -> None:
        async with serving(settings) as server, console(server.http) as stage:
            await stage.type("Hello")
            await stage.captions("Hello")
            banner = stage.page.get_by_role("alert").first
            await expect(banner).to_contain_text("The session has ended")
            await expect(stage.page.get_by_role("status")).to_have_text("Ended")
            await banner.get_by_role("button", name="New conversation").click()
            await expect(stage.page.get_by_role("status")).to_have_text("Connected")

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
            await stage.press("Start talking")
            box = stage.page.get_by_role("dialog", name="This server needs a key")
            await box.get_by_label("API key").fill("vv-a-wrong-one")
            await box.get_by_role("button", name="Use it").click()
            await expect(box).to_contain_text("Incorrect API key")
            await box.get_by_label("API key").fill("vv-the-right-one")
            await box.get_by_role("button", name="Use it").click()
            await expect(stage.page.get_by_role("status")).to_have_text("Connected")
            await stage.press("End")
            await stage.press("Start talking")
            await expect(stage.page.get_by_role("status")).to_have_text("Connected")
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
            await stage.page.route(
                "**/v1/realtime/calls*", lambda route: route.fulfill(status=404, body="{}")
            )
            await stage.page.get_by_label("Transport").select_option("webrtc")
            await stage.press("Start talking")
            banner = stage.page.get_by_role("alert").first
            await expect(banner).to_contain_text("takes no WebRTC calls. Choose WebSocket")
            await stage.page.get_by_label("Transport").select_option("websocket")
            await stage.type("Hello")
            await stage.captions("Hello!")

    asyncio.run(main())
