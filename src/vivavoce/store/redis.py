"""A store in Redis or Valkey: for several processes or machines.

Each operation on money is one Lua script, which Redis runs whole or not at all. All keys have the
same hash tag, so that they are in one slot of a Redis cluster. How much is lost in a power cut
depends on a setting of Redis: `appendonly yes` with `appendfsync always` loses nothing.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar, cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError

from vivavoce.errors import StorageFull, StoreError
from vivavoce.secret import Secret
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

PREFIX = "{vivavoce}:"
TIMEOUT_S = 5.0
"""For a connection, and for an answer."""
RETRIES = 1
"""Retries of an operation whose connection was lost. Every operation may be repeated."""
REAPED_AT_ONCE = 100

# ARGV are strings: amounts are passed to HINCRBY as they came, because Lua's numbers are doubles.
_FUNCTIONS = """
local p = KEYS[1]
local function release(id)
  local key = p .. 'reservation:' .. id
  local packed = redis.call('HGET', key, 'charges')
  if not packed then return nil end
  local charges = cmsgpack.unpack(packed)
  for i = 1, #charges, 2 do
    if charges[i + 1] ~= '0' then
      redis.call('HINCRBY', p .. 'balance:' .. charges[i], 'reserved', '-' .. charges[i + 1])
    end
  end
  redis.call('DEL', key)
  redis.call('ZREM', p .. 'leases', id)
  return charges
end
local function book(id, at, data, charges)
  if redis.call('HSETNX', p .. 'usage', id, data) == 0 then return 0 end
  redis.call('ZADD', p .. 'usage_by_time', at, id)
  for i = 1, #charges, 2 do
    redis.call('HINCRBY', p .. 'balance:' .. charges[i], 'spent', charges[i + 1])
  end
  return 1
end
local function rest(first)
  local values = {}
  for i = first, #ARGV do values[#values + 1] = ARGV[i] end
  return values
end
"""
_RESERVE = """
local id, lease = ARGV[1], ARGV[2]
if redis.call('EXISTS', p .. 'reservation:' .. id) == 1 then -- the client repeats it
  redis.call('ZADD', p .. 'leases', lease, id)
  return -1
end
local charges = {}
for i = 3, #ARGV, 3 do
  local found = redis.call('HMGET', p .. 'balance:' .. ARGV[i], 'spent', 'reserved')
  local used = tonumber(found[1] or '0') + tonumber(found[2] or '0')
  if used + tonumber(ARGV[i + 1]) > tonumber(ARGV[i + 2]) then return (i - 3) / 3 end
  charges[#charges + 1] = ARGV[i]
  charges[#charges + 1] = ARGV[i + 1]
end
for i = 1, #charges, 2 do
  redis.call('HINCRBY', p .. 'balance:' .. charges[i], 'reserved', charges[i + 1])
end
redis.call('HSET', p .. 'reservation:' .. id, 'charges', cmsgpack.pack(charges))
redis.call('ZADD', p .. 'leases', lease, id)
return -1
"""
_BEGIN = """
local key = p .. 'reservation:' .. ARGV[1]
if redis.call('EXISTS', key) == 1 then
  redis.call('HSET', key, 'id', ARGV[2], 'at', ARGV[3], 'row', ARGV[4])
end
"""
_SETTLE = "release(ARGV[1]) return book(ARGV[2], ARGV[3], ARGV[4], rest(5))"
_RELEASE = "release(ARGV[1])"
_REAP = """
local ids = redis.call('ZRANGEBYSCORE', p .. 'leases', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  local begun = redis.call('HMGET', p .. 'reservation:' .. id, 'id', 'at', 'row')
  local charges = release(id)
  if charges and begun[3] then book(begun[1], begun[2], begun[3], charges) end
  redis.call('ZREM', p .. 'leases', id)
end
return #ids
"""
NOW = """
local p = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
"""The beginning of scripts that need the time of the Redis server, in ms since 1970."""
_CLAIM = """
local key = p .. 'session:' .. ARGV[1]
local found = redis.call('HMGET', key, 'epoch', 'owner', 'value')
local former = tonumber(found[1] or '0')
local epoch = math.max(former + 1, now)
if found[3] then
  redis.call('HSET', key, 'epoch', string.format('%d', epoch), 'owner', ARGV[2])
end
return {epoch, former, found[2] or '', found[3]}
"""
_KEEP = """
local key = p .. 'session:' .. ARGV[1]
local known = redis.call('HMGET', key, 'epoch', 'owner')
local epoch = tonumber(known[1] or '0')
if epoch > tonumber(ARGV[2]) or (epoch == tonumber(ARGV[2]) and known[2] ~= ARGV[3]) then
  return 0
end
redis.call('HSET', key, 'epoch', ARGV[2], 'owner', ARGV[3], 'value', ARGV[4])
redis.call('PEXPIRE', key, ARGV[5])
return 1
"""

_row = msgspec.msgpack.Decoder(UsageRow)
_encode = msgspec.msgpack.Encoder().encode


class RedisStore:
    """See store/base.py. url: redis://, rediss:// or unix://; it may hold a password."""

    def __init__(
        self, url: Secret, *, prefix: str = PREFIX, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """Raises ValueError for a URL that Redis does not have. prefix: contains a hash tag."""
        self._redis: Any = Redis.from_url(
            url.reveal(),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), RETRIES),
        )
        self._prefix = prefix
        self._wall_clock = wall_clock
        script = self._redis.register_script
        self._reserve = script(_FUNCTIONS + _RESERVE)
        self._begin = script(_FUNCTIONS + _BEGIN)
        self._settle = script(_FUNCTIONS + _SETTLE)
        self._release = script(_FUNCTIONS + _RELEASE)
        self._reap = script(_FUNCTIONS + _REAP)
        self._claim = script(NOW + _CLAIM)
        self._keep = script("local p = KEYS[1]" + _KEEP)

    async def __aenter__(self) -> Self:
        try:
            await self._call(self._redis.ping())
        except BaseException:
            await self._redis.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._redis.aclose()

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        ms = int(ttl_s * 1000)
        if ms <= 0:
            await self.delete(key)
            return
        await self._call(self._redis.set(self._key("kept", key), value, px=ms))

    async def get(self, key: str) -> bytes | None:
        return cast(bytes | None, await self._call(self._redis.get(self._key("kept", key))))

    async def delete(self, key: str) -> None:
        await self._call(self._redis.delete(self._key("kept", key)))

    async def now(self) -> int:
        seconds, microseconds = await self._call(self._redis.time())
        return cast(int, seconds * 1000 + microseconds // 1000)

    async def claim(self, key: str, owner: str) -> SessionClaim:
        found = await self._call(self._claim(keys=[self._prefix], args=[key, owner]))
        epoch, former_epoch, former_owner, value = found
        return SessionClaim(epoch, former_epoch, former_owner.decode(), value)

    async def keep(self, saves: Sequence[SessionSave]) -> list[bool]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for save in saves:
                ms = max(1, int(save.ttl_s * 1000))
                args: list[str | int | bytes] = [save.key, save.epoch, save.owner, save.value, ms]
                await self._keep(keys=[self._prefix], args=args, client=pipe)
            return [bool(done) for done in await self._call(pipe.execute())]

    async def save(self, kind: RecordKind, name: str, data: bytes) -> None:
        await self._call(self._redis.hset(self._key("records", kind), name, data))

    async def remove(self, kind: RecordKind, name: str) -> bool:
        return bool(await self._call(self._redis.hdel(self._key("records", kind), name)))

    async def records(self, kind: RecordKind) -> dict[str, bytes]:
        found = await self._call(self._redis.hgetall(self._key("records", kind)))
        return {name.decode(): data for name, data in sorted(found.items())}

    async def reserve(self, reservation: Reservation) -> str | None:
        args: list[object] = [reservation.id, reservation.lease_until]
        for charge in reservation.charges:
            args += [_account(charge.budget, charge.period), charge.amount, charge.limit]
        full = await self._run(self._reserve, args)
        return None if full < 0 else reservation.charges[full].budget

    async def begin(self, reservation_id: str, row: UsageRow) -> None:
        await self._run(self._begin, [reservation_id, row.id, row.at, _encode(row)])

    async def settle(
        self, row: UsageRow, charges: Sequence[Charge], reservation_id: str = ""
    ) -> bool:
        args: list[object] = [reservation_id, row.id, row.at, _encode(row)]
        for charge in charges:
            args += [_account(charge.budget, charge.period), charge.amount]
        return bool(await self._run(self._settle, args))

    async def book(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        return [row for row in rows if await self.settle(row, ())]

    async def release(self, reservation_id: str) -> None:
        await self._run(self._release, [reservation_id])

    async def renew(self, reservation_ids: Collection[str], lease_until: float) -> None:
        if reservation_ids:
            leases = dict.fromkeys(reservation_ids, lease_until)
            await self._call(self._redis.zadd(self._key("leases"), leases, xx=True))

    async def reap(self, now: float) -> int:
        total = 0
        while ended := await self._run(self._reap, [now, REAPED_AT_ONCE]):
            total += ended
        return total

    async def balance(self, budget: str, period: str) -> Balance:
        key = self._key("balance", _account(budget, period))
        spent, reserved = await self._call(self._redis.hmget(key, "spent", "reserved"))
        return Balance(int(spent or 0), int(reserved or 0))

    async def usage(self, since: float, until: float) -> AsyncGenerator[list[UsageRow]]:
        start = 0
        while True:
            ids = await self._ids_of_usage(since, until, start)
            if not ids:
                return
            rows = await self._call(self._redis.hmget(self._key("usage"), ids))
            yield [_row.decode(row) for row in rows if row is not None]
            start += len(ids)

    async def forget_usage(self, before: float) -> int:
        total = 0
        while ids := await self._ids_of_usage(float("-inf"), before, 0):
            total += await self._call(self._redis.zrem(self._key("usage_by_time"), *ids))
            await self._call(self._redis.hdel(self._key("usage"), *ids))
        return total

    async def _ids_of_usage(self, since: float, until: float, start: int) -> list[bytes]:
        found = self._redis.zrangebyscore(
            self._key("usage_by_time"), since, f"({until!r}", start=start, num=PAGE_ROWS
        )
        return cast(list[bytes], await self._call(found))

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    async def _run(self, script: Any, args: list[object]) -> int:
        return cast(int, await self._call(script(keys=[self._prefix], args=args)))

    async def _call(self, command: Awaitable[Any]) -> Any:
        with _named():
            return await cancellable(command)


async def cancellable(command: Awaitable[T]) -> T:
    """Await a command of the library, and raise the CancelledError that it has lost.

    It uses asyncio.wait_for(), which in Python 3.11 returns as if nothing were wrong where what it
    waits for is complete when the task is cancelled (python/cpython#86296, mended in 3.12).
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    result = await command
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
    return result


@contextmanager
def _named() -> Iterator[None]:
    """Turns errors of the library, which do not quote the password, into StoreError."""
    try:
        yield
    except OutOfMemoryError as exc:
        raise StorageFull(
            "the Redis store is full: raise its maxmemory, or lower [store] usage_days"
        ) from exc
    except (RedisError, OSError) as exc:
        raise StoreError(f"the Redis store cannot be used: {exc}") from exc


def _account(budget: str, period: str) -> str:
    """A budget in a period, as part of a key. Neither name contains a space."""
    return f"{budget} {period}"
