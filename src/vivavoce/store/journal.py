"""A file of usage that is not in the store yet: append-only and synced, read again after a crash.

A process has one file, made when it is needed and locked while the process lives. A file without a
lock belongs to a process that has died: the next process that uses the folder reads it. The locks
are POSIX locks.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from vivavoce.store.base import Charge, UsageRow

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)
T = TypeVar("T")

ENDING = ".journal"
_encode = msgspec.json.Encoder().encode


class UsageEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Usage that is not in the store yet."""

    row: UsageRow
    charges: tuple[Charge, ...] = ()
    reservation: str = ""
    """The reservation that it replaces."""
    begun: bool = False
    """Whether the work has only begun. If no later entry follows, it is booked like this."""


_decode = msgspec.json.Decoder(UsageEntry).decode


class Journal:
    """The file of a process: an async context manager. All file operations are in one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._unwritten: deque[bytes] = deque()
        self._path: Path | None = None
        self._file = -1
        self._size = 0
        self._found: dict[Path, int] = {}  # files of processes that have died, locked by this one
        self._damaged: set[Path] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._thread.submit(self._close)
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def empty(self) -> bool:
        """Whether there is nothing that clear() would delete."""
        return not (self._path or self._found or self._unwritten)

    async def found(self) -> list[UsageEntry]:
        """The entries of processes that have died, in order.

        Their files are kept until clear(). Raises OSError.
        """
        return await self._run(self._find)

    async def append(self, *entries: UsageEntry) -> None:
        """Write entries and sync the file.

        Raises OSError; then they are written with the next entries, or by sync().
        """
        self._unwritten.extend(_encode(entry) + b"\n" for entry in entries)
        await self.sync()

    async def sync(self) -> None:
        """Write the entries that were not written yet. Raises OSError."""
        await self._run(self._write)

    async def clear(self) -> None:
        """Delete all entries that were appended or found so far. Raises OSError."""
        self._unwritten.clear()
        await self._run(self._delete)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _find(self) -> list[UsageEntry]:
        entries: list[UsageEntry] = []
        for path in sorted(self.folder.glob(f"*{ENDING}")):
            file = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)  # its process is alive
                continue
            self._found[path] = file
            entries += self._read(path)
        return entries

    def _read(self, path: Path) -> list[UsageEntry]:
        *lines, rest = path.read_bytes().split(b"\n")
        entries, unreadable = [], 0
        for line in lines:
            try:
                entries.append(_decode(line))
            except msgspec.MsgspecError:
                unreadable += 1
        if unreadable:
            self._damaged.add(path)
            log.error(
                "%d lines of %s cannot be read; the file is kept as %s.damaged",
                unreadable,
                path,
                path,
            )
        elif rest:
            log.info("the last line of %s was being written when its process died", path)
        return entries

    def _write(self) -> None:
        lines: list[bytes] = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._unwritten.popleft())
        if not lines:
            return
        try:
            if self._path is None:
                self._make()
            _write_all(self._file, b"".join(lines))
            os.fsync(self._file)
        except OSError:
            self._unwritten.extendleft(reversed(lines))
            if self._path is not None:
                os.ftruncate(self._file, self._size)
                os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size = os.fstat(self._file).st_size

    def _make(self) -> None:
        """Open and lock a new file: it appears under its name only when it is locked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{os.getpid()}-{secrets.token_hex(6)}{ENDING}"
        new = path.with_suffix(".new")
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        new.rename(path)
        self._path, self._file, self._size = path, file, 0
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _delete(self) -> None:
        files, self._found = self._found, {}
        if self._path is not None:
            files[self._path] = self._file
            self._path, self._file = None, -1
        for path, file in files.items():
            try:
                if path in self._damaged:
                    path.rename(f"{path}.damaged")
                else:
                    path.unlink(missing_ok=True)
            finally:
                os.close(file)

    def _close(self) -> None:
        for file in (self._file, *self._found.values()):
            if file >= 0:
                os.close(file)
        self._file, self._path, self._found = -1, None, {}


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
