"""A store in one SQLite file: the embedded default. Several processes of a machine may share it.

All statements run in one thread, which owns the connection, so the event loop is not blocked. The
journal is a write-ahead log with a sync at each commit, so that nothing that was booked is lost, or
only half written, if the process is killed or the power fails.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from vivavoce.errors import StorageFull, StoreError
from vivavoce.store.base import (
    PAGE_ROWS,
    Balance,
    Charge,
    RecordKind,
    Reservation,
    SessionClaim,
    SessionSave,
    UsageRow,
)

T = TypeVar("T")

MAX_WAITING = 10_000
"""How many operations may wait for the thread; the next one fails."""
BUSY_TIMEOUT_S = 5.0
BUSY_RETRY_S = 0.02
"""How long to wait for another process that is writing."""

_MIGRATIONS = (
    """
    CREATE TABLE kept (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL);
    CREATE INDEX kept_by_expiry ON kept (expires);
    CREATE TABLE records (
        kind TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (kind, name)
    );
    CREATE TABLE balances (
        budget TEXT NOT NULL, period TEXT NOT NULL,
        spent INTEGER NOT NULL DEFAULT 0, reserved INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (budget, period)
    );
    CREATE TABLE reservations (
        id TEXT PRIMARY KEY, lease_until REAL NOT NULL, charges BLOB NOT NULL, row BLOB
    );
    CREATE INDEX reservations_by_lease ON reservations (lease_until);
    CREATE TABLE usage (
        id TEXT PRIMARY KEY, at REAL NOT NULL, nano_usd INTEGER NOT NULL, row BLOB NOT NULL
    );
    CREATE INDEX usage_by_time ON usage (at, id);
    """,
    """
    CREATE TABLE sessions (
        key TEXT PRIMARY KEY, epoch INTEGER NOT NULL, owner TEXT NOT NULL, value BLOB NOT NULL,
        expires REAL NOT NULL
    );
    CREATE INDEX sessions_by_expiry ON sessions (expires);
    """,
)
"""Scripts that make the schema.

The user_version of the file is the number of scripts that have run.
"""

_charges = msgspec.msgpack.Decoder(tuple[Charge, ...])
_row = msgspec.msgpack.Decoder(UsageRow)
_encode = msgspec.msgpack.Encoder().encode


class SQLiteStore:
    """See store/base.py. `path` ":memory:" is a store of this process alone, for tests."""

    def __init__(self, path: Path | str, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._path = str(path)
        self._wall_clock = wall_clock
        self._waiting = 0
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        """Raises StoreError if the file cannot be opened or was made by a later version."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        try:
            await self._run(self._open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._close)
            await asyncio.to_thread(thread.shutdown)

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        now = self._wall_clock()

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM kept WHERE expires <= ?", (now,))
            db.execute("REPLACE INTO kept VALUES (?, ?, ?)", (key, value, now + ttl_s))

        await self._write(work)

    async def get(self, key: str) -> bytes | None:
        found = await self._read(
            "SELECT value FROM kept WHERE key = ? AND expires > ?", key, self._wall_clock()
        )
        return found[0][0] if found else None

    async def delete(self, key: str) -> None:
        await self._write(lambda db: db.execute("DELETE FROM kept WHERE key = ?", (key,)))

    async def now(self) -> int:
        return int(self._wall_clock() * 1000)

    async def claim(self, key: str, owner: str) -> SessionClaim:
        def work(db: sqlite3.Connection) -> SessionClaim:
            now = self._wall_clock()
            found = db.execute(
                "SELECT epoch, owner, value FROM sessions WHERE key = ? AND expires > ?", (key, now)
            ).fetchone()
            if found is None:
                return SessionClaim(int(now * 1000))
            epoch = max(found[0] + 1, int(now * 1000))
            db.execute(
                "UPDATE sessions SET epoch = ?, owner = ? WHERE key = ?", (epoch, owner, key)
            )
            return SessionClaim(epoch, *found)

        return await self._write(work)

    async def keep(self, saves: Sequence[SessionSave]) -> list[bool]:
        now = self._wall_clock()

        def work(db: sqlite3.Connection) -> list[bool]:
            db.execute("DELETE FROM sessions WHERE expires <= ?", (now,))
            return [_keep(db, save, now) for save in saves]

        return await self._write(work)

    async def save(self, kind: RecordKind, name: str, data: bytes) -> None:
        await self._write(
            lambda db: db.execute("REPLACE INTO records VALUES (?, ?, ?)", (kind, name, data))
        )

    async def remove(self, kind: RecordKind, name: str) -> bool:
        statement = "DELETE FROM records WHERE kind = ? AND name = ?"
        return await self._write(lambda db: db.execute(statement, (kind, name)).rowcount > 0)

    async def records(self, kind: RecordKind) -> dict[str, bytes]:
        statement = "SELECT name, data FROM records WHERE kind = ? ORDER BY name"
        return dict(await self._read(statement, kind))

    async def reserve(self, reservation: Reservation) -> str | None:
        def work(db: sqlite3.Connection) -> str | None:
            for charge in reservation.charges:
                spent, reserved = _balance(db, charge.budget, charge.period)
                if spent + reserved + charge.amount > charge.limit:
                    db.rollback()
                    return charge.budget
                _move(db, charge, reserved=charge.amount)
            db.execute(
                "INSERT INTO reservations VALUES (?, ?, ?, NULL)",
                (reservation.id, reservation.lease_until, _encode(reservation.charges)),
            )
            return None

        return await self._write(work)

    async def begin(self, reservation_id: str, row: UsageRow) -> None:
        statement = "UPDATE reservations SET row = ? WHERE id = ?"
        await self._write(lambda db: db.execute(statement, (_encode(row), reservation_id)))

    async def settle(
        self, row: UsageRow, charges: Sequence[Charge], reservation_id: str = ""
    ) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            _release(db, reservation_id)
            return _book(db, row, charges)

        return await self._write(work)

    async def book(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        return await self._write(lambda db: [row for row in rows if _book(db, row, ())])

    async def release(self, reservation_id: str) -> None:
        await self._write(lambda db: _release(db, reservation_id))

    async def renew(self, reservation_ids: Collection[str], lease_until: float) -> None:
        values = [(lease_until, one) for one in reservation_ids]
        statement = "UPDATE reservations SET lease_until = ? WHERE id = ?"
        await self._write(lambda db: db.executemany(statement, values))

    async def reap(self, now: float) -> int:
        def work(db: sqlite3.Connection) -> int:
            expired = db.execute(
                "SELECT id, charges, row FROM reservations WHERE lease_until <= ?", (now,)
            ).fetchall()
            for id_, charges, row in expired:
                _release(db, id_)
                if row is not None:
                    _book(db, _row.decode(row), _charges.decode(charges))
            return len(expired)

        return await self._write(work)

    async def balance(self, budget: str, period: str) -> Balance:
        return await self._run(lambda db: _balance(db, budget, period))

    async def usage(self, since: float, until: float) -> AsyncGenerator[list[UsageRow]]:
        after = (since, "")
        while True:
            found = await self._read(
                "SELECT at, id, row FROM usage WHERE (at, id) > (?, ?) AND at < ? "
                "ORDER BY at, id LIMIT ?",
                *after,
                until,
                PAGE_ROWS,
            )
            if not found:
                return
            yield [_row.decode(row) for _, _, row in found]
            after = found[-1][:2]

    async def forget_usage(self, before: float) -> int:
        statement = "DELETE FROM usage WHERE at < ?"
        return await self._write(lambda db: db.execute(statement, (before,)).rowcount)

    def _open(self, _: sqlite3.Connection | None) -> None:
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        self._connection = db
        _use_wal(db)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(_MIGRATIONS):
            db.rollback()
            raise StoreError(
                f"the store {self._path} was made by a later version of Vivavoce; use that version"
            )
        for script in _MIGRATIONS[version:]:
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        db.commit()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return await self._run(lambda db: db.execute(statement, values).fetchall())

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one transaction, whole or not at all."""

        def transaction(db: sqlite3.Connection) -> T:
            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(db)
            except BaseException:
                db.rollback()
                raise
            if db.in_transaction:
                db.commit()
            return result

        return await self._run(transaction)

    async def _run(self, work: Callable[[Any], T]) -> T:
        """Run work in the thread. If the caller is cancelled, the work still runs to its end."""
        if self._thread is None:
            raise StoreError(f"the store {self._path} is closed")
        if self._waiting >= MAX_WAITING:
            raise StoreError(f"the store {self._path} is too slow: {MAX_WAITING} operations wait")
        self._waiting += 1
        future = self._thread.submit(lambda: work(self._connection))
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except sqlite3.Error as exc:
            raise _named(self._path, exc) from exc
        finally:
            self._waiting -= 1


def _use_wal(db: sqlite3.Connection) -> None:
    """Use a write-ahead log.

    Where several processes do so for a new file at the same moment, SQLite refuses all but one at
    once: it does not wait for a lock that two connections want to strengthen.
    """
    ends_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > ends_at:
                raise
            time.sleep(BUSY_RETRY_S)
        else:
            return


def _named(path: str, exc: sqlite3.Error) -> StoreError:
    """An error of SQLite with its place and the remedy."""
    error = f"the store {path} cannot be used: {exc}"
    match getattr(exc, "sqlite_errorcode", None):  # the low byte has the primary error code
        case None:
            return StoreError(error)
        case code if code & 0xFF == sqlite3.SQLITE_FULL:
            return StorageFull(
                f"the store {path} cannot be written: its disk is full; free space there, or name "
                "a file on another disk by [store] url"
            )
        case code if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(
                f"the store {path} was locked by another process for {BUSY_TIMEOUT_S:g} s; end "
                "that process, or use Redis for many servers"
            )
        case code if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            return StoreError(
                f"{error}; make the file and its folder writable for this user, or name another "
                "file by [store] url"
            )
        case _:
            return StoreError(error)


def _keep(db: sqlite3.Connection, save: SessionSave, now: float) -> bool:
    kept = db.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "epoch = excluded.epoch, owner = excluded.owner, value = excluded.value, "
        "expires = excluded.expires WHERE epoch < excluded.epoch "
        "OR (epoch = excluded.epoch AND owner = excluded.owner)",
        (save.key, save.epoch, save.owner, save.value, now + save.ttl_s),
    )
    return kept.rowcount > 0


def _balance(db: sqlite3.Connection, budget: str, period: str) -> Balance:
    statement = "SELECT spent, reserved FROM balances WHERE budget = ? AND period = ?"
    found = db.execute(statement, (budget, period)).fetchone()
    return Balance(*found) if found else Balance()


def _move(db: sqlite3.Connection, charge: Charge, *, spent: int = 0, reserved: int = 0) -> None:
    db.execute(
        "INSERT INTO balances VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
        "SET spent = spent + excluded.spent, reserved = reserved + excluded.reserved",
        (charge.budget, charge.period, spent, reserved),
    )


def _release(db: sqlite3.Connection, reservation_id: str) -> None:
    statement = "DELETE FROM reservations WHERE id = ? RETURNING charges"
    found = db.execute(statement, (reservation_id,)).fetchall()
    for (charges,) in found:
        for charge in _charges.decode(charges):
            _move(db, charge, reserved=-charge.amount)


def _book(db: sqlite3.Connection, row: UsageRow, charges: Sequence[Charge]) -> bool:
    booked = db.execute(
        "INSERT OR IGNORE INTO usage VALUES (?, ?, ?, ?)",
        (row.id, row.at, row.nano_usd, _encode(row)),
    )
    if not booked.rowcount:
        return False
    for charge in charges:
        _move(db, charge, spent=charge.amount)
    return True
