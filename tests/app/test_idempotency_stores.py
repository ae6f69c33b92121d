"""What each store of idempotency keys does alone: the bounds in memory, and Valkey with its faults."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
from redis.asyncio import Redis

from app.problems import ProblemError, ProblemType
from app.publishing.idempotency import fingerprint_of_body
from app.publishing.idempotency_redis import RedisStore
from app.publishing.idempotency_store import ENTRY_BYTES, Answer, Entry, MemoryStore, State
from tests.support.valkey import Valkey

T = TypeVar("T")
SECONDS = 20.0
REQUEST = fingerprint_of_body("POST /x", b"body")
ANSWER = Answer(200, ((b"content-type", b"text/plain"),), b"done")
LEASE_SECONDS = 1.5


def entry(*, qos: int = 1) -> Entry:
    """A claim like no other."""
    return Entry(REQUEST, qos, uuid.uuid4().bytes)


def name() -> bytes:
    """The digest of a key that no other test has."""
    return uuid.uuid4().bytes * 2


def done(claim: Entry, answer: Answer = ANSWER) -> Entry:
    """What the holder of a claim tells in the end."""
    return replace(claim, state=State.ANSWERED, answer=answer)


async def until(asking: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    """Ask again and again until the answer is right."""
    async with asyncio.timeout(SECONDS):
        while not holds(found := await asking()):
            await asyncio.sleep(0.01)
        return found


# In memory.


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def memory(*, max_keys: int = 10, max_bytes: int = 1_000_000, clock: Clock | None = None) -> MemoryStore:
    """A store with a window of ten seconds."""
    return MemoryStore(window_seconds=10, max_keys=max_keys, max_bytes=max_bytes, clock=clock or Clock())


async def test_the_window_ends() -> None:
    """An answer is kept for that long, counted from when it came, and no longer."""
    clock = Clock()
    store = memory(clock=clock)
    key, claim = name(), entry()
    await store.claim(key, claim)
    clock.now = 100.0
    await store.put(key, done(claim))
    clock.now = 109.9
    assert done(claim) == await store.claim(key, entry())
    clock.now = 110.0
    assert await store.claim(key, entry()) is None


async def test_the_oldest_that_has_ended_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    """A new key takes the place of the oldest answer, not of a request under way; the log tells, once."""
    store = memory(max_keys=3)
    keys, claims = [name() for _ in range(3)], [entry() for _ in range(3)]
    for key, claim in zip(keys, claims, strict=True):
        await store.claim(key, claim)
    await store.put(keys[2], done(claims[2]))
    await store.put(keys[1], done(claims[1]))
    assert await store.claim(name(), entry()) is None
    assert done(claims[1]) == await store.claim(keys[1], entry())
    assert await store.claim(name(), entry()) is None
    assert claims[0] == await store.claim(keys[0], entry())
    assert (3, 3 * ENTRY_BYTES) == (store.key_count, store.byte_count)
    assert 1 == caplog.text.count("TIDEGATE_IDEMPOTENCY_MAX_KEYS")


@pytest.mark.parametrize(
    ("store", "bound"),
    [
        (memory(max_keys=2), "TIDEGATE_IDEMPOTENCY_MAX_KEYS"),
        (memory(max_bytes=2 * ENTRY_BYTES), "TIDEGATE_IDEMPOTENCY_MAX_BYTES"),
    ],
)
async def test_requests_under_way_are_never_pushed_out(store: MemoryStore, bound: str) -> None:
    """A new key is refused with the bound's name, until one of them has ended."""
    keys, claims = [name(), name()], [entry(), entry()]
    for key, claim in zip(keys, claims, strict=True):
        assert await store.claim(key, claim) is None
    with pytest.raises(ProblemError, match=bound) as caught:
        await store.claim(name(), entry())
    assert (ProblemType.TOO_MANY_REQUESTS, "2") == (caught.value.kind, caught.value.headers["Retry-After"])
    assert claims[0] == await store.claim(keys[0], entry())
    await store.free(keys[0], claims[0])
    assert await store.claim(name(), entry()) is None


async def test_answers_are_bounded_in_bytes() -> None:
    """The oldest make room for a large one; one larger than everything is not kept."""
    store = memory(max_bytes=10_000)
    for size in (3000, 3000, 3000, 20_000):
        key, claim = name(), entry()
        await store.claim(key, claim)
        await store.put(key, done(claim, Answer(200, (), b"x" * size)))
        assert store.byte_count <= 10_000
    assert (0, 0) == (store.key_count, store.byte_count)


# In Valkey.


@asynccontextmanager
async def shared(
    server: Valkey,
    *,
    lease_seconds: float = LEASE_SECONDS,
    window_seconds: float = 60,
    call_seconds: float = 0.5,
    lost: Callable[[Exception], None] = lambda _: None,
) -> AsyncIterator[RedisStore]:
    """The store of one replica, and its end."""
    store = RedisStore(
        server.url,
        window_seconds=window_seconds,
        lease_seconds=lease_seconds,
        lost=lost,
        call_seconds=call_seconds,
    )
    try:
        yield store
    finally:
        await store.close()


async def test_what_one_replica_keeps_another_reads(valkey: Valkey) -> None:
    """State, answer and fingerprint arrive, every byte of them."""
    answer = Answer(413, ((b"content-type", b"x/y"), (b"x-odd", b"\xff")), bytes(range(256)))
    async with shared(valkey, lease_seconds=30) as one, shared(valkey, lease_seconds=30) as other:
        key, claim = name(), entry(qos=2)
        assert await one.claim(key, claim) is None
        assert claim == await other.claim(key, entry())
        opened = replace(claim, state=State.OPEN)
        await one.put(key, opened)
        assert opened == await other.claim(key, entry())
        await one.put(key, done(claim, answer))
        assert done(claim, answer) == await other.claim(key, entry())


async def test_only_the_holder_frees_and_nothing_goes_back(valkey: Valkey) -> None:
    """What comes late, or from a holder whose lease ended long ago, changes nothing."""
    async with shared(valkey, lease_seconds=30) as one, shared(valkey, lease_seconds=30) as other:
        key, claim = name(), entry()
        await one.claim(key, claim)
        await other.free(key, entry())
        await other.put(key, done(entry()))
        assert claim == await other.claim(key, entry())
        await one.put(key, done(claim))
        await one.put(key, replace(claim, state=State.OPEN))
        assert done(claim) == await other.claim(key, entry())


async def test_the_servers_window_ends(valkey: Valkey) -> None:
    """An answer is gone after the window, with nobody to remove it."""
    async with shared(valkey, window_seconds=LEASE_SECONDS) as store:
        key, claim = name(), entry()
        await store.claim(key, claim)
        await store.put(key, done(claim))
        assert done(claim) == await store.claim(key, entry())
        later = entry()
        await until(lambda: store.claim(key, later), lambda found: found is None)


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_key_whose_holder_is_gone_is_free_after_its_lease(valkey: Valkey, qos: int) -> None:
    """At QoS 0 and 1 the next request publishes."""
    key, later = name(), entry(qos=qos)
    async with shared(valkey) as gone, shared(valkey) as other:
        claim = entry(qos=qos)
        await gone.claim(key, claim)
        await gone.close()
        assert claim == await other.claim(key, later)
        await until(lambda: other.claim(key, later), lambda found: found is None)


@pytest.mark.parametrize("state", [State.WORKING, State.OPEN])
async def test_at_qos_2_a_key_whose_holder_is_gone_is_lost_after_its_lease(
    valkey: Valkey, state: State
) -> None:
    """It may have been sent, and is never sent again."""
    key, later = name(), entry(qos=2)
    async with shared(valkey) as gone, shared(valkey) as other:
        claim = entry(qos=2)
        await gone.claim(key, claim)
        if state is State.OPEN:
            await gone.put(key, replace(claim, state=state))
        await gone.close()
        assert replace(claim, state=state) == await other.claim(key, later)
        lost = replace(claim, state=State.LOST)
        await until(lambda: other.claim(key, later), lambda found: found == lost)


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_lease_is_renewed_while_its_holder_lives(fresh_valkey: Valkey, qos: int) -> None:
    """The key's life grows again and again, so that no other replica takes it for free."""
    async with shared(fresh_valkey, lease_seconds=3) as holder, Redis.from_url(fresh_valkey.url) as client:
        await holder.claim(name(), entry(qos=qos))
        (key,) = [each async for each in client.scan_iter()]
        for _ in range(2):
            lives = [await client.pttl(key)]

            async def life(lives: list[int] = lives) -> list[int]:
                lives.append(await client.pttl(key))
                return lives[-2:]

            await until(life, lambda found: found[1] > found[0])


async def test_a_server_that_is_away_refuses_keys(fresh_valkey: Valkey) -> None:
    """It says that nothing was sent, tells who asked why, and goes on by itself when the server is back."""
    told: list[Exception] = []
    async with shared(fresh_valkey, lost=told.append) as store:
        assert await store.claim(name(), entry()) is None
        assert [] == told
        fresh_valkey.kill()
        with pytest.raises(ProblemError) as caught:
            await store.claim(name(), entry())
        assert (ProblemType.IDEMPOTENCY_UNAVAILABLE, "2") == (
            caught.value.kind,
            caught.value.headers["Retry-After"],
        )
        assert told
        fresh_valkey.start()
        assert await store.claim(name(), entry()) is None


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_claim_that_a_stalled_server_takes_later_is_taken_back(
    fresh_valkey: Valkey, qos: int
) -> None:
    """The caller was told that nothing was sent: the key must not be held by nobody, at QoS 2 for ever."""
    async with shared(fresh_valkey, lease_seconds=60) as store:
        key = name()
        await store.claim(name(), entry())
        fresh_valkey.pause()
        with pytest.raises(ProblemError):
            await store.claim(key, entry(qos=qos))
        fresh_valkey.resume()
        again = entry(qos=qos)
        await until(lambda: store.claim(key, again), lambda found: found is None)


async def test_what_could_not_be_told_is_told_later(fresh_valkey: Valkey) -> None:
    """The broker answered while the server was away: repetitions learn of it when the server is back."""
    async with shared(fresh_valkey, lease_seconds=60) as one, shared(fresh_valkey) as other:
        kept, freed = name(), name()
        claims = entry(), entry()
        await one.claim(kept, claims[0])
        await one.claim(freed, claims[1])
        fresh_valkey.pause()
        await one.put(kept, done(claims[0]))
        await one.free(freed, claims[1])
        fresh_valkey.resume()
        await until(lambda: other.claim(kept, entry()), lambda found: found == done(claims[0]))
        again = entry()
        await until(lambda: other.claim(freed, again), lambda found: found is None)


async def test_a_holder_tells_as_it_closes(fresh_valkey: Valkey) -> None:
    """A replica that stops leaves no key behind that it can still free."""
    async with shared(fresh_valkey, lease_seconds=60) as one, shared(fresh_valkey) as other:
        key, claim = name(), entry()
        await one.claim(key, claim)
        fresh_valkey.pause()
        await one.free(key, claim)
        fresh_valkey.resume()
        await one.close()
        assert await other.claim(key, entry()) is None
