"""What a plain chat completion takes longer through this server than straight from its endpoint.

The endpoint is a stub in this process that answers at once. Requests go in pairs, one each way, so
that what else the machine does falls on both.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from aiohttp import web

from bench.figures import Figure, percentile, spread
from bench.report import run
from bench.served import served

CONFIG = """
[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "openai"
tts = "scripted"

[engines.llm.openai]
base_url = "http://127.0.0.1:{port}/v1"
model = "stub"
"""
TARGET_MS = 3.0
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Yes. " * 40}}
ANSWER = msgspec.json.encode({"id": "1", "choices": [{**_CHOICE, "finish_reason": "stop"}]})
EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"Yes. "}}]}\n\n' * 40


async def measure(quick: bool) -> list[Figure]:
    pairs = 100 if quick else 1000
    figures = []
    async with (
        _stub() as port,
        served(CONFIG.format(port=port)) as server,
        aiohttp.ClientSession() as http,
    ):
        direct = f"http://127.0.0.1:{port}/v1/chat/completions"
        through = f"http://127.0.0.1:{server.port}/v1/chat/completions"
        for streamed, name in ((False, "whole answer"), (True, "streamed, to the first byte")):
            body = _asked(streamed)
            for url in (direct, through) * 20:
                await _ms(http, url, body)
            ways = [
                (await _ms(http, direct, body), await _ms(http, through, body))
                for _ in range(pairs)
            ]
            added = [there - here for here, there in ways]
            detail = {
                "direct_ms": spread([here for here, _ in ways]),
                "through_ms": spread([there for _, there in ways]),
                "added_ms": spread(added),
            }
            figures += [
                Figure(
                    measure=f"plain chat, time added by the proxy, {name}, p{percent}",
                    value=percentile(added, percent),
                    unit="ms",
                    target=target,
                    detail=detail,
                )
                for percent, target in ((50, TARGET_MS), (99, None))
            ]
    return figures


def _asked(streamed: bool) -> bytes:
    said = [{"role": "user", "content": "Is it true? " * 20}] * 10
    return msgspec.json.encode({"model": "stub", "messages": said, "stream": streamed})


async def _ms(http: aiohttp.ClientSession, url: str, body: bytes) -> float:
    """To the first byte of the body. The rest is read, so that the connection can be used again."""
    started = time.perf_counter()
    async with http.post(url, data=body) as response:
        await response.content.readany()
        first = time.perf_counter() - started
        response.raise_for_status()
        await response.read()
    return first * 1000


@asynccontextmanager
async def _stub() -> AsyncIterator[int]:
    async def complete(request: web.Request) -> web.StreamResponse:
        if not (await request.json(loads=msgspec.json.decode))["stream"]:
            return web.Response(body=ANSWER, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(EVENTS)
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    run(measure)
