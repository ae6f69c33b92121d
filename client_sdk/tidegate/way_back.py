"""The way of outcomes from the SDK's engine to coroutines on other loops.

Rules:

1. A loop is woken once for all outcomes of one turn of the engine's; a coroutine that waits alone is told at
   once.
2. Outcomes are told in the order in which they came.
3. A loop that is closed is told nothing, and no loop is kept alive from here.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol


class Awaiting(Protocol):
    """A coroutine that waits for an outcome."""

    def finish(self) -> None:
        """It has its outcome; called on its loop."""


class WayBack:
    """The way to one loop; told from the engine's thread alone.

    Attributes:
        waiting: how many wait for an outcome on the loop, which counts them.
    """

    __slots__ = ("__weakref__", "_is_woken", "_told", "waiting")

    def __init__(self) -> None:
        self._told: deque[Awaiting] = deque()
        self._is_woken = False
        self.waiting = 0

    def tell(self, loop: asyncio.AbstractEventLoop, awaiting: Awaiting) -> None:
        """Have it finish on the loop that this is the way to."""
        self._told.append(awaiting)
        if not self._is_woken:
            self._is_woken = True
            if self.waiting > 1:  # others may come in this turn
                asyncio.get_running_loop().call_soon(self._wake, loop)
            else:
                self._wake(loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.call_soon_threadsafe(self._finish, loop)
        except RuntimeError:  # it is closed, and nobody waits there
            self._told.clear()
            self._is_woken = False

    def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        # Cleared first: what is told from now on wakes the loop again, or is still seen below.
        self._is_woken = False
        told = self._told
        try:
            while told:
                told.popleft().finish()
        finally:
            if told:  # interrupted by a signal; a loop that goes on goes on here
                loop.call_soon(self._finish, loop)


def way_back_to(loop: asyncio.AbstractEventLoop) -> WayBack:
    """The way to a loop; asked on its thread."""
    global _last  # noqa: PLW0603 - as a rule one loop asks all the time
    last, way = _last
    if last() is loop:
        return way
    found = _ways.get(loop)
    if found is None:
        found = _ways[loop] = WayBack()
    _last = weakref.ref(loop), found
    return found


_Last = tuple[Callable[[], asyncio.AbstractEventLoop | None], WayBack]

_ways: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, WayBack]] = weakref.WeakKeyDictionary()
_last: _Last = (lambda: None), WayBack()
