"""The body of a request, bounded in length and in time."""

import asyncio

from aiohttp import web


async def read(request: web.Request, most_bytes: int, seconds: float) -> bytes:
    """The body of a request. Raises HTTPRequestEntityTooLarge, or HTTPRequestTimeout."""
    if (request.content_length or 0) > most_bytes:
        raise web.HTTPRequestEntityTooLarge(most_bytes, request.content_length or 0)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while part := await request.content.readany():
                body += part
                if len(body) > most_bytes:
                    raise web.HTTPRequestEntityTooLarge(most_bytes, len(body))
    except TimeoutError as exc:
        raise web.HTTPRequestTimeout(
            text=f"The request did not come to its end within {seconds:g} s."
        ) from exc
    return bytes(body)
