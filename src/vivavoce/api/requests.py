"""One HTTP request: the settings it begins with, its body, and work that ends with its client."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from vivavoce.errors import InvalidRequest
from vivavoce.runtime.sessions import ServerContext

CONTEXT = web.RequestKey("context", ServerContext)
"""The context of the server as it was when the request began."""
CONNECTION_CHECK_S = 0.1
"""How often the connection is checked during the work."""


def keep_context(
    app: web.Application, hold: Callable[[], AbstractContextManager[ServerContext]]
) -> None:
    """Give every request the CONTEXT of its beginning, in use until the request ends."""

    @web.middleware
    async def keep(request: web.Request, handler: Handler) -> web.StreamResponse:
        with hold() as context:
            request[CONTEXT] = context
            return await handler(request)

    app.middlewares.append(keep)


async def read_body(request: web.Request, max_bytes: int, timeout_s: float) -> bytes:
    """The body of a request.

    Raises HTTPRequestEntityTooLarge, HTTPRequestTimeout, and InvalidRequest: it cannot be decoded
    as its Content-Encoding or Transfer-Encoding says.
    """
    if (request.content_length or 0) > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_bytes, request.content_length or 0)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            while part := await request.content.readany():
                body += part
                if len(body) > max_bytes:
                    raise web.HTTPRequestEntityTooLarge(max_bytes, len(body))
    except TimeoutError as exc:
        raise late(timeout_s) from exc
    except web.RequestPayloadError as exc:
        raise undecodable(request) from exc
    return bytes(body)


def late(timeout_s: float) -> web.HTTPRequestTimeout:
    return web.HTTPRequestTimeout(text=f"The request was not complete within {timeout_s:g} s.")


def undecodable(request: web.Request) -> InvalidRequest:
    request.content.feed_eof()  # aiohttp would read on to the end of the body, and fail again
    return InvalidRequest(
        "The body of the request is not encoded as its headers say.", code="invalid_body"
    )


async def unless_gone(
    request: web.Request, work: Coroutine[Any, Any, web.StreamResponse]
) -> web.StreamResponse:
    """Do the work; cancel it when the client disconnects.

    For servers without aiohttp's handler_cancellation. Raises what the work raises, except
    ConnectionResetError, for which the connection is aborted: the client is gone, or the answer
    must not look complete.
    """
    task = asyncio.create_task(work)
    try:
        while not task.done() and not _gone(request):
            await asyncio.wait((task,), timeout=CONNECTION_CHECK_S)
        if task.done():
            return task.result()
    except ConnectionResetError:
        if request.transport is not None:
            request.transport.abort()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
    return web.Response(status=499)  # is not sent: it ends the request without a log message


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
