"""A page of somebody else's in Chromium, with the official JavaScript clients as published.

`make test` installs them into tests/clients/browser/node_modules. The page is served from another
origin than the server, and fails its test when it writes an error.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from playwright.async_api import Page

from tests.console.browser import shared_browser
from tests.server import HOST, Server, scripted
from vivavoce.limits.keys import hash_of
from vivavoce.settings import Settings

FOLDER = Path(__file__).parent / "browser"
PACKAGES = FOLDER / "node_modules"
KEY = "vv-the-key-of-the-page-s-own-server"
needs_packages = pytest.mark.skipif(
    not PACKAGES.is_dir(), reason="no npm was here when make test installed"
)


def behind_a_key(settings: Settings | None = None) -> Settings:
    """Settings of a server that requires a key."""
    return msgspec.structs.replace(settings or scripted(), keys={"page": hash_of(KEY)})


async def short_lived_key(server: Server, **session: Any) -> str:
    """What the page's own server gets for it."""
    async with aiohttp.ClientSession() as http:
        reply = await http.post(
            f"{server.http}/v1/realtime/client_secrets",
            json={"session": {"type": "realtime", **session}},
            headers={"Authorization": f"Bearer {KEY}"},
        )
        secret: str = (await reply.json())["value"]
        return secret


@asynccontextmanager
async def page_with(script: str, recording: Path | None = None, *flags: str) -> AsyncIterator[Page]:
    """A page that runs this script of the folder `browser`; its microphone plays the recording."""
    source = (FOLDER / "page.html").read_text(encoding="utf-8").replace("SCRIPT", script)

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(text=source, content_type="text/html")

    site = web.Application()
    site.router.add_get("/", serve)
    site.router.add_static("/", FOLDER)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        async with shared_browser.context(recording, *flags) as context:
            page = await context.new_page()
            problems: list[str] = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "console",
                lambda said: problems.append(said.text) if said.type == "error" else None,
            )
            await page.goto(f"http://localhost:{runner.addresses[0][1]}/")
            yield page
            assert problems == [], problems
    finally:
        await runner.cleanup()


async def holds(page: Page, condition: str) -> None:
    """Wait until the page says so; a failure shows what it saw."""
    try:
        await page.wait_for_function(condition)
    except Exception as exc:
        seen = json.dumps(await page.evaluate("seen"))
        raise AssertionError(f"it never came to {condition}: {seen}") from exc
