"""What a start puts off until the server listens: models are loaded and certificates read then.

On one core that work would take the time of the start, and with several it slows it down.
"""

import asyncio
import gc
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

_listening: ContextVar[asyncio.Event | None] = ContextVar("listening", default=None)


@asynccontextmanager
async def put_off() -> AsyncIterator[None]:
    """In this task, and in those that it starts in the block, server_listens() waits for listens().

    Then the certificates are read, in a thread: see certificates_later().
    """
    listening = asyncio.Event()
    _listening.set(listening)
    reading = asyncio.create_task(_read_certificates(listening))
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.wait((reading,))


def listens() -> None:
    """The server listens: what was put off is done now."""
    if (listening := _listening.get()) is not None:
        listening.set()


async def server_listens(unless: asyncio.Event | None = None) -> None:
    """Wait until the server listens, if it is just being started; `unless` ends the wait, too."""
    listening = _listening.get()
    if listening is None or listening.is_set():
        return
    waits = [asyncio.create_task(each.wait()) for each in (listening, unless) if each]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Around imports for a start. Certificates are read later, and no garbage is collected: imports
    leave next to none, and collections would take 5 % of the CPU of a start.

    What is there at the end is never collected: it lives as long as the process.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with certificates_later():
            yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


_contexts: list["_LaterContext"] = []
_reading = threading.Lock()


class _LaterContext(ssl.SSLContext):
    """Reads the certificates of the system for its first connection; then it is a usual context."""

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        self.read()
        return super().wrap_bio(*given, **named)

    def wrap_socket(self, *given: Any, **named: Any) -> ssl.SSLSocket:
        self.read()
        return super().wrap_socket(*given, **named)

    def read(self) -> None:
        with _reading:
            if self in _contexts:
                _contexts.remove(self)
                self.set_default_verify_paths()


@contextmanager
def certificates_later() -> Iterator[None]:
    """TLS contexts that are made in the block read the certificates of the system only when they
    are used, or when the server listens.

    aiohttp makes two when it is imported: 7 % of the CPU of a start.
    """

    def later(context: ssl.SSLContext) -> None:
        context.__class__ = _LaterContext
        assert isinstance(context, _LaterContext)
        _contexts.append(context)

    setattr(ssl.SSLContext, "set_default_verify_paths", later)  # noqa: B010  a method of its base
    try:
        yield
    finally:
        delattr(ssl.SSLContext, "set_default_verify_paths")


async def _read_certificates(listening: asyncio.Event) -> None:
    """Those of contexts that were made above and check certificates."""
    await listening.wait()
    for context in tuple(_contexts):
        if context.verify_mode != ssl.CERT_NONE:
            await asyncio.to_thread(context.read)
