"""Messages that wait for whoever iterates over them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from tidegate.background import running_loop
from tidegate.message import Message

logger = logging.getLogger("tidegate")

MAX_WAITING_MESSAGES: Final = 10_000


class Arrivals(AsyncIterator[Message]):
    """A bounded queue between a connection and one iteration.

    When it is full the oldest message is dropped, as it is for handlers, and the log says how many were.

    Args:
        loop: the loop of the iteration; the connection may be on another.
        max_waiting: how many messages may wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_waiting: int = MAX_WAITING_MESSAGES) -> None:
        self._loop = loop
        self._max_waiting = max_waiting
        self._messages: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._is_ended = False
        self._dropped = 0

    def receive(self, message: Message) -> None:
        """Take a message; called on the connection's loop."""
        if len(self._messages) >= self._max_waiting:
            with contextlib.suppress(IndexError):  # the iteration took it meanwhile
                self._messages.popleft()
            self._dropped += 1
            if self._dropped & (self._dropped - 1) == 0:  # at 1, 2, 4, 8 …
                logger.warning("the iteration is too slow: %d messages dropped so far", self._dropped)
        self._messages.append(message)
        self._wake()

    def end(self) -> None:
        """Let the iteration end once it has had what waits."""
        self._is_ended = True
        self._wake()

    async def __anext__(self) -> Message:
        while True:
            with contextlib.suppress(IndexError):
                return self._messages.popleft()
            if self._is_ended:
                raise StopAsyncIteration
            self._arrived.clear()
            if not self._messages and not self._is_ended:
                await self._arrived.wait()

    def _wake(self) -> None:
        if running_loop() is self._loop:
            self._arrived.set()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._arrived.set)
