"""Tickets in Redis or Valkey: whichever replica a browser reaches can take a ticket that another gave.

Rules:

1. The bounds are those of one bridge's memory, for all replicas together. Scripts count, so that of many who
   ask at once no more get a ticket than there is room for.
2. A set for all callers, and one for each, has the names of its tickets with their sizes, in the order of
   their ends, and what they hold together. What no bridge clears away goes by itself when its time is over.
3. Time is the server's alone.
4. The server's URL appears nowhere, and neither does a ticket, nor who asked for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.problems import ProblemError, ProblemType
from app.security.tickets import LIFETIME_SECONDS, MAX_BYTES, MAX_TICKETS, OF_ALL, SHARES, too_many

CALL_SECONDS: Final = 2.0
"""Bound on one call, with all that it takes to connect."""
MAX_CONNECTIONS: Final = 8

_PREFIX: Final = b"tidegate:{tickets}:"
"""In braces is what decides where a cluster keeps a key: all have to be in one place."""
_ALL: Final = _PREFIX + b"all"
_EACH: Final = _PREFIX + b"of:"
_OWNER: Final = 16

# KEYS[1]: the ticket. KEYS[2]: the set of all. KEYS[3]: the set of its owner. ARGV[1]: the ticket's name, of
# 32 bytes. ARGV[2]: the hash of its owner, of 16 bytes. ARGV[3]: its value. ARGV[4]: its life, milliseconds.
# ARGV[5] and [6]: how many tickets there may be, and their bytes. ARGV[7] and [8]: the same, of one owner.
# A set's member "bytes" has what the tickets hold as its score, below zero, where no end of a ticket is.
_PUT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local size = #ARGV[3]

local function held(set)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', set, '(0', now)) do
    redis.call('ZREM', set, member)
    redis.call('ZINCRBY', set, string.sub(member, 33), 'bytes')
  end
  return redis.call('ZCOUNT', set, '(0', '+inf'), -tonumber(redis.call('ZSCORE', set, 'bytes') or 0)
end

local count, bytes = held(KEYS[3])
if count >= tonumber(ARGV[7]) or bytes + size > tonumber(ARGV[8]) then return {1, count} end
count, bytes = held(KEYS[2])
if count >= tonumber(ARGV[5]) or bytes + size > tonumber(ARGV[6]) then return {2, count} end
redis.call('SET', KEYS[1], ARGV[2] .. ARGV[3], 'PX', ARGV[4])
for _, set in ipairs({KEYS[2], KEYS[3]}) do
  if redis.call('ZADD', set, now + ARGV[4], ARGV[1] .. size) == 1 then
    redis.call('ZINCRBY', set, -size, 'bytes')
  end
  if redis.call('PTTL', set) < tonumber(ARGV[4]) then redis.call('PEXPIRE', set, ARGV[4]) end
end
return {0, count}
"""
# KEYS[1]: the ticket. KEYS[2]: the set of all. ARGV[1]: the ticket's name. ARGV[2]: what the key of an
# owner's set begins with; whose it is, the ticket alone tells.
_TAKE: Final = """
local kept = redis.call('GET', KEYS[1])
if not kept then return false end
redis.call('DEL', KEYS[1])
local value = string.sub(kept, 17)
for _, set in ipairs({KEYS[2], ARGV[2] .. string.sub(kept, 1, 16)}) do
  if redis.call('ZREM', set, ARGV[1] .. #value) == 1 then redis.call('ZINCRBY', set, #value, 'bytes') end
end
return value
"""


class RedisTicketStore:
    """Keeps them in Redis or Valkey (``TicketStore``).

    Args:
        url: where the server is: ``redis://`` or ``rediss://``; it may hold a password.
        lost: hears of each call that failed.
        max_tickets: how many there may be, of all replicas together.
        max_bytes: how much they may hold.
        lifetime_seconds: how long they are kept.
        call_seconds: bound on one call.
    """

    def __init__(
        self,
        url: str,
        *,
        lost: Callable[[Exception], None],
        max_tickets: int = MAX_TICKETS,
        max_bytes: int = MAX_BYTES,
        lifetime_seconds: float = LIFETIME_SECONDS,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=call_seconds,
            socket_timeout=call_seconds,
            socket_connect_timeout=call_seconds,
            retry=Retry(NoBackoff(), 1),  # a connection that was idle may have ended
        )
        self._client: Redis = Redis.from_pool(pool)
        self._put = self._client.register_script(_PUT)
        self._take = self._client.register_script(_TAKE)
        self._bounds = (max_tickets, max_bytes, max_tickets // SHARES, max_bytes // SHARES)
        self._life = round(lifetime_seconds * 1000)
        self._call_seconds = call_seconds
        self._lost = lost

    async def put(self, name: bytes, value: bytes, owner: str) -> None:
        """``TicketStore.put``."""
        whose = sha256(owner.encode("utf-8", "surrogatepass")).digest()[:_OWNER]
        refused, count = await self._call(
            self._put(
                keys=[_PREFIX + name, _ALL, _EACH + whose],
                args=[name, whose, value, self._life, *self._bounds],
            )
        )
        if refused:
            raise too_many(f"{count} tickets of yours" if refused == 1 else OF_ALL)

    async def take(self, name: bytes) -> bytes | None:
        """``TicketStore.take``; an answer that is lost on the way uses the ticket up."""
        found: bytes | None = await self._call(self._take(keys=[_PREFIX + name, _ALL], args=[name, _EACH]))
        return found

    async def close(self) -> None:
        """``TicketStore.close``."""
        await self._client.aclose()

    async def _call(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._call_seconds):
                return await call
        except (OSError, RedisError) as error:
            self._lost(error)
            raise ProblemError(
                ProblemType.TICKETS_UNAVAILABLE,
                "the store of tickets does not answer",
                hint="ask for a ticket again in a moment",
            ) from None
