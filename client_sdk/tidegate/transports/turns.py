"""Which messages leave together, and which have to wait.

Rules:

1. The order of each topic is kept: of one topic, messages of one request alone are under way.
2. A batch is bounded in messages and bytes. QoS 2 is in no batch with others, since it is not repeated as
   they are; a message that clears its topic, and one that is too large, leave by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from tidegate.message import Message
from tidegate.transports.posts import batch_item, is_clearing

MAX_BATCH_MESSAGES: Final = 100
MAX_BATCH_BYTES: Final = 262_144
"""Well below what a bridge takes at once, a megabyte unless it is told otherwise."""


class Publication:
    """One message, and who waits for its outcome.

    Args:
        message: the message.
        future: gets the reason code, or the error.
        deadline: when it has waited too long, in seconds on the loop's clock.
    """

    __slots__ = ("_item", "deadline", "future", "message")

    def __init__(self, message: Message, future: asyncio.Future[int], deadline: float) -> None:
        self.message = message
        self.future = future
        self.deadline = deadline
        self._item: bytes | None = None

    @property
    def item(self) -> bytes:
        """The message as it stands in a batch."""
        if self._item is None:
            self._item = batch_item(self.message)
        return self._item

    def succeed(self, reason_code: int) -> None:
        """Tell the reason code, where anybody still waits."""
        if not self.future.done():
            self.future.set_result(reason_code)

    def fail(self, error: BaseException) -> None:
        """Tell what went wrong, where anybody still waits."""
        if not self.future.done():
            self.future.set_exception(error)


class Turns:
    """The messages that wait, by topic.

    Attributes:
        max_messages: in one batch; 1 where there are none.
        max_bytes: in one batch.
    """

    def __init__(self) -> None:
        self.max_messages = MAX_BATCH_MESSAGES
        self.max_bytes = MAX_BATCH_BYTES
        self._ready: dict[str, deque[Publication]] = {}
        self._behind: dict[str, deque[Publication]] = {}
        """What waits for a topic that is under way."""

    @property
    def is_any_ready(self) -> bool:
        """Whether something may leave."""
        return bool(self._ready)

    def add(self, publication: Publication) -> None:
        """Have a message wait, the last of its topic."""
        topic = publication.message.topic
        behind = self._behind.get(topic)
        queue = self._ready.setdefault(topic, deque()) if behind is None else behind
        queue.append(publication)

    def take(self) -> list[Publication]:
        """What leaves next, as one request; its topics are under way until ``release``."""
        taken: list[Publication] = []
        while self._ready:
            topic, queue = next(iter(self._ready.items()))
            count = len(taken)
            self._take_from(queue, taken)
            is_under_way = len(taken) > count
            if is_under_way:
                self._behind[topic] = queue
            elif queue:
                break  # its first message leaves with none of these
            del self._ready[topic]
            if queue:
                break
        return taken

    def release(self, taken: Iterable[Publication]) -> None:
        """What was taken is no longer under way."""
        for topic in {each.message.topic for each in taken}:
            behind = self._behind.pop(topic)
            if behind:
                self._ready[topic] = behind

    def put_back(self, taken: Sequence[Publication]) -> None:
        """Have messages that are under way wait again, the first of their topics."""
        for each in reversed(taken):
            self._behind[each.message.topic].appendleft(each)

    def take_expired(self, now: float) -> list[Publication]:
        """What has waited too long, and waits no more."""
        expired: list[Publication] = []
        for queue in (*self._ready.values(), *self._behind.values()):
            while queue and queue[0].deadline <= now:  # they stand in the order in which they came
                expired.append(queue.popleft())
        return expired

    def _take_from(self, queue: deque[Publication], taken: list[Publication]) -> None:
        """Take as much of one topic as leaves together with what is taken."""
        size = sum(len(each.item) + 1 for each in taken) if taken else 0
        while queue:
            each = queue[0]
            if not each.future.done():
                if taken:
                    if not self._may_join(each, taken[0], len(taken)):
                        return
                    size = size or len(taken[0].item) + 1
                    size += len(each.item) + 1
                    if size + 2 > self.max_bytes:
                        return
                taken.append(each)
            queue.popleft()

    def _may_join(self, each: Publication, first: Publication, count: int) -> bool:
        return (
            count < self.max_messages
            and self._is_batchable(first.message)
            and self._is_batchable(each.message)
            and (first.message.qos == 2) == (each.message.qos == 2)
        )

    def _is_batchable(self, message: Message) -> bool:
        return not is_clearing(message) and len(message.payload) < self.max_bytes
