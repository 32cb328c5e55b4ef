"""Work on a request that several tasks share, and that ends with whoever asked."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

LOOK_SECONDS = 0.1
"""How often it is looked whether the client is still there."""


@asynccontextmanager
async def together() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group of which the first error comes out by itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def unless_gone(
    request: web.Request, work: Coroutine[Any, Any, web.StreamResponse]
) -> web.StreamResponse:
    """Do the work; cancel it when the client hangs up.

    A server need not be built with aiohttp's handler_cancellation for that. What the work raises
    comes out, but for ConnectionResetError: then nobody listens any more, or nobody should.
    """
    task = asyncio.create_task(work)
    try:
        while not task.done() and not _gone(request):
            await asyncio.wait((task,), timeout=LOOK_SECONDS)
        if task.done():
            return task.result()
    except ConnectionResetError:
        if request.transport is not None:
            request.transport.abort()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
    return web.Response(status=499)  # goes nowhere, and ends the request without a complaint


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
