"""Messages on their way through a bridge: one request for those that wait together, and safe repetitions.

Rules:

1. Nothing waits for company. A message leaves at once where a request may begin; those that queued up while
   requests were under way leave together, as one batch.
2. Each request has an Idempotency-Key of its own, and the same one, with the same bytes, on its repetitions.
3. What was surely not sent waits for its turn again, within its time. What may have been sent is repeated
   under its key.
4. QoS 2 is repeated only where the bridge still remembers its keys: one that was restarted may not.
5. Each message has an outcome of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx

from tidegate.errors import (
    ConfigurationError,
    MQTTError,
    NotConnectedError,
    OutcomeUnknownError,
    QueueFullError,
    TLSError,
)
from tidegate.message import Message
from tidegate.transports.calls import TIMEOUT_SECONDS, UNAUTHORIZED, Calls
from tidegate.transports.posts import (
    BATCH_PATH,
    IDEMPOTENCY_KEY,
    Post,
    batch_post,
    single_post,
)
from tidegate.transports.problems import error_of, problem_error, retry_after_seconds
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
LAST_ATTEMPT_SECONDS: Final = 1.0
"""What a repetition has at least to be answered in."""

_NO_BATCHES: Final = (404, 405, 501)
_TOO_LARGE: Final = 413

Make = Callable[[str], MQTTError]


class _RefusalError(Exception):
    """A request as a whole was refused, or got no answer.

    Args:
        make: makes the error for the topic of each message.
        status: the HTTP status; 0 where there was no answer.
        retry_after_seconds: how long the bridge asks to wait.
        leaves_doubt: it tells nothing about an earlier attempt, and no other will.
    """

    def __init__(
        self,
        make: Make,
        status: int = 0,
        retry_after_seconds: float = 0.0,
        *,
        leaves_doubt: bool = False,
    ) -> None:
        super().__init__()
        self.make = make
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.leaves_doubt = leaves_doubt


class _Request:
    """One request and its repetitions.

    Attributes:
        post: what is sent.
        taken: the messages in it.
        key: its Idempotency-Key.
        latest: when no other attempt begins, in seconds on the loop's clock.
        is_exact: it must not be published twice (MQTT 5 §4.3.3).
        memory: what the bridge remembered its keys in when the first attempt was made.
        doubt: makes the error of a request that may have been carried out; None where it was surely not.
    """

    __slots__ = ("doubt", "is_exact", "key", "latest", "memory", "post", "taken")

    def __init__(self, post: Post, taken: Sequence[Publication]) -> None:
        self.post = post
        self.taken = taken
        self.key = str(uuid.uuid4())
        self.latest = max(each.deadline for each in taken)
        self.is_exact = taken[0].message.qos == 2
        self.memory = ""
        self.doubt: Make | None = None

    def told_by(self, refusal: _RefusalError) -> Make | None:
        """What the messages of a repetition are told, where no other is to be made."""
        if refusal.leaves_doubt:
            return self.doubt
        error = refusal.make("")
        is_open = _is_for_later(error) or isinstance(error, OutcomeUnknownError)
        return None if is_open else refusal.make


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
        self._failures = 0
        self._memory: str | None = None
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
        if self._turns.is_any_ready and len(self._lanes) < self._max_requests:
            lane = asyncio.create_task(self._run_lane(), name="tidegate publications")
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)

    async def _run_lane(self) -> None:
        """One request after another, as long as something waits."""
        while taken := self._turns.take():
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
            post = _post_of(taken)
        except MQTTError as error:
            taken[0].fail(error)
            return
        request = _Request(post, taken)
        while True:
            try:
                outcomes, pause = await self._attempt(request)
            except _RefusalError as refusal:
                pause = self._note(refusal)
                if request.doubt is None:
                    if self._adapts(post, refusal.status):
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

    async def _attempt(self, request: _Request) -> tuple[list[int | MQTTError], float]:
        """Make the request once: an outcome for each message, and how long the bridge asks to wait."""
        if request.is_exact:
            await self._require_memory(request)
        post = request.post
        is_first = request.doubt is None
        left = max(request.latest - asyncio.get_running_loop().time(), LAST_ATTEMPT_SECONDS)
        try:
            answer = await self._calls.send(
                post.method,
                post.path,
                query=post.query,
                headers=[*post.headers, (IDEMPOTENCY_KEY, request.key)],
                content=post.content,
                timeout=httpx.Timeout(TIMEOUT_SECONDS if is_first else left, connect=left, pool=left),
            )
        except MQTTError as error:
            if isinstance(error, OutcomeUnknownError):
                request.doubt = _again(error)
            raise _RefusalError(_again(error)) from error
        outcomes = self._read(answer, request)
        if outcomes is None:
            make = functools.partial(_answer_error, answer)
            if isinstance(make(""), OutcomeUnknownError):
                request.doubt = make
            raise _RefusalError(
                make,
                answer.status_code,
                retry_after_seconds(answer),
                leaves_doubt=answer.status_code == UNAUTHORIZED,
            )
        return outcomes, retry_after_seconds(answer)

    def _read(self, answer: httpx.Response, request: _Request) -> list[int | MQTTError] | None:
        """The outcomes that an answer tells; None where it refuses the request as a whole."""
        post = request.post
        if not answer.is_success and post.path != BATCH_PATH:
            return None
        try:
            body = answer.json()
            if post.path != BATCH_PATH:
                return [int(body["reason_code"])]
            if not answer.is_success and "results" not in body:
                return None
            results: list[dict[str, Any]] = body["results"]
            return [_outcome(result, each) for result, each in zip(results, request.taken, strict=True)]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if not answer.is_success:
                return None
            raise ConfigurationError(f"what answers at {self._calls.url} is no bridge") from error

    async def _settle(self, taken: list[Publication], outcomes: list[int | MQTTError], pause: float) -> None:
        again: list[Publication] = []
        reason: MQTTError | None = None
        for each, outcome in zip(taken, outcomes, strict=True):
            if isinstance(outcome, int):
                each.succeed(outcome)
            elif _is_for_later(outcome):
                again.append(each)
                reason = outcome
            else:
                each.fail(outcome)
        if reason is not None:
            refusal = _RefusalError(_again(reason), retry_after_seconds=pause)
            await self._turn_back(again, refusal.make, self._note(refusal))

    # Trying again.

    async def _turn_back(self, taken: list[Publication], make: Make, pause: float) -> None:
        """What was surely not sent waits for another turn, where that may help and comes in time."""
        resumes_at = asyncio.get_running_loop().time() + pause
        may_help = _is_for_later(make(""))
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

    def _note(self, refusal: _RefusalError) -> float:
        """Remember a failure, and give how long to wait before the next attempt, in seconds."""
        error = refusal.make("")
        if not (_is_for_later(error) or isinstance(error, OutcomeUnknownError)):
            return 0.0
        if isinstance(error, NotConnectedError):
            self._memory = None  # it may be another bridge that answers next
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

    # Exactly once.

    async def _require_memory(self, request: _Request) -> None:
        """Learn what the bridge remembers its keys in, before the first attempt and each repetition.

        Raises:
            _RefusalError: it is not known; or a repetition would come to another memory.
        """
        is_repetition = request.doubt is not None
        if self._memory is None or is_repetition:
            try:
                answer = await self._calls.send("GET", "/livez")
            except OutcomeUnknownError as error:
                raise _RefusalError(_again(NotConnectedError(str(error)))) from error
            except MQTTError as error:
                raise _RefusalError(_again(error)) from error
            self._memory = _memory_of(answer)
        if not is_repetition:
            request.memory = self._memory
        elif not self._memory or self._memory != request.memory:
            raise _RefusalError(_forgotten, leaves_doubt=True)


def _is_for_later(error: MQTTError) -> bool:
    """Whether nothing was sent, and the same may succeed in a while."""
    return isinstance(error, NotConnectedError | QueueFullError)


def _again(error: MQTTError) -> Make:
    """Makes the same error for each of several callers, who each get one of their own."""

    def make(topic: str) -> MQTTError:
        copy = TLSError(str(error)) if isinstance(error, TLSError) else type(error)(str(error), topic=topic)
        copy.__cause__ = error.__cause__
        return copy

    return make


def _answer_error(answer: httpx.Response, topic: str) -> MQTTError:
    return error_of(answer, topic=topic)


def _forgotten(topic: str) -> MQTTError:
    return ConfigurationError("the bridge does not remember its keys", topic=topic)


def _ended(topic: str) -> MQTTError:
    return OutcomeUnknownError(
        "the client was disconnected before the bridge answered: the message may have arrived, or not",
        topic=topic,
    )


def _fail(taken: Sequence[Publication], make: Make) -> None:
    for each in taken:
        each.fail(make(each.message.topic))


def _post_of(taken: Sequence[Publication]) -> Post:
    if len(taken) == 1:
        return single_post(taken[0].message)
    return batch_post([each.item for each in taken])


def _outcome(result: dict[str, Any], each: Publication) -> int | MQTTError:
    problem = result.get("problem")
    if problem is None:
        return int(result["reason_code"])
    return problem_error(problem, int(problem["status"]), topic=each.message.topic)


def _memory_of(answer: httpx.Response) -> str:
    """What a bridge calls the memory of its keys; empty where it does not tell."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return str(answer.json().get("key_memory") or "")
    return ""
