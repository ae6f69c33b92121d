"""Requests with an ``Idempotency-Key``: published once, however often they are made.

The header is that of the IETF draft "The Idempotency-Key HTTP Header Field". Rules:

1. The first request with a key claims it, before anything is sent. The same request again is answered from
   the first one's outcome; another request under the same key is refused.
2. What is kept is what is definite: success, and a refusal by the broker. An answer that says that nothing
   was sent frees the key, so that the next request publishes.
3. A repetition that comes while the first is under way waits for it, and gets the same answer.
4. A message that was sent and not answered leaves its outcome open, and the key held. A repetition waits for
   the outcome, and publishes nothing while it is open.
5. An outcome that can never be known frees the key at QoS 0 and 1, where a message may arrive twice (MQTT 5
   §4.3). At QoS 2 it must not, and the answer stays "outcome unknown" for the window.
6. An answer that is too large to keep is kept in brief, or a repetition is told of it with 409. The key holds
   all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, replace
from typing import Any, Final

from app.problems import CONTENT_TYPE, RETRY_AFTER_SECONDS, ProblemError, ProblemType, problem_of
from app.publishing.idempotency_store import HEADER, Answer, Entry, State, Store
from tidegate.errors import MQTTError, OutcomeUnknownError, RefusedError
from tidegate.message import Message

"""Whose keys they are, as long as the bridge cannot tell its callers apart."""

CLOSE_SECONDS: Final = 2.0
_GRACE_SECONDS: Final = 0.5
"""The first request learns of its time-out a little later than its time is up."""
_FIRST_POLL_SECONDS: Final = 0.01
_LAST_POLL_SECONDS: Final = 0.5

Work = Callable[[], Awaitable[Answer]]
Late = Callable[[int], Awaitable[Answer]]


class _Flight:
    """A key that this process holds, and what those wait for who bring it again."""

    __slots__ = ("done", "entry")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.done: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()


class NothingSentError(Exception):
    """The work is done and published nothing: its answer is given, and the key is free again."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("nothing was sent")
        self.answer = answer


class Idempotency:
    """Does work once for each key.

    Args:
        store: what keeps the keys.
        wait_seconds: how long a repetition may wait for the first request's outcome.
    """

    def __init__(self, store: Store, *, wait_seconds: float) -> None:
        self._store = store
        self._wait_seconds = wait_seconds + _GRACE_SECONDS
        self._flights: dict[bytes, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def memory(self) -> str:
        """``Store.memory``."""
        return self._store.memory

    async def once(
        self, key: str, fingerprint: bytes, *, qos: int, work: Work, late: Late, scope: str
    ) -> tuple[Answer, bool]:
        """Do the work, or answer as the first request with this key was answered.

        Args:
            key: the key.
            fingerprint: the digest of the request, as ``fingerprint_of`` makes it.
            qos: the QoS of what the work publishes; of several messages the highest.
            work: makes the answer. Where it raises MQTTError or ProblemError, that is the answer; where it
                raises NothingSentError, its answer is, and is not kept.
            late: makes the answer from the broker's reason code, where that comes after OutcomeUnknownError.
            scope: whose key it is; others may have the same.

        Returns:
            The answer, and whether it is that of an earlier request.

        Raises:
            ProblemError: nothing was done. IDEMPOTENCY_KEY_REUSED, CONFLICT, OUTCOME_UNKNOWN, or what
                ``Store.claim`` raises.
        """
        name = _digest(scope.encode(), key.encode())
        entry = Entry(fingerprint, qos, secrets.token_bytes(16))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_seconds
        pause = _FIRST_POLL_SECONDS
        while True:
            flight = self._flights.get(name)
            found = await self._store.claim(name, entry) if flight is None else flight.entry
            if found is None:
                return await self._lead(name, entry, work, late), False
            if found.fingerprint != fingerprint:
                raise _reused()
            if found.answer is not None:
                return found.answer, True
            if found.state is State.LOST:
                raise _lost()
            left = deadline - loop.time()
            if left <= 0:
                raise _still_open() if found.state is State.OPEN else _under_way()
            if flight is None:  # another replica has it
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, _LAST_POLL_SECONDS)
                continue
            await asyncio.wait([flight.done], timeout=left)
            answer = flight.done.result() if flight.done.done() else None
            if answer is not None:
                return answer, True

    async def close(self) -> None:
        """Let open outcomes be told, and close the store; the session with the broker has ended before."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await self._store.close()

    async def _lead(self, name: bytes, entry: Entry, work: Work, late: Late) -> Answer:
        flight = self._begin(name, entry)
        answer: Answer | None = None
        try:
            try:
                answer = await work()
                await self._finish(name, entry, answer)
            except NothingSentError as nothing:
                answer = nothing.answer
                await self._store.free(name, entry)
            except OutcomeUnknownError as error:
                answer = _answer_of(problem_of(error))
                if error.outcome is None:
                    await self._lose(name, entry)
                else:
                    opened = replace(entry, state=State.OPEN)
                    following = self._follow(name, opened, self._begin(name, opened), error.outcome, late)
                    self._spawn(following)
            except (MQTTError, ProblemError) as error:
                answer = _answer_of(error if isinstance(error, ProblemError) else problem_of(error))
                if says_that_nothing_was_sent(error):
                    await self._store.free(name, entry)
                else:
                    await self._finish(name, entry, answer)
        except BaseException:
            if answer is None:  # a fault, or the bridge stops: it may have been sent
                self._spawn(self._lose(name, entry))
            raise
        finally:
            self._end(name, flight, answer)
        return answer

    async def _follow(
        self, name: bytes, opened: Entry, flight: _Flight, outcome: asyncio.Future[int], late: Late
    ) -> None:
        """Wait for an open outcome, and keep it."""
        answer: Answer | None = None
        try:
            await self._store.put(name, opened)
            await asyncio.wait([outcome])
            if outcome.cancelled() or outcome.exception() is not None:
                await self._lose(name, opened)
                return
            try:
                answer = await late(outcome.result())
            except (MQTTError, ProblemError) as error:
                answer = _answer_of(error if isinstance(error, ProblemError) else problem_of(error))
            await self._finish(name, opened, answer)
        finally:
            self._end(name, flight, answer)

    async def _finish(self, name: bytes, entry: Entry, answer: Answer) -> None:
        kept = _kept(answer, self._store.max_answer_bytes)
        await self._store.put(name, replace(entry, state=State.ANSWERED, answer=kept))

    async def _lose(self, name: bytes, entry: Entry) -> None:
        """Rule 5."""
        if entry.qos < 2:
            await self._store.free(name, entry)
        else:
            await self._store.put(name, replace(entry, state=State.LOST))

    def _begin(self, name: bytes, entry: Entry) -> _Flight:
        flight = self._flights[name] = _Flight(entry)
        return flight

    def _end(self, name: bytes, flight: _Flight, answer: Answer | None) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]
        flight.done.set_result(answer)

    def _spawn(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def fingerprint_of(operation: str, message: Message, *more: bytes) -> bytes:
    """The digest of a request that publishes one message.

    Args:
        operation: the method and the path, as the document has it: ``"POST /v1/publish"``.
        message: what it publishes.
        more: whatever else decides what the request does.
    """
    head = f"{message.qos}{message.retain}".encode()
    properties = [
        f"{name}={value!r}".encode()
        for name, value in asdict(message.properties).items()
        if value not in (None, ())
    ]
    return _digest(operation.encode(), message.topic.encode(), message.payload, head, *properties, *more)


def fingerprint_of_body(operation: str, body: bytes) -> bytes:
    """The digest of a request that is its body, byte for byte."""
    return _digest(operation.encode(), body)


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def says_that_nothing_was_sent(error: MQTTError | ProblemError) -> bool:
    """Whether a refusal means that the same request may be made again."""
    if isinstance(error, ProblemError):
        return error.nothing_sent or (
            error.reason_code is None and (error.kind.status < 500 or error.kind.status == 503)
        )
    return not isinstance(error, RefusedError)


def _answer_of(problem: ProblemError) -> Answer:
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return Answer(problem.kind.status, ((b"content-type", CONTENT_TYPE.encode()), *headers), problem.body())


def _kept(answer: Answer, max_bytes: int) -> Answer:
    """What is kept of an answer (rule 6)."""
    for body in (answer.body, answer.brief):
        if body is not None and len(body) <= max_bytes:
            return Answer(answer.status, answer.headers, body)
    return _answer_of(
        ProblemError(
            ProblemType.CONFLICT,
            f"the first request with this Idempotency-Key was answered with {answer.status}, and its answer "
            f"of {len(answer.body)} bytes was too large to keep; nothing was sent again",
            field=HEADER,
            hint="to have it done again, make the request under a new key",
        )
    )


def _reused() -> ProblemError:
    return ProblemError(
        ProblemType.IDEMPOTENCY_KEY_REUSED,
        "another request came with this Idempotency-Key before; nothing was sent",
        field=HEADER,
        hint="make a new key for each message, and repeat a request as it was, byte for byte",
    )


def _under_way() -> ProblemError:
    return ProblemError(
        ProblemType.CONFLICT,
        "the first request with this Idempotency-Key is still under way; nothing was sent again",
        field=HEADER,
        hint="make the same request again in a moment",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _still_open() -> ProblemError:
    return ProblemError(
        ProblemType.OUTCOME_UNKNOWN,
        "the message was sent by an earlier request with this Idempotency-Key, and the broker has still not "
        "answered: it may have arrived, or not; nothing was sent again",
        field=HEADER,
        hint="make the same request again: it waits for the broker's answer",
    )


def _lost() -> ProblemError:
    return ProblemError(
        ProblemType.OUTCOME_UNKNOWN,
        "the message may have been sent by an earlier request with this Idempotency-Key, and the broker's "
        "answer can no longer come: it may have arrived, or not; at QoS 2 nothing is sent again under it",
        field=HEADER,
        hint="find out from its receiver whether it arrived, or publish it again under a new key",
    )
