"""The npm package `openai` in Chromium, as published: a call made by REST, and a WebSocket."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.clients.browser_stage import (
    behind_a_key,
    holds,
    needs_packages,
    page_with,
    short_lived_key,
)
from tests.console.browser import TcpProxy, awaited, needs_chromium, recorded_hum
from tests.server import HOST, Server, scripted, serving
from tests.transports.webrtc.caller import until

TLS = Path(__file__).parents[1] / "data" / "tls"
pytestmark = [needs_chromium, needs_packages]


@awaited
async def test_browser_webrtc_call_is_answered_and_closed() -> None:
    settings = scripted(stt={"transcripts": ["who is there"]}, llm={"answers": ["Nobody."]})
    async with (
        serving(behind_a_key(settings)) as server,
        recorded_hum((0.8, 0), (0.6, 0.5), (10, 0)) as recording,
        page_with("openai.js", recording) as page,
    ):
        key = await short_lived_key(server)
        await page.evaluate("([server, key]) => call(server, key)", [server.http, key])
        await holds(page, "seen.events[0] === 'session.created'")
        await holds(page, "seen.answer === 'Nobody.'")
        await holds(page, "seen.events.includes('output_audio_buffer.stopped')")
        assert await page.evaluate("seen.problems") == []
        await page.evaluate("hangUp()")
        await holds(page, "seen.closed === 'remote'")
        await until(lambda: len(server.sessions) == 0)


@asynccontextmanager
async def over_tls(server: Server) -> AsyncIterator[str]:
    """The beginning of the https address of a proxy in front of that server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    cable = TcpProxy()
    cable.forward_to(server.port)
    proxy = await asyncio.start_server(cable.serve, HOST, 0, ssl=context)
    try:
        yield f"https://{HOST}:{proxy.sockets[0].getsockname()[1]}"
    finally:
        cable.cut()
        proxy.close()
        await proxy.wait_closed()


@awaited
async def test_browser_websocket_is_answered_and_closed() -> None:
    async with (
        serving(behind_a_key(scripted(llm={"answers": ["Nobody."]}))) as server,
        over_tls(server) as address,
        page_with("openai.js") as page,
    ):
        key = await short_lived_key(server)
        await page.evaluate("([...all]) => ask(...all)", [address, key, "Who is there?"])
        await holds(page, "seen.answer === 'Nobody.' && seen.events.includes('response.done')")
        assert await page.evaluate("seen.events[0]") == "session.created"
        assert await page.evaluate("seen.problems") == []
        await page.evaluate("line.close()")
        await holds(page, "seen.closed === 1000")
        await until(lambda: len(server.sessions) == 0)
