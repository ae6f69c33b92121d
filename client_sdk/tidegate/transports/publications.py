"""Messages on their way through a bridge: one request for those that wait together, and safe repetitions.

Rules:

1. Nothing waits for company. A message leaves at once where a request may begin; those that queued up while
   requests were under way leave together, as one batch.
2. What was surely not sent waits for its turn again, within its time; what follows on its topic waits behind
   it, and other topics do not. What may have been sent is repeated as it was, under its Idempotency-Key.
3. Where the bridge sent a later message of a batch to the same topic nevertheless, the one that was not sent
   fails: behind the later one it would put back an older value.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from typing import Final

from tidegate.errors import MQTTError, NotConnectedError, OutcomeUnknownError, QueueFullError
from tidegate.message import Message
from tidegate.transports.attempts import Attempts, Make, RefusalError, Request, is_for_later, same_again
from tidegate.transports.calls import TIMEOUT_SECONDS, Calls
from tidegate.transports.posts import BATCH_PATH, Post
from tidegate.transports.turns import Publication, Turns

logger = logging.getLogger("tidegate")

PUBLISH_TIMEOUT_SECONDS: Final = 10.0
MAX_WAITING: Final = 10_000
MAX_REQUESTS: Final = 4
"""Requests under way, as long as the bridge takes batches."""
MAX_SINGLE_REQUESTS: Final = 100
SWEEP_SECONDS: Final = 0.5
RETRY_MIN_SECONDS: Final = 0.1
RETRY_MAX_SECONDS: Final = 2.0

_NO_BATCHES: Final = (404, 405, 501)
_TOO_LARGE: Final = 413


class Publications:
    """Publishes over one way to a bridge.

    Args:
        calls: the way.
        publish_timeout_seconds: how long a message may wait for the bridge, repetitions included; an attempt
            that is under way then is waited for.
        max_waiting: messages that may wait or be under way; one more raises QueueFullError.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        publish_timeout_seconds: float = PUBLISH_TIMEOUT_SECONDS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._calls = calls
        self._timeout_seconds = publish_timeout_seconds
        self._max_waiting = max_waiting
        self._count = 0
        self._turns = Turns()
        self._lanes: set[asyncio.Task[None]] = set()
        self._max_requests = MAX_REQUESTS
        self._is_held = False
        self._failures = 0
        self._attempts = Attempts(calls)
        self._sweeper: asyncio.TimerHandle | None = None
        self._last_reason = "it has not answered yet"
        self._closing = asyncio.Event()

    def submit(self, message: Message) -> asyncio.Future[int]:
        """Publish without waiting.

        Returns:
            A future with the reason code, below 0x80, or with the error.

        Raises:
            NotConnectedError: the client was disconnected.
            QueueFullError: too many messages wait already.
        """
        if self._closing.is_set():
            raise NotConnectedError("the client was disconnected; make a new one")
        if self._count >= self._max_waiting:
            raise QueueFullError(
                f"{self._count} messages wait for the bridge at {self._calls.url}; nothing was sent",
                topic=message.topic,
                qos=message.qos,
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._count += 1
        future.add_done_callback(self._count_down)
        self._turns.add(Publication(message, future, loop.time() + self._timeout_seconds))
        self._begin()
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        return future

    def hold(self) -> None:
        """Begin no request until ``release``."""
        self._is_held = True

    def release(self) -> None:
        """Send what ``hold`` kept back."""
        self._is_held = False
        self._begin()

    async def close(self) -> None:
        """Let what is on its way have its outcome; nothing is repeated any more."""
        self._closing.set()
        if self._lanes:
            await asyncio.wait(list(self._lanes), timeout=TIMEOUT_SECONDS)
        for lane in self._lanes:
            lane.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _count_down(self, _: asyncio.Future[int]) -> None:
        self._count -= 1

    def _begin(self) -> None:
        if self._turns.is_any_ready and not self._is_held and len(self._lanes) < self._max_requests:
            lane = asyncio.create_task(self._run_lane(), name="tidegate publications")
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)

    async def _run_lane(self) -> None:
        """One request after another, as long as something waits."""
        while not self._is_held and (taken := self._turns.take()):
            self._begin()
            try:
                await self._deliver(taken)
            except asyncio.CancelledError:
                _fail(taken, _ended)
                raise
            except Exception as error:  # noqa: BLE001 - a token's function may raise anything
                for each in taken:
                    each.fail(error)
            finally:
                self._turns.release(taken)

    def _sweep(self) -> None:
        """Fail what has waited too long for its turn; runs only while there is something to watch."""
        loop = asyncio.get_running_loop()
        for each in self._turns.take_expired(loop.time()):
            each.fail(
                NotConnectedError(
                    f"the bridge at {self._calls.url} did not take it within {self._timeout_seconds:g} s "
                    f"({self._last_reason}); nothing was sent",
                    topic=each.message.topic,
                    qos=each.message.qos,
                )
            )
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep) if self._count else None

    # One request.

    async def _deliver(self, taken: list[Publication]) -> None:
        """Make one request, and repeat it, until each message has its outcome or waits for another turn."""
        try:
            request = Request(taken)
        except MQTTError as error:
            taken[0].fail(error)
            return
        while True:
            try:
                outcomes, pause = await self._attempts.make(request)
            except RefusalError as refusal:
                pause = self._note(refusal)
                if request.doubt is None:
                    if self._adapts(request.post, refusal.status):
                        self._turns.put_back(taken)
                    else:
                        await self._turn_back(taken, refusal.make, pause)
                    return
                told = request.told_by(refusal)
                if told is None and not await self._waits(pause, request.latest):
                    told = request.doubt
                if told is not None:
                    _fail(taken, told)
                    return
            else:
                self._failures = 0
                await self._settle(taken, outcomes, pause)
                return

    async def _settle(self, taken: list[Publication], outcomes: list[int | MQTTError], pause: float) -> None:
        last_sent = {
            each.message.topic: place
            for place, (each, outcome) in enumerate(zip(taken, outcomes, strict=True))
            if isinstance(outcome, int | OutcomeUnknownError)
        }
        again: list[Publication] = []
        reason: MQTTError | None = None
        for place, (each, outcome) in enumerate(zip(taken, outcomes, strict=True)):
            if isinstance(outcome, int):
                each.succeed(outcome)
            elif not is_for_later(outcome):
                each.fail(outcome)
            elif place < last_sent.get(each.message.topic, -1):
                each.fail(_overtaken(outcome, each.message.topic))
            else:
                again.append(each)
                reason = outcome
        if reason is not None:
            held = {each.message.topic for each in again}
            self._turns.release([each for each in taken if each.message.topic not in held])
            taken[:] = again
            self._begin()
            refusal = RefusalError(same_again(reason), retry_after_seconds=pause)
            await self._turn_back(again, refusal.make, self._note(refusal))

    # Trying again.

    async def _turn_back(self, taken: list[Publication], make: Make, pause: float) -> None:
        """What was surely not sent waits for another turn, where that may help and comes in time."""
        resumes_at = asyncio.get_running_loop().time() + pause
        may_help = is_for_later(make(""))
        again = [each for each in taken if may_help and each.deadline > resumes_at]
        _fail([each for each in taken if each not in again], make)
        if again and await self._waits(pause, resumes_at + 1):
            self._turns.put_back(again)
        else:
            _fail(again, make)

    def _adapts(self, post: Post, status: int) -> bool:
        """Whether a refusal of a batch is one of batches, and others will be smaller, or none."""
        if post.path != BATCH_PATH:
            return False
        if status in _NO_BATCHES:
            logger.info("the bridge at %s takes no batches: it is an older one", self._calls.url)
            self._turns.max_messages = 1
            self._max_requests = MAX_SINGLE_REQUESTS
            return True
        if status == _TOO_LARGE:
            self._turns.max_bytes = min(self._turns.max_bytes, len(post.content)) // 2
            return True
        return False

    def _note(self, refusal: RefusalError) -> float:
        """Remember a failure, and give how long to wait before the next attempt, in seconds."""
        error = refusal.make("")
        if not (is_for_later(error) or isinstance(error, OutcomeUnknownError)):
            return 0.0
        if isinstance(error, NotConnectedError):
            self._attempts.forget()
        if self._failures == 0:
            logger.warning("a publish through %s is tried again: %s", self._calls.url, error)
        self._last_reason = str(error)
        ceiling = min(RETRY_MAX_SECONDS, RETRY_MIN_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return max(refusal.retry_after_seconds, random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter

    async def _waits(self, seconds: float, latest: float) -> bool:
        """Wait; False where that would take too long, or the client is disconnected meanwhile."""
        if asyncio.get_running_loop().time() + seconds >= latest:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return not self._closing.is_set()


def _ended(topic: str) -> MQTTError:
    return OutcomeUnknownError(
        "the client was disconnected before the bridge answered: the message may have arrived, or not",
        topic=topic,
    )


def _overtaken(error: MQTTError, topic: str) -> MQTTError:
    return type(error)(
        f"{error}; it is not tried again, since a later message to the topic was sent", topic=topic
    )


def _fail(taken: Sequence[Publication], make: Make) -> None:
    for each in taken:
        each.fail(make(each.message.topic))
