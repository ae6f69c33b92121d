"""Whose turn it is on a response topic that a device has by itself: one request of the process at a time.

Replies of devices that know no correlation data cannot be told apart, and each client that follows the topic
gets them all.

Rules:

1. There is a line for each topic of a broker, whichever clients, threads and event loops stand in it. First
   come, first served.
2. A turn ends by itself when the time is over that it was taken for: an event loop that is gone keeps nobody
   waiting for ever.
3. Nothing is kept of a topic that nobody wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Hashable
from typing import Final

from tidegate.background import at_fork_in_child


class _Waiting:
    """Somebody in a line."""

    __slots__ = ("is_called", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_called = asyncio.Event()


class Turn:
    """A turn that somebody has.

    Attributes:
        ends_at: when it ends by itself, in seconds on the monotonic clock.
    """

    __slots__ = ("_line", "ends_at")

    def __init__(self, line: _Line, seconds: float) -> None:
        self._line = line
        self.ends_at = time.monotonic() + seconds

    def end(self) -> None:
        """Hand it on; from any thread, and a second call does nothing."""
        self._line.end(self)


class _Line:
    """Those who want one topic, in the order in which they came."""

    def __init__(self, key: Hashable) -> None:
        self._key = key
        self._turn: Turn | None = None
        self._waiting: deque[_Waiting] = deque()

    def join(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)

    def leave(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        self._call_next()

    def seconds_to_wait(self, waiting: _Waiting) -> float | None:
        """How long to wait before looking again, 0 where it is one's turn; None where one is called."""
        while self._waiting[0].loop.is_closed():
            self._waiting.popleft()
        left = 0.0 if self._turn is None else max(self._turn.ends_at - time.monotonic(), 0.0)
        return left if self._waiting[0] is waiting else left or None

    def begin(self, seconds: float) -> Turn:
        """The first in line has its turn."""
        self._waiting.popleft()
        self._turn = Turn(self, seconds)
        return self._turn

    def end(self, turn: Turn) -> None:
        with _lock:
            if self._turn is turn:
                self._turn = None
                self._call_next()

    def _call_next(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                first.loop.call_soon_threadsafe(first.is_called.set)
                return
            self._waiting.popleft()
        if self._turn is None and _lines.get(self._key) is self:
            del _lines[self._key]


_lock = threading.RLock()  # what is collected while it is held may leave a line too
_lines: Final[dict[Hashable, _Line]] = {}


@at_fork_in_child
def _forget() -> None:
    """In a child process: the requests are the parent's."""
    global _lock  # noqa: PLW0603 - another thread of the parent's may have held it
    _lock = threading.RLock()
    _lines.clear()


async def take_turn(broker: Hashable, topic: str, seconds: float) -> Turn:
    """Wait for a turn, without a bound, and take it.

    Args:
        broker: what tells one broker from another.
        topic: the response topic.
        seconds: how long the turn lasts, where it is not ended before.
    """
    waiting = _Waiting()
    key = broker, topic
    with _lock:
        line = _lines.setdefault(key, _Line(key))
        line.join(waiting)
    try:
        while True:
            with _lock:
                left = line.seconds_to_wait(waiting)
                if left == 0:
                    return line.begin(seconds)
                waiting.is_called.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await waiting.is_called.wait()
    except BaseException:
        with _lock:
            line.leave(waiting)
        raise
