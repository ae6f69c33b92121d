"""Many messages on their way at once, for one caller.

Rules:

1. Messages are submitted in the order in which they are added, and their outcomes are told in that order.
2. As many of QoS 1 and 2 are outstanding as the broker takes at a time, and as many again; ``add`` waits for
   the rest. That is what holds a sender back.
3. Batches fill the waiting room to its half at most, and wait for that. The other half is for single
   messages, which are refused when it is full.
4. Each message has ``publish_timeout_seconds``. When nothing of a batch got through for so long, what
   follows fails at once, until the broker gives a sign of life and there is room: a million messages do not
   wait for that one after another.
5. What was submitted stays submitted, also where the caller leaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from app.problems import ProblemError, ProblemType, problem_of
from app.publishing.gate import Gate
from app.publishing.outcomes import Outcomes
from app.security.principal import Principal
from tidegate.errors import MQTTError, QueueFullError, refusal
from tidegate.message import Message

MAX_OUTSTANDING: Final = 1000
ROOM_SECONDS: Final = 0.05
"""How often a batch with nothing outstanding looks for room that others make."""


class Batch:
    """The messages of one caller.

    Args:
        gate: the way to the broker.
        principal: who publishes.
        outcomes: who is told what became of them.
        publish_timeout_seconds: how long a message may take.
        max_waiting: messages that the waiting room takes.
    """

    def __init__(
        self,
        gate: Gate,
        principal: Principal,
        outcomes: Outcomes,
        *,
        publish_timeout_seconds: float,
        max_waiting: int,
    ) -> None:
        self._gate = gate
        self._principal = principal
        self._outcomes = outcomes
        self._timeout_seconds = publish_timeout_seconds
        self._half_room = max(max_waiting // 2, 1)
        self._loop = asyncio.get_running_loop()
        self._outstanding: deque[tuple[Message, asyncio.Future[int]] | ProblemError] = deque()
        self._measure()
        self._moved_at = self._loop.time()
        self._given_up: tuple[ProblemError, float] | None = None

    @property
    def is_outstanding(self) -> bool:
        """Whether a message has no outcome yet."""
        return bool(self._outstanding)

    async def add(self, item: Message | ProblemError) -> None:
        """Submit a message, or take note of why there is none; waits while too many are outstanding."""
        outstanding = self._outstanding
        if isinstance(item, ProblemError):
            while len(outstanding) >= MAX_OUTSTANDING:
                await self.settle()
            self._refuse(item)
            return
        while outstanding and len(outstanding) >= (self._window if item.qos else self._room):
            await self.settle()
        if self._given_up is not None and not self._has_come_back(self._given_up[1]):
            self._refuse(self._given_up[0])
        elif outstanding or self._room or await self._make_room():
            await self._submit(item)

    async def settle(self) -> None:
        """Wait until the oldest outstanding message has an outcome; take it, and those behind it."""
        if not self._outstanding:
            return
        oldest = self._outstanding[0]
        if not isinstance(oldest, ProblemError) and not oldest[1].done():
            await asyncio.wait([oldest[1]])  # to await the future itself would cancel it with the caller
        self._take_settled()

    async def finish(self) -> None:
        """Wait until every message has an outcome."""
        while self._outstanding:
            await self.settle()

    def abandon(self) -> None:
        """Nobody asks for the outcomes any more."""
        for each in self._outstanding:
            if not isinstance(each, ProblemError):
                each[1].add_done_callback(_forget)
        self._outstanding.clear()

    async def _submit(self, message: Message) -> None:
        while True:
            try:
                future = self._gate.submit(self._principal, message, field="/topic")
            except ProblemError as problem:
                self._refuse(problem)
                return
            except QueueFullError:  # others were faster
                if not await self._make_room():
                    return
            else:
                if not self._outstanding:
                    self._moved_at = self._loop.time()
                self._outstanding.append((message, future))
                return

    async def _make_room(self) -> bool:
        """Wait for one's own messages, or for room that others make; False where a message failed over it."""
        if self._outstanding:
            await self.settle()
            return True
        gives_up_at = self._loop.time() + self._timeout_seconds
        self._measure()
        while not self._room:
            if self._loop.time() >= gives_up_at:
                problem = ProblemError(
                    ProblemType.QUEUE_FULL,
                    "it was not sent: messages of others wait for the broker, and left no room for "
                    f"{self._timeout_seconds:g} s",
                )
                self._given_up = problem, self._loop.time()
                self._refuse(problem)
                return False
            await asyncio.sleep(ROOM_SECONDS)
            self._measure()
        return True

    def _refuse(self, problem: ProblemError) -> None:
        if self._outstanding:
            self._outstanding.append(problem)
        else:
            self._outcomes.fail(problem)

    def _take_settled(self) -> None:
        outstanding = self._outstanding
        accepted = self._outcomes.accepted
        while outstanding:
            oldest = outstanding[0]
            if isinstance(oldest, ProblemError):
                self._outcomes.fail(oldest)
            else:
                message, future = oldest
                if not future.done():
                    break
                self._tell(message, future)
            outstanding.popleft()
        if self._outcomes.accepted != accepted:
            self._moved_at = self._loop.time()
        self._measure()

    def _tell(self, message: Message, future: asyncio.Future[int]) -> None:
        error = future.exception()
        if error is None:
            reason_code = future.result()
            if reason_code < 0x80:
                self._outcomes.accept(message.qos, reason_code)
                return
            error = refusal("publish", reason_code, topic=message.topic, qos=message.qos)
        if not isinstance(error, MQTTError):
            raise error
        problem = problem_of(error)
        self._outcomes.fail(problem)
        now = self._loop.time()
        if (
            problem.kind.status in (503, 504)
            and self._given_up is None
            and now - self._moved_at >= self._timeout_seconds
        ):
            self._given_up = self._give_up(problem), now

    def _give_up(self, problem: ProblemError) -> ProblemError:
        is_away = self._gate.limits is None
        return ProblemError(
            ProblemType.BROKER_UNAVAILABLE if is_away else ProblemType.QUEUE_FULL,
            f"it was not sent: nothing of this batch got through for {self._timeout_seconds:g} s, and the "
            f"broker gives no sign of life since ({problem.detail})",
        )

    def _has_come_back(self, since: float) -> bool:
        age = self._gate.seconds_since_round_trip
        self._measure()
        if age is None or self._loop.time() - age <= since or not self._room:
            return False
        self._given_up = None
        self._moved_at = self._loop.time()
        return True

    def _measure(self) -> None:
        """See how many may be outstanding: of QoS 0 ``_room``, with those of QoS 1 and 2 ``_window``."""
        free = max(self._half_room - self._gate.waiting, 0)
        self._room = self._window = min(MAX_OUTSTANDING, len(self._outstanding) + free)
        limits = self._gate.limits
        if limits is not None:
            self._window = min(self._room, 2 * limits.receive_maximum)


def _forget(future: asyncio.Future[int]) -> None:
    """Take note of an error that nobody asks for, so that it is not logged as forgotten."""
    if not future.cancelled():
        future.exception()
