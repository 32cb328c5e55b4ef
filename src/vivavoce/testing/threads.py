"""A fake server in a thread, for tests whose own event loop is busy or of another kind."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final

from vivavoce.testing.fake_server import FakeServer

START_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 20.0


@contextmanager
def running_in_thread() -> Iterator[FakeServer]:
    """A server that listens until the block ends. Its methods may be used from any thread."""
    started: Future[FakeServer] = Future()
    stop: Future[None] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(started, stop)), daemon=True)
    thread.start()
    try:
        yield started.result(START_TIMEOUT_S)
    finally:
        stop.set_result(None)
        thread.join(STOP_TIMEOUT_S)
        assert not thread.is_alive(), "the fake server did not end"


async def _serve(started: Future[FakeServer], stop: Future[None]) -> None:
    try:
        async with FakeServer().running() as fake:
            started.set_result(fake)
            await asyncio.wrap_future(stop)
    except BaseException as exc:
        if not started.done():
            started.set_exception(exc)
        raise
