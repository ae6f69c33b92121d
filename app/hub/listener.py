"""One listener: a bounded buffer between the hub, which never waits, and a reader, which may be slow.

Rules:

1. ``offer`` is synchronous and never fails; when the buffer would pass its bounds the listener is closed with
   ``TOO_SLOW`` and takes no more.
2. What was offered before the close is still drained; the reason comes last.
3. Only the reader drains, and only the hub offers. Anybody may close; the first reason stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum

from app.hub.event import ControlEvent, Event
from tidegate.topics import matches, split_share


class CloseReason(Enum):
    """Why a stream ended, and whether the same request may be made again."""

    CLIENT_LEFT = ("client_left", True)
    SHUTDOWN = ("shutdown", True)
    TOO_SLOW = ("too_slow", True)
    REFUSED = ("refused", False)

    def __init__(self, reason: str, may_reconnect: bool) -> None:
        self.reason = reason
        self.may_reconnect = may_reconnect

    def event(self) -> ControlEvent:
        """The last event of the stream."""
        return ControlEvent("close", {"reason": self.reason, "may_reconnect": self.may_reconnect})


class Listener:
    """A stream's end of the hub.

    Args:
        filters: topic filters, valid and distinct, in the order given by the client.
        qos: the highest QoS wanted.
        retained: whether retained messages are wanted on joining.
        max_messages: bound of the buffer in events.
        max_bytes: bound of the buffer in bytes.
    """

    def __init__(
        self,
        filters: Sequence[str],
        *,
        qos: int = 1,
        retained: bool = True,
        max_messages: int = 1000,
        max_bytes: int = 8 * 1024 * 1024,
    ) -> None:
        self.filters = tuple(dict.fromkeys(filters))
        self.qos = qos
        self.retained = retained
        self.close_reason: CloseReason | None = None
        self._own_filters = tuple(each for each in self.filters if split_share(each)[0] is None)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._pending: list[Event | ControlEvent] = []
        self._pending_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def takes(self, topic: str, topic_filter: str) -> bool:
        """Whether a copy sent for this filter is the one to keep.

        Of several overlapping filters the first that matches is; the broker sends a copy for each.
        """
        own = self._own_filters
        if len(own) <= 1 or topic_filter not in own:
            return True
        for each in own:
            if each == topic_filter:
                return True
            if matches(each, topic):
                return False
        return True

    def offer(self, event: Event | ControlEvent) -> None:
        """Put an event into the buffer, or close the listener because it does not fit."""
        if self.close_reason is not None:
            return
        if len(self._pending) >= self._max_messages or self._pending_bytes + event.size > self._max_bytes:
            self.close(CloseReason.TOO_SLOW)
            return
        self._pending.append(event)
        self._pending_bytes += event.size
        self._wake()

    def close(self, reason: CloseReason) -> None:
        """Take no more; the first reason stays."""
        if self.close_reason is None:
            self.close_reason = reason
            self._wake()

    async def wait(self) -> None:
        """Wait until there is something to drain, or the listener is closed."""
        if self._pending or self.close_reason is not None:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def drain(self) -> bytes:
        """All that is pending, as one piece of Server-Sent Events."""
        pending, self._pending = self._pending, []
        self._pending_bytes = 0
        qos = self.qos
        if len(pending) == 1:
            return pending[0].sse(qos)
        return b"".join([event.sse(qos) for event in pending])

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
