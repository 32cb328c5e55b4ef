"""Leases and messages of a cluster in Redis or Valkey: see store/cluster.py.

Times are those of the Redis server, so the clocks of the nodes do not matter. Messages are sent by
Pub/Sub, which stores nothing: a message is lost if nobody listens.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from vivavoce.errors import StoreError
from vivavoce.secret import Secret
from vivavoce.store.cluster import ControlMessage, ProcessLease
from vivavoce.store.redis import NOW, PREFIX, cancellable

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
"""For a connection, and for an answer."""
LISTEN_S = 5.0
"""A subscriber that has received nothing for this long checks whether the server answers."""

_RENEW = """
redis.call('ZADD', p .. 'nodes', now + ARGV[2], ARGV[1])
redis.call('HSET', p .. 'node', ARGV[1], ARGV[3])
for _, place in ipairs(redis.call('ZRANGEBYSCORE', p .. 'nodes', '-inf', now)) do
  redis.call('ZREM', p .. 'nodes', place)
  redis.call('HDEL', p .. 'node', place)
end
"""
_LEASES = """
local places = redis.call('ZRANGEBYSCORE', p .. 'nodes', '(' .. string.format('%d', now), '+inf')
if #places == 0 then return {} end
return redis.call('HMGET', p .. 'node', unpack(places))
"""
_FIRST = """
local key = KEYS[1] .. ARGV[1]
if not redis.call('SET', key, ARGV[2], 'NX', 'PX', ARGV[3]) then
  return redis.call('GET', key)
end
return ARGV[2]
"""

_lease = msgspec.msgpack.Decoder(ProcessLease)
_message = msgspec.msgpack.Decoder(ControlMessage)
_encode = msgspec.msgpack.Encoder().encode


class RedisCluster:
    """url: redis://, rediss:// or unix://; it may hold a password."""

    def __init__(self, url: Secret, *, prefix: str = PREFIX) -> None:
        """Raises ValueError for a URL that Redis does not have. prefix: contains a hash tag."""
        self._redis: Any = Redis.from_url(
            url.reveal(),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),  # an idle connection may have been closed
        )
        self._prefix = prefix
        self._renew = self._redis.register_script(NOW + _RENEW)
        self._leases = self._redis.register_script(NOW + _LEASES)
        self._first = self._redis.register_script(_FIRST)

    async def __aenter__(self) -> Self:
        """Connects with the first call."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._redis.aclose()

    async def renew(self, lease: ProcessLease, seconds: float) -> None:
        args: list[str | int | bytes] = [lease.place, int(seconds * 1000), _encode(lease)]
        await self._call(self._renew(keys=[self._prefix], args=args))

    async def leave(self, place: str) -> None:
        await self._call(self._redis.zrem(f"{self._prefix}nodes", place))
        await self._call(self._redis.hdel(f"{self._prefix}node", place))

    async def leases(self) -> list[ProcessLease]:
        found = await self._call(self._leases(keys=[self._prefix], args=[]))
        return [lease for data in found if data and (lease := _decoded(data)) is not None]

    async def first(self, key: str, value: bytes, *, ttl_s: float) -> bytes:
        args: list[str | int | bytes] = [f"first:{key}", value, max(1, int(ttl_s * 1000))]
        found: bytes | None = await self._call(self._first(keys=[self._prefix], args=args))
        return value if found is None else found

    async def publish(self, channel: str, message: ControlMessage) -> int:
        heard: int = await self._call(
            self._redis.publish(f"{self._prefix}control:{channel}", _encode(message))
        )
        return heard

    @asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[ControlMessage]]:
        subscriber = self._redis.pubsub()
        try:
            names = [f"{self._prefix}control:{channel}" for channel in channels]
            await self._call(subscriber.subscribe(*names))
            yield self._messages(subscriber)
        finally:
            await subscriber.aclose()

    async def _messages(self, subscriber: Any) -> AsyncIterator[ControlMessage]:
        asked = False  # for an answer to a ping
        while True:
            found = await self._call(subscriber.get_message(timeout=LISTEN_S))
            if found is None:
                if asked:
                    raise StoreError("the Redis server of the cluster does not answer")
                asked = True
                await self._call(subscriber.ping())
                continue
            asked = False
            if found["type"] == "message":
                try:
                    yield _message.decode(found["data"])
                except msgspec.MsgspecError as exc:  # of another version
                    log.warning("a message of the cluster cannot be read: %s", exc)

    async def _call(self, command: Awaitable[Any]) -> Any:
        try:
            return await cancellable(command)
        except (RedisError, OSError) as exc:
            raise StoreError(f"the Redis server of the cluster cannot be used: {exc}") from exc


def _decoded(data: bytes) -> ProcessLease | None:
    """None: another version of Vivavoce has written it."""
    try:
        return _lease.decode(data)
    except msgspec.MsgspecError as exc:
        log.warning("a lease of the cluster cannot be read: %s", exc)
        return None
