"""Work under an idempotency key, over each of the stores; no HTTP and no broker."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace

import orjson
import pytest

from app.problems import ProblemError, ProblemType
from app.publishing.idempotency import Idempotency, Late, Work, fingerprint_of, fingerprint_of_body
from app.publishing.idempotency_redis import RedisStore
from app.publishing.idempotency_store import Answer, MemoryStore, Store
from tidegate.errors import (
    MQTTConnectionError,
    MQTTError,
    NotConnectedError,
    OutcomeUnknownError,
    QueueFullError,
    UnsupportedError,
    refusal,
)
from tidegate.message import Message, Properties

MESSAGE = Message("a/b", b"payload", 1)
REQUEST = fingerprint_of("POST /v1/publish", MESSAGE)
OTHER = fingerprint_of("POST /v1/publish", replace(MESSAGE, payload=b"other"))


@pytest.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Each store in turn."""
    made: Store
    if request.param == "memory":
        made = MemoryStore(window_seconds=60, max_keys=1000, max_bytes=1_000_000)
    else:
        url = request.getfixturevalue("valkey").url
        made = RedisStore(url, window_seconds=60, lease_seconds=5, lost=lambda _: None)
    yield made
    await made.close()


@pytest.fixture
async def keys(store: Store) -> AsyncIterator[Idempotency]:
    """Keys in that store; a repetition waits for half a second."""
    made = Idempotency(store, wait_seconds=0)
    yield made
    await made.close()


@pytest.fixture
def key() -> str:
    """A key that no other test has."""
    return str(uuid.uuid4())


class Worker:
    """Work that counts how often it is done, and ends when it is told to."""

    def __init__(self, *outcomes: Answer | BaseException | None) -> None:
        self.outcomes = list(outcomes)
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.times = 0

    async def __call__(self) -> Answer:
        """Do it; a success with the number of the time, or the next of the outcomes."""
        self.times += 1
        self.began.set()
        times = self.times
        await self.go.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome or success(times)


def success(number: int) -> Answer:
    """An answer that tells which time the work was done, in bytes of every kind."""
    return Answer(200, ((b"content-type", b"x/y"), (b"x-odd", b"\xff")), bytes(range(256)) + b"%d" % number)


async def never(reason_code: int) -> Answer:
    """For work whose outcome is not open."""
    raise AssertionError(f"nobody asks what came of it, and the broker said {reason_code}")


async def told(reason_code: int) -> Answer:
    """The answer to a late reason code."""
    if reason_code >= 0x80:
        raise refusal("publish", reason_code, topic="a/b", qos=1)
    return Answer(200, (), b"late %d" % reason_code)


async def once(
    keys: Idempotency, key: str, work: Work, *, request: bytes = REQUEST, qos: int = 1, late: Late = told
) -> tuple[Answer, bool]:
    """``Idempotency.once``, with the test's usual request."""
    return await keys.once(key, request, qos=qos, work=work, late=late, scope="whoever")


async def refused(doing: Awaitable[object]) -> ProblemError:
    """The problem that something ends with."""
    with pytest.raises(ProblemError) as caught:
        await doing
    return caught.value


def kind_of(answer: Answer) -> str:
    """The type of problem that an answer is."""
    kind: str = orjson.loads(answer.body)["type"]
    return kind.removeprefix("urn:tidegate:problem:")


# The first and its repetitions.


async def test_the_same_request_is_done_once(keys: Idempotency, key: str) -> None:
    """The second answer is the first, byte for byte."""
    worker = Worker()
    assert (success(1), False) == await once(keys, key, worker, late=never)
    assert (success(1), True) == await once(keys, key, worker, late=never)
    assert 1 == worker.times


async def test_another_key_is_another_request(keys: Idempotency, key: str) -> None:
    """Keys do not meet, whoever they belong to."""
    worker = Worker()
    await once(keys, key, worker)
    await once(keys, key + "x", worker)
    await keys.once(key, REQUEST, qos=1, work=worker, late=told, scope="somebody")
    assert 3 == worker.times


async def test_repetitions_wait_for_the_first(keys: Idempotency, key: str) -> None:
    """However many come while it is under way, it is done once, and all get its answer."""
    worker = Worker()
    worker.go.clear()
    asking = [asyncio.create_task(once(keys, key, worker)) for _ in range(20)]
    await worker.began.wait()
    await asyncio.sleep(0)
    worker.go.set()
    answers = await asyncio.gather(*asking)
    assert 1 == worker.times
    assert [success(1)] * 20 == [answer for answer, _ in answers]
    assert 1 == [replayed for _, replayed in answers].count(False)


async def test_a_repetition_does_not_wait_for_ever(keys: Idempotency, key: str) -> None:
    """Its time up, it is told to come again; the first goes on."""
    worker = Worker()
    worker.go.clear()
    first = asyncio.create_task(once(keys, key, worker))
    await worker.began.wait()
    problem = await refused(once(keys, key, worker))
    assert (ProblemType.CONFLICT, "2") == (problem.kind, problem.headers["Retry-After"])
    worker.go.set()
    assert (success(1), False) == await first
    assert 1 == worker.times


async def test_another_request_under_the_same_key_is_refused(keys: Idempotency, key: str) -> None:
    """While the first is under way and afterwards; and the key still stands for the first."""
    worker = Worker()
    worker.go.clear()
    first = asyncio.create_task(once(keys, key, worker))
    await worker.began.wait()
    problem = await refused(once(keys, key, worker, request=OTHER))
    assert ProblemType.IDEMPOTENCY_KEY_REUSED is problem.kind
    worker.go.set()
    await first
    problem = await refused(once(keys, key, worker, request=OTHER))
    assert (ProblemType.IDEMPOTENCY_KEY_REUSED, 422) == (problem.kind, problem.kind.status)
    assert (success(1), True) == await once(keys, key, worker)
    assert 1 == worker.times


# What is kept.


@pytest.mark.parametrize(
    "error",
    [
        NotConnectedError("away"),
        QueueFullError("full"),
        UnsupportedError("too large", reason_code=0x95),
        ProblemError(ProblemType.INVALID_BODY, "a check says no"),
        ProblemError(ProblemType.QUEUE_FULL, "full"),
    ],
    ids=str,
)
async def test_what_was_not_sent_frees_the_key(
    keys: Idempotency, key: str, error: MQTTError | ProblemError
) -> None:
    """Such an answer says that the same request may be made again: it is."""
    worker = Worker(error)
    answer, is_replayed = await once(keys, key, worker)
    assert (False, True) == (is_replayed, answer.status >= 400)
    assert (success(2), False) == await once(keys, key, worker)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (refusal("publish", 0x87, topic="a", qos=1), 403),
        (refusal("publish", 0x97, topic="a", qos=1), 429),
        (ProblemError(ProblemType.NOT_AUTHORIZED, "no", reason_code=0x87), 403),
        (ProblemError(ProblemType.BROKER_TIMEOUT, "sent, and nobody replied"), 504),
    ],
)
async def test_a_refusal_after_sending_is_kept(
    keys: Idempotency, key: str, error: MQTTError | ProblemError, status: int
) -> None:
    """It is as definite as a success."""
    worker = Worker(error)
    first, _ = await once(keys, key, worker)
    assert (first, True) == await once(keys, key, worker)
    assert (status, 1) == (first.status, worker.times)


async def test_those_who_wait_share_a_failure_too(keys: Idempotency, key: str) -> None:
    """They do not try one after the other what has just failed; the next request does."""
    worker = Worker(NotConnectedError("away"))
    worker.go.clear()
    first = asyncio.create_task(once(keys, key, worker))
    await worker.began.wait()
    others = [asyncio.create_task(once(keys, key, worker)) for _ in range(5)]
    await asyncio.sleep(0)
    worker.go.set()
    answers = await asyncio.gather(first, *others)
    assert [503] * 6 == [answer.status for answer, _ in answers]
    assert 1 == worker.times
    assert (success(2), False) == await once(keys, key, worker)


async def test_a_fault_at_qos_1_frees_the_key(keys: Idempotency, key: str) -> None:
    """Whether it was sent is not known, and it may be sent twice; who waited does the work."""
    worker = Worker(RuntimeError("a fault"))
    worker.go.clear()
    first = asyncio.create_task(once(keys, key, worker))
    await worker.began.wait()
    second = asyncio.create_task(once(keys, key, worker))
    worker.go.set()
    with pytest.raises(RuntimeError, match="a fault"):
        await first
    assert (success(2), False) == await second


async def test_a_fault_at_qos_2_is_never_repeated(keys: Idempotency, key: str) -> None:
    """A request that is cut off counts as one that may have been sent."""
    worker = Worker()
    worker.go.clear()
    first = asyncio.create_task(once(keys, key, worker, qos=2))
    await worker.began.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    problem = await refused(once(keys, key, worker, qos=2))
    assert (ProblemType.OUTCOME_UNKNOWN, 1) == (problem.kind, worker.times)


# Outcomes that are open.


def unknown(outcome: asyncio.Future[int] | None) -> OutcomeUnknownError:
    """The error of a message that was sent and not answered."""
    error = OutcomeUnknownError("sent, and not answered", topic="a/b", qos=1)
    error.outcome = outcome
    return error


async def test_an_open_outcome_is_waited_for(keys: Idempotency, key: str) -> None:
    """A repetition sends nothing, and gets the broker's late answer, as all later ones do."""
    outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    worker = Worker(unknown(outcome))
    first, is_replayed = await once(keys, key, worker)
    assert (504, "outcome-unknown", False) == (first.status, kind_of(first), is_replayed)
    second = asyncio.create_task(once(keys, key, worker))
    await asyncio.sleep(0)
    outcome.set_result(16)
    assert (Answer(200, (), b"late 16"), True) == await second
    assert (Answer(200, (), b"late 16"), True) == await once(keys, key, worker)
    assert 1 == worker.times


async def test_a_late_refusal_is_kept(keys: Idempotency, key: str) -> None:
    """The broker answered, if late: no."""
    outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    worker = Worker(unknown(outcome))
    await once(keys, key, worker)
    outcome.set_result(0x87)
    answer, is_replayed = await once(keys, key, worker)
    assert (403, "not-authorized", True) == (answer.status, kind_of(answer), is_replayed)
    assert 1 == worker.times


@pytest.mark.parametrize("qos", [1, 2])
async def test_nothing_is_sent_while_the_outcome_is_open(keys: Idempotency, key: str, qos: int) -> None:
    """A repetition whose time is up is told that it is still open."""
    outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    worker = Worker(unknown(outcome))
    await once(keys, key, worker, qos=qos)
    problem = await refused(once(keys, key, worker, qos=qos))
    assert (ProblemType.OUTCOME_UNKNOWN, 1) == (problem.kind, worker.times)
    assert "still not answered" in problem.detail
    outcome.set_result(0)


@pytest.mark.parametrize("is_known", [True, False])
async def test_an_outcome_that_cannot_come_frees_the_key_at_qos_1(
    keys: Idempotency, key: str, is_known: bool
) -> None:
    """At least once: the next request publishes again, also one that was waiting."""
    outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    worker = Worker(unknown(outcome if is_known else None))
    await once(keys, key, worker)
    second = asyncio.create_task(once(keys, key, worker))
    await asyncio.sleep(0)
    outcome.set_exception(MQTTConnectionError("the connection ended"))
    assert (success(2), False) == await second
    assert outcome.exception() is not None


@pytest.mark.parametrize("is_known", [True, False])
async def test_an_outcome_that_cannot_come_stays_unknown_at_qos_2(
    keys: Idempotency, key: str, is_known: bool
) -> None:
    """Exactly once: nothing is ever sent again under this key, and the answer says so."""
    outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    worker = Worker(unknown(outcome if is_known else None))
    await once(keys, key, worker, qos=2)
    outcome.set_exception(MQTTConnectionError("the connection ended"))
    for _ in range(2):
        problem = await refused(once(keys, key, worker, qos=2))
        assert ProblemType.OUTCOME_UNKNOWN is problem.kind
        assert "at QoS 2 nothing is sent again" in problem.detail
    assert 1 == worker.times
    assert outcome.exception() is not None


# What a request is.


@pytest.mark.parametrize(
    "other",
    [
        replace(MESSAGE, topic="a/c"),
        replace(MESSAGE, payload=b"Payload"),
        replace(MESSAGE, qos=2),
        replace(MESSAGE, retain=True),
        replace(MESSAGE, topic="a/bpay", payload=b"load"),
        replace(MESSAGE, properties=Properties(message_expiry=1)),
        replace(MESSAGE, properties=Properties(user_properties=(("a", "b"),))),
    ],
)
def test_whatever_is_published_makes_the_request(other: Message) -> None:
    """Each part of a message counts."""
    assert REQUEST != fingerprint_of("POST /v1/publish", other)


def test_the_operation_and_more_make_the_request() -> None:
    """The same message by another call is another request."""
    assert REQUEST == fingerprint_of("POST /v1/publish", replace(MESSAGE))
    assert REQUEST != fingerprint_of("PUT /v1/publish", MESSAGE)
    assert REQUEST != fingerprint_of("POST /v1/publish", MESSAGE, b"timeout=1")
    assert fingerprint_of_body("POST /x", b"[]") != fingerprint_of_body("POST /x", b"[ ]")


LARGE = Answer(207, ((b"content-type", b"x/y"),), b"x" * 300_000)


async def test_an_answer_that_is_too_large_is_kept_in_brief(keys: Idempotency, key: str) -> None:
    """The first is answered in full, a repetition in brief, and other keys keep their answers."""
    other, worker = str(uuid.uuid4()), Worker(replace(LARGE, brief=b"brief"))
    await once(keys, other, Worker())
    assert LARGE.body == (await once(keys, key, worker))[0].body
    assert (Answer(207, LARGE.headers, b"brief"), True) == await once(keys, key, worker)
    assert (success(1), True) == await once(keys, other, Worker())
    assert 1 == worker.times


@pytest.mark.parametrize("brief", [None, LARGE.body])
async def test_an_answer_that_cannot_be_kept(keys: Idempotency, key: str, brief: bytes | None) -> None:
    """A repetition is told so, and of the first status; the work is not done again."""
    worker = Worker(replace(LARGE, brief=brief))
    await once(keys, key, worker)
    answer, is_replayed = await once(keys, key, worker)
    found = orjson.loads(answer.body)
    assert (409, ProblemType.CONFLICT.uri, True) == (answer.status, found["type"], is_replayed)
    assert "answered with 207" in found["detail"]
    assert 1 == worker.times
