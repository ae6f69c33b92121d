"""When a WebSocket on which nothing happens is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Idleness:
    """Calls back once nothing has happened for so long; its clock runs from the first.

    Args:
        seconds: for how long.
        is_busy: whether something is under way that no frame tells of.
        close: what is called.
    """

    def __init__(self, seconds: float, is_busy: Callable[[], bool], close: Callable[[], None]) -> None:
        self._seconds = seconds
        self._is_busy = is_busy
        self._close = close
        self._loop = asyncio.get_running_loop()
        self.note()
        self._timer = self._loop.call_later(seconds, self._look)

    def note(self) -> None:
        """Something happened."""
        self._happened_at = self._loop.time()

    def cancel(self) -> None:
        """Call nobody any more."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._is_busy():
            self.note()
        left = self._happened_at + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._close()
