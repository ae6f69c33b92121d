"""Idempotency keys in Redis or Valkey, for several replicas of the bridge.

Rules:

1. A key's value is its holder, its state, and the rest as JSON and body. It is written by scripts that look
   at holder and state first, so that a command that comes late, or twice, undoes nothing.
2. A claim is a lease, renewed for as long as its holder lives. At QoS 0 and 1 the key is gone when the lease
   ends: the next request publishes. At QoS 2 it stays for the window, and its outcome counts as lost.
3. Ages are measured by the server's clock alone, from what is left of a key's life.
4. A server that is away refuses claims, and nothing is sent. What became of a claim before is told when the
   server is back.
5. The server's URL appears nowhere, and neither does a key. That it is away is told by who hears of it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.problems import ProblemError, ProblemType
from app.publishing.idempotency_store import HEADER, MAX_ANSWER_BYTES, Answer, Entry, State

CALL_SECONDS: Final = 2.0
"""Bound on one call, with all that it takes to connect."""
MAX_CONNECTIONS: Final = 16
MAX_OWED: Final = 10_000
LEASE_MARGIN_SECONDS: Final = 2.0
"""How much longer than a publish may take the lease is."""

_PREFIX: Final = b"tidegate:idempotency:"
_TICK_SECONDS: Final = 0.5
_HOLDER: Final = 16

# KEYS[1]: the key. ARGV[1]: the value, which begins with 16 bytes of holder and one of state. ARGV[2]: its
# life in milliseconds.
_CLAIM: Final = """
local found = redis.call('GET', KEYS[1])
if found and string.sub(found, 1, 16) ~= string.sub(ARGV[1], 1, 16) then
  return {found, redis.call('PTTL', KEYS[1])}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
# ARGV[3]: '1' where the key may have gone meanwhile
_PUT: Final = """
local found = redis.call('GET', KEYS[1])
if not found and ARGV[3] ~= '1' then return 0 end
if found and (string.sub(found, 1, 16) ~= string.sub(ARGV[1], 1, 16)
    or string.byte(found, 17) > string.byte(ARGV[1], 17)) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RENEW: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_FREE: Final = """
local found = redis.call('GET', KEYS[1])
if found and string.sub(found, 1, 16) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisStore:
    """Keeps entries in Redis or Valkey.

    Args:
        url: where the server is: ``redis://`` or ``rediss://``; it may hold a password.
        window_seconds: how long a finished entry is kept.
        lease_seconds: how long one is kept whose holder is gone; longer than a publish may take.
        lost: hears of each call that failed.
        call_seconds: bound on one call.
    """

    def __init__(
        self,
        url: str,
        *,
        window_seconds: float,
        lease_seconds: float,
        lost: Callable[[Exception], None],
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self.memory = "shared"  # it outlives the bridge
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=call_seconds,
            socket_timeout=call_seconds,
            socket_connect_timeout=call_seconds,
            retry=Retry(NoBackoff(), 1),  # a connection that was idle may have ended
        )
        self._client: Redis = Redis.from_pool(pool)
        self._claim = self._client.register_script(_CLAIM)
        self._put = self._client.register_script(_PUT)
        self._renew = self._client.register_script(_RENEW)
        self._free = self._client.register_script(_FREE)
        self._call_seconds = call_seconds
        self._lease_seconds = lease_seconds
        self._lease = round(lease_seconds * 1000)
        self._window = max(round(window_seconds * 1000), self._lease)
        self._held: dict[bytes, tuple[bytes, Entry]] = {}
        self._owed: dict[bytes, tuple[bytes, Entry | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._lost = lost

    @property
    def max_answer_bytes(self) -> int:
        """``Store.max_answer_bytes``."""
        return MAX_ANSWER_BYTES

    async def claim(self, name: bytes, entry: Entry) -> Entry | None:
        """``Store.claim``."""
        try:
            found = await self._lease_or_tell(name, entry)
        except (OSError, RedisError) as error:
            self._lost(error)
            self._owe(name, entry.holder, None)  # it may have been put all the same
            raise ProblemError(
                ProblemType.IDEMPOTENCY_UNAVAILABLE,
                "the store of idempotency keys does not answer; nothing was sent",
                field=HEADER,
                hint="make the same request again in a moment",
            ) from None
        except BaseException:
            self._owe(name, entry.holder, None)
            raise
        if found is None:
            self._held[entry.holder] = (name, entry)
            self._attend()
        return found

    async def put(self, name: bytes, entry: Entry) -> None:
        """``Store.put``."""
        if entry.state < State.LOST:
            self._held[entry.holder] = (name, entry)
        else:
            self._held.pop(entry.holder, None)
        self._owe(name, entry.holder, entry)
        await self._pay(entry.holder)

    async def free(self, name: bytes, entry: Entry) -> None:
        """``Store.free``."""
        self._held.pop(entry.holder, None)
        self._owe(name, entry.holder, None)
        await self._pay(entry.holder)

    async def close(self) -> None:
        """``Store.close``; what is owed still is tried once more."""
        if self._task is not None:
            self._task.cancel()
        await self._pay_all()
        await self._client.aclose()

    async def _lease_or_tell(self, name: bytes, entry: Entry) -> Entry | None:
        found = await self._call(self._claim, name, self._write(entry, self._lease), self._lease)
        if found is not None:
            return _read(found[0], found[1])
        life = self._life(entry)
        if life != self._lease:  # from here on it may be sent, and the key outlives its holder
            was_put = await self._call(self._put, name, self._write(entry, life), life, b"0")
            if not was_put:
                raise RedisError("the lease ended before it was used")
        return None

    def _life(self, entry: Entry) -> int:
        """How long an entry is kept, in milliseconds (rule 2)."""
        return self._lease if entry.state < State.LOST and entry.qos < 2 else self._window

    # What the server has not been told yet.

    def _owe(self, name: bytes, holder: bytes, entry: Entry | None) -> None:
        self._owed[holder] = (name, entry)
        if len(self._owed) > MAX_OWED:
            del self._owed[next(iter(self._owed))]
        self._attend()

    async def _pay(self, holder: bytes) -> bool:
        owed = self._owed[holder]
        name, entry = owed
        try:
            if entry is None:
                await self._call(self._free, name, holder)
            else:
                life = self._life(entry)
                await self._call(self._put, name, self._write(entry, life), life, b"1")
        except (OSError, RedisError) as error:
            self._lost(error)
            if self._owed.get(holder) is owed:  # the others go first next time
                self._owed[holder] = self._owed.pop(holder)
            return False
        if self._owed.get(holder) is owed:
            del self._owed[holder]
        return True

    async def _pay_all(self) -> None:
        for holder in tuple(self._owed):
            if holder in self._owed and not await self._pay(holder):
                return

    # The one task.

    def _attend(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="tidegate idempotency keys")

    async def _run(self) -> None:
        """Renew leases and pay what is owed, for as long as there are any."""
        loop = asyncio.get_running_loop()
        interval = self._lease_seconds / 3
        renew_at = loop.time() + interval
        while self._held or self._owed:
            await asyncio.sleep(min(_TICK_SECONDS, interval))
            await self._pay_all()
            if loop.time() >= renew_at:
                renew_at = loop.time() + interval
                await self._renew_all()

    async def _renew_all(self) -> None:
        if not self._held:
            return
        with contextlib.suppress(OSError, RedisError):  # the next turn renews, or the lease ends
            async with (
                asyncio.timeout(self._call_seconds),
                self._client.pipeline(transaction=False) as pipeline,
            ):
                for name, entry in self._held.values():
                    life = self._life(entry)
                    await self._renew(
                        keys=[_PREFIX + name], args=[self._write(entry, life), life], client=pipeline
                    )
                await pipeline.execute()

    # Small parts.

    async def _call(self, script: Any, name: bytes, *arguments: bytes | int) -> Any:
        async with asyncio.timeout(self._call_seconds):
            return await script(keys=[_PREFIX + name], args=arguments)

    def _write(self, entry: Entry, life: int) -> bytes:
        answer = entry.answer
        facts: dict[str, Any] = {
            "fingerprint": base64.b64encode(entry.fingerprint).decode(),
            "qos": entry.qos,
            "life": life,
            "lease": self._lease,
        }
        if answer is not None:
            facts["status"] = answer.status
            facts["headers"] = [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.headers
            ]
        body = b"" if answer is None else answer.body
        return b"%b%d%b\n%b" % (entry.holder, entry.state, orjson.dumps(facts), body)


def _read(value: bytes, left: int) -> Entry:
    """An entry as it was written; one whose holder is gone is lost (rules 2 and 3).

    Args:
        value: the value.
        left: what is left of the key's life, in milliseconds.
    """
    head, _, body = value[_HOLDER + 1 :].partition(b"\n")
    facts = orjson.loads(head)
    state = State(value[_HOLDER] - ord("0"))
    if state < State.LOST and facts["life"] - left > facts["lease"]:
        state = State.LOST
    answer = None
    if "status" in facts:
        pairs: Sequence[tuple[str, str]] = facts["headers"]
        headers = tuple((name.encode("latin-1"), text.encode("latin-1")) for name, text in pairs)
        answer = Answer(facts["status"], headers, body)
    return Entry(base64.b64decode(facts["fingerprint"]), facts["qos"], value[:_HOLDER], state, answer)
