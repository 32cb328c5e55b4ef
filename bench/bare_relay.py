"""The least that a relay can be: frames both ways, no limits, no metering, nothing kept.

python -m bench.bare_relay PORT UPSTREAM_URL
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import WSMsgType, web


async def carry(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)


async def relay(request: web.Request) -> web.StreamResponse:
    client = web.WebSocketResponse(compress=False, max_msg_size=24 << 20)
    await client.prepare(request)
    http: aiohttp.ClientSession = request.app["http"]
    headers = {"Authorization": "Bearer sk-upstream"}
    async with http.ws_connect(sys.argv[2], headers=headers, max_msg_size=24 << 20) as upstream:
        tasks = [
            asyncio.create_task(carry(client, upstream)),
            asyncio.create_task(carry(upstream, client)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    await client.close()
    return client


async def ready(_request: web.Request) -> web.Response:
    return web.Response(text="ready")


async def serve(app: web.Application) -> None:
    """Serve that and /ready at the port of the command line, until the process is killed."""
    app.router.add_get("/ready", ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()


async def main() -> None:
    app = web.Application()
    app.router.add_get("/v1/realtime", relay)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as app["http"]:
        await serve(app)


if __name__ == "__main__":
    uvloop.run(main())
