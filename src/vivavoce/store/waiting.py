"""Usage that is not in the store yet, in memory and in a journal."""

import logging
from collections import deque
from collections.abc import Iterable
from functools import partial

from vivavoce.store.base import AccountStore, RunOperation, UsageRow
from vivavoce.store.journal import Journal, UsageEntry

log = logging.getLogger(__name__)

MAX_WAITING = 20_000
"""Rows; with more nothing new begins, and with twice as many sessions end."""
BOOKED_AT_ONCE = 500


class WaitingUsage:
    """Rows in the order in which they came, each id once."""

    def __init__(self, journal: Journal | None) -> None:
        """journal: entered. Without one the rows are in memory only."""
        self.failure: OSError | None = None
        """The error of the last attempt to write the journal."""
        self._journal = journal
        self._entries: deque[UsageEntry] = deque()
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    async def add(self, *entries: UsageEntry) -> list[UsageRow]:
        """Keep entries; return the rows that were not kept already."""
        new = self._extend(entries)
        await self.write_down(*new)
        return [entry.row for entry in new]

    async def write_down(self, *entries: UsageEntry) -> None:
        """Append entries to the journal, after those that could not be appended before."""
        if self._journal is None:
            return
        try:
            await self._journal.append(*entries)
        except OSError as exc:
            self._fail(self._journal, exc)
        else:
            self.failure = None

    async def write_first(self, store: AccountStore, run: RunOperation) -> None:
        """Give the store the oldest row, or several that cost nothing. Raises StoreError."""
        first = self._entries[0]
        written = [first]
        if first.charges or first.reservation:
            await run(partial(store.settle, first.row, first.charges, first.reservation))
        else:
            written = self._first_free()
            await run(partial(store.book, [entry.row for entry in written]))
        for entry in written:
            if self._entries and self._entries[0] is entry:
                self._entries.popleft()
                self._ids.discard(entry.row.id)

    async def read_journal(self) -> bool:
        """Keep the usage of processes that have died; return whether there was a file."""
        if self._journal is None:
            return False
        try:
            found = await self._journal.found()
        except OSError as exc:
            self._fail(self._journal, exc)
            return False
        settled = {entry.row.id for entry in found if not entry.begun}
        left = [entry for entry in found if not (entry.begun and entry.row.id in settled)]
        if left:
            log.warning("%d rows of usage were left in %s", len(left), self._journal.folder)
        self._extend(left)
        return not self._journal.empty

    async def clear_journal(self) -> None:
        """Delete the journal, if everything in it is in the store."""
        journal = self._journal
        if journal is None or journal.empty or self._entries:
            return
        try:
            await journal.clear()
        except OSError as exc:
            log.error("the journal in %s cannot be deleted: %s", journal.folder, exc.strerror)

    def log_left(self, reason: Exception) -> None:
        """The process ends while the store cannot be reached."""
        count = len(self._entries)
        if self._journal is not None and self.failure is None:
            place = self._journal.folder
            log.warning("%d rows of usage wait in %s for the next start: %s", count, place, reason)
        elif count:
            log.error("%d rows of usage are lost: %s", count, reason)

    def _extend(self, entries: Iterable[UsageEntry]) -> list[UsageEntry]:
        new = []
        for entry in entries:
            if entry.row.id not in self._ids:
                self._ids.add(entry.row.id)
                new.append(entry)
        self._entries.extend(new)
        return new

    def _first_free(self) -> list[UsageEntry]:
        found: list[UsageEntry] = []
        for entry in self._entries:
            if entry.charges or entry.reservation or len(found) == BOOKED_AT_ONCE:
                break
            found.append(entry)
        return found

    def _fail(self, journal: Journal, exc: OSError) -> None:
        if self.failure is None:
            log.error(
                "usage that waits for the store is in memory alone: the journal in %s cannot be "
                "used: %s; free space there, or name another folder by [store] journal",
                journal.folder,
                exc.strerror,
            )
        self.failure = exc
