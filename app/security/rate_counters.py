"""Counters of rates in this process, as a storage of the package ``limits``.

Rules:

1. The counters of ``limits`` itself start a thread every hundredth of a second and keep a key for as long as
   its window lasts, however many there are. These start nothing, and hold so many keys and no more.
2. Of the keys the one whose window began first goes first: who comes with ever new addresses loses its own.
3. Replicas do not share them: a round trip for each publish would cost more than the publish.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from limits.storage import SlidingWindowCounterSupport, Storage

MAX_KEYS: Final = 20_000
"""Principals and addresses counted at once; about 200 bytes each."""

_GRAIN: Final = 1e-6
"""Seconds that arithmetic may get wrong."""


class RateCounters(Storage, SlidingWindowCounterSupport):
    """Counts in windows of fixed length; of the window before this one a part still counts.

    Args:
        max_keys: how many keys are held.
        clock: the time in seconds.
    """

    STORAGE_SCHEME = None

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._max_keys = max_keys
        self._clock = clock
        self._counts: dict[str, tuple[int, int, int]] = {}
        """The number of the window, and the counts of the one before and of itself; the oldest first."""

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._counts)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """None: nothing here can fail."""
        return ()

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count, unless that would exceed the limit."""
        window, previous, current, left = self._look(key, expiry)
        if math.floor(previous * left / expiry + current) + amount > limit:
            return False
        self._put(key, window, previous, current + amount)
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The counts of the window before and of this one, each with how long it still counts."""
        _, previous, current, left = self._look(key, expiry)
        return previous, left if previous else 0.0, current, left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a key."""
        self._counts.pop(key, None)

    def outlook(self, key: str, limit: int, expiry: int) -> tuple[int, int]:
        """How many more would be counted now, and the whole seconds after which it is one more.

        The strategy of ``limits`` tells the end of the window instead, when as much may count as just before.
        """
        _, previous, current, left = self._look(key, expiry)
        remaining = max(limit - math.floor(previous * left / expiry + current), 0)
        if current >= limit or not previous:
            return remaining, _seconds(left) if current else 0
        share = previous * left / expiry
        counts_until = math.ceil(share) - 1 if remaining else limit - current
        return remaining, _seconds(left - counts_until * expiry / previous)

    def give_back(self, key: str, expiry: int) -> None:
        """Take one back that was counted, and came to nothing."""
        window, previous, current, _ = self._look(key, expiry)
        if current:
            self._counts[key] = window, previous, current - 1

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count without a limit; the count of the window."""
        window, previous, current, _ = self._look(key, expiry)
        self._put(key, window, previous, current + amount)
        return current + amount

    def get(self, key: str) -> int:
        """What was counted last."""
        return self._counts.get(key, (0, 0, 0))[2]

    def get_expiry(self, key: str) -> float:
        """Now: keys have no end of their own."""
        return time.time()

    def check(self) -> bool:
        """Whether it works."""
        return True

    def reset(self) -> int | None:
        """Forget everything; how many keys that were."""
        held = len(self._counts)
        self._counts.clear()
        return held

    def clear(self, key: str) -> None:
        """Forget a key."""
        self._counts.pop(key, None)

    def _look(self, key: str, expiry: int) -> tuple[int, int, int, float]:
        """The number of the window of now, both counts, and the seconds that are left of the window."""
        now = self._clock()
        window = int(now // expiry)
        left = (window + 1) * expiry - now
        found = self._counts.get(key)
        if found is None:
            return window, 0, 0, left
        of, previous, current = found
        if of == window:
            return window, previous, current, left
        return window, current if of == window - 1 else 0, 0, left

    def _put(self, key: str, window: int, previous: int, current: int) -> None:
        counts = self._counts
        found = counts.get(key)
        if found is not None and found[0] != window:
            del counts[key]  # it goes to the end of the line
        elif found is None and len(counts) >= self._max_keys:
            del counts[next(iter(counts))]
        counts[key] = window, previous, current


def _seconds(wait: float) -> int:
    """Whole seconds that are more than a wait: at the very moment it is not one more yet."""
    return math.floor(wait + _GRAIN) + 1
