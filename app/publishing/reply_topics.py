"""A reply topic that a device has by itself: for those that speak MQTT 3.1.1 and cannot be told one.

Rules:

1. Only one request at a time waits on such a topic. The others stand in line, each as long as its time-out
   allows: replies without correlation data could not be told apart.
2. The reply is the first message after the request was handed to the connection that carries its correlation
   data, or none. What comes while it waits for that is nobody's.
3. A request that was sent and not answered leaves the topic to settle: for a while nobody's request is sent,
   so that a late reply is not taken for the next one's. The late reply ends it early.
4. The subscription is kept for a while after the last request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from app.hub.event import Event
from app.hub.listener import CloseReason
from app.problems import ProblemError, ProblemType
from app.publishing.replies import Inbox, Pending, ReplyCounts

KEEP_SECONDS: Final = 5.0


class FixedInbox(Inbox):
    """One fixed reply topic, and the requests that want it.

    Args:
        topic: the topic.
        counts: where it counts what it drops.
        max_line: requests that may stand in line.
        settle_seconds: how long a late reply is waited for.
        on_unused: called when the topic was not wanted for a while.
    """

    def __init__(
        self,
        topic: str,
        counts: ReplyCounts,
        *,
        max_line: int,
        settle_seconds: float,
        on_unused: Callable[[FixedInbox], None],
    ) -> None:
        super().__init__(topic, counts)
        self.topic = topic
        self._max_line = max_line
        self._settle_seconds = settle_seconds
        self._on_unused = on_unused
        self._loop = asyncio.get_running_loop()
        self._line: deque[asyncio.Future[None]] = deque()
        self._is_taken = False
        self._last: Pending | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._keeping: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def turn(self, pending: Pending) -> AsyncIterator[None]:
        """Wait for the topic, and have it alone.

        Raises:
            ProblemError: REPLY_TOPIC_BUSY where the line is full; nothing was sent.
        """
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        if self._is_taken:
            await self._stand_in_line()
        self._is_taken = True
        try:
            yield
        finally:
            self._last = pending
            if pending.may_be_answered_late and self._settle_seconds > 0 and self.close_reason is None:
                self._settling = self._loop.call_later(self._settle_seconds, self._settled)
            else:
                self._hand_on()

    def receive(self, event: Event) -> None:
        """Rules 2 and 3."""
        for pending in self.pending.values():
            if pending.is_sent and pending.agrees(event.message):
                if pending.ended.done():
                    self._counts.late_replies += 1
                else:
                    pending.take(event)
                return
        if self._settling is not None and self._last is not None and self._last.agrees(event.message):
            self._counts.late_replies += 1
            self._settling.cancel()
            self._settled()
        else:
            self._counts.unmatched_replies += 1

    def close(self, reason: CloseReason) -> None:
        """The subscription ends: whose turn comes is told so, and nobody waits for late replies."""
        super().close(reason)
        if self._settling is not None:
            self._settling.cancel()
            self._settled()

    async def _stand_in_line(self) -> None:
        if len(self._line) >= self._max_line:
            raise ProblemError(
                ProblemType.REPLY_TOPIC_BUSY,
                f"{len(self._line)} requests wait for their turn at {self.topic!r}, as many as "
                "TIDEGATE_MAX_REQUESTS_PER_REPLY_TOPIC allows; nothing was sent",
                field="response_topic",
            )
        place: asyncio.Future[None] = self._loop.create_future()
        self._line.append(place)
        try:
            await place
        except BaseException:
            if place in self._line:
                self._line.remove(place)
            elif not place.cancelled():
                self._hand_on()  # its turn came at the moment at which it gave up
            raise

    def _settled(self) -> None:
        self._settling = None
        self._hand_on()

    def _hand_on(self) -> None:
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._is_taken = False
        if self.close_reason is not CloseReason.SHUTDOWN:
            self._keeping = self._loop.call_later(KEEP_SECONDS, self._on_unused, self)
