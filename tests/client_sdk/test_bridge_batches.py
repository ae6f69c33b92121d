"""Which messages leave through a bridge together, and what becomes of each."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.asked import Requests
from tests.support.bridge import running_bridge
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Message,
    MQTTError,
    NotAuthorizedError,
    PublishResult,
    UnsupportedError,
)
from tidegate.message import Properties
from tidegate.transports.turns import MAX_BATCH_BYTES, Publication, Turns

BATCH = "/v1/publish/batch"
SECONDS = 20.0


async def waiting(*messages: Message) -> Turns:
    """Messages that wait."""
    turns = Turns()
    for message in messages:
        turns.add(Publication(message, asyncio.get_running_loop().create_future(), 0.0))
    return turns


def taken(turns: Turns) -> list[bytes]:
    """The payloads of what leaves next."""
    return [each.message.payload for each in turns.take()]


async def test_what_waits_leaves_together() -> None:
    """Several topics share a request, each in its order."""
    turns = await waiting(Message("a", b"1"), Message("b", b"2"), Message("a", b"3"))
    assert sorted(taken(turns)) == [b"1", b"2", b"3"]
    assert taken(turns) == []


async def test_a_topic_under_way_waits_for_its_turn() -> None:
    """Else a later message might overtake an earlier one on another connection."""
    turns = await waiting(Message("a", b"1"))
    first = turns.take()
    for message in (Message("a", b"2"), Message("b", b"3")):
        turns.add(Publication(message, asyncio.get_running_loop().create_future(), 0.0))
    assert taken(turns) == [b"3"]
    assert not turns.is_any_ready
    turns.put_back(first)
    turns.release(first)
    assert taken(turns) == [b"1", b"2"]


async def test_a_batch_is_bounded() -> None:
    """In messages, and in bytes as they stand in the body."""
    turns = await waiting(*(Message("a", b"%d" % number) for number in range(150)))
    first = turns.take()
    assert len(first) == 100
    turns.release(first)
    assert len(turns.take()) == 50
    quoted = b'"' * (MAX_BATCH_BYTES // 5)  # each takes two bytes in JSON
    turns = await waiting(*(Message(f"big/{number}", quoted) for number in range(4)))
    assert [len(turns.take()), len(turns.take())] == [2, 2]


@pytest.mark.parametrize(
    "alone",
    [Message("b", b"", retain=True), Message("b", b"x" * MAX_BATCH_BYTES), Message("b", b"x", qos=2)],
    ids=["clearing", "large", "QoS 2"],
)
async def test_some_messages_leave_by_themselves(alone: Message) -> None:
    """Behind others and before them."""
    turns = await waiting(Message("a", b"1"), alone, Message("c", b"3"))
    assert taken(turns) == [b"1"]
    assert taken(turns) == [alone.payload]
    assert taken(turns) == [b"3"]


async def test_messages_that_nobody_waits_for_are_left_out() -> None:
    """Whoever gave up before a message left has it not sent."""
    turns = Turns()
    publications = [
        Publication(Message("a", b"%d" % number), asyncio.get_running_loop().create_future(), 0.0)
        for number in range(3)
    ]
    for each in publications:
        turns.add(each)
    publications[1].future.cancel()
    assert taken(turns) == [b"0", b"2"]


async def test_many_callers_share_requests_and_one_does_not_wait(mosquitto: Mosquitto) -> None:
    """A lone publish is a request of its own; what comes at once is one batch; every request has a key."""
    requests = Requests()
    with running_bridge(mosquitto.url, prepare=requests.prepare) as bridge:
        async with AsyncPublisher(bridge.url) as publisher, AsyncSubscriber(mosquitto.url) as witness:
            got: list[Message] = []
            done = asyncio.Event()

            def keep(message: Message) -> None:
                got.append(message)
                if len(got) == 300:
                    done.set()

            await witness.subscribe("batched/+", keep)
            await publisher.publish("alone", b"1")
            assert [each.path for each in requests.of("/v1/")] == ["/v1/topics/alone"]
            payloads = [b"%d" % number if number % 2 else b"\xff%d" % number for number in range(300)]
            properties = Properties(content_type="a/b", user_properties=(("ü", "1"),))
            results = await asyncio.gather(
                *(
                    publisher.publish(f"batched/{number % 3}", payload, properties=properties)
                    for number, payload in enumerate(payloads)
                )
            )
            async with asyncio.timeout(SECONDS):
                await done.wait()
    assert {each.qos for each in results} == {1}
    assert {each.properties.content_type for each in got} == {"a/b"}
    for topic in range(3):
        assert payloads[topic::3] == [each.payload for each in got if each.topic == f"batched/{topic}"]
    assert len(requests.of(BATCH)) == 3
    keys = [each.key for each in requests.of("/v1/")]
    assert None not in keys
    assert len(set(keys)) == len(keys) == 4


async def test_each_message_of_a_batch_has_its_own_outcome() -> None:
    """One that the broker refuses, and one that cannot be written, cost the others nothing."""
    with Mosquitto(denied="secret/#") as broker, running_bridge(broker.url) as bridge:
        async with AsyncPublisher(bridge.url) as publisher:
            topics = ["a", "secret/1", "b", "secret/2"]
            outcomes: list[PublishResult | BaseException] = await asyncio.gather(
                *(publisher.publish(topic, b"1") for topic in topics),
                publisher.publish("c", b"", retain=True, properties=Properties(content_type="a/b")),
                return_exceptions=True,
            )
            all_refused = await asyncio.gather(
                *(publisher.publish(topic, b"1") for topic in ("secret/3", "secret/4")),
                return_exceptions=True,
            )
    kinds = [type(each) for each in outcomes]
    assert kinds == [PublishResult, NotAuthorizedError, PublishResult, NotAuthorizedError, UnsupportedError]
    assert [each.topic for each in all_refused if isinstance(each, NotAuthorizedError)] == [
        "secret/3",
        "secret/4",
    ]


@pytest.mark.parametrize("status", [404, 405])
async def test_an_older_bridge_takes_messages_one_by_one(mosquitto: Mosquitto, status: int) -> None:
    """Where there is no batch, what would have been one goes out singly, and it is asked for once."""
    requests = Requests(answers={BATCH: [status]})
    with running_bridge(mosquitto.url, prepare=requests.prepare) as bridge:
        async with AsyncPublisher(bridge.url) as publisher:
            for _ in range(2):
                await asyncio.gather(*(publisher.publish(f"older/{number}", 1) for number in range(20)))
    assert len(requests.of(BATCH)) == 1
    assert len(requests.of("/v1/topics/")) == 40


async def test_a_bridge_with_a_small_body_gets_smaller_batches(mosquitto: Mosquitto) -> None:
    """What is too much at once is less the next time, and nothing fails."""
    with running_bridge(mosquitto.url, max_body_bytes=2000) as bridge:
        async with AsyncPublisher(bridge.url) as publisher:
            results = await asyncio.gather(
                *(publisher.publish(f"small/{number}", b"x" * 200) for number in range(100)),
                return_exceptions=True,
            )
    assert not [each for each in results if isinstance(each, MQTTError)]
