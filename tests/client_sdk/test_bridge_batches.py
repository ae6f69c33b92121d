"""Which messages leave through a bridge together, and what becomes of each."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.asked import Requests
from tests.support.bridge import running_bridge
from tests.support.made_up_bridge import MadeUpBridge
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Message,
    MQTTError,
    NotAuthorizedError,
    PublishResult,
    QueueFullError,
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


async def publish_all(publisher: AsyncPublisher, *messages: str) -> list[object]:
    """Publish ``topic:payload`` at once; what became of each."""
    each_split = [each.split(":") for each in messages]
    return await asyncio.gather(
        *(publisher.publish(topic, payload.encode()) for topic, payload in each_split), return_exceptions=True
    )


async def test_what_follows_on_a_topic_waits_for_what_is_tried_again() -> None:
    """Messages refused for later leave again in their order, before those that came meanwhile."""
    with MadeUpBridge() as bridge:
        async with asyncio.timeout(SECONDS):
            publisher = AsyncPublisher(bridge.url)
            bridge.retry_after = "2"
            for each in ("a:1", "a:2"):
                bridge.refuse(each, "broker-unavailable", 503)
            first = asyncio.ensure_future(publish_all(publisher, "a:1", "b:1", "a:2", "c:1"))
            while not bridge.requests:
                await asyncio.sleep(0.01)
            later = asyncio.ensure_future(publish_all(publisher, "a:3"))
            assert await publish_all(publisher, "b:2") == [PublishResult("b", 1, False, 0, "Success")]
            assert not first.done()
            assert all(isinstance(each, PublishResult) for each in (*await first, *await later))
            await publisher.disconnect()
    assert bridge.requests[:2] == [["a:1", "a:2", "b:1", "c:1"], ["b:2"]]
    assert bridge.taken == ["b:1", "c:1", "b:2", "a:1", "a:2", "a:3"]


@pytest.mark.parametrize("newer_problem", [None, "outcome-unknown", "invalid-payload"])
async def test_an_older_value_is_not_sent_behind_a_newer_one(newer_problem: str | None) -> None:
    """What a bridge passed over fails where the next message to its topic was sent, or may have been."""
    was_overtaken = newer_problem != "invalid-payload"
    with MadeUpBridge() as bridge:
        async with asyncio.timeout(SECONDS), AsyncPublisher(bridge.url) as publisher:
            bridge.refuse("a:1", "queue-full", 503)
            if newer_problem is not None:
                bridge.refuse("a:2", newer_problem, 422)
            older, other, newer = await publish_all(publisher, "a:1", "b:1", "a:2")
    assert isinstance(other, PublishResult)
    assert isinstance(newer, PublishResult) == (newer_problem is None)
    if was_overtaken:
        assert isinstance(older, QueueFullError)
        assert "later message to the topic" in str(older)
        assert "a:1" not in bridge.taken
    else:
        assert isinstance(older, PublishResult)
        assert bridge.taken == ["b:1", "a:1"]
