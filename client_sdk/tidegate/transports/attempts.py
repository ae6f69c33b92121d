"""One request that publishes, made once or repeated, and what its answer tells.

Rules:

1. A request has an Idempotency-Key of its own, and the same one, with the same bytes, on its repetitions.
2. QoS 2 is repeated only where the bridge still remembers its keys: one that was restarted may not.
3. Each message has an outcome of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
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
from tidegate.transports.calls import TIMEOUT_SECONDS, UNAUTHORIZED, Calls
from tidegate.transports.posts import BATCH_PATH, IDEMPOTENCY_KEY, batch_post, single_post
from tidegate.transports.problems import error_of, problem_error, retry_after_seconds
from tidegate.transports.turns import Publication

LAST_ATTEMPT_SECONDS: Final = 1.0
"""What a repetition has at least to be answered in."""

Make = Callable[[str], MQTTError]
"""Makes the error for a message to this topic: each caller gets one of its own."""


class RefusalError(Exception):
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


class Request:
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

    def __init__(self, taken: Sequence[Publication]) -> None:
        if len(taken) == 1:
            self.post = single_post(taken[0].message)
        else:
            self.post = batch_post([each.item for each in taken])
        self.taken = taken
        self.key = str(uuid.uuid4())
        self.latest = max(each.deadline for each in taken)
        self.is_exact = taken[0].message.qos == 2
        self.memory = ""
        self.doubt: Make | None = None

    def told_by(self, refusal: RefusalError) -> Make | None:
        """What the messages of a repetition are told, where no other is to be made."""
        if refusal.leaves_doubt:
            return self.doubt
        error = refusal.make("")
        is_open = is_for_later(error) or isinstance(error, OutcomeUnknownError)
        return None if is_open else refusal.make


class Attempts:
    """Makes requests at one bridge.

    Args:
        calls: the way to it.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._memory: str | None = None

    def forget(self) -> None:
        """It may be another bridge that answers next."""
        self._memory = None

    async def make(self, request: Request) -> tuple[list[int | MQTTError], float]:
        """Make a request once.

        Returns:
            An outcome for each message, and how long the bridge asks to wait, in seconds.

        Raises:
            RefusalError: the request as a whole was refused, or got no answer.
            ConfigurationError: what answers is no bridge.
        """
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
                request.doubt = same_again(error)
            raise RefusalError(same_again(error)) from error
        outcomes = self._read(answer, request)
        if outcomes is None:
            make = functools.partial(_answer_error, answer)
            if isinstance(make(""), OutcomeUnknownError):
                request.doubt = make
            raise RefusalError(
                make,
                answer.status_code,
                retry_after_seconds(answer),
                leaves_doubt=answer.status_code == UNAUTHORIZED,
            )
        return outcomes, retry_after_seconds(answer)

    def _read(self, answer: httpx.Response, request: Request) -> list[int | MQTTError] | None:
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

    async def _require_memory(self, request: Request) -> None:
        """Learn what the bridge remembers its keys in, before the first attempt and each repetition.

        Raises:
            RefusalError: it is not known; or a repetition would come to another memory.
        """
        is_repetition = request.doubt is not None
        if self._memory is None or is_repetition:
            try:
                answer = await self._calls.send("GET", "/livez")
            except OutcomeUnknownError as error:
                raise RefusalError(same_again(NotConnectedError(str(error)))) from error
            except MQTTError as error:
                raise RefusalError(same_again(error)) from error
            self._memory = _memory_of(answer)
        if not is_repetition:
            request.memory = self._memory
        elif not self._memory or self._memory != request.memory:
            raise RefusalError(_forgotten, leaves_doubt=True)


def is_for_later(error: MQTTError) -> bool:
    """Whether nothing was sent, and the same may succeed in a while."""
    return isinstance(error, NotConnectedError | QueueFullError)


def same_again(error: MQTTError) -> Make:
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
