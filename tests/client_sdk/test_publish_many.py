"""Many messages in one call, over every way to a broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.client_sdk.conftest import Way
from tests.support.asked import Requests
from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncPublisher,
    ConfigurationError,
    Message,
    MQTTError,
    NotAuthorizedError,
    PayloadError,
    Properties,
    Publisher,
    PublishResult,
    Subscriber,
    TopicError,
)
from tidegate.memory import MemoryBroker

SECONDS = 20.0


def test_many_messages_arrive_in_order(way: Way) -> None:
    """Pairs, pairs with options and whole messages; each has its result in its place."""
    got: list[Message] = []

    def keep(message: Message) -> None:
        got.append(message)

    def source() -> Iterator[Any]:
        for number in range(250):
            yield f"publish-many/{number % 3}", {"n": number}
        yield "publish-many/other", "text", {"qos": 0, "properties": Properties(content_type="a/b")}
        yield Message("publish-many/other", b"raw", 2)

    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe("publish-many/+", keep, qos=2)
        results = publisher.publish_many(source(), max_in_flight=40)
        wait_until(lambda: len(got) == 252)
    assert [type(each) for each in results] == [PublishResult] * 252
    assert [each.qos for each in results[-3:] if isinstance(each, PublishResult)] == [1, 0, 2]
    for topic in range(3):
        numbers = [each.json()["n"] for each in got if each.topic == f"publish-many/{topic}"]
        assert numbers == list(range(topic, 250, 3))
    assert {each.payload for each in got if each.topic == "publish-many/other"} == {b'"text"', b"raw"}


async def test_an_asynchronous_source_serves_too(way: Way) -> None:
    """It is awaited between messages; an ordinary iterable serves a coroutine as well."""

    async def source() -> AsyncIterator[tuple[str, int]]:
        for number in range(30):
            await asyncio.sleep(0)
            yield "publish-many/async", number

    async with AsyncPublisher(**way.options) as publisher:
        results = await publisher.publish_many(source(), qos=0)
        assert [each.qos for each in results if isinstance(each, PublishResult)] == [0] * 30
        assert len(await publisher.publish_many([("publish-many/async", 1)] * 5, retain=False)) == 5
        assert await publisher.publish_many([]) == []


def test_a_message_that_fails_costs_itself_alone(way: Way) -> None:
    """Its error stands in its place, whether it could not be written or was no message at all."""
    wrong: Any = ["no message", ("publish-many/a", 1, {"qso": 1}), ("publish-many/a", 1, {"qos": 3})]
    with Publisher(**way.options) as publisher:
        results = publisher.publish_many(
            [
                ("publish-many/a", 1),
                ("publish-many/+", 2),
                ("publish-many/a", object()),
                *wrong,
                ("publish-many/a", 3),
            ]
        )
    assert [type(each) for each in results] == [
        PublishResult,
        TopicError,
        PayloadError,
        PayloadError,
        PayloadError,
        ConfigurationError,
        PublishResult,
    ]


@pytest.mark.parametrize("through", ["direct", "bridge"])
def test_a_refusal_by_the_broker_stands_in_its_place(through: str) -> None:
    """And is not raised."""
    with (
        Mosquitto(denied="secret/#") as broker,
        running_bridge(broker.url) as bridge,
        Publisher(broker.url if through == "direct" else bridge.url) as publisher,
    ):
        results = publisher.publish_many([("a", 1), ("secret/a", 2), ("b", 3)])
    assert [type(each) for each in results] == [PublishResult, NotAuthorizedError, PublishResult]


async def test_no_more_is_taken_than_may_be_under_way() -> None:
    """An endless source costs no memory: with a broker that is silent it is asked for no more."""
    broker = MemoryBroker()
    taken: list[int] = []

    def source() -> Iterator[tuple[str, int]]:
        for number in range(50):
            taken.append(number)
            yield "publish-many/bounded", number

    async with AsyncPublisher(connect=broker.connect) as publisher:
        await publisher.publish("publish-many/bounded", 0)
        broker.freeze()
        publishing = asyncio.ensure_future(publisher.publish_many(source(), max_in_flight=7))
        async with asyncio.timeout(SECONDS):
            while len(taken) < 7:
                await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(taken) == 7
        broker.thaw()
        assert len(await publishing) == len(taken) == 50


def test_a_blocking_source_is_asked_in_the_callers_thread() -> None:
    """It may block; a bound holds there too."""
    broker = MemoryBroker()
    threads: set[int] = set()
    taken: list[int] = []

    def source() -> Iterator[tuple[str, int]]:
        for number in range(50):
            threads.add(threading.get_ident())
            taken.append(number)
            yield "publish-many/thread", number

    with Publisher(connect=broker.connect) as publisher:
        publisher.publish("publish-many/thread", 0)
        broker.freeze()
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda: results.extend(publisher.publish_many(source(), max_in_flight=7))
        )
        thread.start()
        wait_until(lambda: len(taken) == 8)  # one is in the hand of whoever waits for room
        broker.thaw()
        thread.join()
    assert len(results) == 50
    assert threads == {thread.ident}


@pytest.mark.parametrize("is_blocking", [True, False])
def test_what_the_source_raises_is_raised(is_blocking: bool) -> None:
    """Once what was taken before has its outcome: nothing is left under way."""
    broker = MemoryBroker()

    def source() -> Iterator[tuple[str, int]]:
        yield "publish-many/broken", 1
        raise LookupError("no more")

    async def awaited() -> None:
        async with AsyncPublisher(connect=broker.connect) as publisher:
            await publisher.publish_many(source())

    def blocking() -> None:
        with Publisher(connect=broker.connect) as publisher:
            publisher.publish_many(source())

    with pytest.raises(LookupError):
        blocking() if is_blocking else asyncio.run(awaited())
    assert [each.payload for each in broker.published] == [b"1"]


@pytest.mark.parametrize("bound", [0, -1])
def test_a_bound_that_lets_nothing_through_is_refused(way: Way, bound: int) -> None:
    """It would wait for ever."""
    with Publisher(**way.options) as publisher, pytest.raises(ConfigurationError, match="max_in_flight"):
        publisher.publish_many([("a", 1)], max_in_flight=bound)


def test_a_bridge_gets_them_in_batches(mosquitto: Mosquitto) -> None:
    """A thousand messages are a few dozen requests at most."""
    requests = Requests()
    with (
        running_bridge(mosquitto.url, prepare=requests.prepare) as bridge,
        Publisher(bridge.url) as publisher,
    ):
        results = publisher.publish_many((f"publish-many/{number % 10}", number) for number in range(1000))
    assert not [each for each in results if isinstance(each, MQTTError)]
    assert len(requests.of("/v1/")) < 100


def test_a_topic_that_is_no_text_costs_itself_alone(way: Way) -> None:
    """A TopicError says what it is; the others have their results."""
    with Publisher(**way.options) as publisher:
        pairs: list[Any] = [("publish-many/a", 1), (None, 2), ("publish-many/b", 3)]
        results = publisher.publish_many(pairs)
        assert [type(each) for each in results] == [PublishResult, TopicError, PublishResult]
        with pytest.raises(TopicError, match="text, not int"):
            publisher.publish(5, 1)  # type: ignore[arg-type]
