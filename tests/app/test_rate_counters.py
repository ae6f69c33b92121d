"""The counters behind rates, with a clock of the test's own."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st
from limits import parse
from limits.strategies import SlidingWindowCounterRateLimiter

from app.security.rate_counters import RateCounters


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now


@settings(max_examples=300, deadline=None)
@given(
    limit=st.integers(1, 8),
    window=st.sampled_from([1, 5, 60]),
    pauses=st.lists(st.floats(0, 90), max_size=60),
)
def test_who_waits_as_long_as_told_gets_through(limit: int, window: int, pauses: list[float]) -> None:
    """After a refusal and the whole seconds of Retry-After; and what is left is what is granted."""
    clock = Clock()
    counters = RateCounters(clock=clock)
    limiter = SlidingWindowCounterRateLimiter(counters)
    item = parse(f"{limit}/{window} second")
    key = item.key_for("a")
    for pause in pauses:
        clock.now += pause
        remaining, wait = counters.outlook(key, limit, window)
        assert (remaining > 0) is limiter.hit(item, "a")
        if not remaining:
            clock.now += wait
            assert limiter.hit(item, "a")


@settings(max_examples=300, deadline=None)
@given(limit=st.integers(1, 8), pauses=st.lists(st.floats(0, 3), max_size=80))
def test_no_window_grants_more_than_the_limit(limit: int, pauses: list[float]) -> None:
    """Nor does any stretch as long as a window grant twice as much, as fixed windows do at their border."""
    clock = Clock()
    limiter = SlidingWindowCounterRateLimiter(RateCounters(clock=clock))
    item = parse(f"{limit}/10 second")
    granted: list[float] = []
    for pause in pauses:
        clock.now += pause
        if limiter.hit(item, "a"):
            granted.append(clock.now)
    for start in granted:
        assert sum(start // 10 == each // 10 for each in granted) <= limit
        assert sum(start <= each < start + 10 for each in granted) <= 2 * limit - 1 or limit == 1


def test_what_came_to_nothing_is_given_back() -> None:
    """And no more than was counted."""
    counters = RateCounters(clock=Clock())
    limiter = SlidingWindowCounterRateLimiter(counters)
    item = parse("1/minute")
    assert limiter.hit(item, "a")
    assert not limiter.hit(item, "a")
    for _ in range(3):
        counters.give_back(item.key_for("a"), item.get_expiry())
    assert limiter.hit(item, "a")
    assert not limiter.hit(item, "a")


def test_the_number_of_keys_is_bounded() -> None:
    """Of ever new addresses the one whose window began first goes; nothing is started to sweep."""
    clock = Clock()
    threads = threading.active_count()
    counters = RateCounters(max_keys=100, clock=clock)
    limiter = SlidingWindowCounterRateLimiter(counters)
    item = parse("1/hour")
    for number in range(10_000):
        assert limiter.hit(item, f"10.0.0.{number}")
    assert (100, threads) == (len(counters), threading.active_count())
    assert not limiter.hit(item, "10.0.0.9999")
    assert limiter.hit(item, "10.0.0.1")


def test_a_key_that_is_used_on_outlives_others() -> None:
    """A window that begins anew puts it behind those that are idle."""
    clock = Clock()
    counters = RateCounters(max_keys=2, clock=clock)
    limiter = SlidingWindowCounterRateLimiter(counters)
    item = parse("5/minute")
    limiter.hit(item, "busy")
    limiter.hit(item, "idle")
    clock.now += 60
    limiter.hit(item, "busy")
    limiter.hit(item, "new")
    assert 1 == counters.get(item.key_for("busy"))
    assert 0 == counters.get(item.key_for("idle"))
