"""Lines typed at a terminal, without a thread that could not be stopped."""

import asyncio
import os

from vivavoce.errors import SettingsError

_MOST_BYTES = 64 * 1024


class Prompt:
    """Reads a terminal line by line. Cancelling line() loses nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._typed = b""
        self._ended = False

    async def line(self) -> str | None:
        """The next line; None at the end of the input. Raises SettingsError where none can come."""
        while b"\n" not in self._typed and not self._ended:
            await self._readable()
            more = os.read(self._descriptor, _MOST_BYTES)
            self._typed += more
            self._ended = not more or len(self._typed) > _MOST_BYTES
        if self._ended and not self._typed:
            return None
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode(errors="replace").strip()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except NotImplementedError as exc:
            raise SettingsError("this terminal cannot be read; give the words by --text") from exc
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)
